"""What an operator takes and gives, and what many rules ask of it. A rule returns what is wrong, or None."""

from __future__ import annotations

from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

Shape = Tuple[int, ...]

Wrong = Optional[str]


class Operand(NamedTuple):
    """``values``: of a constant of int32 or int64 without a scale, in a row."""

    type: str
    shape: Shape
    constant: bool
    values: Optional[Tuple[int, ...]]
    quantized: bool
    per_channel: bool

    @property
    def items(self) -> int:
        return product(self.shape)


class Operator(NamedTuple):
    """``setting``: reads a field of the options by (number, kind, default)."""

    kind: int
    inputs: Tuple[Any, ...]  # of Operand; None for one that is left out
    outputs: Tuple[Operand, ...]
    settings: int
    setting: Callable[..., Any]


Rule = Callable[[Operator], Wrong]

STORED = ("int8", "uint8", "int16", "int4")

INDEX = ("int32", "int64")


def product(shape: Sequence[int]) -> int:
    product = 1
    for n in shape:  # Python 3.7 has no math.prod
        product *= n
    return product


def gives(op: Operator, *expected: Shape) -> Wrong:
    for output, shape in zip(op.outputs, expected):
        if output.shape != tuple(shape):
            return f"gives {list(output.shape)}, where its inputs make {list(shape)}"
    return None


def same_types(*operands: Operand) -> Wrong:
    found = {operand.type for operand in operands}
    return None if len(found) == 1 else f"types that differ ({', '.join(sorted(found))})"


def first(*problems: Wrong) -> Wrong:
    return next((problem for problem in problems if problem is not None), None)


def broadcast(*shapes: Shape) -> Optional[Shape]:
    rank = max(map(len, shapes))
    sides = [{n for n in column if n != 1} for column in zip(*((1,) * (rank - len(s)) + tuple(s) for s in shapes))]
    return None if any(len(side) > 1 for side in sides) else tuple(min(side, default=1) for side in sides)


def activation(code: int) -> Wrong:
    return None if 0 <= code <= 3 else f"activation {code}, which is none"


def four(*operands: Operand) -> Wrong:
    return next((f"a tensor of {len(o.shape)} dimensions, not 4" for o in operands if len(o.shape) != 4), None)


def axes(operand: Operand, rank: int) -> Optional[List[int]]:
    if operand.values is None or operand.type not in INDEX or not all(-rank <= v < rank for v in operand.values):
        return None
    return [v % rank for v in operand.values]


def told(operand: Optional[Operand]) -> str:
    if operand is None or operand.values is None:
        return "that is not constant"
    return str(list(operand.values))[:60]
