"""An open model file whose signatures can be run."""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from edge_runtime.bundle import REBUILD
from edge_runtime.errors import BundleError, EdgeRuntimeError
from edge_runtime.interpreter import open_interpreter, refused, without_notices


class Signatures:
    """Calls wait for each other: signatures of one interpreter cannot run side by side.

    An interpreter prepares every subgraph it is given, so a signature gets one of its own when it is first run.

    Args:
        path: For messages.
        min_runtime: The oldest TensorFlow Lite that runs the file.
        model: Gives a model in which the signatures of these names are.
        interpreter: As in ``MultiHeadClassifier``.
        num_threads: As in ``MultiHeadClassifier``.
        alike: Signatures of which many may be asked for one by one. With each there come as many others as are open,
            so few interpreters hold them all.
    """

    def __init__(
        self,
        path: str,
        min_runtime: Tuple[int, int],
        model: Callable[[Sequence[str]], bytes],
        *,
        interpreter: Optional[str],
        num_threads: Optional[int],
        alike: Sequence[str] = (),
    ) -> None:
        self.path = path
        self._chosen: Dict[str, Any] = {"min_runtime": min_runtime, "name": interpreter, "num_threads": num_threads}
        self._model: Optional[Callable[[Sequence[str]], bytes]] = model
        self._alike = alike
        self._lock = threading.Lock()
        self._interpreters: Dict[str, Any] = {}
        self._runners: Dict[str, Any] = {}
        self._name = ""

    def open(self, *signatures: str) -> Tuple[str, Any]:
        """Before the first ``run``: (the interpreter's name, the interpreter). Raises ``InterpreterError``."""
        if self._model is None:
            raise EdgeRuntimeError("this classifier is closed; open it again")
        self._name, opened = open_interpreter(self.path, content=self._model(signatures), **self._chosen)
        self._interpreters.update(dict.fromkeys(signatures, opened))
        return self._name, opened

    @property
    def closed(self) -> bool:
        return self._model is None

    def close(self) -> None:
        with self._lock:
            self._runners.clear()
            self._interpreters.clear()
            self._model = None

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Its outputs by their names, (1, ...) each.

        Raises ``InterpreterError``: some flaws of a file show only when it runs. And ``EdgeRuntimeError`` once closed.
        """
        with self._lock:
            if signature not in self._interpreters:
                self.open(*self._with_others(signature))
            try:
                with without_notices():
                    results: Dict[str, np.ndarray] = self._runner(signature)(**inputs)
            except (ValueError, RuntimeError) as error:
                raise refused(self.path, self._name, f"cannot run {signature}", error) from error
        return results

    def _with_others(self, signature: str) -> List[str]:
        if signature not in self._alike:
            return [signature]
        waiting = [name for name in self._alike if name not in self._interpreters and name != signature]
        return [signature, *waiting[: len(self._alike) - 1 - len(waiting)]]

    def _runner(self, signature: str) -> Any:
        if signature not in self._runners:
            self._runners[signature] = self._interpreters[signature].get_signature_runner(signature)
        return self._runners[signature]

    def check_result(self, signature: str, result: np.ndarray, shape: Tuple[int, ...], dtype: Any) -> None:
        """Raises ``BundleError`` where a result is not what the members promise."""
        if result.shape != shape or result.dtype != dtype:
            raise BundleError(
                f"{self.path}: {signature}: members promise {np.dtype(dtype)} {shape}, the model gives "
                f"{result.dtype} {result.shape}; {REBUILD}"
            )
