"""A stranger's file run by the interpreter, in a process of its own: what crashes it ends no build.

Run as a module it reads an array (``numpy.save``) from standard input and writes the answers to standard output.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from builder.support.errors import ModelFileError
from edge_runtime.interpreter import open_interpreter

_SECONDS, _SECONDS_A_PICTURE = 60, 10
_MEMORY = 16 << 30  # bytes of addresses


def run_original(path: Path, inputs: np.ndarray) -> np.ndarray:
    """The file's answers, float32 (samples, labels), for ``inputs`` (samples, ...) in its own type and layout.

    Integers become the numbers that they stand for. Raises ``ModelFileError`` where the interpreter refuses the file.
    """
    given = io.BytesIO()
    np.save(given, inputs, allow_pickle=False)
    command = [sys.executable, "-m", "builder.reading.tflite.original", os.fspath(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    try:
        done = subprocess.run(
            command,
            input=given.getvalue(),
            capture_output=True,
            env=environment,
            timeout=_SECONDS + _SECONDS_A_PICTURE * len(inputs),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelFileError(
            f"{path}: it has not answered after {error.timeout:.0f} s; it is too large, or damaged"
        ) from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = said[-1] if said else f"the interpreter ended with signal {-done.returncode}"
        raise ModelFileError(f"{path}: it cannot be run: {reason[:300]}")
    answers: np.ndarray = np.load(io.BytesIO(done.stdout), allow_pickle=False)
    return answers


def _run(path: str, inputs: np.ndarray) -> np.ndarray:
    _, interpreter = open_interpreter(path, num_threads=2)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for sample in inputs:
        interpreter.set_tensor(source["index"], sample[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(target["index"]).ravel())
    answers, (scale, zero_point) = np.stack(rows), target["quantization"]
    if scale and answers.dtype.kind in "iu":
        return np.asarray((answers.astype(np.float64) - zero_point) * scale, np.float32)
    return np.asarray(answers, np.float32)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _limit_memory()
    found = io.BytesIO()
    np.save(found, _run(sys.argv[1], np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)))
    sys.stdout.buffer.write(found.getvalue())
