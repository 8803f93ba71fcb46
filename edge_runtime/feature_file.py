"""The features of many pictures in one file, to train on or to search, without the pictures.

An ``.npz`` file is made in memory. A ``.parquet`` file is written block by block, however many pictures there are; it
needs pyarrow.
"""

from __future__ import annotations

import json
import os
from typing import Any, Callable, Dict, Iterable, Iterator, List, Sequence, Tuple

import numpy as np

from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.errors import EdgeRuntimeError, PictureError
from edge_runtime.files import whole_file
from edge_runtime.metadata import FEATURES, SeamTensor
from edge_runtime.seam import by_name

SUFFIXES = (".npz", ".parquet")
TENSOR = "polyhead"  # of a column's metadata: what its integers mean; of the table's: the digest of the backbone
_BLOCK = 256  # rows of a Parquet file that are written together

Row = Tuple[str, Dict[str, np.ndarray]]


def write_features(
    classifier: MultiHeadClassifier, paths: Iterable[str], output: str, broken: Callable[[PictureError], None]
) -> int:
    """Write what the backbone makes of each picture to ``output``; returns how many pictures are in it.

    ``.npz``: for each tensor of the seam, by its name, (pictures, *shape) in the seam's integers, and NAME_scale and
    NAME_zero_point, so that (array - zero point) * scale is the float; ``paths``, in the same order; ``backbone_digest``.
    ``.parquet``: ``source`` and the columns of ``builder score --features``, see ``feature_columns``.
    ``broken`` is told of pictures that cannot be read. Raises ``EdgeRuntimeError`` where none can, and ``OSError``.
    """
    check_output(output)
    rows = _rows(classifier, paths, broken)
    return (_write_parquet if output.endswith(".parquet") else _write_npz)(classifier, rows, output)


def check_output(output: str) -> None:
    """Raises ``EdgeRuntimeError`` for a name that says another kind of file, and where pyarrow is missing for it."""
    if not output.endswith(SUFFIXES):
        raise EdgeRuntimeError(f"{output}: expected a name that ends in {' or '.join(SUFFIXES)}")
    if output.endswith(".parquet"):
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise EdgeRuntimeError(f"{output}: writing it needs pyarrow: pip install 'polyhead[parquet]'") from error


def feature_column(tensor: str) -> str:
    """The column of a tensor of the seam."""
    return FEATURES if tensor == FEATURES else f"{FEATURES}_{tensor}"


def feature_columns(seam: Sequence[SeamTensor]) -> List[Any]:
    """Of each tensor of the seam, as a field of an Arrow schema: lists of integers, flat, in C order. The metadata says
    ``shape``, ``scale`` and ``zero_point``.
    """
    import pyarrow as pa

    return [
        pa.field(
            feature_column(tensor.name),
            pa.list_(pa.from_numpy_dtype(tensor.quantization.dtype)),
            metadata={TENSOR: _described(tensor)},
        )
        for tensor in seam
    ]


def backbone_entry(digest: str) -> Dict[str, str]:
    """Metadata of a table: whose features it holds."""
    return {TENSOR: json.dumps({"backbone": digest})}


def _described(tensor: SeamTensor) -> str:
    quantization = tensor.quantization
    return json.dumps(
        {"shape": list(tensor.shape), "scale": float(quantization.scale), "zero_point": int(quantization.zero_point)}
    )


def _rows(classifier: MultiHeadClassifier, paths: Iterable[str], broken: Callable[[PictureError], None]) -> Iterator[Row]:
    for path in paths:
        try:
            features = by_name(classifier.features(path))
        except PictureError as error:
            broken(error)
            continue
        yield os.fsencode(path).decode("utf-8", "replace"), {name: values[0] for name, values in features.items()}


def _write_npz(classifier: MultiHeadClassifier, rows: Iterable[Row], output: str) -> int:
    found: Dict[str, List[np.ndarray]] = {}
    paths = []
    for path, tensors in rows:
        paths.append(path)
        for name, values in tensors.items():
            found.setdefault(name, []).append(values)
    if not paths:
        raise _nothing(output)
    digest = np.array(classifier.metadata.backbone_digest)
    arrays: Dict[str, Any] = {"paths": np.array(paths), "backbone_digest": digest}
    for tensor in classifier.metadata.seam:
        arrays[tensor.name] = np.stack(found[tensor.name])
        arrays[f"{tensor.name}_scale"] = np.float32(tensor.quantization.scale)
        arrays[f"{tensor.name}_zero_point"] = np.int32(tensor.quantization.zero_point)
    with whole_file(output) as file:
        np.savez(file, **arrays)
    return len(paths)


def _write_parquet(classifier: MultiHeadClassifier, rows: Iterable[Row], output: str) -> int:
    import pyarrow as pa
    import pyarrow.parquet

    fields = [pa.field("source", pa.string()), *feature_columns(classifier.metadata.seam)]
    schema = pa.schema(fields, metadata=backbone_entry(classifier.metadata.backbone_digest))
    total = 0
    with whole_file(output) as file:
        with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            for block in _blocks(rows):
                columns = [{feature_column(name): np.ravel(v) for name, v in tensors.items()} for _, tensors in block]
                lines = [dict(line, source=path) for (path, _), line in zip(block, columns)]
                writer.write_table(pa.Table.from_pylist(lines, schema))
                total += len(block)
        if not total:
            raise _nothing(output)
    return total


def _nothing(output: str) -> EdgeRuntimeError:
    return EdgeRuntimeError(f"{output}: not written: no picture could be read")


def _blocks(rows: Iterable[Row]) -> Iterator[List[Row]]:
    block: List[Row] = []
    for row in rows:
        block.append(row)
        if len(block) == _BLOCK:
            yield block
            block = []
    if block:
        yield block
