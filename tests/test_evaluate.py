"""``builder evaluate``: counts that can be checked by hand, figures against scikit-learn, and refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from click.testing import CliRunner

from builder import BuildResult, build
from builder.commands.cli import main
from builder.judging.answers import Asker
from builder.judging.evaluate import Running, evaluate
from builder.judging.evaluation import Evaluation, unknown_facts
from builder.judging.labelled import Archive, Block, Labelled, count_labelled, find_labelled
from builder.judging.lists import list_places
from builder.judging.metrics import Counts, counted, judge, reliability
from builder.judging.separation import Separation
from builder.settings.config import BuildConfig, JointConfig
from builder.support.errors import SamplesError
from edge_runtime import MultiHeadClassifier
from edge_runtime.metadata import HeadInfo
from tests.joint_models import with_joint
from tests.tiny_models import save_pictures, tiny_base, tiny_classifier, tiny_config

HEADS = (HeadInfo("a", ("a 0", "a 1", "a 2")), HeadInfo("b", ("b 0", "b 1")))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return build(with_joint(tmp_path_factory.mktemp("evaluate"), {"a": 3, "b": 2}))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    save_pictures(folder, {"a/a 0": 3, "a/a 1": 2, "b/b 0": 4, "b/b 1": 2, "none": 3}, seed=9)
    return folder


def judged(file: Path, data: Path | str, config: BuildConfig | None = None, **running: object) -> Evaluation:
    return evaluate(file, Archive(str(data)), config, Running(**running))  # type: ignore[arg-type]


def labelled(data: Path, heads: Sequence[HeadInfo]) -> list[Labelled]:
    return list(find_labelled(Archive(str(data)), heads))


def test_counts_are_those_of_the_runtime(built: BuildResult, data: Path) -> None:
    found = judged(built.output, data)
    right, joint_right = {"a": 0, "b": 0}, 0
    with MultiHeadClassifier(built.output) as classifier:
        for picture in labelled(data, built.metadata.heads):
            if picture.head == 2:
                continue
            head = built.metadata.heads[picture.head]
            result = classifier.classify(picture.source, joint=True)
            truth = head.labels[picture.label]
            right[head.head_name] += result.classifications[picture.head].categories[0].category_name == truth
            joint_right += result.joint.categories[0].category_name == truth
    assert {name: kinds["int8"].right for name, kinds in found.heads.items()} == right
    assert {name: kinds["int8"].pictures for name, kinds in found.heads.items()} == {"a": 5, "b": 6}
    assert (found.lists["joint"].right, found.lists["joint"].pictures) == (joint_right, 11)
    assert found.unknown["none_pictures"] == 3
    assert 0 <= found.unknown["auroc"] <= 1
    facts = dict(unknown_facts(found.unknown))
    assert len(facts) == len(found.unknown)  # each has words
    assert facts["samples of no head"] == "3"
    assert all(words in found.page and "_" not in words for words in facts)


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """One head, one output, one label: is it a dog?"""
    heads = {"pets": tiny_classifier(tiny_base(), 1, activation="sigmoid")}
    config = tiny_config(tmp_path_factory.mktemp("question"), heads, rounding="nearest", precision="weights")
    return build(replace(config, heads=(replace(config.heads[0], labels=("dog",)),)))


@pytest.mark.parametrize("folders", [{"dog": 5}, {"not dog": 5}, {"dog": 4, "not dog": 5}], ids=str)
def test_one_label_is_right_where_it_should_not_be_given_too(
    question: BuildResult, tmp_path: Path, folders: dict[str, int]
) -> None:
    """The folder of negatives has that name. A list of one label has no accuracy."""
    save_pictures(tmp_path, {f"pets/{name}": count for name, count in folders.items()}, seed=7)
    found = judged(question.output, tmp_path)
    with MultiHeadClassifier(question.output) as classifier:
        said = {
            picture.source: classifier.classify(picture.source).classifications[0].categories[0].score >= 0.5
            for picture in labelled(tmp_path, question.metadata.heads)
        }
    right = sum(yes == (Path(path).parent.name == "dog") for path, yes in said.items())
    accuracy = found.heads["pets"]["int8"]
    assert (accuracy.right, accuracy.pictures) == (right, sum(folders.values()))
    assert found.lists == {}
    assert json.loads(json.dumps(found.to_json()))["joint"] == {}
    assert "pets" in found.page


def test_the_originals_stand_beside_the_file(built: BuildResult, data: Path) -> None:
    found = judged(built.output, data, built.report.config)
    assert set(found.heads["a"]) == {"int8", "float"}
    assert abs(found.heads["a"]["float"].mean_probability - found.heads["a"]["int8"].mean_probability) < 0.1
    assert "joint, float heads" in found.lists
    assert "one head trained anew on all labels" not in found.lists  # the pictures have no folders for their classes


def test_one_head_is_trained_anew_where_classes_have_folders(built: BuildResult, data: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    save_pictures(pictures, {f"{h.head_name}/{label}": 6 for h in HEADS for label in h.labels}, seed=31)
    config = replace(built.report.config, calibration_data=pictures)
    found = judged(built.output, data, config)
    assert found.lists["one head trained anew on all labels"].pictures == 11
    over_again = judged(
        built.output, pictures, config
    )  # nothing is left to train on: pictures that are judged teach nothing
    assert "one head trained anew on all labels" not in over_again.lists


def test_a_file_without_a_joint_head(built: BuildResult, data: Path, tmp_path: Path) -> None:
    config = replace(built.report.config, output=tmp_path / "plain.tflite", joint=JointConfig(enabled=False))
    found = judged(build(config).output, data)
    assert list(found.lists) == ["concatenated scores"]
    assert not found.unknown


def test_command(built: BuildResult, data: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", str(built.output), "--data", str(data), "--report", str(tmp_path), "--json"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document == json.loads((tmp_path / "evaluation.json").read_text())
    assert set(document) == {
        "file", "samples", "heads", "joint", "labels", "unknown", "wrong", "equal", "contradicting", "broken", "left_out"
    }  # fmt: skip
    page = (tmp_path / "evaluation.html").read_text()
    assert page.count("<img") >= 3
    assert "<script" not in page
    assert "http" not in page
    shown = CliRunner().invoke(main, arguments[:-1])
    assert shown.exit_code == 0
    assert "concatenated scores" in shown.stdout


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ({"c/a 0": 2}, "head of the file"),
        ({"a/a 9": 2}, "label of a"),
        ({"a": 2}, "found none"),
        ({"none": 2}, "at least one head"),
        ({"": 2}, "no folder"),
    ],
)
def test_refused_folders(tmp_path: Path, folders: dict[str, int], words: str) -> None:
    save_pictures(tmp_path, folders)
    with pytest.raises(SamplesError, match=words):
        count_labelled(Archive(str(tmp_path)), HEADS)


def test_a_broken_picture_is_refused_by_name(built: BuildResult, tmp_path: Path) -> None:
    save_pictures(tmp_path, {"a/a 0": 2})
    (tmp_path / "a" / "a 0" / "broken.png").write_bytes(b"no picture")
    done = CliRunner().invoke(main, ["evaluate", str(built.output), "--data", str(tmp_path)])
    assert done.exit_code == 2
    assert "broken.png" in done.stderr


def test_a_broken_picture_is_left_out_and_counted_where_that_is_asked(
    built: BuildResult, data: Path, tmp_path: Path
) -> None:
    whole = judged(built.output, data)
    shutil.copytree(data, tmp_path / "with")
    (tmp_path / "with" / "a" / "a 0" / "broken.png").write_bytes(b"no picture")
    found = judged(built.output, tmp_path / "with", skip_broken=True)
    assert {**found.to_json(), "left_out": [], "broken": 0, "wrong": whole.to_json()["wrong"]} == whole.to_json()
    assert found.broken == 1
    (why,) = found.left_out
    assert "broken.png" in why
    (tmp_path / "none").mkdir()
    (tmp_path / "only" / "a" / "a 0").mkdir(parents=True)
    (tmp_path / "only" / "a" / "a 0" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(SamplesError, match="found none"):
        judged(built.output, tmp_path / "only", skip_broken=True)


def test_pictures_are_kept_for_the_originals_alone(built: BuildResult, data: Path) -> None:
    """Only the scores of each sample, and one block of pictures, are kept."""
    block = Block(tuple(labelled(data, built.metadata.heads)))
    answers = Asker(str(built.output))(block)
    assert answers.shown is None and answers.features is None
    shown = Asker(str(built.output), for_originals=True)(block).shown
    assert shown is not None and len(shown) == len(block.samples)


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.55, 0.55])
    right = np.array([True, True, True, False, True, False])
    assert reliability(confidence, right).error == pytest.approx((4 * 0.15 + 2 * 0.05) / 6)
    assert reliability(confidence, right).curve[:, 0].tolist() == [2, 4]
    assert reliability(np.ones(3), np.ones(3, bool)).error == 0


def test_chance_alone_makes_an_error_that_falls_with_the_pictures() -> None:
    rng = np.random.default_rng(0)
    few, many = (reliability(rng.uniform(0.4, 1, n), np.ones(n, bool)).floor for n in (50, 5000))
    assert few > 3 * many > 0


@pytest.mark.parametrize("cuts", [[], [1], [40, 41], [7, 30, 99]], ids=str)
def test_counts_do_not_depend_on_the_blocks(cuts: list[int]) -> None:
    rng = np.random.default_rng(1)
    scores, truth = rng.dirichlet(np.ones(4), 100), rng.integers(0, 4, 100)
    counts = Counts("abcd")
    for rows in np.split(np.arange(100), cuts):
        counts.add(scores[rows], truth[rows])
    whole = judge(scores, truth)
    assert counts.accuracy.to_json() == whole.to_json()
    np.testing.assert_array_equal(counts.table.counts, counted(scores, truth).table.counts)


def test_rates_are_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    scores, truth = rng.dirichlet(np.ones(5), 60), rng.integers(0, 4, 60)  # the last label never comes
    counts = Counts("abcde")
    counts.add(scores, truth)
    precision, recall, _, samples = metrics.precision_recall_fscore_support(
        truth, scores.argmax(1), labels=range(5), zero_division=np.nan
    )
    rates = counts.table.rates()
    assert [r.samples for r in rates] == samples.tolist()
    np.testing.assert_allclose([np.nan if r.precision is None else r.precision for r in rates], precision)
    np.testing.assert_allclose([np.nan if r.recall is None else r.recall for r in rates], recall)


@pytest.mark.parametrize("shape", [(0.5, 0.5), (2, 2), (0.05, 0.05), (30, 1)], ids=str)
def test_separation_in_bins_is_that_of_all_scores(shape: tuple[float, float]) -> None:
    """Also where nearly all scores lie at 0 and at 1."""
    from builder.joint.unknown import separation

    rng = np.random.default_rng(3)
    known, strange = rng.beta(*shape, 700), rng.beta(shape[1], shape[0], 300) ** 1.3
    binned = Separation()
    for scores, is_strange in ((known[:100], False), (strange, True), (known[100:], False)):
        binned.add(scores, np.full(len(scores), is_strange))
    auroc, fpr = separation(known, strange)
    assert binned.auroc == pytest.approx(auroc, abs=2e-3)
    assert binned.fpr_at_95_tpr == pytest.approx(fpr, abs=7e-3)


def test_confusion_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    truth, found = rng.integers(0, 4, 100), rng.integers(0, 4, 100)
    np.testing.assert_array_equal(counted(np.eye(4)[found], truth).table.counts, metrics.confusion_matrix(truth, found))
    assert judge(np.eye(4)[found], truth).right == int((truth == found).sum())


def test_places_of_labels() -> None:
    heads = (HeadInfo("a", ("x", "y")), HeadInfo("b", ("y", "z")))
    apart = list_places(heads, {"none": True, "merge_labels": False})
    assert apart == ([[0, 1], [2, 3]], ("x", "a/y", "b/y", "z"))
    merged = list_places(heads, {"none": False, "merge_labels": True})
    assert merged == ([[0, 1], [1, 2]], ("x", "y", "z"))
    assert list_places(heads, None) == apart
    misleading = (HeadInfo("a", ("x", "b/x")), HeadInfo("b", ("x", "y")))
    assert list_places(misleading, None) == ([[0, 1], [2, 3]], ("a/x", "a/b/x", "b/x", "y"))
