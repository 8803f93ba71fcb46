"""What one layer or operation makes of pixels, where that is an affine function of the channels of each pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from builder.reading.graph import Node, Ref
from builder.reading.layers import does_nothing_at_inference
from builder.reading.shapes import is_operation
from builder.reading.spelling import moments

MOVING = ("Resizing", "CenterCrop", "Cropping2D", "UpSampling2D")
_LUMA = np.array([[0.2989, 0.5870, 0.1140]])  # of red, green and blue in ``rgb_to_grayscale``
_FLOATS = (None, "float32", "float64")  # None: definitions omit float32


class PixelForm(NamedTuple):
    """``matrix @ pixel + offset``: (channels, those of a pixel) and (channels,). ``stacked``: False for one channel
    without an axis. ``moved``: nodes in between that move or average pixels, in their order.
    """

    matrix: np.ndarray
    offset: np.ndarray
    stacked: bool = True
    moved: tuple[int, ...] = ()


def moves(node: Node) -> bool:
    """Whether each output pixel is an input pixel or a mean of several, in the same way for every channel."""
    config = node.config
    plain = config.get("data_format") in (None, "channels_last") and not config.get("pad_to_aspect_ratio")
    return node.kind in MOVING and not is_operation(node) and plain


def layer_form(node: Node, forms: Mapping[Ref, PixelForm]) -> PixelForm | None:
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
    if moves(node):
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


def _mixed(form: PixelForm, weights: np.ndarray) -> PixelForm:
    """The products of all channels with ``weights`` (channels made, channels), added up."""
    return form._replace(matrix=weights @ form.matrix, offset=weights @ form.offset)


def _grey(node: Node, form: PixelForm) -> PixelForm | None:
    last = node.config.get("data_format") in (None, "channels_last")
    return _mixed(form, _LUMA) if last and form.stacked and len(form.matrix) == _LUMA.size else None


def _reduced(node: Node, form: PixelForm) -> PixelForm | None:
    """The sum or the mean of the channels."""
    if _axis(node, "axis") not in (-1, 3) or not form.stacked:
        return None
    weights = np.full((1, len(form.matrix)), 1.0 if node.kind == "Sum" else 1 / len(form.matrix))
    return _mixed(form, weights)._replace(stacked=bool(node.config.get("keepdims")))


def _with_axis(node: Node, form: PixelForm) -> PixelForm | None:
    return form._replace(stacked=True) if _axis(node, "axis") in (-1, 3) and not form.stacked else None


def _product(node: Node, form: PixelForm) -> PixelForm | None:
    """A product of the channels with a constant (channels, channels made) or (channels,)."""
    weights = _constant(node.args[1]) if len(node.args) == 2 and isinstance(node.args[0], Ref) else None
    if weights is None or weights.ndim not in (1, 2) or len(weights) != len(form.matrix) or not form.stacked:
        return None
    return (
        _mixed(form, np.atleast_2d(weights.T))._replace(stacked=weights.ndim == 2)
        if node.config.get("axes", 1) == 1
        else None
    )


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
    "RGBToGrayscale": _grey,
    **dict.fromkeys(("Sum", "Mean"), _reduced),
    "ExpandDims": _with_axis,
    **dict.fromkeys(("Matmul", "Dot", "Tensordot"), _product),
}
