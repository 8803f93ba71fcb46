"""An open model file, run by its signatures."""

from __future__ import annotations

import threading
from typing import Any, Dict, Mapping, Optional, Tuple

import numpy as np

from edge_runtime.bundle import REBUILD
from edge_runtime.errors import BundleError, EdgeRuntimeError
from edge_runtime.interpreter import open_interpreter, refused, without_notices


class Signatures:
    """Calls wait for each other: signatures of one interpreter cannot run side by side.

    ``open`` may be called at any time before the first ``run``; a runner is made when its signature is first run, since
    making all 200 costs more than running one. ``content``: of the file at ``path``, where it was read already.
    """

    def __init__(
        self,
        path: str,
        min_runtime: Tuple[int, int],
        *,
        interpreter: Optional[str],
        num_threads: Optional[int],
        content: Optional[bytes] = None,
    ) -> None:
        self.path = path
        self._chosen: Dict[str, Any] = {
            "min_runtime": min_runtime, "name": interpreter, "num_threads": num_threads, "content": content
        }  # fmt: skip
        self._lock = threading.Lock()
        self._runners: Dict[str, Any] = {}
        self._name = ""
        self._interpreter: Any = None
        self._closed = False

    def open(self) -> Tuple[str, Any]:
        """(the interpreter's name, the interpreter). Raises ``InterpreterError``."""
        self._name, self._interpreter = open_interpreter(self.path, **self._chosen)
        return self._name, self._interpreter

    def close(self) -> None:
        with self._lock:
            self._runners.clear()
            self._interpreter, self._closed = None, True

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Its outputs by their names, (1, ...) each.

        Raises ``InterpreterError``: some flaws of a file show only when it runs. And ``EdgeRuntimeError`` once closed.
        """
        with self._lock:
            if self._closed:
                raise EdgeRuntimeError("this classifier is closed; open it again")
            if self._interpreter is None:
                self.open()
            try:
                with without_notices():
                    results: Dict[str, np.ndarray] = self._runner(signature)(**inputs)
            except (ValueError, RuntimeError) as error:
                raise refused(self.path, self._name, f"cannot run {signature}", error) from error
        return results

    def _runner(self, signature: str) -> Any:
        if signature not in self._runners:
            self._runners[signature] = self._interpreter.get_signature_runner(signature)
        return self._runners[signature]

    def check_result(self, signature: str, result: np.ndarray, shape: Tuple[int, ...], dtype: Any) -> None:
        """Raises ``BundleError`` where a result is not what the members promise."""
        if result.shape != shape or result.dtype != dtype:
            raise BundleError(
                f"{self.path}: {signature}: members promise {np.dtype(dtype)} {shape}, the model gives "
                f"{result.dtype} {result.shape}; {REBUILD}"
            )
