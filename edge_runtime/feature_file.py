"""The features of many pictures in one file, to train on or to search, without the pictures."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, Sequence

import numpy as np

from edge_runtime.engine import MultiHeadClassifier, by_name
from edge_runtime.errors import EdgeRuntimeError, PictureError
from edge_runtime.files import whole_file

SUFFIX = ".npz"


def write_features(
    classifier: MultiHeadClassifier, paths: Sequence[str], output: str, broken: Callable[[PictureError], None]
) -> int:
    """Write what the backbone makes of each picture to ``output``; returns how many pictures are in it.

    Arrays: for each tensor of the seam, by its name, (pictures, *shape) in the seam's integers, and NAME_scale and
    NAME_zero_point, so that (array - zero point) * scale is the float; ``paths``, in the same order; ``backbone_digest``.
    ``broken`` is told of pictures that cannot be read. Raises ``EdgeRuntimeError`` where none can, and ``OSError``.
    """
    check_output(output)
    rows: Dict[str, List[np.ndarray]] = {}
    found = []
    for path in paths:
        try:
            features = by_name(classifier.features(path))
        except PictureError as error:
            broken(error)
            continue
        found.append(path)
        for name, values in features.items():
            rows.setdefault(name, []).append(values[0])
    if not found:
        raise EdgeRuntimeError(f"{output}: not written: no picture could be read")
    arrays: Dict[str, Any] = {name: np.stack(values) for name, values in rows.items()}
    with whole_file(output) as file:
        np.savez(file, **arrays, **_description(classifier, found))
    return len(found)


def check_output(output: str) -> None:
    """Raises ``EdgeRuntimeError`` for a name that says another kind of file."""
    if not output.endswith(SUFFIX):
        raise EdgeRuntimeError(f"{output}: expected a name that ends in {SUFFIX}")


def _description(classifier: MultiHeadClassifier, paths: Sequence[str]) -> Dict[str, Any]:
    metadata = classifier.metadata
    names = [os.fsencode(path).decode("utf-8", "replace") for path in paths]
    found: Dict[str, Any] = {"paths": np.array(names), "backbone_digest": np.array(metadata.backbone_digest)}
    for tensor in metadata.seam:
        found[f"{tensor.name}_scale"] = np.float32(tensor.quantization.scale)
        found[f"{tensor.name}_zero_point"] = np.int32(tensor.quantization.zero_point)
    return found
