"""A model whose layers are in a library and not in the file: only the library can make them, in another process, where
they are converted to operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from builder.reading.formats.cleaned import half_notes
from builder.reading.formats.libraries import Library, library_of
from builder.reading.formats.stored import NoLayersError, Origin, contradictions
from builder.reading.originals.original import KerasOriginal
from builder.settings.heads import ResizeConfig
from builder.settings.input_scaling import PixelTransform, parse_preprocessing
from builder.support.errors import ModelFileError


@dataclass(frozen=True)
class LibraryModel:
    """A model with layers of a library. ``origin``: what its own preprocessor does to pictures; ``size``: height and
    width to which that resizes them, if it does.
    """

    path: Path
    title: str
    original: KerasOriginal
    origin: Origin = field(default_factory=Origin)
    size: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()


def check_layers_inside(
    definition: Mapping[str, Any], path: Path, copy: Callable[[Path], Path], *, allow_code: bool
) -> None:
    """Raises ``NoLayersError`` for a model with layers of a library, and ``ModelFileError`` where that is not installed.

    ``definition``: a checked one. ``copy``: see ``KerasOriginal``.
    """
    found = list(dict.fromkeys(filter(None, map(_library, _tables(definition)))))
    if not found:
        return
    for library in found:
        if find_spec(library.package) is None:
            raise ModelFileError(
                f"{path}: its layers are in {library.title} and not in the file, and {library.title} is not installed "
                f"here: {library.install}; or export it where it is, model.export(FOLDER), and give that folder"
            )
    preprocessor = _converter(definition)
    raw = PixelTransform() if any(map(_scales, _tables(definition))) else None
    with contradictions(path):
        told = (Origin(preprocessing=raw), None, ()) if preprocessor is None else _preprocessor(preprocessor, path)
    origin, size, notes = told
    packages = tuple(library.package for library in found)
    original = KerasOriginal(
        path, "keras", copy, allow_code=allow_code, packages=packages, preprocessor=preprocessor is not None
    )
    title = " and ".join(library.title for library in found)
    raise NoLayersError(
        f"{path}: its layers are in {title} and not in the file: it can be read as a classifier, but not as layers",
        LibraryModel(path, title, original, origin, size, (*half_notes(definition), *notes)),
    )


def _converter(definition: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The settings of the ``ImageConverter`` in the model's own preprocessor."""
    try:
        found = definition["config"]["preprocessor"]["config"]["image_converter"]["config"]
    except (TypeError, KeyError):
        return None
    return found if isinstance(found, dict) else None


def _tables(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every table in a configuration, however deep."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from _tables(item)


def _library(value: Mapping[str, Any]) -> Library | None:
    return library_of(value.get("module"), value.get("class_name", ""), value.get("registered_name"))


def _scales(value: Mapping[str, Any]) -> bool:
    """Whether a table of a configuration is that of a layer that scales pixels, or of a backbone with one."""
    return value.get("class_name") in _SCALING or value.get("include_rescaling") is True


_SCALING = ("Rescaling", "Normalization")


def _preprocessor(how: Mapping[str, Any], path: Path) -> tuple[Origin, tuple[int, int] | None, tuple[str, ...]]:
    """What an ``ImageConverter`` with the settings ``how`` does to pictures: scaling and resizing, the size, and notes.

    Source: keras_hub 0.32, ``ImageConverter.call``: it resizes, then computes ``x * scale + offset``.
    """
    numbers = {key: _plain(how.get(key), otherwise) for key, otherwise in (("scale", 1.0), ("offset", 0.0))}
    scaling = parse_preprocessing(numbers, f"{path}: its ImageConverter")
    if how.get("image_size") is None:
        return Origin(preprocessing=scaling), None, ()
    height, width = map(int, how["image_size"])
    told, antialias = how.get("interpolation", "bilinear"), bool(how.get("antialias"))
    method = _METHODS.get(told)
    fit = "crop" if how.get("crop_to_aspect_ratio", True) else "pad" if how.get("pad_to_aspect_ratio") else "stretch"
    exact = method in ("nearest", "bilinear") or (method is not None and antialias)
    resize = ResizeConfig(method, antialias if exact else True, fit)
    filtered = f"{told!r:.40}, {'' if antialias else 'not '}antialiased"
    note = f"its preprocessor resizes pictures by {filtered}, which devices do not; they are resized by {resize}"
    return Origin(preprocessing=scaling, resize=resize), (height, width), () if exact else (note,)


_METHODS = {"nearest": "nearest", "bilinear": "bilinear", "bicubic": "bicubic", "lanczos3": "lanczos"}


def _plain(value: Any, otherwise: float) -> Any:
    """A setting of the ``ImageConverter``: None stands for ``otherwise``, a list of one number for the number."""
    value = otherwise if value is None else value
    return value[0] if isinstance(value, list) and len(value) == 1 else value
