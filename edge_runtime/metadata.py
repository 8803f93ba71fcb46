"""``polyhead.json``: everything the runtime must know that a ``.tflite`` file cannot say."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Dict, Mapping, Optional, Tuple, Union

import numpy as np

from edge_runtime.errors import BundleError
from edge_runtime.identity import Identity, bounded_text
from edge_runtime.quantization import FLOAT, Quantization
from edge_runtime.text import TextInput

FORMAT_VERSION = 1
BACKBONE, JOINT, END_TO_END = "backbone", "joint", "serving_default"  # the signatures that are no head
ALL = "all"  # one more, the scores of all heads at once; older files lack it, and may have a head of this name
FEATURES = "features"  # the tensor between backbone and heads, or the deepest of several
RESERVED_NAMES = (BACKBONE, JOINT, END_TO_END)
HEAD_NAME = re.compile(r"[a-z][a-z0-9_]*")
RESIZE_METHODS = ("nearest", "bilinear", "bicubic", "lanczos", "area")
RESIZE_FITS = ("stretch", "crop", "pad")
COLORS = {"RGB": 3, "L": 1}  # Pillow's names and how many channels; L is greyscale
ACTIVATIONS = ("softmax", "sigmoid")
_LARGEST = (1 << 53) - 1  # what every reader of JSON takes for the same number
# Older interpreters have signatures, but run those of all subgraphs but the first on the wrong tensors, and say nothing:
# tflite-runtime 2.8.0 and 2.9.1 gave all labels the same probability, 2.10.0 to 2.14.0 answered rightly.
OLDEST_RUNTIME = (2, 10)


@dataclass(frozen=True)
class ImageInput:
    """The picture the backbone takes: uint8 (1, height, width, channels), and how a larger picture becomes one.

    ``fit``: ``stretch`` ignores the aspect ratio, ``crop`` takes the largest centred part that has it, ``pad`` adds
    black. ``color``: of ``COLORS``.
    """

    height: int
    width: int
    method: str = "bilinear"
    antialias: bool = True
    fit: str = "stretch"
    kind: str = "image"
    color: str = "RGB"

    @property
    def name(self) -> str:
        """The name of the input in the signatures."""
        return "image"

    @property
    def noun(self) -> str:
        """The users' word for such samples."""
        return "pictures"

    def __str__(self) -> str:
        antialias = "antialiased" if self.antialias else "not antialiased"
        color = "greyscale" if self.color == "L" else self.color
        return f"{self.width} x {self.height} {color}, {self.fit}, {self.method}, {antialias}"

    @property
    def shape(self) -> Tuple[int, ...]:
        return (1, self.height, self.width, COLORS[self.color])

    @property
    def dtype(self) -> Any:
        return np.dtype(np.uint8)

    def to_json(self) -> Dict[str, Any]:
        """The member's ``input``."""
        return asdict(self)


@dataclass(frozen=True)
class SeamTensor:
    """One tensor between backbone and heads. ``shape``: without the batch axis.

    ``digest``: of everything the float backbone does to get there, as the builder counts it; by it a further head is
    known to belong here.
    """

    name: str
    shape: Tuple[int, ...]
    quantization: Quantization = FLOAT
    digest: str = ""


@dataclass(frozen=True)
class HeadInfo:
    """One head: its labels in the order of its scores, and what turned its last numbers into probabilities.

    ``title``: what people call it, in any script; empty where nobody said, and in older files.
    """

    head_name: str
    labels: Tuple[str, ...]
    activation: str = "softmax"
    bytes: int = 0  # what this head adds to the file
    title: str = ""


@dataclass(frozen=True)
class Metadata:
    """The contents of ``polyhead.json``."""

    MEMBER: ClassVar[str] = "polyhead.json"

    input: Union[ImageInput, TextInput]
    backbone_digest: str
    seam: Tuple[SeamTensor, ...]  # ``features``, and what else heads read of the backbone
    heads: Tuple[HeadInfo, ...]
    model_bytes: int = 0  # length of the flatbuffer before the members
    scores: Quantization = FLOAT  # of every head's scores
    min_runtime: Tuple[int, int] = OLDEST_RUNTIME  # TensorFlow Lite (major, minor) that has the operators
    joint: Optional[Mapping[str, Any]] = None
    quality: Mapping[str, Any] = field(default_factory=dict)
    built: Mapping[str, Any] = field(default_factory=dict)
    identity: Identity = field(default_factory=Identity)

    def to_json(self) -> dict[str, Any]:
        """The member ``polyhead.json``."""
        identity = self.identity.to_json()
        return {
            "format_version": FORMAT_VERSION,
            "model_bytes": self.model_bytes,
            "input": self.input.to_json(),
            "backbone": {
                "digest": self.backbone_digest,
                "features": list(self.seam[0].shape),
                "seam": [_seam_tensor_to_json(tensor) for tensor in self.seam],
            },
            "scores": {"quantization": _quantization_to_json(self.scores)},
            "min_runtime": ".".join(map(str, self.min_runtime)),
            "heads": [_head_to_json(head) for head in self.heads],
            "joint": self.joint,
            "quality": dict(self.quality),
            "built": dict(self.built),
            **({"identity": identity} if identity else {}),
        }

    @classmethod
    def from_json(cls, document: Any, vocabulary: Any = None) -> Metadata:
        """Read what ``to_json`` wrote. ``vocabulary``: the member of that name, where the file has one.

        Raises ``BundleError`` naming the first field that is missing or wrong.
        """
        _check_version(document)
        backbone = _get(document, "backbone", dict)
        seam = _seam(backbone)
        if seam[0].name != FEATURES:
            raise BundleError(f"expected a seam that begins with {FEATURES!r}")
        if _get(backbone, "features", list) != list(seam[0].shape):
            raise BundleError(f"expected features {list(seam[0].shape)} as in the seam, found another shape")
        heads = tuple(_head(item) for item in _get(document, "heads", list))
        if len({h.head_name for h in heads}) != len(heads):
            raise BundleError("expected heads with names of their own")
        return cls(
            input=_input(_get(document, "input", dict), vocabulary),
            backbone_digest=_get(backbone, "digest", str),
            seam=seam,
            heads=heads,
            model_bytes=_get(document, "model_bytes", int),
            scores=_quantization(_get(_get(document, "scores", dict), "quantization", dict)),
            min_runtime=_version(_get(document, "min_runtime", str)),
            joint=None if document.get("joint") is None else _get(document, "joint", dict),
            quality=_quality(_get(document, "quality", dict)),
            built=_get(document, "built", dict),
            identity=Identity.from_json(document.get("identity")),
        )


@dataclass(frozen=True)
class HeadPack:
    """The contents of ``polyhead-head.json``: a head in a file of its own, for every file with its backbone.

    ``seam``: the tensors that it reads. ``scores``: how its scores are quantized.
    """

    MEMBER: ClassVar[str] = "polyhead-head.json"
    head: HeadInfo
    backbone_digest: str
    seam: Tuple[SeamTensor, ...]
    scores: Quantization
    model_bytes: int = 0
    min_runtime: Tuple[int, int] = OLDEST_RUNTIME
    quality: Mapping[str, Any] = field(default_factory=dict)
    built: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> Dict[str, Any]:
        """The member ``polyhead-head.json``."""
        return {
            "format_version": FORMAT_VERSION,
            "model_bytes": self.model_bytes,
            "backbone": {"digest": self.backbone_digest, "seam": [_seam_tensor_to_json(tensor) for tensor in self.seam]},
            "scores": {"quantization": _quantization_to_json(self.scores)},
            "min_runtime": ".".join(map(str, self.min_runtime)),
            "head": _head_to_json(self.head),
            "quality": dict(self.quality),
            "built": dict(self.built),
        }

    @classmethod
    def from_json(cls, document: Any, vocabulary: Any = None) -> HeadPack:
        """Read what ``to_json`` wrote; a pack has no ``vocabulary`` of its own.

        Raises ``BundleError`` naming the first field that is missing or wrong.
        """
        _check_version(document)
        backbone = _get(document, "backbone", dict)
        return cls(
            head=_head(_get(document, "head", dict)),
            backbone_digest=_get(backbone, "digest", str),
            seam=_seam(backbone),
            scores=_quantization(_get(_get(document, "scores", dict), "quantization", dict)),
            model_bytes=_get(document, "model_bytes", int),
            min_runtime=_version(_get(document, "min_runtime", str)),
            quality=_quality(_get(document, "quality", dict)),
            built=_get(document, "built", dict),
        )


def check_new_head_name(name: str) -> None:
    """The same for a head that is not in a file yet: ``all`` too is taken."""
    check_head_name(name)
    if name == ALL:
        raise ValueError(f"head name {name!r} is taken by the file itself; choose another")


def check_head_name(name: str) -> None:
    """Raises ``ValueError`` for a name that cannot be a signature of its own."""
    if not HEAD_NAME.fullmatch(name):
        raise ValueError(f"head name {name!r:.60}: expected small letters, digits and _, beginning with a letter")
    if name in RESERVED_NAMES:
        raise ValueError(f"head name {name!r} is taken by the file itself; choose another")


def _check_version(document: Any) -> None:
    version = _get(document, "format_version", int)
    if version != FORMAT_VERSION:
        raise BundleError(
            f"expected format_version {FORMAT_VERSION}, found {version}; "
            "use the edge_runtime that belongs to the builder that wrote it"
        )


def _head_to_json(head: HeadInfo) -> Dict[str, Any]:
    return {
        "head_name": head.head_name,
        **({"title": head.title} if head.title else {}),
        "labels": list(head.labels),
        "activation": head.activation,
        "bytes": head.bytes,
    }


def _seam_tensor_to_json(tensor: SeamTensor) -> Dict[str, Any]:
    quantization = _quantization_to_json(tensor.quantization)
    return {"name": tensor.name, "shape": list(tensor.shape), "quantization": quantization, "digest": tensor.digest}


def _quantization_to_json(quantization: Quantization) -> Mapping[str, Any]:
    dtype = np.dtype(quantization.dtype).name
    return {"dtype": dtype, "scale": quantization.scale, "zero_point": quantization.zero_point}


def _quantization(item: Mapping[str, Any]) -> Quantization:
    """Older interpreters tell it wrongly for all subgraphs but the first, so the members say it."""
    dtype = _choice(item.get("dtype"), ("int8", "uint8", "int16", "float32"), "a quantization's dtype")
    scale = item.get("scale")
    if not isinstance(scale, (int, float)) or isinstance(scale, bool) or not 0 <= scale < 1e9:
        raise BundleError(f"expected a scale as a number, found {scale!r:.60}")
    return Quantization(float(scale), _get(item, "zero_point", int), np.dtype(dtype))


def _get(document: Any, key: str, kind: type) -> Any:
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        raise BundleError(f"expected {key!r} as {kind.__name__}, found {value!r:.60}")
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise BundleError(f"expected {key!r} of at most {_LARGEST}, found a number of {len(str(value))} digits")
    return value


def _version(text: str) -> Tuple[int, int]:
    found = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", text, re.ASCII)
    if found is None:
        raise BundleError(f"expected min_runtime as 2.10, found {text!r:.60}")
    return int(found[1]), int(found[2])


def _positive(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 24:
        raise BundleError(f"expected {what} as a positive number, found {value!r:.60}")
    return value


def _seam(backbone: Mapping[str, Any]) -> Tuple[SeamTensor, ...]:
    seam = tuple(_seam_tensor(item) for item in _get(backbone, "seam", list))
    if not seam or len({t.name for t in seam}) != len(seam):
        raise BundleError("expected a seam of one or more tensors, each name once")
    return seam


def _seam_tensor(item: Any) -> SeamTensor:
    shape = tuple(_positive(n, "features") for n in _get(item, "shape", list))
    if not shape:
        raise BundleError("expected features with a shape, found none")
    quantization = _quantization(_get(item, "quantization", dict))
    return SeamTensor(_get(item, "name", str), shape, quantization, _get(item, "digest", str))


def _choice(value: Any, valid: Tuple[str, ...], what: str) -> str:
    if value not in valid:
        raise BundleError(f"expected {what} as one of {', '.join(valid)}, found {value!r:.60}")
    return str(value)


def _input(item: Mapping[str, Any], vocabulary: Any) -> Union[ImageInput, TextInput]:
    kind = _choice(item.get("kind"), ("image", "tokens", "sequences"), "input kind")
    return _image_input(item) if kind == "image" else TextInput.from_json(item, vocabulary)


def _image_input(item: Mapping[str, Any]) -> ImageInput:
    return ImageInput(
        height=_positive(item.get("height"), "input height"),
        width=_positive(item.get("width"), "input width"),
        method=_choice(item.get("method"), RESIZE_METHODS, "input method"),
        antialias=_get(item, "antialias", bool),
        fit=_choice(item.get("fit"), RESIZE_FITS, "input fit"),
        kind=_choice(item.get("kind"), ("image",), "input kind"),
        color=_choice(item.get("color"), tuple(COLORS), "input color"),
    )


def _quality(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Empty before a build has verified itself; else with figures for each head, of which ``info`` prints two."""
    for head in (_get(item, "heads", dict) if "heads" in item else {}).values():
        _get(head, "pictures", int)
        _get(head, "agreement", float)
    return item


def _head(item: Any) -> HeadInfo:
    name = _get(item, "head_name", str)
    try:
        check_head_name(name)
    except ValueError as error:
        raise BundleError(f"{error}") from error
    labels = _get(item, "labels", list)
    if not labels or not all(isinstance(label, str) and label for label in labels):
        raise BundleError(f"expected the labels of {name} as a list of strings, found {labels!r:.60}")
    activation = _choice(item.get("activation"), ACTIVATIONS, "activation")
    title = bounded_text(f"the title of {name}", item.get("title", ""))
    return HeadInfo(name, tuple(labels), activation, _get(item, "bytes", int), title)
