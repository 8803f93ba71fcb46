"""The only module that imports an interpreter."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import re
import sys
from typing import IO, Any, ContextManager, Iterator, Optional, Tuple, Union

from edge_runtime.errors import InterpreterError
from edge_runtime.escape import has_halves

# In order of preference: ai-edge-litert runs int8 with XNNPACK, tflite-runtime 2.14 does not.
INTERPRETERS = {
    "ai_edge_litert": "ai_edge_litert.interpreter",
    "tflite_runtime": "tflite_runtime.interpreter",
    "tensorflow": "tensorflow.lite.python.interpreter",
}
INSTALL = {
    "ai_edge_litert": "pip install ai-edge-litert",
    "tflite_runtime": "pip install tflite-runtime 'numpy<2'",
    "tensorflow": "pip install tensorflow",
}


def _load(name: str) -> Any:
    return importlib.import_module(INTERPRETERS[name]).Interpreter


def find_interpreter(name: Optional[str] = None) -> tuple[str, Any]:
    """Find the interpreter ``name``, or the first that is installed; returns (name, class).

    Raises ``InterpreterError`` if there is none, with the command that installs one.
    """
    if name is not None:
        if name not in INTERPRETERS:
            raise InterpreterError(f"unknown interpreter {name!r}; there are: {', '.join(INTERPRETERS)}")
        try:
            return name, _load(name)
        except ImportError as error:
            raise InterpreterError(f"interpreter {name} cannot be imported ({error}); try: {INSTALL[name]}") from error
    reasons = []
    for candidate in INTERPRETERS:
        try:
            return candidate, _load(candidate)
        except ImportError as error:
            reasons.append(f"{candidate}: {error}")
    raise InterpreterError(f"no interpreter is installed ({'; '.join(reasons)}); try: {INSTALL['ai_edge_litert']}")


def check_runtime(name: str, needed: Tuple[int, int]) -> None:
    """Raises ``InterpreterError`` where the interpreter called ``name`` is older than the TensorFlow Lite ``needed``.

    ai-edge-litert counts its versions anew; all of them are newer than TensorFlow 2.17.
    """
    if name == "ai_edge_litert":
        return
    told = str(getattr(importlib.import_module(name), "__version__", ""))
    found = re.match(r"(\d+)\.(\d+)", told)
    if found is not None and (int(found[1]), int(found[2])) < needed:
        raise InterpreterError(
            f"{name} {told} is too old: this file needs TensorFlow Lite {needed[0]}.{needed[1]} or newer; "
            f"try: {INSTALL[name]}"
        )


def open_interpreter(
    path: str,
    *,
    name: Optional[str] = None,
    num_threads: Optional[int] = None,
    min_runtime: Tuple[int, int] = (0, 0),
    content: Optional[bytes] = None,
) -> tuple[str, Any]:
    """Open the model file at ``path``, mapped into memory rather than read; returns (interpreter's name, interpreter).

    ``content``: what was read of it already. Raises ``InterpreterError`` where the interpreter refuses the file, or is
    older than ``min_runtime``.
    """
    found, factory = find_interpreter(name)
    check_runtime(found, min_runtime)
    source = {"model_path": _as_given(os.fspath(path))} if content is None else {"model_content": content}
    try:
        return found, factory(num_threads=num_threads, **source)
    except (ValueError, RuntimeError) as error:
        raise refused(path, found, "cannot open this model", error) from error


class _FirstRun:
    """Has any interpreter of this process run yet? The first run says of itself that it does."""

    over = False


def without_notices() -> ContextManager[None]:
    """Around a run: native code's lines that begin with INFO stay off standard error; all others come when it is over."""
    held = None if _FirstRun.over else _held_back()
    _FirstRun.over = True
    return _NO_NOTICES if held is None else _without_notices(*held)


_NO_NOTICES = contextlib.nullcontext()


@contextlib.contextmanager
def _without_notices(saved: int, log: IO[bytes]) -> Iterator[None]:
    watched = faulthandler.is_enabled()
    faulthandler.enable(saved)  # last words are not held back
    with log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            faulthandler.disable()
            if watched:
                faulthandler.enable(2)  # sys.stderr may be no file: in a notebook
            log.seek(0)
            lines = [line for line in log.read().splitlines(True) if not line.startswith(b"INFO: ")]
            os.write(saved, b"".join(lines))
            os.close(saved)


def _held_back() -> Optional[Tuple[int, IO[bytes]]]:
    """A copy of standard error and a file in its place; None where there is no standard error, or no room for a file."""
    try:
        sys.stderr.flush()
        log = _scratch_file()
    except (OSError, AttributeError, ValueError):
        return None
    try:
        return os.dup(2), log
    except OSError:
        log.close()
        return None


def _scratch_file() -> IO[bytes]:
    in_memory = getattr(os, "memfd_create", None)  # of Linux, from Python 3.8 on
    if in_memory is not None:
        return os.fdopen(in_memory("notices"), "w+b")
    import tempfile  # imports random and hashes, for one file

    return tempfile.TemporaryFile()


def _as_given(path: str) -> Union[str, bytes]:
    """A name that is no UTF-8 goes to the interpreter as the bytes that it is."""
    return os.fsencode(path) if has_halves(path) else path


def refused(path: str, name: str, what: str, error: Exception) -> InterpreterError:
    """The message of the interpreter ``name`` about the file, in one line of a few hundred characters at most."""
    return InterpreterError(f"{path}: {name} {what}: {' '.join(str(error).split()):.300}")
