"""Collect the input scaling inside a model as one affine function of the channels of each pixel.

``preprocess_input`` leaves arithmetic, casts, and reordered channels in a model. Each such tensor is a matrix and an
offset applied to the pixel. The last one that all later layers read, and in which each channel comes from one channel of
the pixel, becomes part of the pixel transform.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from builder.reading.graph import INPUT, Graph, Node, Ref, renumber, upstream
from builder.reading.layers import does_nothing_at_inference, is_keras
from builder.reading.shapes import is_operation
from builder.reading.spelling import moments
from builder.settings.input_scaling import PixelTransform

_MOVING = ("Resizing", "CenterCrop", "Cropping2D", "UpSampling2D")
# Operations whose outputs are pixels or means of neighbouring pixels, possibly moved, rounded or clipped.
_SPREADING = (
    *_MOVING, "AveragePooling2D", "Cast", "Clip", "Flip", "GetItem", "MaxPooling2D", "Maximum", "Minimum", "Pad",
    "Permute", "RandomCrop", "Repeat", "Reshape", "Resize", "Roll", "Round", "Transpose", "ZeroPadding2D",
)  # fmt: skip
_FLOATS = (None, "float32", "float64")  # None: definitions omit float32


class PixelForm(NamedTuple):
    """``matrix @ pixel + offset``: (channels, those of a pixel) and (channels,). ``stacked``: False for one channel
    without an axis. ``moved``: nodes in between that move or average pixels, in their order.
    """

    matrix: np.ndarray
    offset: np.ndarray
    stacked: bool = True
    moved: tuple[int, ...] = ()


def without_leading_pixels(graph: Graph, channels: int) -> tuple[Graph, PixelTransform]:
    """The network after the part that treats all pixels (of ``channels``) alike, and that part as a transform.

    Scaling commutes with resizing: a resizing layer stays in the graph and comes first.
    """
    first, moved, transform = _leading_pixels(graph, channels)
    if first.node == INPUT:
        return graph, transform
    kept = upstream(graph, [graph.output], [first])
    ends = [*(Ref(i, 0) for i in moved), first]
    alias = dict(zip((next(graph.nodes[i].inputs()) for i in moved), (Ref(INPUT, 0), *ends), strict=False))
    last = ends[-2] if moved else Ref(INPUT, 0)
    if first != last:
        alias[first] = last
    alias = {ref: end for ref, end in alias.items() if ref != end}
    return renumber(graph, [*moved, *kept], alias), transform


def scaled_inside(graph: Graph, channels: int) -> PixelTransform:
    """The input scaling inside a network, also where it cannot be removed, for example after padding."""
    forms = _forms(graph, channels, lambda node, first: first if node.kind in _SPREADING and first.stacked else None)
    for ref in sorted(forms, reverse=True):
        transform = _transform(forms[ref])
        if transform is not None and _reads_only(graph, ref):
            return transform
    return PixelTransform().of(channels)


def _leading_pixels(graph: Graph, channels: int) -> tuple[Ref, tuple[int, ...], PixelTransform]:
    """The tensor at which the network proper begins, and the transform from pixels to it."""
    forms = _forms(graph, channels)
    for ref in sorted(forms, reverse=True):
        transform = _transform(forms[ref])
        if transform is not None and ref != graph.output and _reads_only(graph, ref):
            return ref, forms[ref].moved, transform
    return Ref(INPUT, 0), (), PixelTransform().of(channels)


def _forms(
    graph: Graph, channels: int, otherwise: Callable[[Node, PixelForm], PixelForm | None] = lambda node, first: None
) -> dict[Ref, PixelForm]:
    """The forms of all tensors that have one. ``otherwise``: the form for any other node, given that of its input."""
    forms = {Ref(INPUT, 0): PixelForm(np.eye(channels), np.zeros(channels))}
    for i, node in enumerate(graph.nodes):
        if is_keras(node.definition):
            found = _form(node, forms)
            if found is not None:
                forms[Ref(i, 0)] = found._replace(moved=(*found.moved, i)) if _moves(node) else found
                continue
            read = [forms.get(ref) for ref in node.inputs()]
            found = otherwise(node, read[0]) if len(read) == 1 and read[0] is not None else None
            if found is not None:
                forms[Ref(i, 0)] = found
    return forms


def _moves(node: Node) -> bool:
    """Whether each output pixel is an input pixel or a mean of several, in the same way for every channel."""
    config = node.config
    plain = config.get("data_format") in (None, "channels_last") and not config.get("pad_to_aspect_ratio")
    return node.kind in _MOVING and not is_operation(node) and plain


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


def _form(node: Node, forms: Mapping[Ref, PixelForm]) -> PixelForm | None:
    refs = list(node.inputs())
    if not refs or any(ref not in forms for ref in refs):
        return None
    first = forms[refs[0]]
    if does_nothing_at_inference(node.definition):
        return first
    if len(refs) > 1:
        return _joined(node, [forms[ref] for ref in refs])
    if is_operation(node):
        return _OPERATIONS[node.kind](node, first) if node.kind in _OPERATIONS else None
    if _moves(node):
        return first if first.stacked else None
    if node.kind == "Rescaling":
        scale, offset = (_constant(node.config.get(key, 0.0)) for key in ("scale", "offset"))
        return None if scale is None or offset is None else _scaled(first, scale, offset)
    if node.kind == "Normalization" and set(np.ravel(node.config["axis"]).tolist()) <= {-1, 3, None}:
        mean, deviation = moments(node)
        # As Keras computes it: (x - mean) / deviation, and its inverse on request.
        if node.config.get("invert"):
            return _scaled(first, deviation, mean)
        return _scaled(first, 1 / deviation, -mean / deviation)
    return None


def _scaled(form: PixelForm, scale: Any, offset: Any) -> PixelForm | None:
    """The scaled form; None where the numbers are not one for each channel."""
    scale, offset = (np.asarray(value, np.float64) for value in (scale, offset))
    count = len(form.matrix)
    if any(v.size not in (1, count) or v.shape[-1:] not in ((), (1,), (count,)) for v in (scale, offset)):
        return None
    scale, offset = (np.broadcast_to(v.ravel(), count) for v in (scale, offset))
    return form._replace(matrix=scale[:, None] * form.matrix, offset=scale * form.offset + offset)


def _arithmetic(node: Node, form: PixelForm) -> PixelForm | None:
    """Arithmetic of one tensor with one constant."""
    given = [*node.args, *node.kwargs.values()]
    tensor = [isinstance(value, Ref) for value in given]
    if len(given) != 2 or sum(tensor) != 1:
        return None
    constant, first = _constant(given[tensor.index(False)]), tensor[0]
    if constant is None or (node.kind not in ("Add", "Multiply", "Subtract") and not (first and np.all(constant))):
        return None
    if node.kind == "Add":
        return _scaled(form, 1.0, constant)
    if node.kind == "Subtract":
        return _scaled(form, 1.0, -constant) if first else _scaled(form, -1.0, constant)
    return _scaled(form, constant if node.kind == "Multiply" else 1 / constant, 0.0)


def _constant(value: Any) -> np.ndarray | None:
    if isinstance(value, Mapping) and value.get("class_name") in ("__tensor__", "__numpy__"):
        value = value["config"]["value"]
    return (
        np.asarray(value, np.float64) if isinstance(value, (int, float, list)) and not isinstance(value, bool) else None
    )


def _cast(node: Node, form: PixelForm) -> PixelForm | None:
    dtype = node.config.get("dtype", node.kwargs.get("dtype", node.args[1] if len(node.args) > 1 else None))
    return form if dtype in _FLOATS else None


def _item(node: Node, form: PixelForm) -> PixelForm | None:
    """``x[..., i]``, ``x[..., ::-1]`` and the like, without slicing other axes."""
    keys = node.args[1] if len(node.args) > 1 else node.kwargs.get("key")
    if not isinstance(keys, (list, tuple)) or not keys or not form.stacked:
        return None
    *before, last = keys
    if not (len(before) == 3 or _is_ellipsis(before)) or not all(map(_is_whole, before)):
        return None
    if isinstance(last, Mapping):
        steps = [last["config"].get(key) for key in ("start", "stop", "step")] if not _is_whole(last) else [None] * 3
        return _chosen(form, range(len(form.matrix))[slice(*steps)])
    inside = isinstance(last, int) and -len(form.matrix) <= last < len(form.matrix)
    return form._replace(matrix=form.matrix[[last]], offset=form.offset[[last]], stacked=False) if inside else None


def _is_ellipsis(keys: Sequence[Any]) -> bool:
    return [isinstance(key, Mapping) and key.get("class_name") == "__ellipsis__" for key in keys].count(True) == 1


def _is_whole(key: Any) -> bool:
    """``:`` or ``...``"""
    if not isinstance(key, Mapping):
        return False
    config = key.get("config", {})
    return not any(config.get(one) is not None for one in ("start", "stop", "step"))


def _chosen(form: PixelForm, channels: Sequence[int]) -> PixelForm | None:
    kept = list(channels)
    return form._replace(matrix=form.matrix[kept], offset=form.offset[kept]) if kept else None


def _flip(node: Node, form: PixelForm) -> PixelForm | None:
    return _chosen(form, range(len(form.matrix))[::-1]) if _axis(node, "axis") in (-1, 3) and form.stacked else None


def _take(node: Node, form: PixelForm) -> PixelForm | None:
    places = _constant(node.args[1] if len(node.args) > 1 else node.kwargs.get("indices"))
    if places is None or places.ndim != 1 or _axis(node, "axis") not in (-1, 3) or not form.stacked:
        return None
    inside = bool(np.all((places >= 0) & (places < len(form.matrix))))
    return _chosen(form, places.astype(int).tolist()) if inside else None


def _axis(node: Node, key: str) -> Any:
    axis = node.config.get(key, node.kwargs.get(key))
    return axis[0] if isinstance(axis, (list, tuple)) and len(axis) == 1 else axis


def _joined(node: Node, forms: Sequence[PixelForm]) -> PixelForm | None:
    """Channels that are concatenated or stacked again."""
    kind, axis = node.kind, _axis(node, "axis")
    stack = kind == "Stack" and not any(form.stacked for form in forms)
    concatenated = kind == "Concatenate" and all(form.stacked for form in forms)
    moved = {form.moved for form in forms}
    if not (stack or concatenated) or axis not in (-1, 3) or len(moved) > 1:
        return None
    matrix, offset = (np.concatenate(values) for values in zip(*((f.matrix, f.offset) for f in forms), strict=True))
    return PixelForm(matrix, offset, moved=moved.pop())


_OPERATIONS: dict[str, Callable[[Node, PixelForm], PixelForm | None]] = {
    **dict.fromkeys(("Add", "Subtract", "Multiply", "TrueDivide", "Divide"), _arithmetic),
    "Cast": _cast,
    "GetItem": _item,
    "Flip": _flip,
    "Take": _take,
}
