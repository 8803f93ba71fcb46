"""Vocabularies of text layers, which Keras saves as files beside the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from builder.reading.formats.complete import layers_within
from builder.reading.formats.stored import LayerPath
from builder.support.errors import ModelFileError

TEXT_LAYER = "TextVectorization"
_NAME = "vocabulary.txt"


def is_vocabulary(member: str) -> bool:
    """May a member of a ``.keras`` archive be one?"""
    return member.startswith("assets/") and member.endswith(_NAME)


def give_vocabularies(
    definition: Mapping[str, Any],
    groups: Iterable[tuple[LayerPath, str, str]],
    members: Mapping[str, bytes],
    path: Path,
) -> None:
    """Put each vocabulary into the settings of its layer, in place.

    ``groups``: (names, group of its weights, class) of every layer. ``members``: files by their names in the archive.
    Raises ``ModelFileError``.
    """
    layers = layers_within(definition, ())
    for place, group, kind in groups:
        data = members.get(f"assets/{group}/{_NAME}") or members.get(f"assets/{group}/_lookup_layer/{_NAME}")
        if kind == TEXT_LAYER and data is not None and layers[place]["config"].get("vocabulary") is None:
            layers[place]["config"]["vocabulary"] = _tokens(data, path)


def _tokens(data: bytes, path: Path) -> list[str]:
    """As Keras reads them, at every kind of line break, empty ones at the end left out."""
    try:
        tokens = data.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{path}: its vocabulary is not UTF-8 text ({error}); save the model again") from error
    while tokens and not tokens[-1]:
        tokens.pop()
    return tokens
