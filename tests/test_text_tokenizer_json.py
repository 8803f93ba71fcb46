"""Keras 2's ``Tokenizer`` and ``pad_sequences``: what a device makes of a text equals what they made in the training."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
from hypothesis import given, settings
from hypothesis import strategies as st

from builder import BuildConfig, HeadConfig, build
from builder.reading.text_input import declared_words, text_notes, unknown_words
from builder.settings.heads import TextConfig
from builder.support.errors import ConfigError, ModelFileError
from edge_runtime import MultiHeadClassifier
from edge_runtime.errors import BundleError
from edge_runtime.text import TextInput, Tokenizer
from tests.tiny_models import seed_weights
from tests.tiny_texts import LENGTH, sentences, text_base, text_classifier

PIECES = ["the", "The", "film", "don't", "ÄRGER", "ärger", "İ", "ß", "Σ", "é", "<oov>"]
PIECES += [" ", "  ", "\t", "\n", "-", "...", "x", "0"]
texts = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
CHOICES = {
    "filters": st.sampled_from(['!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n', "", "-", "x "]),
    "lower": st.booleans(),
    "split": st.sampled_from([" ", "-", "x", "  "]),
    "char_level": st.booleans(),
    "num_words": st.sampled_from([None, 0, 1, 2, 4, 1000]),
    "oov_token": st.sampled_from([None, "<OOV>", "the", "<oov>"]),
}


def load_tokenizer() -> Any:
    """The class of tf_keras, from its one file: two Keras in one process share TensorFlow's state."""
    package = importlib.util.find_spec("tf_keras")
    if package is None:
        pytest.skip("tf_keras is not installed", allow_module_level=True)
    path = Path(package.submodule_search_locations[0]) / "src" / "preprocessing" / "text.py"  # type: ignore[index]
    spec = importlib.util.spec_from_file_location("old_keras_text", path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module.Tokenizer


OldTokenizer = load_tokenizer()


def write(tokenizer: Any, folder: Path) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(tokenizer.to_json(), "utf-8")
    return path


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.fixed_dictionaries(CHOICES), st.lists(texts, max_size=6), st.lists(texts, min_size=1, max_size=6), st.data())
def test_any_tokenizer_gives_the_numbers_that_it_gave(
    tmp_path_factory: pytest.TempPathFactory, chosen: dict, fitted: list[str], shown: list[str], data: st.DataObject
) -> None:
    sides = {key: data.draw(st.sampled_from(["pre", "post"])) for key in ("padding", "truncating")}
    length = data.draw(st.sampled_from([1, 3, 20]))
    old = OldTokenizer(**chosen)
    old.fit_on_texts(fitted)
    if chosen["oov_token"] is not None and not old.word_index:
        return  # which nobody fitted
    expected = keras.utils.pad_sequences(old.texts_to_sequences(shown), length, **sides)
    path = write(old, tmp_path_factory.mktemp("tokenizer"))
    words = declared_words(TextConfig(path, **sides), length)
    read = TextInput.from_json(json.loads(json.dumps(words.to_json())), list(words.vocabulary))
    assert read == words
    found = np.concatenate([Tokenizer(read)(text) for text in shown])
    np.testing.assert_array_equal(found, expected)
    if words.vocabulary:
        assert found.max() < len(words.vocabulary)


def small(**settings: Any) -> Any:
    old = OldTokenizer(**settings)
    old.fit_on_texts(sentences(60))
    return old


def test_the_defaults_are_those_of_pad_sequences_for_a_tokenizer_and_of_text_vectorization_for_a_list(
    tmp_path: Path,
) -> None:
    words = declared_words(TextConfig(write(small(), tmp_path)), 5)
    assert (words.padding, words.truncating) == ("pre", "pre")
    (tmp_path / "words.txt").write_text("a\nb\n")
    listed = TextConfig(tmp_path / "words.txt")
    words = declared_words(listed, 3)
    assert (words.padding, words.truncating, words.kind) == ("post", "post", "tokens")
    words = declared_words(replace(listed, padding="pre", truncating="pre"), 3)
    assert Tokenizer(words)("a b c").tolist() == [[2, 3, 1]]
    assert Tokenizer(words)("b a b b a").tolist() == [[3, 3, 2]]
    assert Tokenizer(words)("a").tolist() == [[0, 0, 2]]
    assert words.to_json()["kind"] == "sequences"  # which versions before refuse, instead of padding on the wrong side


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("special", [["", "[UNK]"], []])
def test_lines_end_as_on_any_system_and_a_list_without_special_tokens_is_told(
    tmp_path: Path, special: list[str], end: str, last: bool
) -> None:
    """The words of a Tokenizer look the same, and have other numbers."""
    path = tmp_path / "words.txt"
    path.write_bytes((end.join([*special, "a", "b c", "d"]) + end * last).encode())
    words = declared_words(TextConfig(path), 3)
    assert words.vocabulary == ("", "[UNK]", "a", "b c", "d")
    notes = text_notes(words, TextConfig(path), [b"a d a"])
    assert [note for note in notes if "numbered from 2 on" in note] == ([] if special else list(notes))
    assert len(notes) == (not special)
    path.write_bytes(b"a\r\nb\nc\r")  # not all: a character like any other
    assert declared_words(TextConfig(path), 3).vocabulary[2:] == ("a\r", "b", "c\r")


def test_a_json_list_is_a_list_of_tokens(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    path.write_text('["", "[UNK]", "one", "two"]')
    assert declared_words(TextConfig(path), 3).vocabulary == ("", "[UNK]", "one", "two")
    path.write_text("[PAD]\n[CLS]\n")  # one token a line, though it begins as a list does
    assert declared_words(TextConfig(path), 3).vocabulary == ("", "[UNK]", "[PAD]", "[CLS]")


def tokenizer_json(**changes: Any) -> str:
    document = json.loads(small(oov_token="<OOV>").to_json())
    document["config"].update(changes)
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"the": 1, "film": 2}', "a word_index alone does not tell how texts are split"),
        ('{"class_name": "Other", "config": {}}', "expected the output of Tokenizer.to_json"),
        (tokenizer_json(word_index="[1]"), "expected word_index as a table"),
        (tokenizer_json(word_index='{"a": 0}'), "expected word_index as a table"),
        (tokenizer_json(word_index='{"a": 1, "b": 1}', oov_token=None), "a different number for each word"),
        (tokenizer_json(word_index='{"a": 900}', oov_token=None), "without large gaps"),
        (tokenizer_json(word_index='{"a"', oov_token=None), "the vocabulary: "),
        (tokenizer_json(word_index='{"\\ud800": 1}', oov_token=None), "the vocabulary: "),
        (tokenizer_json(word_index='{"a": 1}'), "oov_token '<OOV>' has no number"),
        (tokenizer_json(num_words="many"), "expected num_words"),
        (tokenizer_json(split=""), "settings of a Tokenizer"),
        (tokenizer_json(filters=5), "settings of a Tokenizer"),
        (tokenizer_json(lower="yes"), "settings of a Tokenizer"),
        ("[1, 2]", "expected a list of tokens, found 1"),
        ("<OOV>\nthe\nfilm\n", "like the words of a Tokenizer"),
    ],
)
def test_what_does_not_say_enough_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "words.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected) as caught:
        declared_words(TextConfig(path), 4)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pickle_is_named_and_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.pickle"
    path.write_bytes(b"\x80\x04\x95\x10")
    with pytest.raises(ConfigError, match=r"is a pickle.*to_json"):
        declared_words(TextConfig(path), 4)


def test_a_tokenizer_says_how_texts_are_split_and_the_settings_must_not(tmp_path: Path) -> None:
    path = write(small(), tmp_path)
    for given_too in ({"standardize": "lower"}, {"split": None}, {"ngrams": (1, 2)}):
        with pytest.raises(ConfigError, match="leave standardize, split and ngrams out"):
            declared_words(TextConfig(path, **given_too), 4)


@pytest.mark.parametrize("damage", [{"word_index": 5}, {"word_index": {}}, {"padding": "left"}])
def test_damaged_members_are_refused(tmp_path: Path, damage: dict) -> None:
    words = declared_words(TextConfig(write(small(), tmp_path)), 4)
    with pytest.raises(BundleError, match="expected input"):
        TextInput.from_json({**words.to_json(), **damage}, list(words.vocabulary))
    beyond = {**words.to_json()["word_index"], "unknown": len(words.vocabulary)}
    with pytest.raises(BundleError, match="settings of a Tokenizer"):
        TextInput.from_json({**words.to_json(), "word_index": beyond}, list(words.vocabulary))


def sequences_config(folder: Path, *, open_length: bool = False, **text: Any) -> BuildConfig:
    """A classifier of token numbers, the Tokenizer it was trained with, and texts."""
    path = write(small(num_words=40, oov_token="<OOV>"), folder)
    if open_length:
        source = keras.Input((None,), dtype="int32")
        x = keras.layers.Embedding(48, 8, name="embedding")(source)
        x = keras.layers.GlobalMaxPooling1D()(keras.layers.Conv1D(16, 3, activation="relu", padding="same")(x))
        model = keras.Model(source, keras.layers.Dense(3, activation="softmax", name="scores")(x))
        seed_weights(model, 3)
    else:
        body = keras.Sequential([keras.layers.Conv1D(16, 3, activation="relu"), keras.layers.Flatten()])
        model = text_classifier(text_base(words=None, body=body), 3)
    model.save(folder / "mood.keras")
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text("\n".join(sentences(80)) + "\n", "utf-8")
    return BuildConfig(
        output=folder / "mood.tflite",
        calibration_data=folder / "texts",
        heads=(HeadConfig("mood", folder / "mood.keras", ("a", "b", "c")),),
        min_agreement=0.0,
        rounding="nearest",
        text=TextConfig(path, **text),
    )


@pytest.mark.parametrize("open_length", [False, True])
def test_a_model_with_a_tokenizer_goes_the_whole_way(tmp_path: Path, open_length: bool) -> None:
    config = sequences_config(tmp_path, open_length=open_length, maxlen=LENGTH)
    config = replace(config, saved_model=tmp_path / "served", keras_output=tmp_path / "merged.keras")
    result = build(config)
    assert any("the defaults of pad_sequences" in warning for warning in result.report.warnings)
    old = small(num_words=40, oov_token="<OOV>")
    some = [*sentences(30, seed=9), "", "w1 " * 40, "ÄÖ w2 — w3!"]
    tokens = keras.utils.pad_sequences(old.texts_to_sequences(some), LENGTH)
    truth = np.asarray(keras.models.load_model(config.heads[0].model)(tokens))
    with MultiHeadClassifier(result.output) as classifier:
        found = np.stack([classifier.head_scores(classifier.features(text), "mood") for text in some])
        assert "words of a Tokenizer, padded pre, cut pre" in str(classifier.metadata.input)
    np.testing.assert_allclose(found, truth, atol=0.06)
    assert (found.argmax(1) == truth.argmax(1)).mean() > 0.9
    merged = keras.models.load_model(config.keras_output)
    np.testing.assert_allclose(np.asarray(keras.tree.flatten(merged(tokens))[0]), truth, atol=1e-5)


def test_a_length_that_is_not_the_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"text.maxlen: expected {LENGTH}, the length of the input of .*, found 5"):
        build(sequences_config(tmp_path, maxlen=5))


def test_an_open_length_has_to_be_said(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"fixed length, found \(None, None\); say .* \(text\.maxlen\)"):
        build(sequences_config(tmp_path, open_length=True))


def test_texts_of_other_words_are_warned_of_and_so_is_one_answer_to_all(tmp_path: Path) -> None:
    config = sequences_config(tmp_path, padding="pre", truncating="pre")
    words = declared_words(config.text, LENGTH)  # type: ignore[arg-type]
    assert unknown_words(words, [b"w1 w2 w3", b"nobody knows this w4"]) == pytest.approx(3 / 7)
    lines = [" ".join(f"word{i % 7}" for i in range(n % 12 + 1)) + f" w{n % 2}" for n in range(60)]
    (tmp_path / "texts" / "a.txt").write_text("\n".join(lines) + "\n")
    report = build(config).report
    assert any("of the words of the calibration texts are not in the vocabulary" in w for w in report.warnings)
    assert not any("the defaults of pad_sequences" in warning for warning in report.warnings)
    same = [warning for warning in report.warnings if warning.startswith("the original gives one and the same answer")]
    answers = {q.always for q in report.quality.heads}
    assert bool(same) == (answers != {None})


def test_one_answer_to_all_is_no_agreement() -> None:
    from builder.judging.verify import judge

    one = np.tile(np.array([[0.7, 0.3]], np.float32), (5, 1))
    assert judge("a", np.arange(5), one, one, "softmax").always == 0
    assert judge("a", np.arange(5), np.roll(one, 1, 1), one, "sigmoid").always == 1
    other = one.copy()
    other[3] = [0.2, 0.8]
    assert judge("a", np.arange(5), other, one, "softmax").always is None
    assert judge("a", np.arange(5), other, one, "sigmoid").always is None
    assert judge("a", np.arange(1), one[:1], one[:1], "softmax").always is None
