"""Texts through the whole tool: every kind of base, what a finished file promises, and what is refused and how."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf
from keras import layers

from builder import BuildConfig, BuildResult, build
from builder.exporting.export import export_edgetpu, export_split, export_task
from builder.growing.fitting import fits
from builder.merging.inspection import inspect
from builder.reading.loading import load_classifiers
from builder.reading.text_input import first_tokens
from builder.settings.config import ReadConfig
from builder.settings.heads import HeadConfig, TextConfig
from builder.support.errors import BuilderError, ConfigError, ModelFileError, NoSharedBackboneError, SamplesError
from edge_runtime import BundleError, EdgeRuntimeError, MultiHeadClassifier, TextError, UnknownHeadError
from edge_runtime.bundle import append_members, read_metadata
from edge_runtime.serve.application import ServeApplication
from edge_runtime.signatures import Signatures
from edge_runtime.text import TextInput
from tests.test_serve import ask
from tests.tiny_models import elsewhere, tiny_config
from tests.tiny_texts import LENGTH, WORDS, sentences, text_base, text_classifier, text_config


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """Two heads of 3 and 4 labels. Read it; never write to its folder."""
    return build(text_config(tmp_path_factory.mktemp("text"), {"a": 3, "b": 4}, texts=60))


def test_a_stage_for_the_joint_list_is_shown_only_where_there_is_one_to_fit(
    built: BuildResult, joint: BuildResult
) -> None:
    assert "joint" not in built.report.seconds and "verify" in built.report.seconds
    assert built.report.to_json()["joint"] == {"reason": "it is switched off"}
    assert "joint" in joint.report.seconds


def test_texts_in_a_list_are_classified_in_their_order(built: BuildResult, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["one two three", b"w1 w2", "", "one two three", "ünknown"]
    with MultiHeadClassifier(built.output) as classifier:
        expected = [classifier.classify_text(text, heads=["b"]).classifications for text in texts]
        ran: list[str] = []
        run = classifier._model.run
        monkeypatch.setattr(classifier._model, "run", lambda name, inputs: (ran.append(name), run(name, inputs))[1])
        found = classifier.classify_texts(iter(texts), heads=iter(["b"]))
        assert [result.classifications for result in found] == expected
        assert ran.count("backbone") == 4  # the same text is computed once
        assert classifier.classify_texts([]) == []
        for wrong, word in (("one text", "a list of texts"), (["w1", 3], "text 1: "), (["w1", ["w2"]], "text 1: ")):
            with pytest.raises(TextError, match=word):
                classifier.classify_texts(wrong)


def test_texts_are_served_as_they_are_classified(built: BuildResult) -> None:
    texts = ["one two three", "", "ünknown \U0001f600"]
    with MultiHeadClassifier(built.output) as classifier:
        app = ServeApplication(classifier, {"name": "t", "version": None, "digest": "d"}, {})
        expected = [classifier.classify_text(text, heads=["b"]).to_dict()["classifications"] for text in texts]
        status, answer = ask(app, "/classify", json.dumps({"texts": texts, "heads": ["b"]}).encode())
        assert (status, [result["classifications"] for result in answer["results"]]) == (200, expected)
        assert ask(app, "/classify", json.dumps({"pictures": ["aaaa"]}).encode())[0] == 400
        assert "texts" in json.dumps(ask(app, "/openapi.json")[1]["paths"]["/classify"])


def attention(x: Any) -> Any:
    x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(2, 8, name="attention")(x, x)]))
    return layers.GlobalAveragePooling1D()(x)


BODIES: dict[str, tuple[Callable[[Any], Any] | None, bool, float]] = {  # body, mask_zero, least dB of the features
    "mean": (None, False, 30),
    "mean of what is there": (None, True, 25),
    "convolution": (lambda x: layers.GlobalMaxPooling1D()(layers.Conv1D(8, 3, activation="relu")(x)), False, 30),
    "lstm": (lambda x: layers.LSTM(6)(x), True, 20),
    "both ways": (lambda x: layers.Bidirectional(layers.GRU(4))(x), False, 20),
    "attention": (attention, True, 20),
}


SLOW = ("lstm", "both ways", "attention")


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW)) for kind in BODIES])
def test_every_kind_of_base_goes_the_whole_way(tmp_path: Path, kind: str) -> None:
    body, mask_zero, least = BODIES[kind]
    base = text_base(body=body, mask_zero=mask_zero)
    result = build(text_config(tmp_path, {"a": 3, "b": 4}, base=base, rounding="nearest"))
    assert result.report.equivalence.difference < 1e-5
    assert result.quality.features_snr_db > least
    original = keras.models.load_model(tmp_path / "b.keras")
    some = sentences(10, seed=9)
    with MultiHeadClassifier(result.output) as classifier:
        found = np.stack([classifier.head_scores(classifier.features(text), "b") for text in some])
    np.testing.assert_allclose(found, original(tf.constant(some)), atol=0.15)


def test_the_vocabulary_lies_beside_the_model_and_the_same_inputs_give_the_same_bytes(
    built: BuildResult, tmp_path: Path
) -> None:
    with zipfile.ZipFile(built.output) as archive:
        assert json.loads(archive.read("vocabulary.json")) == ["", "[UNK]", *WORDS]
        document = json.loads(archive.read("polyhead.json"))["input"]
    assert document == {
        "kind": "tokens", "length": LENGTH, "standardize": "lower_and_strip_punctuation", "split": "whitespace",
        "ngrams": None, "vocabulary_size": len(WORDS) + 2, "needs_words": False,
    }  # fmt: skip
    assert build(elsewhere(built, tmp_path)).output.read_bytes() == built.output.read_bytes()


def test_odd_texts_get_the_answer_that_the_model_gives(built: BuildResult) -> None:
    original = keras.models.load_model(built.output.parent / "a.keras")
    # The same word again and again is further out than any text that calibrated: int8 stops there.
    odd = [b"", b"nothing known here", b"w1 " * 350_000, b"\xff\xfe w1", b"\x00 w2 \x07", bytes(range(256))]
    with MultiHeadClassifier(built.output) as classifier:
        for text in odd:
            (answer,) = classifier.classify_text(text, heads=["a"]).classifications
            scores = [c.score for c in sorted(answer.categories, key=lambda c: c.index)]
            np.testing.assert_allclose(scores, np.asarray(original(tf.constant([text])))[0], atol=0.15)


def test_the_mean_of_no_words_is_no_number_and_no_answer(tmp_path: Path) -> None:
    config = text_config(tmp_path, {"a": 3}, base=text_base(mask_zero=True), rounding="nearest")
    with (tmp_path / "texts" / "a" / "texts.txt").open("a") as stream:
        stream.write("!!!\n...\n")
    assert np.isnan(keras.models.load_model(config.heads[0].model)(tf.constant(["..."]))).all()
    result = build(config)
    broken = [*result.report.calibration.broken, *result.report.verification.broken]
    assert sorted(broken) == ["a/texts.txt:31: no words", "a/texts.txt:32: no words"]
    with MultiHeadClassifier(result.output) as classifier:
        for text in ("", " . ", "!?"):
            with pytest.raises(TextError, match="expected a text with at least one word, found none"):
                classifier.classify_text(text)
        assert classifier.classify_text("unknown").classifications


def test_heads_by_name_and_by_index_run_alone(built: BuildResult, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    with MultiHeadClassifier(built.output) as classifier:
        run = Signatures.run
        monkeypatch.setattr(Signatures, "run", lambda self, name, tensors: ran.append(name) or run(self, name, tensors))
        assert classifier.classify_text("w1 w2", heads=[1])[0] == classifier.classify_text("w1 w2", heads=["b"])[0]
        assert ran == ["backbone", "b", "backbone", "b"]
        for wrong in (2, -1, "c", "1"):
            with pytest.raises(UnknownHeadError, match="this file has 2: a, b"):
                classifier.classify_text("w1", heads=[wrong])
        assert len(ran) == 4


def test_backbone_and_heads_of_texts_apart(built: BuildResult, tmp_path: Path) -> None:
    main, *_ = export_split(built.output, tmp_path / "apart").files
    with MultiHeadClassifier(built.output) as whole, MultiHeadClassifier(main) as apart:
        for text in sentences(6):
            assert apart.classify_text(text).classifications == whole.classify_text(text).classifications


@pytest.mark.parametrize("make", [export_task, export_edgetpu])
def test_what_takes_pictures_gets_no_texts(make: Callable[..., Any], built: BuildResult, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a file for pictures, found one for texts"):
        make(built.output, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_file_says_what_it_takes(built: BuildResult, tiny_file: Path) -> None:
    with MultiHeadClassifier(built.output) as texts, MultiHeadClassifier(tiny_file) as pictures:
        with pytest.raises(EdgeRuntimeError, match="takes texts, not pictures"):
            texts.classify("photo.jpg")
        with pytest.raises(EdgeRuntimeError, match="takes pictures, not texts"):
            pictures.classify_text("w1")
        with pytest.raises(TextError, match="expected tokens from 0 to 41, found some from 0 to 42"):
            texts.features_of(np.array([[42, *[0] * (LENGTH - 1)]], np.int32))
        with pytest.raises(TextError, match="found some from -1 to 0"):
            texts.features_of(np.array([[-1, *[0] * (LENGTH - 1)]], np.int32))
        with pytest.raises(EdgeRuntimeError, match="expected tokens of this file"):
            texts.features_of(np.zeros((1, LENGTH), np.int64))


def test_numbers_of_tokens_and_a_vocabulary_give_the_file_that_a_layer_inside_gives(
    built: BuildResult, tmp_path: Path
) -> None:
    (tmp_path / "words.txt").write_text("\n".join(WORDS) + "\n", "utf-8")
    base = text_base(words=None)
    config = text_config(tmp_path, {"a": 3, "b": 4}, base=base, texts=60)
    with pytest.raises(ConfigError, match=r"heads\.a: a\.keras takes token numbers; set how"):
        build(config)
    result = build(replace(config, text=TextConfig(tmp_path / "words.txt")))
    assert result.metadata.backbone_digest == built.metadata.backbone_digest
    with MultiHeadClassifier(built.output) as one, MultiHeadClassifier(result.output) as other:
        for text in sentences(5, seed=3):
            assert one.classify_text(text).classifications == other.classify_text(text).classifications
    with pytest.raises(ConfigError, match=r"a vocabulary and a standardization of its own; leave all but maxlen out"):
        build(replace(built.report.config, text=TextConfig(tmp_path / "words.txt")))
    (tmp_path / "words.txt").write_text("\n".join(f"x{i}" for i in range(60)), "utf-8")
    with pytest.raises(ModelFileError, match="the vocabulary has 62 tokens, the embedding 'base/embedding' 48 rows"):
        build(replace(config, text=TextConfig(tmp_path / "words.txt")))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\nb\na\n", "expected each token once, found 'a' again"),
        (b"\xff", "cannot be read"),
        (b"a\n[UNK]", "begin with"),
    ],
)
def test_vocabulary_files_that_are_none(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "words.txt").write_bytes(content)
    config = text_config(tmp_path, {"a": 3}, base=text_base(words=None), text=TextConfig(tmp_path / "words.txt"))
    with pytest.raises(ConfigError, match=words):
        build(config)


def open_base(mask_zero: bool) -> Any:
    """A base that takes texts of any length."""
    pool = layers.LSTM(8) if mask_zero else layers.GlobalAveragePooling1D()
    return text_base(body=pool, mask_zero=mask_zero, output_sequence_length=None)


def test_a_model_of_any_length_answers_as_it_does(tmp_path: Path) -> None:
    config = text_config(tmp_path, {"a": 3, "b": 4}, base=open_base(mask_zero=True), text=TextConfig(maxlen=8))
    result = build(replace(config, precision="float"))
    some = sentences(20, seed=9)
    original = keras.models.load_model(config.heads[0].model)
    truth = np.concatenate([np.asarray(original(keras.ops.convert_to_tensor([text]))) for text in some])
    with MultiHeadClassifier(result.output) as classifier:
        found = np.stack([classifier.head_scores(classifier.features(text), "a") for text in some])
    short = [len(text.split()) <= 8 for text in some]
    assert not all(short)
    assert any(
        "calibration texts have more than 8 tokens and are cut there (text.maxlen)" in note
        for note in result.report.warnings
    )
    np.testing.assert_allclose(found[short], truth[short], atol=1e-5)
    assert result.report.equivalence.difference < 1e-5
    assert [fit.reason for fit in fits(result.output, config.heads, ReadConfig())] == ["", ""]
    assert len(inspect(config.heads, text_length=14)) == 1
    with pytest.raises(ModelFileError, match=r"as text\.maxlen"):
        inspect(config.heads)


def test_a_model_of_any_length_whose_answers_depend_on_padding_is_refused(tmp_path: Path) -> None:
    """Its own answers depend on the other texts of a batch, so each text is shown to it by itself."""
    config = text_config(tmp_path, {"a": 3}, base=open_base(mask_zero=False), text=TextConfig(maxlen=5))
    with pytest.raises(NoSharedBackboneError, match=r"texts are padded \(text\.maxlen\), .*: set mask_zero=True"):
        build(config)


@pytest.mark.parametrize("split", ["whitespace", "character"])
@pytest.mark.parametrize("standardize", [None, "lower", "lower_and_strip_punctuation"])
def test_what_a_device_reads_of_a_text_has_its_first_tokens(split: str, standardize: str | None) -> None:
    words = TextInput(5, ("", "[UNK]", *WORDS), standardize, split)
    layer = keras.layers.TextVectorization(standardize=standardize, split=split, vocabulary=list(WORDS))
    for text in ["", "w1", *sentences(40, seed=2), "w1 - (w2) , w3! w4 w5 w6 w7", "ÄÖ größe w1 \t w2"]:
        shown = first_tokens(text.encode(), words)
        own, found = (np.asarray(layer(keras.ops.convert_to_tensor([t])))[0] for t in (text.encode(), shown))
        np.testing.assert_array_equal(found, own[:5])
        assert shown == text.encode() or len(own) > 5


def test_a_length_that_is_not_the_layers_is_refused(tmp_path: Path) -> None:
    config = text_config(tmp_path, {"a": 3}, text=TextConfig(maxlen=LENGTH))
    assert load_classifiers(config.heads, text=config.text)
    with pytest.raises(ConfigError, match=rf"text\.maxlen: expected {LENGTH}, the length of the input of .*, found 5"):
        load_classifiers(config.heads, text=TextConfig(maxlen=5))


class TestModelsThatAreRefused:
    def refuse(self, config: BuildConfig, error: type[BuilderError], words: str) -> None:
        with pytest.raises(error, match=words) as caught:
            build(config)
        assert "\n" not in str(caught.value)
        assert not config.output.exists()

    def test_other_vocabularies(self, tmp_path: Path) -> None:
        other = ("w0", "W", *WORDS[2:])
        heads = {"a": text_classifier(text_base(), 3), "b": text_classifier(text_base(words=other), 4)}
        words = r"b\.?.* vocabulary of 42 tokens differs from that of a \(42\): token 3 is 'W', there 'w1'\. A token must"
        self.refuse(text_config(tmp_path, heads), NoSharedBackboneError, words)

    def test_other_settings(self, tmp_path: Path) -> None:
        heads = {"a": text_classifier(text_base(), 3), "b": text_classifier(text_base(standardize="lower"), 4)}
        words = "standardize of its texts is 'lower', that of a 'lower_and_strip_punctuation'"
        self.refuse(text_config(tmp_path, heads), NoSharedBackboneError, words)

    def test_texts_and_pictures(self, tmp_path: Path) -> None:
        pictures = tiny_config(tmp_path / "p", {"p": 2})
        config = text_config(tmp_path, {"a": 3})
        words = r"it takes 32 x 32 as .*, a takes texts of 12 tokens, vocabulary of 42\. Pictures and texts share nothing"
        self.refuse(replace(config, heads=config.heads + pictures.heads), NoSharedBackboneError, words)

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"output_sequence_length": None}, r"expected output_sequence_length, .* found none; .* as text\.maxlen"),
            ({"ragged": True}, "expected ragged False, found True; set ragged=False and output_sequence_length"),
            ({"encoding": "latin-1"}, "expected encoding 'utf-8', found 'latin-1'; devices read UTF-8"),
            ({"split": None, "ngrams": 2}, "expected ngrams with a split, found none; set ngrams=None"),
            ({"standardize": lambda text: text}, "is of class|not one of Keras's own"),
        ],
    )
    def test_what_a_device_cannot_do(self, tmp_path: Path, settings: dict[str, Any], words: str) -> None:
        base = text_base(**settings)
        self.refuse(text_config(tmp_path, {"a": 3}, base=base), ModelFileError, words)

    @pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
    @pytest.mark.parametrize("suffix", [".keras", ".h5"])
    @pytest.mark.parametrize("settings", [{}, {"max_tokens": 20, "pad_to_max_tokens": True}])
    @pytest.mark.parametrize("mode", ["tf_idf", "count", "multi_hot"])
    def test_words_that_are_counted_are_refused_in_our_words(
        self, tmp_path: Path, mode: str, settings: dict[str, Any], suffix: str
    ) -> None:
        """Keras alone would give a reason about weights that the file has, or none that helps."""
        vectors = keras.layers.TextVectorization(output_mode=mode, **settings)
        vectors.adapt(sentences(20, seed=3))
        source = keras.Input((1,), dtype="string")
        keras.Model(source, keras.layers.Dense(3, activation="softmax")(vectors(source))).save(tmp_path / f"a{suffix}")
        words = (
            f"a{suffix}: TextVectorization: expected output_mode 'int', found '{mode}'; .*; train it with output_mode="
        )
        with pytest.raises(ModelFileError, match=words):
            load_classifiers([HeadConfig("a", tmp_path / f"a{suffix}", ("x", "y", "z"))])

    def test_a_function_is_refused_even_where_code_may_run(self, tmp_path: Path) -> None:
        base = text_base(standardize=keras.saving.register_keras_serializable("tests")(_shout))
        config = text_config(tmp_path, {"a": 3}, base=base, allow_code=True)
        self.refuse(config, ModelFileError, "expected standardize as None, .* found a function")

    def test_a_vocabulary_larger_than_the_embedding(self, tmp_path: Path) -> None:
        base = text_base(words=[f"x{i}" for i in range(60)])
        words = "the vocabulary has 62 tokens, the embedding 'base/embedding' 48 rows"
        self.refuse(text_config(tmp_path, {"a": 3}, base=base), ModelFileError, words)

    def test_preprocessing_is_for_pictures(self, tmp_path: Path) -> None:
        config = text_config(tmp_path, {"a": 3})
        from builder.settings.input_scaling import PREPROCESSING

        heads = tuple(replace(head, preprocessing=PREPROCESSING["tf"]) for head in config.heads)
        self.refuse(replace(config, heads=heads), ModelFileError, "takes texts; preprocessing is for pictures")

    def test_no_texts(self, tmp_path: Path) -> None:
        config = text_config(tmp_path, {"a": 3})
        for path in (tmp_path / "texts").rglob("*.txt"):
            path.write_text("\n \n")
        self.refuse(config, SamplesError, "expected texts, one in each line, found empty files")
        for path in (tmp_path / "texts").rglob("*.txt"):
            path.rename(path.with_suffix(".doc"))
        self.refuse(config, SamplesError, r"or texts \(\.txt\), found none")

    def test_a_base_that_has_no_builtins(self, tmp_path: Path) -> None:
        base = text_base(body=lambda x: layers.Dense(4)(keras.ops.real(keras.ops.fft2((x, 0 * x))[0])))
        self.refuse(text_config(tmp_path, {"a": 3}, base=base), BuilderError, ".")


@keras.saving.register_keras_serializable("tests")
def _shout(text: Any) -> Any:
    return tf.strings.upper(text)


class TestDamagedMembers:
    @pytest.fixture
    def parts(self, built: BuildResult) -> tuple[bytes, Any]:
        metadata = read_metadata(str(built.output))
        return built.output.read_bytes()[: metadata.model_bytes], metadata

    def open(self, data: bytes, path: Path) -> None:
        path.write_bytes(data)
        MultiHeadClassifier(path).close()

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"vocabulary": ("", "[UNK]", "a", "a")}, "each token once, found 'a' again"),
            ({"vocabulary": ("[UNK]", "", "a")}, "expected it to begin with"),
            ({"length": 0}, "expected input length as a number"),
            ({"length": 13}, r"members promise tokens as int32 \(1, 13\)"),
            ({"standardize": "shout"}, "expected input standardize as null, lower_and"),
            ({"split": "words"}, "expected input split as null, whitespace or character"),
            ({"ngrams": (0,)}, "expected input ngrams"),
            ({"needs_words": "no"}, "expected input needs_words as true or false"),
        ],
    )
    def test_what_contradicts_itself(
        self, parts: tuple[bytes, Any], tmp_path: Path, change: dict[str, Any], words: str
    ) -> None:
        model, metadata = parts
        data = append_members(model, replace(metadata, input=replace(metadata.input, **change)))
        with pytest.raises(BundleError, match=words):
            self.open(data, tmp_path / "x.tflite")

    def test_a_vocabulary_of_another_length_and_none_at_all(self, parts: tuple[bytes, Any], tmp_path: Path) -> None:
        model, metadata = parts
        data = append_members(model, metadata)
        shorter = data.replace(b'"vocabulary_size":42', b'"vocabulary_size":41')
        assert shorter == data  # packed: it must be written anew
        path = tmp_path / "x.tflite"
        for document in (list(WORDS), None, {"a": 1}, [1, 2]):
            path.write_bytes(model)
            with zipfile.ZipFile(path, "a") as archive, zipfile.ZipFile(_file(tmp_path, data)) as whole:
                for info in whole.infolist():
                    if info.filename != "vocabulary.json":
                        archive.writestr(info, whole.read(info))
                if document is not None:
                    archive.writestr("vocabulary.json", json.dumps(document))
            with pytest.raises(BundleError, match="the vocabulary: expected"):
                MultiHeadClassifier(path)


def _file(folder: Path, data: bytes) -> Path:
    (folder / "whole.tflite").write_bytes(data)
    return folder / "whole.tflite"


class TestCommandLine:
    def run(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[Any]:
        command = [sys.executable, "-m", "edge_runtime", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, check=False, **options)

    def test_texts_from_arguments_and_from_the_standard_input(self, built: BuildResult) -> None:
        given = self.run("classify-text", built.output, "w1 w2", "W3", "", "--head", 1, "--head", "a", "--json")
        assert given.returncode == 0, given.stderr
        lines = [json.loads(line) for line in given.stdout.splitlines()]
        assert [line["source"] for line in lines] == ["w1 w2", "W3", ""]
        assert [c["head_name"] for c in lines[0]["classifications"]] == ["b", "a"]
        piped = self.run("classify-text", built.output, "--head", "b", "--json", input=b"w1 w2\r\n\xff w3\n")
        answers = [json.loads(line) for line in piped.stdout.splitlines()]
        assert [answer["source"] for answer in answers] == ["w1 w2", "\ufffd w3"]
        assert answers[0]["classifications"] == lines[0]["classifications"][:1]

    def test_mistakes_are_one_line(self, built: BuildResult, tiny_file: Path) -> None:
        cases = [
            (["classify-text", built.output, "w1", "--head", "7"], "no head 7; this file has 2: a, b"),
            (["classify-text", tiny_file, "w1"], "this file takes pictures, not texts; use classify"),
            (["classify", built.output, "w1.jpg"], "this file takes texts, not pictures; use classify-text"),
            (["camera", built.output, "--source", "0"], "this file takes texts"),
        ]
        for arguments, words in cases:
            done = self.run(*arguments, text=True)
            assert done.returncode == 2, done.stderr
            assert words in done.stderr
            assert len(re.findall("error", done.stderr)) == 1

    def test_what_is_in_the_file(self, built: BuildResult) -> None:
        shown = self.run("info", built.output, text=True).stdout
        assert "text, 12 tokens of a vocabulary of 42, lower_and_strip_punctuation, whitespace" in shown
        assert json.loads(self.run("info", built.output, "--json", text=True).stdout)["input"]["kind"] == "tokens"
        assert "text all heads" in self.run("benchmark", built.output, "--runs", 2, text=True).stdout


def test_a_mask_that_crosses_into_the_heads_is_named(tmp_path: Path) -> None:
    heads = {}
    for name, units in (("a", 3), ("b", 4)):
        source = keras.Input((), dtype="string")
        x = layers.TextVectorization(output_sequence_length=LENGTH, vocabulary=list(WORDS))(source)
        embedding = layers.Embedding(48, 8, mask_zero=True)
        x = layers.LSTM(units)(embedding(x))
        embedding.embeddings.assign(np.ones((48, 8)))
        heads[name] = keras.Model(source, layers.Dense(2, activation="softmax")(x))
    with pytest.raises(NoSharedBackboneError, match=r"heads read a mask .* put the layers that use it"):
        build(text_config(tmp_path, heads))
