"""Labels and input scaling of a ``.tflite``: from its own metadata, from files beside it, or from its structure.

Sources of the formats, besides the files themselves: Lobe's starter projects (``signature.json``; centre square, x /
255); Azure-Samples/customvision-export-samples (``cvexport.manifest``; stretched, raw, blue first); for Teachable
Machine and Frigate see ``builder.reading.formats.downloads``; the metadata schema of TensorFlow Lite.
"""

from __future__ import annotations

import io
import itertools
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from builder.reading.formats.downloads import TEACHABLE
from builder.reading.formats.labels import MAX_LABEL_FILE, labels_in, labels_of_text, teachable_labels
from builder.reading.formats.stored import Origin
from builder.reading.graph import Graph
from builder.settings.heads import ResizeConfig
from builder.settings.input_scaling import CHANNELS, PREPROCESSING, PixelTransform
from builder.support.errors import ConfigError
from builder.tflite.flatbuffer import file_metadata
from builder.tflite.metadata import BUFFER_NAME, Told, read_model_metadata

Beside = Callable[[str], "bytes | None"]  # reads the named file beside the model; None where there is none
_LABEL_FILES = ("labels.txt", "label.txt", "labelmap.txt", "dict.txt", "classes.json", "labels.json", "class_names.txt")
_SUFFIXES = (".txt", ".json", ".csv")
EDGE_IMPULSE = "Edge Impulse"
_TEACHABLE_SIZE = (224, 224)
_BLUE_FIRST = PixelTransform(order=(2, 1, 0))
_EDGE_IMPULSE_FITS = {"squash": "stretch", "fit-shortest": "crop", "fit-longest": "pad"}
_TAIL = ["MEAN", "FULLY_CONNECTED", "FULLY_CONNECTED", "SOFTMAX"]  # of Teachable Machine and of Frigate


@dataclass(frozen=True)
class Known:
    """``tool``: the tool that made the file, if known."""

    tool: str | None
    origin: Origin
    notes: tuple[str, ...] = ()


def origin_of(name: str, beside: Beside, model: bytes, graph: Graph, size: tuple[int, int], labels: int) -> Known:
    """What is known about the file ``name`` with content ``model``, and about files beside it.

    ``size``: of pictures; ``labels``: their number.
    """
    found = _lobe(name, beside) or _custom_vision(name, beside) or _edge_impulse(beside) or _by_shape(beside, graph, size)
    outside = found.origin if found else Origin()
    told = _told(model)
    inside = Origin() if told is None else _metadata(model, told)
    own = ((origin.labels, origin.labels_file) for origin in (inside, outside))
    names, file = next(_fitting(itertools.chain(own, _neighbours(name, beside)), labels), (None, ""))
    origin = Origin(names, inside.preprocessing or outside.preprocessing, outside.resize, labels_file=file)
    return Known(found.tool if found else None, origin, (_CALIBRATED,) if told is not None and told.calibrated else ())


_CALIBRATED = (
    "its metadata calibrates each score behind the network (ScoreCalibration), which neither the interpreter nor the "
    "built file does: scores are those of the network itself"
)
_Labels = tuple[tuple[str, ...] | None, str]  # and the file, as ``Origin.labels_file``


def _fitting(candidates: Iterable[_Labels], labels: int) -> Iterator[_Labels]:
    """The candidates with a label for each output; one output may have two labels."""
    return (
        (names, file) for names, file in candidates if names and (len(names) == labels or (labels, len(names)) == (1, 2))
    )


def _told(model: bytes) -> Told | None:
    content = file_metadata(model).get(BUFFER_NAME)
    return None if content is None else read_model_metadata(content)


def _metadata(model: bytes, told: Told) -> Origin:
    """TensorFlow Lite metadata: the labels are zip members of the file, in one or several languages."""
    transform = None
    if told.normalization is not None:
        mean, std = (np.asarray(values) for values in told.normalization)
        transform = PixelTransform().then(1 / std, -mean / std)
    try:
        with zipfile.ZipFile(io.BytesIO(model)) as archive:
            texts = [_text_in(archive, name) for name in told.label_files]
    except (zipfile.BadZipFile, NotImplementedError):
        texts = []
    return Origin(next((labels_of_text(text) for text in texts if text), None), transform)


def _text_in(archive: zipfile.ZipFile, name: str) -> str | None:
    try:
        if archive.getinfo(name).file_size > MAX_LABEL_FILE:
            return None
        return archive.read(name).decode("utf-8-sig")
    except (KeyError, UnicodeDecodeError, RuntimeError, OSError):
        return None


def _neighbours(name: str, beside: Beside) -> Iterator[_Labels]:
    """Labels from a file with the model's name, else from cats_labels.txt for cats_model.tflite, or the usual files.

    A .json with the model's name may be many things: it comes first only where it has labels.
    """
    stem = Path(name).stem
    own, like = [f"{stem}{suffix}" for suffix in _SUFFIXES], re.sub("model", "labels", stem, count=1, flags=re.IGNORECASE)
    usual = dict.fromkeys([*(f"{like}{suffix}" for suffix in _SUFFIXES), *_LABEL_FILES])
    there = [file for file in own if beside(file) is not None]
    for file in [file for file in there if not file.endswith(".json") or _labels(file, beside)] or usual:
        found = _labels(file, beside)
        if found is not None:  # else it is another kind of file
            yield found, file * (file in _LABEL_FILES)


def _labels(file: str, beside: Beside) -> tuple[str, ...] | None:
    data = beside(file)
    try:
        return None if data is None else labels_in(Path(file), data)
    except ConfigError:
        return None


def _json(beside: Beside, file: str) -> Mapping[str, Any]:
    """The JSON table in a file; empty where there is none."""
    try:
        found = json.loads(beside(file) or b"null")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _names(value: Any) -> tuple[str, ...] | None:
    return tuple(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def _lobe(name: str, beside: Beside) -> Known | None:
    signature = _json(beside, "signature.json")
    classes = signature.get("classes")
    if signature.get("filename") != name or not isinstance(classes, dict):
        return None
    return Known("Lobe", Origin(_names(classes.get("Label")), PREPROCESSING["unit"], ResizeConfig(fit="crop")))


def _custom_vision(name: str, beside: Beside) -> Known | None:
    manifest = _json(beside, "cvexport.manifest")
    if manifest.get("ModelFileName") != name:
        return None
    labels, told = manifest.get("LabelFileName"), manifest.get("MetadataPropsFileName")
    names = _labels(labels, beside) if _is_name(labels) else None
    properties = _json(beside, told) if _is_name(told) else {}
    return Known("Custom Vision", Origin(names, _custom_vision_pixels(properties), ResizeConfig(fit="stretch")))


def _is_name(value: Any) -> TypeGuard[str]:
    """Whether a value is the name of a file in the same folder."""
    return isinstance(value, str) and bool(value) and Path(value).name == value


def _custom_vision_pixels(properties: Mapping[str, Any]) -> PixelTransform | None:
    """The scaling from the properties: raw pixels in BGR order without any; None for a range other than 0..255."""
    if not properties:
        return _BLUE_FIRST
    layout = {"bgr8": _BLUE_FIRST, "rgb8": PixelTransform()}
    order = layout.get(str(properties.get("Image.BitmapPixelFormat", "")).lower())
    mean, std = (_numbers(properties.get(f"CustomVision.Preprocess.Normalize{name}")) for name in ("Mean", "Std"))
    if order is None or mean is None or std is None or not all(std) or "0_1" in str(properties.get(_RANGE)):
        return None
    scale = 1 / np.asarray(std)
    return order.then(scale, -np.asarray(mean) * scale)


_RANGE = "Image.NominalPixelRange"


def _numbers(text: Any) -> list[float] | None:
    try:
        found = [float(v) for v in json.loads(text)]
    except (TypeError, ValueError):
        return None
    return found if len(found) == CHANNELS and all(np.isfinite(found)) else None


def _edge_impulse(beside: Beside) -> Known | None:
    told = _json(beside, "model-parameters.json")
    told = next((told[key] for key in ("model_parameters", "modelParameters") if isinstance(told.get(key), dict)), told)
    names = _names(told.get("labels"))
    if names is None:
        return None
    fit = _EDGE_IMPULSE_FITS.get(str(told.get("image_resize_mode")))
    return Known(EDGE_IMPULSE, Origin(names, PREPROCESSING["unit"], ResizeConfig(fit=fit)))


def _by_shape(beside: Beside, graph: Graph, size: tuple[int, int]) -> Known | None:
    """Recognize Teachable Machine and Frigate: their networks end alike, in dense layers of their own sizes."""
    if [node.kind for node in graph.nodes[-len(_TAIL) :]] != _TAIL:
        return None
    no_bias = not graph.nodes[-2].weights[-1].value.any()
    hidden = len(graph.nodes[-3].weights[-1].value)
    if no_bias and size == _TEACHABLE_SIZE and hidden == 100:
        return Known(
            "Teachable Machine",
            replace(TEACHABLE, labels=_teachable(_text_of(beside, "labels.txt") or ""), labels_file="labels.txt"),
        )
    mapped = _text_of(beside, "labelmap.txt")
    if mapped and hidden == 128:
        origin = Origin(
            labels_of_text(mapped), PREPROCESSING["unit"], ResizeConfig(fit="stretch"), labels_file="labelmap.txt"
        )
        return Known("Frigate", origin)
    return None


def _teachable(text: str) -> tuple[str, ...] | None:
    try:
        return teachable_labels(text)
    except ValueError:  # a number without a name
        return None


def _text_of(beside: Beside, file: str) -> str | None:
    try:
        data = beside(file)
        return None if data is None else data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
