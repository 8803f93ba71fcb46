"""``edge_runtime.text`` against Keras's own ``TextVectorization``, text by text and number by number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.reading.text_input import text_layer
from edge_runtime.errors import BundleError, TextError
from edge_runtime.text import MAX_LENGTH, SPLIT, STANDARDIZE, TextInput, Tokenizer

WORDS = (
    "a",
    "b",
    "a b",
    "é",
    "É",
    "straße",
    "strasse",
    "ä",
    "�",
    "x\u00a0y",
    "don't",
    "dont",
    "🙂",
    "e\u0301",
    "ß",
)
SPEC = TextInput(6, ("", "[UNK]", *WORDS))
CHOICES = [
    replace(SPEC, standardize=standardize, split=split, ngrams=ngrams)
    for standardize in (*STANDARDIZE, None)
    for split in (*SPLIT, None)
    for ngrams in (None, (1, 2), (3, 1))
    if split or not ngrams
]
LAYERS = [text_layer(spec) for spec in CHOICES]
# What the words are made of, and what is near to it: other spaces, other cases, signs that are no ASCII punctuation.
PIECES = [
    *WORDS,
    *(word.upper() for word in WORDS),
    " ",
    "  ",
    "\t",
    "\n",
    "\x0b",
    "\x0c",
    "\r",
    "\x1c",
    "\x85",
    "\u2028",
]
PIECES += ["\x00", "\u2028", "\u3000", "\ufeff", "—", "“", "!", "'", "_", "[UNK]", "İ", "ſ", "\x7f", "\u200b", "", "0"]
texts = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=12).map("".join)


def assert_like_the_layer(texts: list[bytes]) -> None:
    batch = tf.constant([[text] for text in texts])
    for spec, layer in zip(CHOICES, LAYERS, strict=True):
        expected = np.asarray(layer(batch))
        found = np.concatenate([Tokenizer(spec)(text) for text in texts])
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, expected, err_msg=f"{texts} {spec}")


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(texts.map(lambda text: text.encode("utf-8", "ignore")), min_size=1, max_size=8))
def test_texts_of_any_characters(texts: list[bytes]) -> None:
    assert_like_the_layer(texts)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.binary(max_size=20), min_size=1, max_size=8))
def test_bytes_that_are_no_utf8(texts: list[bytes]) -> None:
    assert_like_the_layer(texts)


@pytest.mark.parametrize(
    "text",
    [
        b"", b" \t ", b"no known word", b"a" * 1_000_000, b"a b " * 250_000, bytes(range(256)), b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80", b"a\xffb", b"\xf0\x9f\x98a", b"\x00a\x00 b", b"a\r\nb", b"[UNK] [unk]",
    ],
    ids=lambda text: f"{len(text)}:{text[:8]!r}",
)  # fmt: skip
def test_what_people_send_by_mistake(text: bytes) -> None:
    if len(text) > 1000:  # all of its n-grams would take the layer seconds
        for spec in CHOICES[0], CHOICES[3]:
            np.testing.assert_array_equal(Tokenizer(spec)(text), np.asarray(text_layer(spec)([[text]])))
    else:
        assert_like_the_layer([text])


def test_a_string_is_its_utf8_bytes_and_bytes_of_the_command_line_are_themselves() -> None:
    tokenizer = Tokenizer(SPEC)
    np.testing.assert_array_equal(tokenizer("Ä straße A"), tokenizer("Ä straße A".encode()))
    odd = b"a \xff b"
    np.testing.assert_array_equal(tokenizer(odd.decode("utf-8", "surrogateescape")), tokenizer(odd))


@pytest.mark.parametrize("wrong", ["\ud800", "a \udbff b", 5, None, ["a"]])
def test_what_is_no_text_is_refused(wrong: object) -> None:
    with pytest.raises(TextError, match="expected a text"):
        Tokenizer(SPEC)(wrong)  # type: ignore[arg-type]


def test_a_layer_that_was_adapted_numbers_its_words_in_the_same_order() -> None:
    layer = keras.layers.TextVectorization(output_sequence_length=6)
    layer.adapt(["The quick brown fox; the lazy dog.", "The end, the END!"])
    spec = TextInput(6, tuple(map(str, layer.get_vocabulary())))
    for text in ("the fox ends THE end", "dog-lazy brown"):
        np.testing.assert_array_equal(Tokenizer(spec)(text), np.asarray(layer([text])))


def test_numbers_of_a_text_input_are_read_to_either_end() -> None:
    item, vocabulary = SPEC.to_json(), list(SPEC.vocabulary)
    for key, most in (("length", MAX_LENGTH), ("vocabulary_size", 1 << 24)):
        for wrong in (0, -1, most + 1, True, "6", 6.0, None):
            with pytest.raises(BundleError, match=f"input {key} as a number from 1 to {most}"):
                TextInput.from_json({**item, key: wrong}, vocabulary)
    for length in (1, MAX_LENGTH):
        assert TextInput.from_json({**item, "length": length}, vocabulary) == replace(SPEC, length=length)
    for size in (1, len(vocabulary) - 1, len(vocabulary) + 1, 1 << 24):
        with pytest.raises(BundleError, match=f"expected {size} tokens"):
            TextInput.from_json({**item, "vocabulary_size": size}, vocabulary)
