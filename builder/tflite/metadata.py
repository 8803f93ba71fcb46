"""TFLite metadata, from which other clients read a model's input scaling and labels. Only this module knows its schema.

It is a separate flatbuffer (``metadata_schema.fbs``, identifier ``M001``) in a buffer of the model. The label files are
zip members behind the model. Fields are numbered in the order in which the schema declares them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import flatbuffers.packer
import numpy as np
from flatbuffers.table import Table

BUFFER_NAME = "TFLITE_METADATA"  # name of the buffer in the model
_CHANNELS = 3
_IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"  # the first version has every field used here
# Of the schema's enums and unions.
_RGB, _IMAGE_PROPERTIES, _NORMALIZATION, _SCORE_CALIBRATION, _TENSOR_AXIS_LABELS = 1, 2, 1, 2, 2


@dataclass(frozen=True)
class Picture:
    """The input.

    Attributes:
        name: Its name.
        height: In pixels.
        width: In pixels.
        mean: Mean of the normalization (pixel - mean) / std that the quantization of the tensor reverses.
        std: Standard deviation of the same.
    """

    name: str
    height: int
    width: int
    mean: float
    std: float


@dataclass(frozen=True)
class Scores:
    """One output, (1, labels). ``labels_file``: name of the zip member with one label on each line."""

    name: str
    description: str
    labels_file: str


@dataclass(frozen=True)
class _Byte:
    """A number that the schema stores in one byte: the value of an enum or the type of a union."""

    value: int


Fields = Mapping[int, Any]  # number of the field -> text, whole number, _Byte, array of float32, table, list of tables


def model_metadata(name: str, description: str, picture: Picture, outputs: Sequence[Scores]) -> bytes:
    """The content of the buffer ``BUFFER_NAME``. ``outputs``: in the order of the outputs of the subgraph."""
    subgraph = {2: [_picture(picture)], 3: [_scores(output) for output in outputs]}
    builder = flatbuffers.Builder(1024)
    root = _table(builder, {0: name, 1: description, 3: [subgraph], 7: _PARSER_VERSION})
    builder.Finish(root, _IDENTIFIER)
    return bytes(builder.Output())


def _picture(picture: Picture) -> Fields:
    mean, std, low, high = (np.array([value], np.float32) for value in (picture.mean, picture.std, 0, 255))
    size = {0: picture.width, 1: picture.height}
    return {
        0: picture.name,
        1: "RGB picture, 0 to 255",
        3: {0: _Byte(_IMAGE_PROPERTIES), 1: {0: _Byte(_RGB), 1: size}},
        4: [{0: _Byte(_NORMALIZATION), 1: {0: mean, 1: std}}],
        5: {0: high, 1: low},
    }


def _scores(scores: Scores) -> Fields:
    low, high = (np.array([value], np.float32) for value in (0, 1))
    return {
        0: scores.name,
        1: scores.description,
        5: {0: high, 1: low},
        6: [{0: scores.labels_file, 2: _Byte(_TENSOR_AXIS_LABELS)}],
    }


def _table(builder: Any, fields: Fields) -> int:
    """Write a table and return its offset. Flatbuffers require that what it refers to is written first."""
    offsets = {number: _reference(builder, value) for number, value in fields.items() if not _is_inline(value)}
    builder.StartObject(max(fields) + 1)
    for number, value in fields.items():
        if isinstance(value, _Byte):
            builder.PrependUint8Slot(number, value.value, 0)
        elif isinstance(value, int):
            builder.PrependUint32Slot(number, value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(number, offsets[number], 0)
    return int(builder.EndObject())


def _is_inline(value: Any) -> bool:
    return isinstance(value, (int, _Byte))


def _reference(builder: Any, value: Any) -> int:
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, np.ndarray):
        return int(builder.CreateNumpyVector(value))
    if isinstance(value, Mapping):
        return _table(builder, value)
    tables = [_table(builder, item) for item in value]
    builder.StartVector(4, len(tables), 4)
    for offset in reversed(tables):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


@dataclass(frozen=True)
class Told:
    """What the metadata of a model says.

    Attributes:
        normalization: (mean, std) of (pixel - mean) / std, each one number or one for each channel; None if missing.
        label_files: Zip members with the labels of its one output: first without a language, then English.
        calibrated: Whether its scores are to be calibrated after the network, for each label.
    """

    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None
    label_files: tuple[str, ...]
    calibrated: bool = False


def read_model_metadata(content: bytes) -> Told | None:
    """Read the metadata of a model, whichever tool wrote it; None where it is damaged or of another kind."""
    try:
        if content[4:8] != _IDENTIFIER:
            return None
        root = Table(bytearray(content), flatbuffers.encode.Get(flatbuffers.packer.uoffset, content, 0))
        (subgraph,) = _tables(root, 3)
        (picture,), (scores,) = _tables(subgraph, 2), _tables(subgraph, 3)
        units = [_table_at(unit, 1) for unit in _tables(picture, 4) if _byte(unit, 0) == _NORMALIZATION]
        numbers = [(_floats(unit, 0), _floats(unit, 1)) for unit in units if unit is not None]
        calibrated = any(_byte(unit, 0) == _SCORE_CALIBRATION for unit in _tables(scores, 4))
        files = [(_text(f, 3), _text(f, 0)) for f in _tables(scores, 6) if _byte(f, 2) == _TENSOR_AXIS_LABELS]
    except (ValueError, IndexError, TypeError, struct.error, UnicodeDecodeError):
        return None
    known = next((n for n in numbers if len(n[0]) == len(n[1]) in (1, 3) and all(n[1])), None)
    names = tuple(name for _, name in sorted(files, key=lambda f: (f[0] != "", not f[0].startswith("en"))))
    return Told(known, names, calibrated)


def _place(table: Any, number: int) -> int:
    """The position of a field in the buffer; 0 where it is missing."""
    offset = int(table.Offset(4 + 2 * number))
    return offset and int(table.Pos) + offset


def _table_at(table: Any, number: int) -> Any:
    place = _place(table, number)
    return Table(table.Bytes, table.Indirect(place)) if place else None


def _tables(table: Any, number: int) -> list[Any]:
    offset = int(table.Offset(4 + 2 * number))
    if not offset:
        return []
    start, count = table.Vector(offset), min(table.VectorLen(offset), len(table.Bytes))
    return [Table(table.Bytes, table.Indirect(start + 4 * i)) for i in range(count)]


def _floats(table: Any, number: int) -> tuple[float, ...]:
    offset = int(table.Offset(4 + 2 * number))
    if not offset:
        return ()
    data = np.frombuffer(
        bytes(table.Bytes), np.float32, min(table.VectorLen(offset), _CHANNELS + 1), table.Vector(offset)
    )
    return tuple(float(v) for v in data)


def _text(table: Any, number: int) -> str:
    place = _place(table, number)
    return table.String(place).decode("utf-8") if place else ""


def _byte(table: Any, number: int) -> int:
    place = _place(table, number)
    return table.Bytes[place] if place else 0
