"""The backbone runs once for a picture, only the heads asked for run, and threads change nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edge_runtime.signatures
from edge_runtime import EdgeRuntimeError, InterpreterError, MultiHeadClassifier, PictureError, UnknownHeadError
from edge_runtime.bundle import append_members
from edge_runtime.interpreter import INTERPRETERS, find_interpreter, open_interpreter
from tests.laws import assert_same_answers, assert_same_features, assert_well_formed, one_line, scores_of
from tests.tiny_models import SIZE, THREE_HEADS, label_names

NAMES = list(THREE_HEADS)


class Counts:
    """Which signatures were made and run by any interpreter, and whether two ever ran side by side."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()
        self.ran: Counter[str] = Counter()
        self.running, self.most_running = 0, 0


class CountingInterpreter:
    def __init__(self, interpreter: Any, counts: Counts) -> None:
        self._interpreter, self._counts = interpreter, counts

    def get_input_details(self) -> Any:
        return self._interpreter.get_input_details()

    def get_signature_runner(self, name: str) -> Any:
        self._counts.made[name] += 1
        return CountingRunner(self._counts, name, self._interpreter.get_signature_runner(name))


class CountingRunner:
    def __init__(self, counts: Counts, name: str, runner: Any) -> None:
        self._counts, self._name, self._runner = counts, name, runner

    def __call__(self, **inputs: np.ndarray) -> Any:
        self._counts.ran[self._name] += 1
        self._counts.running += 1
        self._counts.most_running = max(self._counts.most_running, self._counts.running)
        try:
            return self._runner(**inputs)
        finally:
            self._counts.running -= 1

    # Nothing else: before TensorFlow 2.12 a runner describes the tensors of subgraph 0, whichever signature it runs.


@pytest.fixture
def classifier(tiny_file: Path) -> Iterator[MultiHeadClassifier]:
    with MultiHeadClassifier(tiny_file) as opened:
        yield opened


@pytest.fixture
def counted(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[MultiHeadClassifier, Counts]:
    counts = Counts()

    def open_counting(path: str, **options: Any) -> tuple[str, CountingInterpreter]:
        name, interpreter = open_interpreter(path, **options)
        return name, CountingInterpreter(interpreter, counts)

    monkeypatch.setattr(edge_runtime.signatures, "open_interpreter", open_counting)
    return MultiHeadClassifier(tiny_file), counts


@pytest.mark.parametrize("heads", [None, [], ["garden"], [2], NAMES[::-1], ["things", "things"]], ids=str)
def test_backbone_runs_once_and_only_the_heads_asked(counted: Any, heads: Any, tiny_pictures: list[Path]) -> None:
    classifier, counts = counted
    classifier.classify(tiny_pictures[0], heads=heads)
    asked = NAMES if heads is None else [NAMES[h] if isinstance(h, int) else h for h in heads]
    once = {"all": 1} if len(set(asked)) > 1 else Counter(asked)
    assert counts.ran == Counter({"backbone": 1, **once})


def test_runners_are_made_when_first_needed_and_once(counted: Any, tiny_pictures: list[Path]) -> None:
    classifier, counts = counted
    assert set(counts.made) <= {"backbone"}
    for _ in range(3):
        classifier.classify(tiny_pictures[0], heads=["garden"])
    assert counts.made == Counter({"backbone": 1, "garden": 1})


def test_kept_features_do_not_run_the_backbone(counted: Any, tiny_pictures: list[Path]) -> None:
    classifier, counts = counted
    features = classifier.features(tiny_pictures[0])
    for name in NAMES:
        classifier.classify_features(features, heads=[name])
    assert counts.ran == Counter({"backbone": 1, **dict.fromkeys(NAMES, 1)})


@pytest.mark.parametrize(
    ("picture", "options", "error"),
    [
        ("missing.jpg", {}, PictureError),
        (np.zeros((4, 4), np.uint8), {}, PictureError),
        (np.zeros((4, 4, 3), np.uint8), {"heads": ["plants"]}, UnknownHeadError),
    ],
)
def test_nothing_runs_for_what_is_refused(counted: Any, picture: Any, options: Any, error: type) -> None:
    classifier, counts = counted
    with pytest.raises(error):
        classifier.classify(picture, **options)
    assert not counts.ran


def test_signatures_never_run_side_by_side(counted: Any, tiny_pictures: list[Path]) -> None:
    classifier, counts = counted
    image = classifier.prepare(tiny_pictures[0])[0]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: classifier.classify(image), range(64)))
    assert counts.ran == Counter({"backbone": 64, "all": 64})
    assert counts.most_running == 1


def test_many_threads_give_the_answers_of_one(tiny_file: Path, tiny_pictures: list[Path]) -> None:
    with MultiHeadClassifier(tiny_file) as alone:
        expected = [alone.classify(path).classifications for path in tiny_pictures]
    assert len(set(expected)) > 1
    with MultiHeadClassifier(tiny_file) as shared, ThreadPoolExecutor(8) as pool:
        # Its runners too are made by whichever thread comes first.
        found = list(pool.map(lambda path: shared.classify(path).classifications, tiny_pictures * 10))
    assert found == expected * 10


def test_threads_that_ask_different_heads(tiny_file: Path, tiny_pictures: list[Path]) -> None:
    with MultiHeadClassifier(tiny_file) as shared, ThreadPoolExecutor(8) as pool:
        features = [shared.features(path) for path in tiny_pictures[:6]]
        jobs = [(row, name) for row in features for name in NAMES] * 10
        expected = {(id(row), name): shared.head_scores(row, name) for row, name in jobs}
        for (row, name), scores in zip(jobs, pool.map(lambda job: shared.head_scores(*job), jobs), strict=True):
            np.testing.assert_array_equal(scores, expected[id(row), name])


def test_features_kept_give_bit_identical_answers(classifier: MultiHeadClassifier, tiny_pictures: list[Path]) -> None:
    kept = [classifier.features(path) for path in tiny_pictures]  # a later call must not change what an earlier gave
    for path, features in zip(tiny_pictures, kept, strict=True):
        assert classifier.classify_features(features) == classifier.classify(path).classifications


def test_features_do_not_depend_on_what_ran_before(classifier: MultiHeadClassifier, tiny_pictures: list[Path]) -> None:
    first = classifier.features(tiny_pictures[0])
    copy = first.copy()
    classifier.classify(tiny_pictures[1])
    np.testing.assert_array_equal(first, copy)
    np.testing.assert_array_equal(classifier.features(tiny_pictures[0]), copy)


@pytest.mark.parametrize(
    "asked", [NAMES, NAMES[::-1], [1, 0], ["things", 0, "garden"], ["garden", 1], "garden", 2], ids=str
)
def test_heads_are_answered_in_the_order_asked(
    classifier: MultiHeadClassifier, tiny_pictures: list[Path], asked: Any
) -> None:
    found = classifier.classify(tiny_pictures[0], heads=asked).classifications
    everything = classifier.classify(tiny_pictures[0]).classifications
    asked = asked if isinstance(asked, list) else [asked]
    assert [c.head_index for c in found] == [h if isinstance(h, int) else NAMES.index(h) for h in asked]
    assert list(found) == [everything[c.head_index] for c in found]


@pytest.mark.parametrize("head", ["plants", "Garden", "garden ", "", "backbone", "serving_default", "joint", 3, -1, "0"])
def test_unknown_heads_are_refused_and_the_heads_listed(
    classifier: MultiHeadClassifier, tiny_pictures: list[Path], head: Any
) -> None:
    with pytest.raises(UnknownHeadError, match="animals, garden, things"):
        classifier.classify(tiny_pictures[0], heads=["garden", head])
    with pytest.raises(LookupError):
        classifier.head_scores(classifier.features(tiny_pictures[0]), head)


def test_answers_are_well_formed(classifier: MultiHeadClassifier, tiny_pictures: list[Path]) -> None:
    labels = {name: label_names(name, count) for name, count in THREE_HEADS.items()}
    for path in tiny_pictures:
        result = classifier.classify(path)
        assert_well_formed(result, labels)
        assert list(result.latency_ms) == ["preprocess", "backbone", "heads"]
        assert all(ms > 0 for ms in result.latency_ms.values())


@pytest.mark.parametrize("top_k", [1, 2, 3, 99])
def test_top_k_keeps_the_best(classifier: MultiHeadClassifier, tiny_pictures: list[Path], top_k: int) -> None:
    whole = classifier.classify(tiny_pictures[0]).classifications
    few = classifier.classify(tiny_pictures[0], top_k=top_k).classifications
    assert [c.categories for c in few] == [c.categories[:top_k] for c in whole]


@pytest.mark.parametrize("top_k", [0, -1])
def test_top_k_below_one_is_refused(classifier: MultiHeadClassifier, tiny_pictures: list[Path], top_k: int) -> None:
    for heads in (None, ["garden"], ["garden"] * 30):  # also where what many heads answer is sorted later, or never
        with pytest.raises(EdgeRuntimeError, match="top_k"):
            classifier.classify(tiny_pictures[0], heads=heads, top_k=top_k)


def test_each_part_of_the_time_is_that_of_its_own_work(
    classifier: MultiHeadClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def taking(seconds: float, name: str) -> None:
        work = getattr(classifier, name)

        def slow(*arguments: Any) -> Any:
            nonlocal now
            now += seconds
            return work(*arguments)

        monkeypatch.setattr(classifier, name, slow)

    monkeypatch.setattr("edge_runtime.engine.time", SimpleNamespace(perf_counter=lambda: now))
    for name, seconds in (("prepare", 1.0), ("features_of", 2.0), ("_classify_heads", 4.0)):
        taking(seconds, name)
    found = classifier.classify(np.zeros((SIZE, SIZE, 3), np.uint8)).latency_ms
    assert found == {"preprocess": 1000, "backbone": 2000, "heads": 4000}


def test_serving_default_is_backbone_then_heads_bit_for_bit(tiny_file: Path, tiny_pictures: list[Path]) -> None:
    _, interpreter = open_interpreter(str(tiny_file))
    whole, backbone = (interpreter.get_signature_runner(name) for name in ("serving_default", "backbone"))
    with MultiHeadClassifier(tiny_file) as classifier:
        for path in tiny_pictures:
            image = classifier.prepare(path)
            outputs = whole(image=image)
            features = backbone(image=image)["features"]
            np.testing.assert_array_equal(features, classifier.features_of(image))
            assert set(outputs) == set(NAMES)
            for name in NAMES:
                head = interpreter.get_signature_runner(name)(features=features)["scores"]
                np.testing.assert_array_equal(outputs[name], head)
                assert outputs[name].dtype == np.int8


def test_path_array_and_pil_image_get_one_answer(classifier: MultiHeadClassifier, tiny_pictures: list[Path]) -> None:
    path = next(p for p in tiny_pictures if p.suffix == ".png")
    with Image.open(path) as image:
        answers = [classifier.classify(p).classifications for p in (path, str(path), image, np.asarray(image))]
    assert answers == [answers[0]] * 4


@pytest.mark.parametrize(
    "features",
    [
        np.zeros((1, 63), np.int8),
        np.zeros((64,), np.int8),
        np.zeros((2, 64), np.int8),
        np.zeros((1, 64), np.uint8),
        np.zeros((1, 64), np.float32),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_features_of_another_file_are_refused(classifier: MultiHeadClassifier, features: np.ndarray) -> None:
    with pytest.raises(EdgeRuntimeError, match="expected features of this file"):
        classifier.classify_features(features)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 2 * SIZE, 2 * SIZE, 3), np.uint8),  # the interpreter would resize itself and answer
        np.zeros((2, SIZE, SIZE, 3), np.uint8),
        np.zeros((SIZE, SIZE, 3), np.uint8),
        np.zeros((1, SIZE, SIZE, 3), np.float32),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_images_of_another_shape_are_refused(classifier: MultiHeadClassifier, image: np.ndarray) -> None:
    with pytest.raises(EdgeRuntimeError, match="expected image of this file, uint8"):
        classifier.features_of(image)
    classifier.features_of(np.zeros((1, SIZE, SIZE, 3), np.uint8))


def test_a_closed_classifier_says_so(tiny_file: Path, tiny_pictures: list[Path]) -> None:
    with MultiHeadClassifier(tiny_file) as classifier:
        features = classifier.features(tiny_pictures[0])
        classifier.head_scores(features, "garden")
    for call in (
        lambda: classifier.classify(tiny_pictures[0]),
        lambda: classifier.classify_features(features),
        lambda: classifier.features(tiny_pictures[0]),  # also what had run before
        lambda: classifier.head_scores(features, "garden"),
    ):
        with pytest.raises(EdgeRuntimeError, match="closed"):
            call()
    classifier.close()


def test_tensorflow_runs_the_file_as_litert_does(tiny_file: Path, tiny_pictures: list[Path]) -> None:
    litert, tensorflow = (MultiHeadClassifier(tiny_file, interpreter=n) for n in ("ai_edge_litert", "tensorflow"))
    assert tensorflow.interpreter_name == "tensorflow"
    for path in tiny_pictures[:6]:
        features = litert.features(path)
        assert_same_features(tensorflow.features(path), features)
        assert_same_answers(
            scores_of(tensorflow.classify_features(features)), scores_of(litert.classify_features(features))
        )


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_number_of_threads_changes_little(tiny_file: Path, tiny_pictures: list[Path], threads: int) -> None:
    one, many = MultiHeadClassifier(tiny_file, num_threads=1), MultiHeadClassifier(tiny_file, num_threads=threads)
    for path in tiny_pictures[:4]:
        assert_same_features(many.features(path), one.features(path))


@pytest.mark.parametrize("threads", [0, -7])
def test_impossible_number_of_threads_is_refused(tiny_file: Path, threads: int) -> None:
    with pytest.raises(InterpreterError, match="thread") as caught:
        MultiHeadClassifier(tiny_file, num_threads=threads)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["tflite", "", "AI_EDGE_LITERT", "edge_runtime"])
def test_unknown_interpreter_lists_those_there_are(tiny_file: Path, name: str) -> None:
    with pytest.raises(InterpreterError, match="ai_edge_litert, tflite_runtime, tensorflow"):
        MultiHeadClassifier(tiny_file, interpreter=name)


def test_without_an_interpreter_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_runtime.interpreter.INTERPRETERS", dict.fromkeys(INTERPRETERS, "no_such_package.module"))
    with pytest.raises(InterpreterError, match="pip install ai-edge-litert"):
        find_interpreter()
    with pytest.raises(InterpreterError, match="pip install tflite-runtime 'numpy<2'"):
        find_interpreter("tflite_runtime")


@pytest.mark.parametrize(("needed", "refused"), [((2, 10), False), ((9, 1), True)])
def test_an_interpreter_that_is_too_old_is_refused(tmp_path: Path, tiny: Any, needed: Any, refused: bool) -> None:
    """Old ones answer wrongly without saying so. ai-edge-litert counts its versions anew and is never too old."""
    model = tiny.output.read_bytes()[: tiny.metadata.model_bytes]
    path = tmp_path / "file.tflite"
    path.write_bytes(append_members(model, replace(tiny.metadata, min_runtime=needed)))
    MultiHeadClassifier(path, interpreter="ai_edge_litert").close()
    if refused:
        with pytest.raises(
            InterpreterError, match=r"tensorflow \S+ is too old: this file needs TensorFlow Lite 9\.1 or newer"
        ):
            MultiHeadClassifier(path, interpreter="tensorflow")
    else:
        MultiHeadClassifier(path, interpreter="tensorflow").close()


@pytest.mark.parametrize("error", [RuntimeError, ValueError])
def test_what_an_interpreter_refuses_to_run_is_said_in_one_line(tiny_file: Path, error: type) -> None:
    """Some flaws of a file show only when its tensors are allocated."""

    def refuse(**_: Any) -> None:
        raise error("unsupported zero-point value (512)\nin channel 21" + " of a tensor" * 100)

    with MultiHeadClassifier(tiny_file) as classifier:
        features = classifier.features_of(np.zeros((1, 32, 32, 3), np.uint8))
        classifier._model._runners["garden"] = refuse
        with pytest.raises(InterpreterError, match="cannot run garden: unsupported zero-point") as caught:
            classifier.head_scores(features, "garden")
        assert one_line(str(caught.value), tiny_file)
        assert len(str(caught.value)) < len(str(tiny_file)) + 400
        assert classifier.head_scores(features, "animals").shape == (THREE_HEADS["animals"],)
