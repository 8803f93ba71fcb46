"""Read a vocabulary file: a list of tokens, or a ``Tokenizer`` of Keras 2."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builder.support.errors import ConfigError, ModelFileError
from edge_runtime.errors import BundleError, reason
from edge_runtime.files import read_file
from edge_runtime.text import PADDING, UNKNOWN, check_vocabulary, check_words
from edge_runtime.word_index import WordIndex

MAX_VOCABULARY = 64 << 20  # bytes
_PICKLE = b"\x80"  # first byte of a pickle of protocol 2 and later
_UNKNOWN_MARKS = ("<oov>", "<unk>", "<unknown>", "[oov]", "oov_token")


def read_vocabulary(path: Path) -> tuple[tuple[str, ...], WordIndex | None]:
    """The token of each number, and, for the output of ``Tokenizer.to_json()``, how it splits a text into words.

    Otherwise the file has one token on each line, like Keras's ``vocabulary.txt``, or is a JSON list; the padding and the
    unknown token may be left out. Raises ``ConfigError``.
    """
    try:
        data = read_file(path, MAX_VOCABULARY)
        if data[:1] == _PICKLE:
            raise ConfigError(f"{path} is a pickle, which may run code; load it yourself and write its to_json()")
        text = data.decode("utf-8-sig" if data[3:4] in (b"{", b"[") else "utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the vocabulary cannot be read ({reason(error)}); expected UTF-8 text") from error
    try:
        document = _json(text)
        if isinstance(document, Mapping):
            return _word_index(document)
        return _listed(_lines(text) if document is None else document), None
    except (ValueError, RecursionError, BundleError) as error:
        raise ConfigError(f"{path}: the vocabulary: {error}") from error


def has_unknown_token(path: Path) -> bool:
    """Whether a vocabulary that was read names the token for unknown words itself. Raises ``OSError``."""
    return UNKNOWN.encode() in read_file(path, MAX_VOCABULARY)


def _lines(text: str) -> list[str]:
    """A line for each token. Windows ends all lines in a carriage return, which is then in no token."""
    lines = text.split("\n")
    windows = len(lines) > 1 and all(line.endswith("\r") for line in lines[:-1])
    return [line.removesuffix("\r") for line in lines] if windows else lines


def _json(text: str) -> Any:
    """The text as JSON, a table or a list; None where it is neither."""
    try:
        found = json.loads(text) if text.lstrip()[:1] in ("{", "[") else None
    except ValueError:
        return None  # a token may begin like JSON: "[PAD]"
    if isinstance(found, str):  # the result of to_json() written by json.dump
        found = json.loads(found)
    return found


def _listed(tokens: Any) -> tuple[str, ...]:
    while tokens and not tokens[-1]:
        tokens = tokens[:-1]
    odd = next((token for token in tokens if not isinstance(token, str)), None)
    if odd is not None:
        raise ValueError(f"expected a list of tokens, found {odd!r:.60} in it")
    if tokens and tokens[0].strip().lower() in _UNKNOWN_MARKS:
        raise ValueError(
            f"it begins with {tokens[0]!r:.60} like the words of a Tokenizer, which numbers and splits words differently "
            "from TextVectorization; give the output of its to_json()"
        )
    return whole_vocabulary(tuple(tokens))


def whole_vocabulary(tokens: tuple[str, ...]) -> tuple[str, ...]:
    """The vocabulary with the padding and the unknown token in front, as Keras takes it. Raises ``ValueError``."""
    whole = tokens if UNKNOWN in tokens else (PADDING, UNKNOWN, *tokens)
    check_vocabulary(whole)
    odd = next((token for token in whole if token.endswith("\0")), None)
    if odd is not None:
        raise ValueError(f"Keras cannot keep the token {odd!r:.60}, which ends in a zero byte")
    "".join(whole).encode("utf-8")  # no text can contain half a character
    return whole


def _word_index(document: Mapping[str, Any]) -> tuple[tuple[str, ...], WordIndex]:
    """Raises ``ValueError``."""
    config = document.get("config")
    if document.get("class_name") != "Tokenizer" or not isinstance(config, Mapping):
        raise ValueError(
            "expected the output of Tokenizer.to_json(), found another JSON table; a word_index alone does not tell how "
            "texts are split and which words were kept"
        )
    index = config.get("word_index")
    index = json.loads(index) if isinstance(index, str) else index
    if not isinstance(index, Mapping) or not all(type(n) is int and n > 0 for n in index.values()):
        raise ValueError(f"expected word_index as a table of numbers from 1 on, found {index!r:.60}")
    unknown, kept = _unknown(config, index), _kept(config)
    words = {n: word for word, n in index.items() if n == unknown or kept is None or n < kept}
    last = max(words, default=0)
    if last > 2 * len(index) + 1 or len(set(index.values())) != len(index):
        raise ValueError("expected a different number for each word of word_index, without large gaps")
    tokens = tuple(words.get(n, PADDING) for n in range(last + 1))
    check_words(tokens)
    "".join(tokens).encode("utf-8")
    filters = config.get("filters", "")
    if isinstance(filters, list) and all(isinstance(character, str) for character in filters):
        filters = "".join(filters)
    settings = {
        "filters": filters,
        **{key: config.get(key, default) for key, default in (("lower", True), ("split", " "), ("char_level", False))},
        "unknown": unknown,
    }
    return tokens, WordIndex.from_json(settings, len(tokens))


def _unknown(config: Mapping[str, Any], index: Mapping[str, int]) -> int | None:
    """The number of unknown words."""
    token = config.get("oov_token")
    if token is None:
        return None
    if not isinstance(token, str) or token not in index:
        raise ValueError(f"its oov_token {token!r:.60} has no number in word_index; fit the Tokenizer again")
    return index[token]


def _kept(config: Mapping[str, Any]) -> int | None:
    """The number from which on words are unknown; None where all are known."""
    kept = config.get("num_words")
    if kept is not None and (type(kept) is not int or kept < 0):
        raise ValueError(f"expected num_words as null or a number, found {kept!r:.60}")
    return kept or None


def check_output_mode(config: Mapping[str, Any], path: Path) -> None:
    """Check that a TextVectorization gives the numbers of tokens. ``config``: its settings. Raises ``ModelFileError``."""
    found = config.get("output_mode", "int")
    if found != "int":
        raise ModelFileError(
            f"{path}: TextVectorization: expected output_mode 'int', found {found!r:.60}; devices give tokens their "
            'numbers and do not count them; train it with output_mode="int", an Embedding and GlobalAveragePooling1D, '
            "which ignore the order of words too"
        )
