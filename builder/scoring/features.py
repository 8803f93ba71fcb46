"""Stored features, read block by block: what ``edge-runtime features`` or ``builder score --features`` wrote."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from builder.support.errors import ConfigError
from edge_runtime.errors import reason
from edge_runtime.feature_file import SUFFIXES, TENSOR
from edge_runtime.metadata import FEATURES, SeamTensor
from edge_runtime.quantization import Quantization

REQUEST = "score.json"  # in every folder that builder score wrote
_BLOCK = 256
_ADVICE = "compute them again with this version"


class Block(NamedTuple):
    """``sources``: of the pictures. ``tensors``: by the names of the seam's, (pictures, *shape) in its integers."""

    sources: Sequence[str]
    tensors: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class StoredFeatures:
    """``seam``: the tensors. ``backbone``: digest of the backbone that made them, "" where nobody wrote it down."""

    path: Path
    seam: tuple[SeamTensor, ...]
    backbone: str

    def blocks(self) -> Iterator[Block]:
        """Those that could be read, in their order. Raises ``ConfigError``."""
        if self.path.suffix.lower() == ".npz":
            return _npz_blocks(self.path, self.seam)
        return _table_blocks(self.path, self.seam)


def holds_features(path: Path) -> bool:
    """Is ``path`` a file or a folder of stored features, by its name or by what lies in it?"""
    return path.suffix.lower() in SUFFIXES or (path / REQUEST).is_file()


def open_features(path: Path) -> StoredFeatures:
    """Raises ``ConfigError`` for what holds no features."""
    if path.suffix.lower() == ".npz":
        return _open_npz(path)
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(f"{path}: reading it needs pyarrow: pip install 'polyhead[parquet]'") from error
    if path.is_dir():
        from builder.scoring.stored import open_result

        schema = open_result(path).schema
    else:
        try:
            schema = pyarrow.parquet.read_schema(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise ConfigError(f"{path}: expected features that edge-runtime features wrote ({reason(error)})") from error
    seam = [_tensor(path, schema.field(name)) for name in schema.names if _is_features(name, schema)]
    if not seam:
        raise ConfigError(f"{path}: expected stored features, found none; score with --features")
    described = (schema.metadata or {}).get(TENSOR.encode())
    return StoredFeatures(path, tuple(seam), json.loads(described)["backbone"] if described else "")


def _is_features(name: str, schema: Any) -> bool:
    return (name == FEATURES or name.startswith(f"{FEATURES}_")) and hasattr(schema.field(name).type, "value_type")


def _tensor(path: Path, field: Any) -> SeamTensor:
    described = (field.metadata or {}).get(TENSOR.encode())
    if described is None:
        raise ConfigError(f"{path}: expected features with their scale, found none; {_ADVICE}")
    found = json.loads(described)
    name = field.name if field.name == FEATURES else field.name.removeprefix(f"{FEATURES}_")
    dtype = np.dtype(field.type.value_type.to_pandas_dtype())
    return SeamTensor(name, tuple(found["shape"]), Quantization(found["scale"], found["zero_point"], dtype))


def _table_blocks(path: Path, seam: Sequence[SeamTensor]) -> Iterator[Block]:
    from edge_runtime.feature_file import feature_column

    columns = [feature_column(tensor.name) for tensor in seam]
    for table in _tables(path, columns):
        read = table.filter(table.column("error").is_null()) if "error" in table.column_names else table
        if not read.num_rows:
            continue
        tensors = {}
        for tensor, column in zip(seam, columns, strict=True):
            flat = read.column(column).combine_chunks().flatten().to_numpy(zero_copy_only=False)
            tensors[tensor.name] = flat.reshape(read.num_rows, *tensor.shape)
        yield Block(read.column("source").to_pylist(), tensors)


def _tables(path: Path, columns: list[str]) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet

    if path.is_dir():
        from builder.scoring.stored import open_result

        yield from open_result(path).tables(["source", "error", *columns])
        return
    with pyarrow.parquet.ParquetFile(path) as file:
        kept = ["source", *(["error"] if "error" in file.schema_arrow.names else []), *columns]
        yield from (pa.Table.from_batches([batch]) for batch in file.iter_batches(batch_size=_BLOCK, columns=kept))


def _open_npz(path: Path) -> StoredFeatures:
    try:
        with np.load(path, allow_pickle=False) as arrays, zipfile.ZipFile(path) as members:
            seam = []
            for name in (name.removesuffix("_scale") for name in arrays.files if name.endswith("_scale")):
                scale, zero_point = float(arrays[f"{name}_scale"]), int(arrays[f"{name}_zero_point"])
                with members.open(f"{name}.npy") as member:
                    shape, dtype = _header(member)
                seam.append(SeamTensor(name, shape[1:], Quantization(scale, zero_point, dtype)))
            digest = str(arrays["backbone_digest"]) if "backbone_digest" in arrays.files else ""
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: expected features that edge-runtime features wrote ({reason(error)})") from error
    if not seam:
        raise ConfigError(f"{path}: expected stored features, found none; {_ADVICE}")
    return StoredFeatures(path, tuple(seam), digest)


def _npz_blocks(path: Path, seam: Sequence[SeamTensor]) -> Iterator[Block]:
    """The arrays of an ``.npz`` file, none of them whole."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            paths = arrays["paths"]
        with zipfile.ZipFile(path) as archive:
            members = [archive.open(f"{tensor.name}.npy") for tensor in seam]
            headers = [_header(member) for member in members]
            if any(shape[0] != len(paths) for shape, _ in headers):
                raise ValueError("arrays of other lengths than the paths")
            for start in range(0, len(paths), _BLOCK):
                sources = [str(source) for source in paths[start : start + _BLOCK]]
                tensors = {
                    tensor.name: _rows_of(member, len(sources), shape[1:], dtype)
                    for tensor, member, (shape, dtype) in zip(seam, members, headers, strict=True)
                }
                yield Block(sources, tensors)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: expected features that edge-runtime features wrote ({reason(error)})") from error


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(member)
    if fortran or dtype.hasobject or not shape:
        raise ValueError("an array in another order, or of objects")
    return shape, dtype


def _rows_of(member: IO[bytes], rows: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    wanted = rows * int(np.prod(shape)) * dtype.itemsize
    data = member.read(wanted)
    if len(data) != wanted:
        raise ValueError("it ends too early")
    return np.frombuffer(data, dtype).reshape(rows, *shape)
