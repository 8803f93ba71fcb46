"""Run an untrusted file by the interpreter in a separate process, so that a crash does not end the build.

Run as a module, with ``run`` or ``shapes`` and the file, it reads an array (``numpy.save``) from standard input, the
inputs or the shape of one, and writes the result to standard output.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from builder.support.errors import ModelFileError
from edge_runtime.interpreter import find_interpreter, open_interpreter
from edge_runtime.temporary import TemporaryFolder

if TYPE_CHECKING:
    from builder.reading.tflite.file import TfliteFile

_SECONDS, _SECONDS_A_PICTURE = 60, 10
_AXES = 8  # no operator has more
_MEMORY = 16 << 30  # bytes of addresses


def run_original(file: TfliteFile, inputs: np.ndarray) -> np.ndarray:
    """The file's answers, float32 (samples, labels), for ``inputs`` (samples, ...) in its own type and layout.

    Integer outputs are dequantized. Raises ``ModelFileError`` where the interpreter refuses the file.
    """
    return _in_child(file, "run", inputs, _SECONDS + _SECONDS_A_PICTURE * len(inputs))


def shapes_at(file: TfliteFile, shape: Sequence[int]) -> list[tuple[int, ...]]:
    """The shapes of all tensors for an input of ``shape``. Raises ``ModelFileError``."""
    rows = _in_child(file, "shapes", np.asarray(shape, np.int32), _SECONDS + _SECONDS_A_PICTURE)
    return [tuple(int(n) for n in row if n >= 0) for row in rows]


def _in_child(file: TfliteFile, what: str, given: np.ndarray, seconds: float) -> np.ndarray:
    stream = io.BytesIO()
    np.save(stream, given, allow_pickle=False)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with _on_disk(file) as path:
        command = [sys.executable, "-m", "builder.reading.tflite.original", what, os.fspath(path)]
        try:
            done = subprocess.run(
                command, input=stream.getvalue(), capture_output=True, env=environment, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ModelFileError(
                f"{file.path}: no answer after {error.timeout:.0f} s; it is too large, or damaged"
            ) from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = said[-1] if said else f"the interpreter ended with signal {-done.returncode}"
        raise ModelFileError(f"{file.path}: it cannot be run: {reason[:300]}")
    answers: np.ndarray = np.load(io.BytesIO(done.stdout), allow_pickle=False)
    return answers


@contextlib.contextmanager
def _on_disk(file: TfliteFile) -> Iterator[Path]:
    """A path for the interpreter; a file in an archive is unpacked."""
    if file.path.name == file.name:
        yield file.path
        return
    with TemporaryFolder() as folder:
        place = Path(folder) / "model.tflite"
        place.write_bytes(file.content())
        yield place


def run_here(path: str, inputs: np.ndarray) -> np.ndarray:
    """As ``run_original``, in this process."""
    _, interpreter = open_interpreter(path, num_threads=2)
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    if tuple(source["shape"]) != (1, *inputs.shape[1:]):  # it takes pictures of any size
        interpreter.resize_tensor_input(source["index"], (1, *inputs.shape[1:]))
    interpreter.allocate_tensors()
    rows = []
    for sample in inputs:
        interpreter.set_tensor(source["index"], sample[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(target["index"]).ravel())
    answers, (scale, zero_point) = np.stack(rows), target["quantization"]
    if scale and answers.dtype.kind in "iu":
        return np.asarray((answers.astype(np.float64) - zero_point) * scale, np.float32)
    return np.asarray(answers, np.float32)


def _shapes(path: str, shape: np.ndarray) -> np.ndarray:
    """The shape of every tensor as a row, padded with -1; the model runs once, since some are known only then."""
    _, factory = find_interpreter()
    plain = sys.modules[factory.__module__].OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = factory(model_path=path, num_threads=2, experimental_op_resolver_type=plain)
    (source,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(source["index"], shape.tolist())
    interpreter.allocate_tensors()
    interpreter.set_tensor(source["index"], np.zeros(shape.tolist(), source["dtype"]))
    interpreter.invoke()
    rows = {own["index"]: own["shape"] for own in interpreter.get_tensor_details()}
    found = np.full((max(rows) + 1, _AXES), -1, np.int64)
    for index, row in rows.items():
        found[index, : len(row)] = row
    return found


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _limit_memory()
    given = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    answer = io.BytesIO()
    np.save(answer, {"run": run_here, "shapes": _shapes}[sys.argv[1]](sys.argv[2], given))
    sys.stdout.buffer.write(answer.getvalue())
