"""The one place that imports an interpreter."""

from __future__ import annotations

import importlib
import os
from typing import Any, Optional

from edge_runtime.errors import InterpreterError

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
    """The interpreter called ``name``, else the first that is installed, as (name, class).

    Raises ``InterpreterError`` where there is none, with the line that installs one.
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


def open_interpreter(path: str, *, name: Optional[str] = None, num_threads: Optional[int] = None) -> tuple[str, Any]:
    """Open the model file at ``path``, mapped into memory rather than read; returns (interpreter's name, interpreter).

    Raises ``InterpreterError`` where the interpreter refuses the file.
    """
    found, factory = find_interpreter(name)
    try:
        return found, factory(model_path=os.fspath(path), num_threads=num_threads)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InterpreterError(f"{path}: {found} cannot open this model: {reason}") from error
