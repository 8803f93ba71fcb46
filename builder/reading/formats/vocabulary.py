"""Vocabularies of text layers, which Keras saves as separate files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.core.framework import types_pb2

from builder.reading.formats.stored import LayerPath
from builder.reading.vocabulary import check_output_mode
from builder.support.errors import ModelFileError

TEXT_LAYER = "TextVectorization"
_NAME = "vocabulary.txt"


def is_vocabulary(member: str) -> bool:
    """Whether a member of a ``.keras`` archive may be a vocabulary."""
    return member.startswith("assets/") and member.endswith(_NAME)


def give_vocabularies(
    groups: Iterable[tuple[LayerPath, str, Mapping[str, Any]]], members: Mapping[str, bytes], path: Path
) -> None:
    """Put each vocabulary into the settings of its layer, in place.

    ``groups``: (names, group of its weights, definition) of every layer. ``members``: files by names in the archive.
    Raises ``ModelFileError``.
    """
    for _, group, layer in groups:
        if layer["class_name"] == TEXT_LAYER:
            check_output_mode(layer["config"], path)  # Keras takes the vocabulary of no other from a file
        data = members.get(f"assets/{group}/{_NAME}") or members.get(f"assets/{group}/_lookup_layer/{_NAME}")
        if layer["class_name"] == TEXT_LAYER and data is not None and layer["config"].get("vocabulary") is None:
            layer["config"]["vocabulary"] = _tokens(data, path)


def table_tokens(meta_graph: Any, fill: int, path: Path) -> list[str]:
    """The tokens of a SavedModel's table, in the order of their numbers, which begin at 2.

    ``fill``: the object of the function that fills the table with two constants. Raises ``ModelFileError``.
    """
    objects = meta_graph.object_graph_def
    function = objects.nodes[fill].bare_concrete_function.concrete_function_name
    function = function or next(iter(objects.nodes[fill].function.concrete_functions), "")
    names = [objects.nodes[n].constant.operation for n in objects.concrete_functions[function].bound_inputs]
    constants = {node.name: node.attr["value"].tensor for node in meta_graph.graph_def.node if node.name in names}
    words = [word for name in names if name in constants for word in constants[name].string_val]
    numbers = [n for name in names if name in constants for n in _numbers(constants[name])]
    try:
        by_number = {number: word.decode("utf-8") for number, word in zip(numbers, words, strict=True)}
    except ValueError as error:  # of different lengths, or not UTF-8
        raise ModelFileError(f"{path}: the vocabulary of its text layer is broken ({error}); save it again") from error
    if sorted(by_number) != list(range(2, len(words) + 2)):
        raise ModelFileError(
            f"{path}: expected the words of its text layer as numbers 2 to {len(words) + 1}; save it again"
        )
    return [by_number[number] for number in sorted(by_number)]


def _numbers(tensor: Any) -> list[int]:
    """The numbers of an int64 constant; empty for any other."""
    if tensor.dtype != types_pb2.DT_INT64:
        return []
    return list(tensor.int64_val) or np.frombuffer(tensor.tensor_content, "<i8").tolist()


def _tokens(data: bytes, path: Path) -> list[str]:
    """Tokens split at every kind of line break, as Keras does, without empty ones at the end."""
    try:
        tokens = data.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{path}: its vocabulary is not UTF-8 text ({error}); save the model again") from error
    while tokens and not tokens[-1]:
        tokens.pop()
    return tokens
