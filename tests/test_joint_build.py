"""The joint head in finished files: against plain numpy, in both interpreters, and when there is none."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from click.testing import CliRunner

from builder import BuildResult, build
from builder.joint.graph import joint_part, reference
from builder.joint.head import MIN_PICTURES, FittedOnce
from builder.joint.layout import lay_out
from builder.joint.router import Router
from builder.reporting.made import joint_line
from builder.settings.config import BuildConfig, JointConfig
from builder.support.errors import ConfigError
from builder.tflite.flatbuffer import read_parts
from builder.tflite.link import link, logits_tensor
from edge_runtime import EdgeRuntimeError, MultiHeadClassifier, UnknownHeadError
from edge_runtime.bundle import append_members
from edge_runtime.cli import main
from edge_runtime.interpreter import open_interpreter
from edge_runtime.joint import judge
from edge_runtime.metadata import HeadInfo
from edge_runtime.signatures import Signatures
from tests.joint_models import expected_joint, head_of, logits_of, with_joint, with_none
from tests.laws import SCORE_STEP, SCORE_TOLERANCE
from tests.tiny_models import THREE_HEADS, elsewhere, save_pictures, tiny_base, tiny_classifier


@pytest.fixture(scope="module")
def features(joint: BuildResult) -> list[np.ndarray]:
    with MultiHeadClassifier(joint.output) as classifier:
        paths = sorted((joint.output.parent / "pictures").rglob("*.*"))[::3]
        return [classifier.features(path) for path in paths]


def assert_equals_numpy(result: BuildResult, features: list[np.ndarray], interpreter: str) -> None:
    scores, classes = expected_joint(result, result.output, features, interpreter)
    with MultiHeadClassifier(result.output, interpreter=interpreter) as classifier:
        for row, expected, expected_classes in zip(features, scores, classes, strict=True):
            found, found_classes = classifier.joint_scores(row)
            assert np.abs(found - expected).max() < 1e-4
            assert np.abs(found_classes - expected_classes).max() < 1e-4
            assert found.sum() == pytest.approx(1, abs=1e-5)


def test_equals_plain_numpy(joint: BuildResult, features: list[np.ndarray]) -> None:
    assert_equals_numpy(joint, features, "ai_edge_litert")
    assert len({int(np.argmax(MultiHeadClassifier(joint.output).joint_scores(row)[0])) for row in features}) > 2


def test_probability_of_a_label_is_that_of_its_head_times_its_own(joint: BuildResult, features: list[np.ndarray]) -> None:
    with MultiHeadClassifier(joint.output) as classifier:
        for row in features:
            scores, classes = classifier.joint_scores(row)
            start = 0
            for h, (name, count) in enumerate(THREE_HEADS.items()):
                own = classifier.head_scores(row, name)
                assert np.abs(scores[start : start + count] - classes[h] * own).max() <= SCORE_TOLERANCE
                start += count
            assert scores[-1] == classes[-1]


def test_end_to_end_gives_the_joint_list_too(joint: BuildResult) -> None:
    _, interpreter = open_interpreter(str(joint.output))
    whole = interpreter.get_signature_runner("serving_default")
    with MultiHeadClassifier(joint.output) as classifier:
        for path in sorted((joint.output.parent / "pictures").rglob("*.png"))[:4]:
            image = classifier.prepare(path)
            outputs = whole(image=image)
            assert set(outputs) == {*THREE_HEADS, "joint"}
            assert np.abs(outputs["joint"][0] - classifier.joint_scores(classifier.features_of(image))[0]).max() < 1e-6


def test_order_of_the_heads_changes_nothing_but_the_order(joint: BuildResult, tmp_path: Path) -> None:
    config = joint.report.config
    turned = build(replace(config, heads=config.heads[::-1], output=tmp_path / "turned.tflite"))
    ours, theirs = joint.metadata.joint, turned.metadata.joint
    assert set(ours["labels"]) == set(theirs["labels"])
    place = [theirs["labels"].index(label) for label in ours["labels"]]
    with MultiHeadClassifier(joint.output) as first, MultiHeadClassifier(turned.output) as second:
        for path in sorted((joint.output.parent / "pictures").rglob("*.jpg"))[::4]:
            a, b = (c.joint_scores(c.features(path))[0] for c in (first, second))
            assert np.abs(a - b[place]).max() < SCORE_STEP


def test_a_single_head_gives_its_own_scores(tmp_path: Path) -> None:
    result = build(with_joint(tmp_path, {"animals": 4}))
    with MultiHeadClassifier(result.output) as classifier:
        for path in sorted((tmp_path / "pictures").rglob("*.*"))[:8]:
            features = classifier.features(path)
            scores, classes = classifier.joint_scores(features)
            assert classes == pytest.approx([1.0])
            assert np.abs(scores - classifier.head_scores(features, "animals")).max() <= SCORE_STEP


def test_a_loud_head_does_not_take_over(tmp_path: Path) -> None:
    """The same head with logits ten times as large: P(head) stays what it was."""
    base = tiny_base(0)
    quiet, other = tiny_classifier(base, 4, seed=1), tiny_classifier(base, 3, seed=2)
    before = build(with_none(with_joint(tmp_path / "quiet", {"a": quiet, "b": other})))
    last = quiet.layers[-1]
    last.set_weights([10 * w for w in last.get_weights()])
    after = build(with_none(with_joint(tmp_path / "loud", {"a": quiet, "b": other})))
    moved = []
    with MultiHeadClassifier(before.output) as first, MultiHeadClassifier(after.output) as second:
        for path in sorted((tmp_path / "quiet" / "pictures").rglob("*.*")):
            (_, p), (_, q) = (c.joint_scores(c.features(path)) for c in (first, second))
            moved.append(q[0] - p[0])
    assert abs(np.mean(moved)) < 0.03
    assert np.abs(moved).max() < 0.25


def test_sigmoid_heads_are_gated_and_stay_out_of_the_sum(tmp_path: Path) -> None:
    import keras

    base = tiny_base(0)
    marks = keras.Model(base.input, keras.layers.Dense(3, activation="sigmoid", name="marks")(base.output))
    result = build(with_joint(tmp_path, {"a": tiny_classifier(base, 4, seed=1), "marks": marks}))
    assert result.metadata.joint["gated"] == ["marks"]
    paths = sorted((tmp_path / "pictures").rglob("*.*"))[:6]
    with MultiHeadClassifier(result.output) as classifier:
        rows = [classifier.features(path) for path in paths]
        for row in rows:
            scores, classes = classifier.joint_scores(row)
            assert scores[:4].sum() + classes[1] == pytest.approx(1, abs=1e-5)
            assert np.abs(scores[4:] - classes[1] * classifier.head_scores(row, "marks")).max() <= SCORE_TOLERANCE


@pytest.mark.parametrize("merge", [False, True])
def test_labels_of_two_heads(tmp_path: Path, merge: bool) -> None:
    config = with_joint(tmp_path, {"a": 3, "b": 3}, joint=JointConfig(merge_labels=merge, everyday=False))
    labels = {"a": ("x", "same", "y"), "b": ("same", "z", "w")}
    config = replace(config, heads=tuple(replace(h, labels=labels[h.name]) for h in config.heads))
    result = build(config)
    expected = ["x", "same", "y", "z", "w"] if merge else ["x", "a/same", "y", "b/same", "z", "w"]
    assert result.metadata.joint["labels"] == expected
    assert any("same" in warning for warning in result.report.warnings)
    with MultiHeadClassifier(result.output) as classifier:
        for path in sorted((tmp_path / "pictures").rglob("*.*"))[:5]:
            row = classifier.features(path)
            scores, classes = classifier.joint_scores(row)
            a, b = (classes[i] * classifier.head_scores(row, name) for i, name in enumerate("ab"))
            wanted = [a[0], a[1] + b[0], a[2], b[1], b[2]] if merge else [*a, *b]
            assert np.abs(scores - wanted).max() <= SCORE_TOLERANCE
            assert scores.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("few", [0, MIN_PICTURES - 1])
def test_too_few_pictures_of_a_head_build_the_rest_and_say_so(tmp_path: Path, few: int) -> None:
    config = with_joint(tmp_path, {"a": 3, "b": 4})
    verification = tmp_path / "held_out"
    save_pictures(verification, {"a": 4, "b": 4}, seed=5)
    for path in sorted((config.calibration_data / "b").iterdir())[few:]:
        path.unlink()
    result = build(replace(config, verification_data=verification))
    assert result.metadata.joint is None
    (warning,) = [w for w in result.report.warnings if "joint" in w]
    assert f"b has {few}" in warning
    with MultiHeadClassifier(result.output) as classifier:
        picture = next((config.calibration_data / "a").iterdir())
        assert len(classifier.classify(picture).classifications) == 2
        with pytest.raises(UnknownHeadError, match="no joint head"):
            classifier.classify(picture, joint=True)


def test_too_few_pictures_of_none_are_left_out_and_said(tmp_path: Path) -> None:
    result = build(with_none(with_joint(tmp_path, {"a": 3, "b": 4}), 3))
    assert result.metadata.joint["none"] is False
    assert any("none/" in warning for warning in result.report.warnings)


def test_switched_off_there_is_none_and_nothing_is_said(tmp_path: Path) -> None:
    result = build(with_joint(tmp_path, {"a": 3, "b": 4}, joint=JointConfig(enabled=False)))
    assert result.metadata.joint is None
    assert not any("joint" in warning for warning in result.report.warnings)


def test_the_same_inputs_give_the_same_bytes(joint: BuildResult, tmp_path: Path) -> None:
    assert build(elsewhere(joint, tmp_path)).output.read_bytes() == joint.output.read_bytes()


def test_members_hold_the_list(joint: BuildResult) -> None:
    with zipfile.ZipFile(joint.output) as archive:
        labels = archive.read("labels/joint.txt").decode().splitlines()
        document = json.loads(archive.read("polyhead.json"))["joint"]
    assert labels == document["labels"] == [*(f"{n} {i}" for n, c in THREE_HEADS.items() for i in range(c)), "none"]
    assert document["pictures"]["none"] >= MIN_PICTURES
    assert 0 <= document["unknown"]["auroc"] <= 1


def test_the_backbone_runs_once(joint: BuildResult, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    original = Signatures.run
    monkeypatch.setattr(
        Signatures, "run", lambda self, name, tensors: calls.append(name) or original(self, name, tensors)
    )
    with MultiHeadClassifier(joint.output) as classifier:
        result = classifier.classify(next((joint.output.parent / "pictures" / "none").iterdir()), joint=True, top_k=2)
    assert sorted(calls) == ["all", "backbone", "joint"]
    assert len(result.joint.categories) == 2
    assert set(result.to_dict()["joint"]) == {"known", "best", "threshold", "categories", "heads"}


def test_thresholds_can_be_overridden(joint: BuildResult, features: list[np.ndarray]) -> None:
    with MultiHeadClassifier(joint.output) as classifier:
        everything = [classifier.classify_joint(row, threshold=0.0) for row in features]
        nothing = [classifier.classify_joint(row, threshold=1.0) for row in features]
        assert any(j.known for j in everything)
        assert not any(j.known for j in nothing)
        assert all(j.best is None for j in nothing)
        strict = classifier.classify_joint(features[0], threshold={"animals": 1.0})
        assert strict.threshold == joint.metadata.joint["threshold"]
        assert next(h for h in strict.heads if h.head_name == "animals").threshold == 1.0
        for wrong in (1.5, {"plants": 0.5}, {"joint": -0.1}):
            with pytest.raises(EdgeRuntimeError):
                classifier.classify_joint(features[0], threshold=wrong)


def test_the_stated_share_of_known_pictures_passes(joint: BuildResult) -> None:
    head = head_of(joint)
    known = head.fitted.held_out[:, :3].max(1)[: sum(head.pictures[n] for n in THREE_HEADS)]
    assert np.mean(known >= head.threshold) > 0.5
    info = MultiHeadClassifier(joint.output)._joint_info()
    scores = np.full(len(info.labels), 1 / len(info.labels), np.float32)
    assert not judge(info, scores, np.array([0.2, 0.2, 0.2, 0.4], np.float32)).known
    scores[-1] = 0.4  # likelier than any label, but not than a head
    sure = judge(info.with_thresholds(0.5), scores, np.array([0.6, 0.0, 0.0, 0.4], np.float32), top_k=1)
    assert (sure.known, sure.best.category_name, sure.categories[0].category_name) == (True, "animals 0", "none")


@pytest.mark.parametrize("threshold", [0.9994, 0.99995, 0.0003, 1])
def test_a_threshold_is_printed_as_what_it_is(joint: BuildResult, tmp_path: Path, threshold: float) -> None:
    table = {**joint.metadata.joint, "threshold": threshold}
    path = tmp_path / "file.tflite"
    model = joint.output.read_bytes()[: joint.metadata.model_bytes]
    path.write_bytes(append_members(model, replace(joint.metadata, joint=table)))
    line = CliRunner().invoke(main, ["info", str(path)]).output.splitlines()[-1]
    assert float(line.split()[-1]) == threshold
    assert f"below {threshold} a picture" in joint_line(replace(head_of(joint), threshold=threshold))


@pytest.mark.parametrize(
    "text", ["joint = 3", "[joint]\nmerge = true", "[joint]\nfalse_alarm = 0.6", "[joint]\nenabled = 1"]
)
def test_refused_choices(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.toml"
    head = '[heads.a]\nmodel = "a.keras"\n'
    top = 'output = "o.tflite"\ncalibration_data = "p"\n'
    path.write_text(f"{top}{text}\n{head}")
    with pytest.raises(ConfigError, match="joint"):
        BuildConfig.from_toml(path)


def test_chosen_in_the_toml_file(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    top = 'output = "o.tflite"\ncalibration_data = "p"\n'
    path.write_text(f'{top}[joint]\nmerge_labels = true\nfalse_alarm = 0.1\n[heads.a]\nmodel = "a.keras"\n')
    assert BuildConfig.from_toml(path).joint == JointConfig(merge_labels=True, false_alarm=0.1)


def test_two_hundred_heads_in_one_call(tiny: BuildResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make copies of a head under other names, and a router of random numbers."""
    parts = read_parts(tiny.output.read_bytes()[: tiny.metadata.model_bytes])
    names = [f"h{i:03d}" for i in range(200)]
    many = {"backbone": parts["backbone"], **dict.fromkeys(names, parts["garden"])}
    heads = [HeadInfo(name, tuple(f"{name} {i}" for i in range(THREE_HEADS["garden"]))) for name in names]
    rng, features = np.random.default_rng(0), tiny.metadata.seam[0].shape[0]
    router = Router(
        rng.integers(-127, 128, (features, 201)).astype(np.int8),
        np.full(201, 0.002, np.float32),
        rng.normal(size=201).astype(np.float32),
        np.full(200, 2.0, np.float32),
        np.full(200, 0.5, np.float32),
        none=True,
    )
    layout = lay_out(heads, none=True, merge=False)
    backbone, garden = parts["backbone"], parts["garden"]
    seam = backbone.tensors[backbone.outputs["features"]]
    joint = joint_part(router, layout, seam, dict.fromkeys(names, garden.tensors[logits_tensor(garden)]))
    linked, plain = link(many, joint), link(many)
    assert linked.joint_bytes < len(linked.model) - len(plain.model) < 200 * 600
    thresholds = dict.fromkeys(names, 0.1)
    table = {"labels": list(layout.labels), "none": True, "gated": [], "threshold": 0.2, "head_thresholds": thresholds}
    metadata = replace(tiny.metadata, heads=tuple(heads), model_bytes=len(linked.model), joint=table)
    path = tmp_path / "many.tflite"
    path.write_bytes(append_members(linked.model, metadata))
    rows = [rng.integers(-128, 128, (1, features)).astype(np.int8) for _ in range(4)]
    logits = logits_of(path, 200, rows, "ai_edge_litert")
    scores, classes = reference(
        router, layout, tiny.metadata.seam[0].quantization.dequantize(np.concatenate(rows)), logits
    )
    calls: list[str] = []
    with MultiHeadClassifier(path) as classifier:
        original = Signatures.run
        monkeypatch.setattr(Signatures, "run", lambda self, name, x: calls.append(name) or original(self, name, x))
        for row, expected, expected_classes in zip(rows, scores, classes, strict=True):
            found, found_classes = classifier.joint_scores(row)
            assert np.abs(found - expected).max() < 1e-5
            assert np.abs(found_classes - expected_classes).max() < 1e-5
    assert calls == ["joint"] * 4


def test_everyday_pictures_stand_for_none(tmp_path: Path) -> None:
    """They do so for a single head too, and only if the user gives no pictures of none."""
    config = with_joint(tmp_path, {"a": 3}, joint=JointConfig())
    result = build(config)
    table = result.metadata.joint
    assert (table["labels"][-1], table["none"], len(table["labels"])) == ("none", True, 4)
    assert table["unknown"]["against"] == "everyday pictures, cross-validated"
    assert table["unknown"]["pictures"] == table["pictures"]["none"] > MIN_PICTURES


def test_own_pictures_of_none_come_first(joint: BuildResult) -> None:
    assert joint.metadata.joint["unknown"]["against"] == "pictures of none, cross-validated"


def test_the_list_is_fitted_once_for_all_precisions(
    joint: BuildResult, tiny: BuildResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = read_parts(tiny.output.read_bytes()[: tiny.metadata.model_bytes])
    once = FittedOnce(JointConfig(everyday=False), tiny.metadata.input, tiny.metadata.heads, [])
    calls: list[int] = []
    head = head_of(joint)
    monkeypatch.setattr("builder.joint.head.fit_joint", lambda *_, **__: calls.append(1) or (head, ""))
    first, second = once(parts)[0], once(parts)[0]
    assert calls == [1]
    assert second.fitted is first.fitted
    assert len(second.part.operators) == len(first.part.operators)


def test_a_list_that_tells_nothing_is_warned_of(tmp_path: Path) -> None:
    """Pictures of every kind in the folder of every head: there is nothing to learn."""
    config = with_joint(tmp_path, {"a": 3, "b": 3, "c": 3})
    result = build(config)
    assert result.report.joint.unknown.auroc < 0.7
    assert any("barely separates pictures of no head" in warning for warning in result.report.warnings)


def test_every_everyday_picture_has_a_licence() -> None:
    from builder.joint.observe import EVERYDAY

    named = (EVERYDAY / "LICENCES.md").read_text(encoding="utf-8")
    pictures = list(EVERYDAY.glob("*.jpg"))
    assert all(f"`{path.stem.rpartition('_')[0]}_*`" in named for path in pictures)
    assert sum(path.stat().st_size for path in pictures) < 2_000_000 < 40_000 * len(pictures)
