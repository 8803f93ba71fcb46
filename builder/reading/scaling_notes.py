"""Preprocessing that stands outside a model and in it, or in neither.

The original is shown the pixels as the user says, so that it and the file agree whatever is said; any network answers.
What gives a mistake away is what the two make of pixels together: numbers that hardly differ, or all on one side of 0.
"""

from __future__ import annotations

import numpy as np

from builder.reading.graph import Graph
from builder.reading.picture_input import PictureSourceInput
from builder.reading.pixel_forms import scaled_inside
from builder.settings.input_scaling import PixelTransform, named_preprocessing
from builder.support.naming import advice

_LEAST_SPAN, _MOST_SCALE = 0.1, 1.5  # that a network was trained on: of 0..255 together, and for one step of a pixel
_GREY = 127.5
_LOWEST_MIDDLE = -0.25  # of the pixels, in spans: 0.5 where they are 0..1, 0 where their mean is subtracted


def scaling_notes(name: str, source_input: PictureSourceInput, graph: Graph) -> tuple[str, ...]:
    """What looks wrong in how pixels enter the model of the head ``name``, whose network behind them is ``graph``."""
    found = [_doubt(name, source_input, whole) for whole in scaled_inside(graph, source_input.pixels)]
    return found[0] if all(found) else ()


def _doubt(name: str, source_input: PictureSourceInput, whole: PixelTransform) -> tuple[str, ...]:
    """``whole``: what layers outside and inside make of pixels together, in one branch of the network."""
    declared = source_input.declared
    inside, known = declared.before(whole), named_preprocessing(declared.channels).values()
    if inside.keeps_values or any(map(whole.is_near, known)):
        return ()
    if not declared.keeps_values and (any(map(inside.is_near, known)) or _is_lost(whole)):
        return (
            f"preprocessing is done twice: {declared} outside the model and {inside} by its own layers, together "
            f"{whole}; if it takes pixels 0..255, set {advice('preprocessing', 'raw', name)}",
        )
    if not source_input.settled and not _takes_pixels(inside):
        return (
            f"its own layers make {inside} of pixels 0..255, which looks like the second part of a preprocessing; if "
            f"pixels were brought to 0..1 before it, set {advice('preprocessing', 'unit', name)}",
        )
    return ()


def scales_pixels(graph: Graph, pixels: PixelTransform) -> bool:
    """Do layers bring all pixels 0..255 to a network's range, those in ``pixels`` or those in ``graph`` behind them?"""
    return all(not how.keeps_values and _takes_pixels(how) for how in scaled_inside(graph, pixels))


def _takes_pixels(inside: PixelTransform) -> bool:
    return max(map(abs, inside.scale)) <= _MOST_SCALE


def _is_lost(whole: PixelTransform) -> bool:
    spans = 255 * np.asarray(whole.scale)
    middle = float(np.mean((_GREY * np.asarray(whole.scale) + np.asarray(whole.offset)) / spans))
    return float(np.abs(spans).max()) < _LEAST_SPAN or middle < _LOWEST_MIDDLE
