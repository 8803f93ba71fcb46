"""Operators: each takes and gives tensors of the number, type and shape that its kind needs.

Heads are alike: an operator is looked at once for each set of settings, types and shapes.
"""

from __future__ import annotations

import struct
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple, cast

import numpy as np

from edge_runtime.errors import BundleError
from edge_runtime.flatbuffer.kinds import KINDS, NAMES
from edge_runtime.flatbuffer.model import TYPES, Model
from edge_runtime.flatbuffer.operands import Operand, Operator
from edge_runtime.flatbuffer.tables import Data, Tables, refuse_where

_INTEGERS = {2: "i4", 4: "i8"}  # whose content may be the shape, the axis or the order that an operator asks for
_SUMS = (0, 41)  # ADD, SUB
MAX_VALUES = 1 << 20
_FORMATS = {"i1": "<b", "u1": "<B", "i4": "<i", "f4": "<f"}


class _Settings(NamedTuple):
    """An operator's table of options, one for each operator table. ``place``: 0 where there is none."""

    kind: List[int]
    place: List[int]
    content: List[Any]  # what makes two equal


def check_operators(model: Model, scale: np.ndarray, per_channel: np.ndarray) -> None:
    """``scale``, ``per_channel``: of each tensor of ``model.tensors``. Raises ``BundleError``."""
    unknown = ~np.isin(model.kind, list(KINDS))
    refuse_where(unknown, lambda i: f"operator {NAMES.get(int(model.kind[i]), model.kind[i])}, which no classifier needs")
    _check_scales(model, scale)
    forms, examples = _forms(model, scale, per_channel)
    settings = _settings(model)
    reads, writes = (_slices(lists, places, model, forms) for lists, places in (model.reads, model.writes))
    seen: Set[Any] = set()
    which = model.operator_of.tolist()
    for i, kind in enumerate(model.kind.tolist()):
        table = which[i]
        key = (kind, settings.content[table], reads[i], writes[i])
        if key in seen:
            continue
        seen.add(key)
        inputs, outputs = (
            tuple(None if form < 0 else examples[form] for form in struct.unpack(f"<{len(own) // 4}i", own))
            for own in (reads[i], writes[i])
        )
        setting = _reader(model.data, settings.place[table])
        _check(model, i, Operator(kind, inputs, cast(Any, outputs), settings.kind[table], setting))


def _check(model: Model, index: int, operator: Operator) -> None:
    wrong = KINDS[operator.kind].problem(operator)
    if wrong is not None:
        place = f"operator {index - int(np.searchsorted(model.graph_of, model.graph_of[index]))}"
        raise BundleError(f"subgraph {model.graph_of[index]}, {place}, {NAMES[operator.kind]}: {wrong}")


def _check_scales(model: Model, scale: np.ndarray) -> None:
    """Sums are computed in integers of the larger input's scale, shifted to the left: the kernels end the process where
    the output's scale is so small that they would have to be shifted further (``kernels/add.cc``, ``Prepare``).
    """
    own = np.flatnonzero(np.isin(model.kind, _SUMS))
    reads, writes = model.reads[0], model.writes[0]
    own = own[(reads.counts[own] == 2) & (writes.counts[own] == 1)]
    first, out = (reads.ends - reads.counts)[own], (writes.ends - writes.counts)[own]
    a, b, y = (scale[model.tensor_of[places]].astype(np.float64) for places in
               (model.reads[1][first], model.reads[1][first + 1], model.writes[1][out]))  # fmt: skip
    wrong = (np.minimum(a, b) > 0) & (y > 0) & (2 * np.maximum(a, b) >= y * 2.0**15)
    refuse_where(
        wrong, lambda i: f"{NAMES[int(model.kind[own[i]])]}: scales too far apart ({a[i]:.3g}, {b[i]:.3g}, {y[i]:.3g})"
    )


def _forms(model: Model, scale: np.ndarray, per_channel: np.ndarray) -> Tuple[np.ndarray, List[Operand]]:
    """(of each tensor table the number of its form, an operand of each form)."""
    tensors = model.tensors
    content = np.where(tensors.constant, 1, 0)
    values = tensors.constant & (scale == 0) & np.isin(tensors.type, list(_INTEGERS))  # with a scale: a bias
    content[values] = tensors.buffer[values] + 2
    columns = [tensors.type, tensors.rank, content, scale > 0, per_channel]
    rows = np.concatenate([np.stack(columns, 1).astype(np.int64), tensors.shape], 1)
    blob, width = rows.tobytes(), rows.shape[1] * 8
    keys = [blob[start : start + width] for start in range(0, len(blob), width)]
    first: Dict[bytes, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    numbers = {key: number for number, key in enumerate(first)}
    examples = [_operand(model, i, rows[i].tolist()) for i in first.values()]
    return np.asarray([numbers[key] for key in keys], np.int32), examples


def _operand(model: Model, tensor: int, row: Sequence[int]) -> Operand:
    kind, rank, content, quantized, per_channel, *shape = row
    values: Optional[Tuple[int, ...]] = None
    items = int(model.tensors.items[tensor])
    if content > 1 and items <= MAX_VALUES:
        start = int(model.buffer_starts[model.tensors.buffer[tensor]])
        data = model.data.bytes(start, start + int(model.tensors.bytes[tensor]))
        values = tuple(np.frombuffer(data, "<" + _INTEGERS[kind]).tolist()) if items else ()
    return Operand(TYPES[kind][0], tuple(shape[:rank]), bool(content), values, bool(quantized), bool(per_channel))


def _slices(lists: Any, places: np.ndarray, model: Model, forms: np.ndarray) -> List[bytes]:
    """Of each operator the numbers of the forms that it reads or writes, as bytes; -1 for what is left out."""
    numbers = np.where(places < 0, -1, forms[model.tensor_of[places]]).astype("<i4")
    blob = numbers.tobytes()
    ends = (4 * lists.ends).tolist()
    return [blob[a:b] for a, b in zip([0, *ends], ends)]


def _settings(model: Model) -> _Settings:
    own = model.operators
    kinds, places = own.scalars(3, "u1"), own.targets(4)
    there = np.flatnonzero(places)
    tables = Tables(model.data, places[there])
    # A list within the options lies elsewhere: its distance says nothing, its place does.
    lists = np.where(np.isin(kinds[there], (17, 30)), tables.places, tables.vtables)
    content: List[Any] = [None] * len(own)
    rows = kinds[there].tolist(), lists.tolist(), model.data.pieces(tables.places + 4, tables.sizes - 4)
    for index, *key in zip(there.tolist(), *rows):
        content[index] = tuple(key)
    return _Settings(kinds.tolist(), places.tolist(), content)


def _reader(data: Data, place: int) -> Any:
    """A function that reads a field of the options at ``place``: number of the field, kind, what it is where it is not.

    One table at a time, so without arrays. That the table is whole was seen before.
    """
    if not place:
        return lambda number, kind, default=0: default
    raw = data.raw
    vtable = place - struct.unpack_from("<i", raw, place)[0]
    fields, size = struct.unpack_from("<HH", raw, vtable)

    def read(number: int, kind: str, default: int = 0) -> Any:
        offset = struct.unpack_from("<H", raw, vtable + 4 + 2 * number)[0] if fields >= 6 + 2 * number else 0
        if not offset:
            return default
        if not 4 <= offset <= size - int(kind[1]):
            raise BundleError("the model is damaged: a field lies outside its table")
        return struct.unpack_from(_FORMATS[kind], raw, place + offset)[0]

    return read
