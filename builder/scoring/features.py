"""Read stored features block by block, from ``edge-runtime features`` or ``builder score --features``."""

from __future__ import annotations

import contextlib
import json
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from builder.support.errors import ConfigError
from edge_runtime.errors import reason
from edge_runtime.feature_file import SUFFIXES, TENSOR, feature_column
from edge_runtime.files import open_file
from edge_runtime.metadata import FEATURES, SeamTensor
from edge_runtime.quantization import Quantization

REQUEST = "score.json"  # in every folder that builder score wrote
_BLOCK = 256
_ADVICE = "compute them again with this version"
_DAMAGE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, NotImplementedError, zipfile.BadZipFile,
    zlib.error, MemoryError,
)  # fmt: skip


class Block(NamedTuple):
    """``sources``: of the pictures. ``tensors``: by name of the seam's tensors, integers (pictures, *shape)."""

    sources: Sequence[str]
    tensors: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class StoredFeatures:
    """``seam``: the tensors. ``backbone``: digest of the backbone that made them, "" if unknown."""

    path: Path
    seam: tuple[SeamTensor, ...]
    backbone: str

    def blocks(self) -> Iterator[Block]:
        """The readable samples in blocks, in order. Raises ``ConfigError``."""
        blocks = _npz_blocks if self.path.suffix.lower() == ".npz" else _table_blocks
        with _refused(self.path):
            yield from blocks(self.path, self.seam)

    def sources(self) -> Iterator[Sequence[str]]:
        """The sources of the blocks, without reading tensors. Raises ``ConfigError``."""
        sources = _npz_sources if self.path.suffix.lower() == ".npz" else _table_sources
        with _refused(self.path):
            yield from sources(self.path)


def holds_features(path: Path) -> bool:
    """Whether ``path`` is a file or folder of stored features, by its name or content."""
    return path.suffix.lower() in SUFFIXES or (path / REQUEST).is_file()


def open_features(path: Path) -> StoredFeatures:
    """Open stored features. Raises ``ConfigError`` where there are none."""
    with _refused(path):
        stored = _open_npz(path) if path.suffix.lower() == ".npz" else _open_table(path)
    if not stored.seam:
        raise ConfigError(f"{path}: expected stored features, found none; compute them, or score with --features")
    return stored


@contextlib.contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Turn any error from a damaged file into a one-line ``ConfigError``."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        if not isinstance(error, _DAMAGE) and not type(error).__module__.startswith("pyarrow"):
            raise
        raise ConfigError(
            f"{path}: expected features from edge-runtime features or builder score --features "
            f"({reason(error):.200}); {_ADVICE}"
        ) from error


def _open_table(path: Path) -> StoredFeatures:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(f"{path}: reading it needs pyarrow: pip install 'polyhead[parquet]'") from error
    if path.is_dir():
        from builder.scoring.stored import open_result

        schema = open_result(path).schema
    else:
        with open_file(path) as file:
            schema = pyarrow.parquet.read_schema(file)
    seam = tuple(_tensor(schema.field(name)) for name in schema.names if _is_features(name, schema))
    described = (schema.metadata or {}).get(TENSOR.encode())
    return StoredFeatures(path, seam, str(json.loads(described)["backbone"]) if described else "")


def _is_features(name: str, schema: Any) -> bool:
    return (name == FEATURES or name.startswith(f"{FEATURES}_")) and hasattr(schema.field(name).type, "value_type")


def _tensor(field: Any) -> SeamTensor:
    described = (field.metadata or {}).get(TENSOR.encode())
    if described is None:
        raise ValueError("features without their scale")
    found = json.loads(described)
    name = field.name if field.name == FEATURES else field.name.removeprefix(f"{FEATURES}_")
    dtype = np.dtype(field.type.value_type.to_pandas_dtype())
    return _seam_tensor(name, found["shape"], found["scale"], found["zero_point"], dtype)


def _seam_tensor(name: str, shape: Sequence[int], scale: float, zero_point: int, dtype: np.dtype) -> SeamTensor:
    if not all(type(side) is int and side > 0 for side in shape) or not math.isfinite(scale) or scale <= 0:
        raise ValueError(f"features of shape {shape!r:.60} with scale {scale!r:.20}")
    if dtype.kind not in "iuf":
        raise ValueError(f"features of type {dtype}")
    return SeamTensor(name, tuple(shape), Quantization(float(scale), int(zero_point), dtype))


def _table_blocks(path: Path, seam: Sequence[SeamTensor]) -> Iterator[Block]:
    columns = [feature_column(tensor.name) for tensor in seam]
    for read in _tables(path, columns):
        tensors = {}
        for tensor, column in zip(seam, columns, strict=True):
            flat = read.column(column).combine_chunks().flatten().to_numpy(zero_copy_only=False)
            tensors[tensor.name] = flat.reshape(read.num_rows, *tensor.shape)
        yield Block(_sources(read), tensors)


def _table_sources(path: Path) -> Iterator[Sequence[str]]:
    return (_sources(read) for read in _tables(path, []))


def _sources(table: Any) -> list[str]:
    found: list[str] = table.column("source").to_pylist()
    if not all(isinstance(source, str) for source in found):
        raise ValueError("a row without a source")
    return found


def _tables(path: Path, columns: list[str]) -> Iterator[Any]:
    """Blocks of readable rows with ``source`` and ``columns``."""
    import pyarrow as pa
    import pyarrow.parquet

    if path.is_dir():
        from builder.scoring.stored import open_result

        for table in open_result(path).tables(["source", "error", *columns]):
            yield table.filter(table.column("error").is_null())
        return
    with open_file(path) as opened, pyarrow.parquet.ParquetFile(opened) as file:
        for batch in file.iter_batches(batch_size=_BLOCK, columns=["source", *columns]):
            yield pa.Table.from_batches([batch])


def _open_npz(path: Path) -> StoredFeatures:
    with open_file(path) as file, np.load(file, allow_pickle=False) as arrays, zipfile.ZipFile(file) as members:
        seam = []
        for name in (name.removesuffix("_scale") for name in arrays.files if name.endswith("_scale")):
            with members.open(f"{name}.npy") as member:
                shape, dtype = _header(member)
            scale, zero_point = float(arrays[f"{name}_scale"]), int(arrays[f"{name}_zero_point"])
            seam.append(_seam_tensor(name, shape[1:], scale, zero_point, dtype))
        digest = str(arrays["backbone_digest"]) if "backbone_digest" in arrays.files else ""
    return StoredFeatures(path, tuple(seam), digest)


def _npz_blocks(path: Path, seam: Sequence[SeamTensor]) -> Iterator[Block]:
    """The arrays of an ``.npz`` file in blocks, never whole."""
    with open_file(path) as file, zipfile.ZipFile(file) as archive:
        members = [archive.open(f"{tensor.name}.npy") for tensor in seam]
        headers = [_header(member) for member in members]
        for sources in _npz_sources(path):
            tensors = {
                tensor.name: _rows_of(member, len(sources), shape[1:], dtype)
                for tensor, member, (shape, dtype) in zip(seam, members, headers, strict=True)
            }
            yield Block(sources, tensors)
        if any(member.read(1) for member in members):
            raise ValueError("arrays of another length than the paths")


def _npz_sources(path: Path) -> Iterator[Sequence[str]]:
    with open_file(path) as file, np.load(file, allow_pickle=False) as arrays:
        paths = arrays["paths"]
    for start in range(0, len(paths), _BLOCK):
        yield [str(source) for source in paths[start : start + _BLOCK]]


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
