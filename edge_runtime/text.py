"""A text becomes the backbone's input tensor, as Keras's ``TextVectorization`` makes it, on bytes and without TensorFlow.

The layer works on bytes: it lowers the letters A to Z only, strips ASCII punctuation only and splits at ASCII whitespace
only; whatever else is in a text, valid UTF-8 or not, passes as it is. So does this, and both give the same numbers
(``tests/test_text_tokens.py`` holds them against each other). Keras 2's ``Tokenizer`` is in ``word_index``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from edge_runtime.errors import BundleError, TextError
from edge_runtime.word_index import WordIndex

STANDARDIZE = ("lower_and_strip_punctuation", "lower", "strip_punctuation")
SPLIT = ("whitespace", "character")
SIDES = ("pre", "post")  # of a text: where zeros are added to short ones, where long ones are cut
PADDING, UNKNOWN = "", "[UNK]"  # the first two tokens of every vocabulary of TextVectorization
MAX_LENGTH = 1 << 16
MAX_NGRAM = 16
_PUNCTUATION = b"!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~'"

Text = Union[str, bytes]


@dataclass(frozen=True)
class TextInput:
    """The tokens the backbone takes, int32 (1, length), and how a text becomes them; the settings are those of Keras.

    ``vocabulary``: the token of each number, ``PADDING`` and ``UNKNOWN`` first; a member of the file of its own.
    ``word_index``: where Keras 2's ``Tokenizer`` made the words; then ``standardize``, ``split`` and ``ngrams`` are None,
    and a number without a word has ``PADDING``. ``padding``, ``truncating``: as in ``pad_sequences``.
    """

    length: int
    vocabulary: Tuple[str, ...]
    standardize: Optional[str] = STANDARDIZE[0]
    split: Optional[str] = SPLIT[0]
    ngrams: Optional[Tuple[int, ...]] = None
    needs_words: bool = False  # the model gives no number for a text without any: the mean of none
    word_index: Optional[WordIndex] = None
    padding: str = "post"
    truncating: str = "post"

    @property
    def kind(self) -> str:
        """As TextVectorization does it, or in another way, which older versions of this package do not know."""
        return "tokens" if (self.word_index, self.padding, self.truncating) == (None, "post", "post") else "sequences"

    @property
    def name(self) -> str:
        """The name of the input in the signatures."""
        return "tokens"

    @property
    def noun(self) -> str:
        """The users' word for such samples."""
        return "texts"

    def __str__(self) -> str:
        how = [str(self.word_index)] if self.word_index else [w for w in (self.standardize, self.split) if w]
        how += [] if self.kind == "tokens" else [f"padded {self.padding}, cut {self.truncating}"]
        return f"text, {self.length} tokens of a vocabulary of {len(self.vocabulary):,}, {', '.join(how) or 'as it is'}"

    @property
    def shape(self) -> Tuple[int, ...]:
        return (1, self.length)

    @property
    def dtype(self) -> Any:
        return np.dtype(np.int32)

    def check_numbers(self, tokens: np.ndarray) -> None:
        """Raises ``TextError`` where ``tokens``, int32, are not all in the vocabulary, or the model has no answer."""
        if self.needs_words and not tokens.any():
            raise TextError("expected a text with at least one word, found none: this model gives no number for it (NaN)")
        if tokens.min() < 0 or tokens.max() >= len(self.vocabulary):
            low, high = int(tokens.min()), int(tokens.max())
            raise TextError(f"expected tokens from 0 to {len(self.vocabulary) - 1}, found some from {low} to {high}")

    def to_json(self) -> Dict[str, Any]:
        """The member's ``input``, without the vocabulary, of which it tells the length."""
        fields = {"kind": self.kind, "length": self.length, "standardize": self.standardize, "split": self.split}
        ngrams = None if self.ngrams is None else list(self.ngrams)
        numbers = {"vocabulary_size": len(self.vocabulary), "needs_words": self.needs_words}
        whole = {**fields, "ngrams": ngrams, **numbers}
        if self.kind != "tokens":
            words = None if self.word_index is None else self.word_index.to_json()
            whole.update(word_index=words, padding=self.padding, truncating=self.truncating)
        return whole

    @classmethod
    def from_json(cls, item: Mapping[str, Any], vocabulary: Any) -> TextInput:
        """What ``to_json`` wrote, and the member of the vocabulary. Raises ``BundleError``."""
        spec = cls(
            length=_number(item, "length", MAX_LENGTH),
            vocabulary=_tokens(vocabulary, _number(item, "vocabulary_size", 1 << 24)),
            standardize=_choice(item, "standardize", STANDARDIZE),
            split=_choice(item, "split", SPLIT),
            ngrams=_ngrams(item.get("ngrams")),
            needs_words=_flag(item, "needs_words"),
        )
        if item.get("kind") == "sequences":
            words = item.get("word_index")
            spec = replace(
                spec,
                word_index=None if words is None else WordIndex.from_json(words, len(spec.vocabulary)),
                padding=_choice(item, "padding", SIDES) or "post",
                truncating=_choice(item, "truncating", SIDES) or "post",
            )
        try:
            if spec.word_index is None:
                check_vocabulary(spec.vocabulary)
            else:
                check_words(spec.vocabulary)
        except ValueError as error:
            raise BundleError(f"the vocabulary: {error}") from error
        return spec


def check_vocabulary(tokens: Sequence[str]) -> None:
    """Raises ``ValueError`` for a vocabulary that does not begin as Keras's do, or has a token twice."""
    if list(tokens[:2]) != [PADDING, UNKNOWN]:
        raise ValueError(f"expected it to begin with {PADDING!r} and {UNKNOWN!r}, found {list(tokens[:2])!r:.60}")
    _check_once(tokens)


def check_words(tokens: Sequence[str]) -> None:
    """The same for the words of a ``Tokenizer``: 0 is no word, and neither is a number with ``PADDING``."""
    if list(tokens[:1]) != [PADDING]:
        raise ValueError(f"expected it to begin with {PADDING!r}, found {list(tokens[:1])!r:.60}")
    _check_once([token for token in tokens if token != PADDING])


def _check_once(tokens: Sequence[str]) -> None:
    if len(set(tokens)) != len(tokens):
        twice = next(token for token, count in Counter(tokens).items() if count > 1)
        raise ValueError(f"expected each token once, found {twice!r:.60} again")


class Tokenizer:
    """From texts to tensors; keeps the vocabulary as a table."""

    def __init__(self, spec: TextInput) -> None:
        self._spec = spec
        self._numbers: Dict[bytes, int] = {}
        self._unknown = 1 if spec.word_index is None else spec.word_index.unknown

    def __call__(self, text: Text) -> np.ndarray:
        """int32 (1, length): the numbers of the tokens, cut and padded with 0 on the side that the spec says.

        Those that are not known get the number for that, or none where there is none. ``text``: a string, or bytes in
        whatever encoding the model was trained on. Raises ``TextError``.
        """
        found, length = [n for n in self._found(text) if n is not None], self._spec.length
        found = found[-length:] if self._spec.truncating == "pre" else found[:length]
        tokens = np.zeros(self._spec.shape, np.int32)
        start = length - len(found) if self._spec.padding == "pre" else 0
        tokens[0, start : start + len(found)] = found
        return tokens

    def known(self, text: Text) -> Tuple[int, int]:
        """Return the number of tokens of the text that are in the vocabulary, and of all. Raises ``TextError``."""
        found = self._found(text)
        return sum(n not in (None, self._unknown) for n in found), len(found)

    def _found(self, text: Text) -> List[Optional[int]]:
        if not self._numbers:
            words = {token.encode("utf-8"): n for n, token in enumerate(self._spec.vocabulary)}
            if self._spec.word_index is not None:
                words.pop(b"", None)
            self._numbers = words
        return [self._numbers.get(token, self._unknown) for token in split_text(_as_bytes(text), self._spec)]


def split_text(data: bytes, spec: TextInput) -> List[bytes]:
    """The tokens of a text in their order; at least the first ``spec.length`` of them, or all where the last are kept."""
    if spec.word_index is not None:
        return [word.encode("utf-8", "surrogateescape") for word in spec.word_index.words(data)]
    if spec.standardize in ("lower", "lower_and_strip_punctuation"):
        data = data.lower()  # of bytes: A to Z
    if spec.standardize in ("strip_punctuation", "lower_and_strip_punctuation"):
        data = data.translate(None, _PUNCTUATION)
    if spec.split == "character":
        tokens = [character.encode("utf-8") for character in data.decode("utf-8", "replace")]
    elif spec.split == "whitespace":
        everything = spec.ngrams or spec.truncating == "pre"
        tokens = data.split() if everything else data.split(None, spec.length)[: spec.length]
    else:
        tokens = [data]
    return tokens if spec.ngrams is None else _joined(tokens, spec.ngrams)


def _joined(tokens: Sequence[bytes], widths: Sequence[int]) -> List[bytes]:
    """All runs of ``widths[0]`` tokens, then those of ``widths[1]``, and so on."""
    return [b" ".join(tokens[i : i + n]) for n in widths for i in range(len(tokens) - n + 1)]


def _as_bytes(text: Text) -> bytes:
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise TextError(f"expected a text (str or bytes), found {type(text).__name__}")
    try:
        # Bytes of the command line that are no UTF-8 come as such surrogates.
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise TextError(f"expected a text, found half a character at place {error.start}: {text!r:.60}") from error


def _number(item: Mapping[str, Any], key: str, most: int) -> int:
    value = item.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
        raise BundleError(f"expected input {key} as a number from 1 to {most}, found {value!r:.60}")
    return value


def _flag(item: Mapping[str, Any], key: str) -> bool:
    value = item.get(key)
    if not isinstance(value, bool):
        raise BundleError(f"polyhead.json: expected input {key} as true or false, found {value!r:.60}")
    return value


def _choice(item: Mapping[str, Any], key: str, valid: Tuple[str, ...]) -> Optional[str]:
    value = item.get(key)
    if value is not None and value not in valid:
        raise BundleError(f"expected input {key} as null, {' or '.join(valid)}, found {value!r:.60}")
    return value


def _ngrams(value: Any) -> Optional[Tuple[int, ...]]:
    if value is None:
        return None
    if isinstance(value, list) and value and all(type(n) is int and 0 < n <= MAX_NGRAM for n in value):
        return tuple(value)
    raise BundleError(f"expected input ngrams as null or numbers up to {MAX_NGRAM}, found {value!r:.60}")


def _tokens(value: Any, size: int) -> Tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(token, str) for token in value):
        raise BundleError(f"the vocabulary: expected a list of tokens, found {type(value).__name__}")
    if len(value) != size:
        raise BundleError(f"the vocabulary: expected {size} tokens as polyhead.json says, found {len(value)}")
    return tuple(value)
