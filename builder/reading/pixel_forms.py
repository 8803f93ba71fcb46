"""Collect the input scaling inside a model as one affine function of the channels of each pixel.

``preprocess_input`` leaves arithmetic, casts, and reordered channels in a model. Each such tensor is a matrix and an
offset applied to the pixel. The last one that all later layers read, and in which each channel comes from one channel of
the pixel, becomes part of the pixel transform.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from builder.reading.graph import INPUT, Graph, Node, Ref, renumber, upstream
from builder.reading.layers import is_keras
from builder.reading.pixel_layers import MOVING, PixelForm, layer_form, moves
from builder.settings.input_scaling import PixelTransform

# Operations whose outputs are pixels or means of neighbouring pixels, possibly moved, rounded or clipped.
_SPREADING = (
    *MOVING, "AveragePooling2D", "Cast", "Clip", "Flip", "GetItem", "MaxPooling2D", "Maximum", "Minimum", "Pad",
    "Permute", "RandomCrop", "Repeat", "Reshape", "Resize", "Roll", "Round", "Transpose", "ZeroPadding2D",
)  # fmt: skip


def without_leading_pixels(graph: Graph, channels: int) -> tuple[Graph, PixelTransform]:
    """The network after the part that treats all pixels (of ``channels``) alike, and that part as a transform.

    Scaling commutes with resizing: a resizing layer stays in the graph and comes first.
    """
    plain = PixelTransform().of(channels)
    first, moved, transform = _leading_pixels(graph, channels)
    if first.node == INPUT:
        return graph, transform
    if not transform.keeps_values and all(how.keeps_values for how in scaled_inside(graph, plain)):
        return graph, plain  # the weights of channels that are added up to grey
    kept = upstream(graph, [graph.output], [first])
    ends = [*(Ref(i, 0) for i in moved), first]
    alias = dict(zip((next(graph.nodes[i].inputs()) for i in moved), (Ref(INPUT, 0), *ends), strict=False))
    last = ends[-2] if moved else Ref(INPUT, 0)
    if first != last:
        alias[first] = last
    alias = {ref: end for ref, end in alias.items() if ref != end}
    return renumber(graph, [*moved, *kept], alias), transform


def scaled_inside(graph: Graph, pixels: PixelTransform) -> tuple[PixelTransform, ...]:
    """How pixels 0..255 enter a network behind ``pixels``, also where its own layers scale them in a way that cannot be
    removed: behind padding, as grey, or in each of several branches, which are listed one by one.
    """
    forms = _forms(graph, pixels, lambda node, first: first if node.kind in _SPREADING and first.stacked else None)
    for ref in sorted(forms, reverse=True):
        found = _seen(forms[ref], pixels) if _reads_only(graph, ref) else ()
        if found and all(how.is_near(pixels) for how in found):
            break  # branches may scale them
        if found:
            return found
    kept = [i for i in upstream(graph, [graph.output]) if Ref(i, 0) not in forms]
    ends = dict.fromkeys(ref for i in kept for ref in graph.nodes[i].inputs() if ref in forms)
    return tuple(how for ref in ends for how in _seen(forms[ref], pixels) or (pixels,)) or (pixels,)


def _seen(form: PixelForm, pixels: PixelTransform) -> tuple[PixelTransform, ...]:
    """A form as transforms; where channels are mixed, of what it makes of grey pixels: one, or several for other numbers
    of channels. Empty where it makes nothing of them.
    """
    found = _transform(form)
    if found is not None:
        return (found,)
    scale, count = form.matrix.sum(1), pixels.channels
    if not np.all(scale):
        return ()
    rows = list(zip(scale.tolist(), form.offset.tolist(), strict=True))
    each = [rows] if len(rows) == count else [[row] * count for row in dict.fromkeys(rows)]
    return tuple(PixelTransform(tuple(a for a, _ in one), tuple(b for _, b in one), pixels.order) for one in each)


def _leading_pixels(graph: Graph, channels: int) -> tuple[Ref, tuple[int, ...], PixelTransform]:
    """The tensor at which the network proper begins, and the transform from pixels to it."""
    forms = _forms(graph, PixelTransform().of(channels))
    fit = ((ref, _transform(form)) for ref, form in sorted(forms.items(), reverse=True, key=lambda item: item[0]))
    return next(
        (ref, forms[ref].moved, transform)
        for ref, transform in fit
        if transform is not None and _reads_only(graph, ref) and (ref != graph.output or ref.node == INPUT)
    )


def _forms(
    graph: Graph,
    pixels: PixelTransform,
    otherwise: Callable[[Node, PixelForm], PixelForm | None] = lambda node, first: None,
) -> dict[Ref, PixelForm]:
    """The forms of all tensors that have one, of the pixels in front of ``pixels``. ``otherwise``: the form for any other
    node, given that of its input.
    """
    matrix = np.asarray(pixels.scale)[:, None] * np.eye(pixels.channels)[list(pixels.order)]
    forms = {Ref(INPUT, 0): PixelForm(matrix, np.asarray(pixels.offset, np.float64))}
    for i, node in enumerate(graph.nodes):
        if is_keras(node.definition):
            found = layer_form(node, forms)
            if found is not None:
                forms[Ref(i, 0)] = found._replace(moved=(*found.moved, i)) if moves(node) else found
                continue
            read = [forms.get(ref) for ref in node.inputs()]
            found = otherwise(node, read[0]) if len(read) == 1 and read[0] is not None else None
            if found is not None:
                forms[Ref(i, 0)] = found
    return forms


def _reads_only(graph: Graph, ref: Ref) -> bool:
    """Whether the output depends on the pixels only through ``ref``."""
    behind = upstream(graph, [graph.output], [ref])
    return ref.node == INPUT or not any(
        one.node == INPUT for i in behind for one in graph.nodes[i].inputs() if one != ref
    )


def _transform(form: PixelForm) -> PixelTransform | None:
    """None where a channel comes from several or no channels of the pixel, or their number differs."""
    count, own = form.matrix.shape
    if not form.stacked or count != own or np.any(np.count_nonzero(form.matrix, axis=1) != 1):
        return None
    order = np.argmax(form.matrix != 0, axis=1)
    scale = form.matrix[np.arange(count), order]
    return PixelTransform(tuple(scale.tolist()), tuple(form.offset.tolist()), tuple(order.tolist()))
