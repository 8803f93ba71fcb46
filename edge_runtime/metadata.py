"""``polyhead.json``: the metadata that the runtime needs and a ``.tflite`` file cannot hold."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Dict, Mapping, Optional, Tuple, Union

import numpy as np

from edge_runtime.checked import field_of, one_of, positive
from edge_runtime.errors import BundleError
from edge_runtime.identity import Identity, bounded_text
from edge_runtime.image_input import ImageInput
from edge_runtime.quantization import FLOAT, Quantization
from edge_runtime.text import TextInput

FORMAT_VERSION = 1
BACKBONE, JOINT, END_TO_END = "backbone", "joint", "serving_default"  # the signatures that are no head
ALL = "all"  # one more, the scores of all heads at once; older files lack it, and may have a head of this name
FEATURES = "features"  # the tensor between backbone and heads, or the deepest of several
RESERVED_NAMES = (BACKBONE, JOINT, END_TO_END)
HEAD_NAME = re.compile(r"[a-z][a-z0-9_]*")
ACTIVATIONS = ("softmax", "sigmoid")
# Older interpreters have signatures, but run those of all subgraphs but the first on the wrong tensors, and say nothing:
# tflite-runtime 2.8.0 and 2.9.1 gave all labels the same probability, 2.10.0 to 2.14.0 answered rightly.
OLDEST_RUNTIME = (2, 10)


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
        backbone = field_of(document, "backbone", dict)
        seam = _seam(backbone)
        if seam[0].name != FEATURES:
            raise BundleError(f"expected a seam that begins with {FEATURES!r}")
        if field_of(backbone, "features", list) != list(seam[0].shape):
            raise BundleError(f"expected features {list(seam[0].shape)} as in the seam, found another shape")
        heads = tuple(_head(item) for item in field_of(document, "heads", list))
        if len({h.head_name for h in heads}) != len(heads):
            raise BundleError("expected heads with names of their own")
        return cls(
            input=_input(field_of(document, "input", dict), vocabulary),
            backbone_digest=field_of(backbone, "digest", str),
            seam=seam,
            heads=heads,
            model_bytes=field_of(document, "model_bytes", int),
            scores=_quantization(field_of(field_of(document, "scores", dict), "quantization", dict)),
            min_runtime=_version(field_of(document, "min_runtime", str)),
            joint=None if document.get("joint") is None else field_of(document, "joint", dict),
            quality=_quality(field_of(document, "quality", dict)),
            built=field_of(document, "built", dict),
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
        backbone = field_of(document, "backbone", dict)
        return cls(
            head=_head(field_of(document, "head", dict)),
            backbone_digest=field_of(backbone, "digest", str),
            seam=_seam(backbone),
            scores=_quantization(field_of(field_of(document, "scores", dict), "quantization", dict)),
            model_bytes=field_of(document, "model_bytes", int),
            min_runtime=_version(field_of(document, "min_runtime", str)),
            quality=_quality(field_of(document, "quality", dict)),
            built=field_of(document, "built", dict),
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
    version = field_of(document, "format_version", int)
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
    dtype = one_of(item.get("dtype"), ("int8", "uint8", "int16", "float32"), "a quantization's dtype")
    scale = item.get("scale")
    if not isinstance(scale, (int, float)) or isinstance(scale, bool) or not 0 <= scale < 1e9:
        raise BundleError(f"expected a scale as a number, found {scale!r:.60}")
    return Quantization(float(scale), field_of(item, "zero_point", int), np.dtype(dtype))


def _version(text: str) -> Tuple[int, int]:
    found = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", text, re.ASCII)
    if found is None:
        raise BundleError(f"expected min_runtime as 2.10, found {text!r:.60}")
    return int(found[1]), int(found[2])


def _seam(backbone: Mapping[str, Any]) -> Tuple[SeamTensor, ...]:
    seam = tuple(_seam_tensor(item) for item in field_of(backbone, "seam", list))
    if not seam or len({t.name for t in seam}) != len(seam):
        raise BundleError("expected a seam of one or more tensors, each name once")
    return seam


def _seam_tensor(item: Any) -> SeamTensor:
    shape = tuple(positive(n, "features") for n in field_of(item, "shape", list))
    if not shape:
        raise BundleError("expected features with a shape, found none")
    quantization = _quantization(field_of(item, "quantization", dict))
    return SeamTensor(field_of(item, "name", str), shape, quantization, field_of(item, "digest", str))


def _input(item: Mapping[str, Any], vocabulary: Any) -> Union[ImageInput, TextInput]:
    kind = one_of(item.get("kind"), ("image", "tokens", "sequences"), "input kind")
    return ImageInput.from_json(item) if kind == "image" else TextInput.from_json(item, vocabulary)


def _quality(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Empty before a build has verified itself; else with figures for each head, of which ``info`` prints two."""
    for head in (field_of(item, "heads", dict) if "heads" in item else {}).values():
        field_of(head, "pictures", int)
        field_of(head, "agreement", float)
    return item


def _head(item: Any) -> HeadInfo:
    name = field_of(item, "head_name", str)
    try:
        check_head_name(name)
    except ValueError as error:
        raise BundleError(f"{error}") from error
    labels = field_of(item, "labels", list)
    if set(map(type, labels)) != {str} or not all(labels):
        raise BundleError(f"expected the labels of {name} as a list of strings, found {labels!r:.60}")
    activation = one_of(item.get("activation"), ACTIVATIONS, "activation")
    title = bounded_text(f"the title of {name}", item.get("title", ""))
    return HeadInfo(name, tuple(labels), activation, field_of(item, "bytes", int), title)
