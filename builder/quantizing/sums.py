"""One step for a residual sum and its two terms: then the addition rounds nothing.

A sum of two int8 tensors is rounded to its own step. If both terms have that step as well, the sum is a whole number of
steps, and only the terms were rounded. The noise of a rounding is step²/12. Steps x and y of the terms and z of the sum
give (x² + y² + z²)/12, one step s for all gives 2 s²/12. As s is the largest of the three, no range becomes smaller. It
pays where the sum is hardly wider than the term that skips a block, as in MobileNetV2 and EfficientNet.
"""

from __future__ import annotations

from collections.abc import Mapping

from builder.quantizing.steps import widened, width_of
from builder.tflite.flatbuffer import Part, fused_activation, operator_name, tensor_name
from builder.tflite.parts import Range

_FREE = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MUL", "ADD")  # give their output any range; others do not


def exact_sums(part: Part, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """``ranges`` of activations, by name, some of them widened so that additions of ``part`` become exact.

    The additions that gain most come first. No tensor is widened twice: an addition that shares a tensor with an exact
    one becomes exact only by the same step.
    """
    widths, fixed = {name: width_of(limits) for name, limits in ranges.items()}, set[str]()
    known = [names for names in _sums(part) if widths.keys() >= set(names)]  # integers have no range
    for names in sorted(known, key=lambda names: _gain(names, widths), reverse=True):
        width = max(widths[name] for name in names)
        if _gain(names, widths) > 0 and all(widths[name] == width for name in fixed.intersection(names)):
            widths.update(dict.fromkeys(names, width))
            fixed.update(names)
    return {name: widened(limits, widths[name]) if name in fixed else limits for name, limits in ranges.items()}


def _sums(part: Part) -> list[tuple[str, ...]]:
    """The names of both terms and the sum, for each addition of tensors that may have any range."""
    free = {op.outputs[0] for op in part.operators if operator_name(part, op) in _FREE}
    return [
        tuple(tensor_name(part.tensors[i]) for i in tensors)
        for op in part.operators
        if operator_name(part, op) == "ADD" and fused_activation(op) in ("NONE", "RELU")
        if free.issuperset(tensors := (*op.inputs, *op.outputs))
    ]


def _gain(names: tuple[str, ...], widths: Mapping[str, float]) -> float:
    """How much less noise there is with one step, in units of 1 / (12 · 255²)."""
    squares = [widths[name] ** 2 for name in names]
    return sum(squares) - 2 * max(squares)
