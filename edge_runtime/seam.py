"""The tensors between backbone and heads."""

from __future__ import annotations

from typing import Dict, Iterable, Sequence, Union

import numpy as np

from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.metadata import FEATURES, SeamTensor

Features = Union[np.ndarray, Dict[str, np.ndarray]]


def by_name(features: Features) -> Dict[str, np.ndarray]:
    """The tensors of the seam by their names, also where there is only one."""
    return features if isinstance(features, dict) else {FEATURES: features}


class Seam:
    """Shape, (1, ...), and dtype of each tensor by its name, as ``expected``."""

    def __init__(self, tensors: Sequence[SeamTensor]) -> None:
        self.expected = {t.name: ((1, *t.shape), np.dtype(t.quantization.dtype)) for t in tensors}

    def tensors(self, features: Features, names: Iterable[str]) -> Dict[str, np.ndarray]:
        """Of ``features`` those of these names. Raises ``EdgeRuntimeError`` where one is not what the file's is."""
        given = by_name(features)
        return {name: self._checked(given.get(name), name) for name in names}

    def _checked(self, found: object, name: str) -> np.ndarray:
        shape, dtype = self.expected[name]
        if isinstance(found, np.ndarray) and found.shape == shape and found.dtype == dtype:
            return found
        what = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else "nothing"
        raise EdgeRuntimeError(f"expected {name} of this file, {dtype} {shape}; found {what}")
