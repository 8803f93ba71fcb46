"""Which pictures calibrate and which verify, and how agreement is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builder import BuildResult
from builder.judging.verify import HeadQuality, Quality, check_end_to_end, judge, judge_head
from builder.quantizing.coverage import beyond_calibration
from builder.reporting.verdicts import reason_of_failure
from builder.samples import calibration
from builder.samples.calibration import SampleSet, _traits, chosen, collect, read_samples
from builder.samples.files import Picture, draw_evenly, find_pictures
from builder.support.errors import ConversionError, SamplesError
from builder.support.interval import wilson_interval
from builder.tflite.flatbuffer import Part, plain_tensor
from builder.tflite.writer import write_parts
from edge_runtime import MultiHeadClassifier
from edge_runtime.image_input import ImageInput
from edge_runtime.interpreter import open_interpreter
from edge_runtime.metadata import HeadInfo
from tests.tiny_models import THREE_HEADS, save_pictures


def test_each_content_counts_once_and_names_and_places_change_nothing(tmp_path: Path) -> None:
    first = save_pictures(tmp_path / "a", {"cats": 5, "dogs": 3})
    (tmp_path / "b" / "cats").mkdir(parents=True)
    for i, path in enumerate(reversed(first)):
        (tmp_path / "b" / "cats" / f"{i}{path.suffix}").write_bytes(path.read_bytes())
        (tmp_path / "b" / f"again_{i}{path.suffix}").write_bytes(path.read_bytes())
    found = [[p.digest for p in find_pictures(tmp_path / name, ["cats"])] for name in "ab"]
    assert found[0] == found[1]
    assert len(found[0]) == 8


def test_a_picture_belongs_to_the_head_whose_folder_it_lies_in(tmp_path: Path) -> None:
    save_pictures(tmp_path, ["cats/persian", "dogs", "birds"])
    heads = {p.path.relative_to(tmp_path).parts[0]: p.head for p in find_pictures(tmp_path, ["cats", "dogs"])}
    assert heads == {"cats": "cats", "dogs": "dogs", "birds": None}


def test_a_large_folder_does_not_outweigh_a_small_one(tmp_path: Path) -> None:
    pictures = [
        Picture(tmp_path / f / f"{i}.png", None, f"{i:03d}{f}")
        for f, n in (("a", 90), ("b", 5), ("c", 30))
        for i in range(n)
    ]
    drawn = draw_evenly(pictures, 30)
    counts = {f: sum(p.path.parent.name == f for p in drawn) for f in "abc"}
    assert counts == {"a": 13, "b": 5, "c": 12}
    assert draw_evenly(list(reversed(pictures)), 30) == drawn
    assert len(draw_evenly(pictures, 1000)) == 125


def test_only_a_stated_part_of_very_many_verification_samples_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for name, count in (("calibration", 3), ("held_out/large", 40), ("held_out/small", 6)):
        (tmp_path / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / name / f"{i}.png")
    monkeypatch.setitem(calibration.MAX_VERIFICATION, "pictures", 12)
    monkeypatch.setattr(calibration, "MAX_VERIFICATION_OF_A_HEAD", 5)
    heads, spec, held_out = ["large", "small"], ImageInput(8, 8), tmp_path / "held_out"
    _, judged = collect(tmp_path / "calibration", held_out, heads, spec)
    assert (len(judged.sources), judged.found) == (12, 46)
    assert sum(source.head == "small" for source in judged.sources) == 6  # in turns with the large one
    assert judged.drawn("pictures")[0].startswith("12 of 46 verification pictures were run")
    _, few = collect(tmp_path / "calibration", held_out / "small", heads, spec)
    assert (len(few.sources), few.found, few.drawn("pictures")) == (6, 6, ())


def test_extremes_are_kept_in_place_of_the_last_drawn() -> None:
    pictures = np.random.default_rng(4).integers(90, 160, (40, 8, 8, 3), dtype=np.uint8)
    pictures[31], pictures[35], pictures[38, ::2, ::2] = 3, 250, (255, 0, 0)
    found = chosen(pictures, 20)
    assert found == sorted(set(found))
    assert len(found) == 20
    assert {31, 35, 38} <= set(found)
    others = [i for i in found if i < 20]
    assert others[:10] == list(range(10))  # those drawn first stay
    assert chosen(pictures, 40) == list(range(40))


@pytest.mark.parametrize("channels", [1, 3])
def test_traits_of_a_picture_are_brightness_contrast_colour_and_detail(channels: int) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (9, 7, channels), dtype=np.uint8)
    grey = pixels.mean(-1)
    detail = np.abs(np.diff(grey, axis=1)).mean()
    np.testing.assert_allclose(_traits(pixels), [grey.mean(), grey.std(), pixels.std(-1).mean(), detail], rtol=1e-12)


def test_of_texts_the_shortest_and_the_longest_are_kept() -> None:
    tokens = np.zeros((30, 12), np.int32)
    for i in range(30):
        tokens[i, : 4 + i % 3] = 7
    tokens[21], tokens[25, 1:] = 9, 0
    assert {21, 25} <= set(chosen(tokens, 10))
    assert len(chosen(tokens, 1)) == 1


@pytest.mark.parametrize(("shift", "least", "most"), [(0.0, 0.0, 0.1), (0.03, 0.2, 0.6), (3.0, 0.95, 1.0)])
def test_the_share_of_verification_features_beyond_those_of_calibration(shift: float, least: float, most: float) -> None:
    """Of a backbone that gives its pictures' pixels: the share that is larger than in all of 60 pictures."""
    part = Part("backbone", 0, [], [], {"image": 0}, {"features": 1}, [], [None])
    part.tensors = [plain_tensor(name, [1, 4, 4, 2], np.float32) for name in ("image", "features")]
    part.operators = [part.operator("ABS", [0], [1], ("AbsOptions", {}))]
    rng = np.random.default_rng(2)
    calibration, verification = (rng.uniform(0, 1, (60, 4, 4, 2)).astype(np.float32) for _ in range(2))
    found = beyond_calibration(write_parts({"backbone": part}), calibration, verification + np.float32(shift))
    assert least <= found <= most


def test_a_set_unlike_the_other_is_warned_of(tiny: BuildResult) -> None:
    assert not [warning for warning in tiny.report.warnings if "look unlike" in warning]
    (warning,) = [w for w in replace(tiny.report, beyond=0.41).warnings if "look unlike" in w]
    assert "41% of the features" in warning
    assert tiny.report.to_json()["calibration"]["verification_beyond"] == round(tiny.report.beyond, 4)


def test_a_tenth_of_the_pictures_may_be_broken_and_no_more(tmp_path: Path) -> None:
    paths = save_pictures(tmp_path, {"a": 20})
    samples = [Picture(path, None, path.name) for path in paths]
    whole = read_samples(samples, ImageInput(8, 8), tmp_path)
    for broken in range(1, 4):
        paths[5 * broken].write_bytes(b"no picture")
        kept = [i for i in range(20) if i not in range(5, 5 * broken + 1, 5)]
        if broken <= 2:
            found = read_samples(samples, ImageInput(8, 8), tmp_path)
            assert (found.sources, len(found.broken)) == (tuple(samples[i] for i in kept), broken)
            assert np.array_equal(np.stack(found.samples), whole.tensors[kept])
        else:
            with pytest.raises(SamplesError, match="17 readable and 3 broken"):
                read_samples(samples, ImageInput(8, 8), tmp_path)


def test_too_few_readable_pictures_are_refused(tmp_path: Path) -> None:
    (path,) = save_pictures(tmp_path, {"a": 1})
    with pytest.raises(SamplesError, match="expected at least 2 readable samples"):
        read_samples([Picture(path, None, "x")], ImageInput(8, 8), tmp_path)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(97, 100, 0.9155, 0.9897), (10, 10, 0.7225, 1.0), (0, 20, 0.0, 0.1611), (50, 100, 0.4038, 0.5962)],
)  # computed with R's prop.test(correct = FALSE), as published by Newcombe 1998 for the Wilson score interval
def test_wilson_interval(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == (pytest.approx(low, abs=2e-4), pytest.approx(high, abs=2e-4))


def quality(agreeing: int, pictures: int) -> HeadQuality:
    return HeadQuality("a", pictures, agreeing / pictures, wilson_interval(agreeing, pictures), 0.0, 0.0, (), ())


@pytest.mark.parametrize(
    ("agreeing", "pictures", "passes", "can_tell"),
    [
        (10, 10, True, False),
        (9, 10, True, False),
        (5, 10, False, False),
        (200, 200, True, True),
        (190, 200, True, True),
        (180, 200, False, True),
    ],
)
def test_a_head_passes_unless_its_interval_is_below_the_bar(
    agreeing: int, pictures: int, passes: bool, can_tell: bool
) -> None:
    q = quality(agreeing, pictures)
    assert (q.passes(0.97), q.can_tell(0.97)) == (passes, can_tell)


def test_heads_that_pass_each_for_themselves_must_reach_the_bar_together() -> None:
    few = quality(19, 20)
    assert few.passes(0.97)
    for others, reaches in (([], False), ([quality(20, 20)], True), ([few] * 9 + [quality(100, 100)], False)):
        assert Quality((few, *others), 20.0).reaches(0.97) == reaches
    assert Quality((quality(97, 100),) * 3, 20.0).reaches(0.97)  # exactly, if not to the bit


def test_drift_alone_fails_no_head_on_pictures_of_its_own() -> None:
    """The agreement is known from these pictures."""
    for own in (True, False):
        drifting = replace(quality(200, 200), decided=200, decided_drift=0.5, own_pictures=own)
        assert drifting.passes(0.97) == own


def test_what_is_written_of_a_head_is_what_is_known_of_it() -> None:
    always = {"pictures", "agreement", "interval", "drift", "max_drift", "own_pictures"}
    q = quality(9, 10)
    decided = {"decided", "decided_agreement", "decided_drift"}
    for changes, more in (
        ({}, set()), ({"own_bar": 0.0}, {"min_agreement"}), ({"kind": "another"}, {"kind"}),
        ({"own_pictures": False}, decided), ({"own_pictures": False, "own_bar": 0.5}, {*decided, "min_agreement"}),
    ):  # fmt: skip
        found = replace(q, **changes).to_json()
        assert set(found) == always | more
        assert found.get("min_agreement") == changes.get("own_bar")
        assert found.get("kind") == changes.get("kind")


def test_a_bar_of_0_lets_everything_pass_but_another_kind_of_answer() -> None:
    worst = replace(on_others([False] * 9, [0.9] * 9, drift=0.3), kind=None)
    assert worst.passes(0)
    assert not worst.passes(0.01)
    assert not replace(worst, kind="softmax is applied twice").passes(0)


@pytest.mark.parametrize(
    ("activation", "truth", "always"),
    [
        ("softmax", [[0.1, 0.9], [0.2, 0.8], [0.4, 0.6]], 1),
        ("softmax", [[0.1, 0.9], [0.2, 0.8], [0.6, 0.4]], None),
        ("softmax", [[0.1, 0.9]], None),  # of one picture nothing can be told
        ("sigmoid", [[0.6, 0.9], [0.8, 0.7]], 1),
        ("sigmoid", [[0.6, 0.9], [0.4, 0.9]], None),
        ("sigmoid", [[0.5, 0.9], [0.7, 0.9]], 1),
    ],
)
def test_what_an_original_always_answers(activation: str, truth: list[list[float]], always: int | None) -> None:
    rows = np.asarray(truth, np.float32)
    found = judge("a", np.arange(len(rows)), rows, rows, activation)
    assert (found.always, found.agreement) == (always, 1.0)


def test_a_probability_of_one_half_counts_as_yes_for_both() -> None:
    half = np.asarray([[0.5, 0.2]], np.float32)
    assert judge("a", np.arange(1), half, half + np.float32(0.1), "sigmoid").agreement == 1.0
    assert judge("a", np.arange(1), half, half - np.float32(0.1), "sigmoid").agreement == 0.0


@pytest.mark.parametrize("noise", [False, True])
def test_pictures_are_a_heads_own_by_their_folder_or_where_it_is_the_only_head(*, noise: bool) -> None:
    sources = tuple(Picture(Path(str(i)), "a" if i < 3 else None, str(i)) for i in range(5))
    samples = SampleSet(sources, np.zeros((5, 1, 1, 3), np.uint8), noise=noise)
    for name, alone, own, pictures in (("a", False, True, 3), ("b", False, False, 5), ("b", True, True, 5)):
        scores = np.full((pictures, 2), 0.5, np.float32)
        found = judge_head(HeadInfo(name, ("x", "y")), samples, scores, scores, alone=alone, own_bar=0.5)
        assert (found.own_pictures, found.pictures, found.own_bar) == (own and not noise, pictures, 0.5)


def test_agreement_and_drift_are_of_the_label_that_float_puts_first() -> None:
    truth = np.asarray([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]], np.float32)
    found = np.asarray([[0.45, 0.55], [0.8, 0.2], [0.2, 0.8]], np.float32)
    q = judge("a", np.asarray([4, 5, 6]), truth, found, "softmax")
    assert q.agreement == pytest.approx(2 / 3)
    assert q.drift == pytest.approx((0.15 + 0.1 + 0) / 3)
    assert [c.picture for c in q.worst] == [4, 5, 6]  # what changed its answer comes first


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_worst_are_other_answers_and_among_these_the_farthest(activation: str) -> None:
    rng = np.random.default_rng(6)
    apart = rng.permutation(np.append(np.linspace(0.02, 0.04, 3), np.linspace(0.1, 0.3, 37))).astype(np.float32)
    first = np.where(apart < 0.05, 0.5 + apart / 2, 0.9).astype(np.float32)  # three answers change, by little
    truth, found = (np.stack([p, 1 - p], axis=1) for p in (first, first - apart))
    q = judge("a", np.arange(40), truth, found, activation)
    assert [c.agrees for c in q.worst] == [False] * 3 + [True] * 3
    assert [c.drift for c in q.worst] == pytest.approx([0.04, 0.03, 0.02, *np.sort(apart)[:-4:-1]])


def test_it_is_the_original_that_is_decided_and_not_the_file() -> None:
    sure, unsure = (np.asarray([[p, 1 - p]] * 3, np.float32) for p in (0.9, 0.55))
    for activation in ("softmax", "sigmoid"):
        assert judge("a", np.arange(3), sure, unsure, activation, own_pictures=False).decided == 3
        assert judge("a", np.arange(3), unsure, sure, activation, own_pictures=False).decided == 0


def test_an_end_to_end_signature_that_says_something_else_is_refused(tiny: BuildResult) -> None:
    """Features that are not the picture's stand for an end-to-end subgraph that is not the backbone and its heads."""
    pictures = tiny.report.verification
    with MultiHeadClassifier(tiny.output) as classifier:
        features = [classifier.features(pixels) for pixels in pictures.tensors]
        check_end_to_end(tiny.output, classifier, pictures.tensors, features)
        with pytest.raises(ConversionError, match="do not agree"):
            check_end_to_end(tiny.output, classifier, pictures.tensors, [64 - row for row in features])


@pytest.mark.parametrize("kind", ["tiny", "joint"])
def test_integers_and_a_joint_list_pass_the_comparison_with_the_whole(kind: str, request: pytest.FixtureRequest) -> None:
    """Else a build without a precision of the user's choice would take another than int8, and say so in a line."""
    made: BuildResult = request.getfixturevalue(kind)
    assert made.metadata.built["precision"] == "int8"
    with MultiHeadClassifier(made.output) as classifier:
        assert (classifier.joint is not None) == (kind == "joint")


@pytest.mark.parametrize("wrong", ["all", *THREE_HEADS])
def test_a_signature_that_answers_otherwise_than_the_whole_is_refused(
    tiny: BuildResult, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """``all`` by the interpreter, each head by the runtime."""

    class Odd:
        def __init__(self, *how: Any, **more: Any) -> None:
            _, self.real = open_interpreter(*how, **more)
            self.get_signature_list = self.real.get_signature_list

        def get_signature_runner(self, name: str) -> Callable[..., dict[str, np.ndarray]]:
            run = self.real.get_signature_runner(name)
            return run if name != wrong else lambda **given: {key: values + 1 for key, values in run(**given).items()}

    monkeypatch.setattr("builder.judging.verify.open_interpreter", lambda *how, **more: ("", Odd(*how, **more)))
    pictures = tiny.report.verification
    with MultiHeadClassifier(tiny.output) as classifier:
        scores = classifier.head_scores
        monkeypatch.setattr(classifier, "head_scores", lambda seam, name: scores(seam, name) + (name == wrong))
        features = [classifier.features(pixels) for pixels in pictures.tensors[:3]]
        with pytest.raises(ConversionError, match=f"(head|signature) {wrong}"):
            check_end_to_end(tiny.output, classifier, pictures.tensors[:3], features)


def test_a_multi_label_head_agrees_where_every_label_does() -> None:
    truth = np.asarray([[0.9, 0.6], [0.9, 0.4]], np.float32)
    found = np.asarray([[0.9, 0.4], [0.8, 0.3]], np.float32)
    assert judge("a", np.arange(2), truth, found, "sigmoid").agreement == 0.5
    assert judge("a", np.arange(2), truth, found, "softmax").agreement == 1.0


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("labels", [1, 2, 5])
def test_a_wrong_probability_of_any_label_of_its_own_is_drift(labels: int, activation: str) -> None:
    """Also of one that is never the first and never crosses a half; of a softmax, another one changes with it."""
    truth = np.random.default_rng(labels).uniform(0, 0.4, (6, labels)).astype(np.float32)
    for wrong in range(labels):
        found = truth.copy()
        found[:, wrong] = (truth[:, wrong] + 0.2) % 0.4
        q = judge("a", np.arange(6), truth, found, activation)
        of_top = truth.argmax(1) == wrong
        assert np.asarray(q.drifts) == pytest.approx(np.where(of_top | (activation == "sigmoid"), 0.2, 0.0), abs=1e-6)
        assert q.agreement == 1.0 or activation == "softmax"


def test_drifting_probabilities_of_a_head_that_keeps_its_answers_are_told(tiny: BuildResult) -> None:
    heads = tiny.report.quality.heads
    for drifts in ([0.041], [0.04], [0.5, 0.0]):
        some = tuple(replace(q, drift=drift, own_pictures=True) for q, drift in zip(heads, [*drifts, 0.0], strict=False))
        chosen = replace(tiny.report.chosen, quality=replace(tiny.report.quality, heads=some))
        report = replace(tiny.report, tried=[chosen])
        told = [warning for warning in report.warnings if "though the answers agree" in warning]
        assert bool(told) == (drifts[0] > 0.04)
        assert all(f"{heads[0].head_name} (by {drifts[0]:.3f}" in warning for warning in told)


def on_others(agrees: list[bool], margins: list[float], drift: float = 0.0) -> HeadQuality:
    """Of a head of two labels: whether the answer is the same, and by how much the original is decided."""
    truth = np.asarray([[0.5 + m / 2, 0.5 - m / 2] for m in margins], np.float32)
    found = np.asarray([[p - drift, q + drift] if same else [q, p] for same, (p, q) in zip(agrees, truth, strict=True)])
    return judge("a", np.arange(len(agrees)), truth, found.astype(np.float32), "softmax", own_pictures=False)


def test_a_head_on_others_pictures_is_judged_where_its_original_is_decided() -> None:
    near_ties = [False] * 10 + [True] * 90
    undecided = on_others(near_ties, [0.02] * 10 + [0.6] * 90)
    assert (undecided.agreement, undecided.judged) == (0.9, (90, 1.0))
    assert undecided.passes(0.97)
    assert not replace(undecided, own_pictures=True).passes(0.97)
    assert not on_others(near_ties, [0.2] * 10 + [0.6] * 90).passes(0.97)
    assert not on_others([True] * 100, [0.6] * 100, drift=0.05).passes(0.97)
    assert on_others([True] * 100, [0.6] * 100, drift=0.02).passes(0.97)
    assert on_others(near_ties, [0.19] * 10 + [0.6] * 90).passes(0.97)
    assert on_others([True] * 100, [0.1] * 60 + [0.6] * 40, drift=0.02).decided_drift == pytest.approx(0.02)
    nothing_decided = on_others([True, False] * 5, [0.01] * 10)
    assert nothing_decided.passes(0.97)
    assert not nothing_decided.can_tell(0.97)


def test_drift_on_others_pictures_counts_where_the_original_is_decided() -> None:
    """Where two labels lie near each other, a small change of the logits moves their probabilities farthest."""
    truth = np.asarray([[0.95, 0.05]] * 50 + [[0.52, 0.48]] * 50, np.float32)
    change = np.asarray([0.01] * 50 + [0.1] * 50, np.float32)
    for moved, passes in ((change, True), (change[::-1], False)):
        found = truth - np.stack([moved, -moved], axis=1)
        q = judge("a", np.arange(100), truth, found, "softmax", own_pictures=False)
        assert q.drift == pytest.approx(0.055)
        assert (q.decided_drift, q.passes(0.97)) == (pytest.approx(float(moved[0])), passes)
    all_tie = judge("a", np.arange(50), truth[50:], truth[50:] - [[0.1, -0.1]], "softmax", own_pictures=False)
    assert all_tie.decided == 0
    assert not all_tie.passes(0.97)


@pytest.mark.parametrize("labels", [2, 3, 8, 15])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_an_answer_is_decided_from_a_probability_of_60_percent_on(labels: int, activation: str) -> None:
    """Of fifteen labels the first may lead the second by a tenth, and both be unlikely."""
    truth = np.random.default_rng(labels).dirichlet(np.full(labels, 0.4), 200).astype(np.float32)
    sure = truth.max(1) if activation == "softmax" else np.maximum(truth, 1 - truth).min(1)
    wrong = 1 - truth if activation == "sigmoid" else np.roll(truth, 1, axis=1)
    found = np.where((sure >= 0.6)[:, None], truth, wrong)  # other answers, where the original is not sure
    quality = judge("a", np.arange(200), truth, found, activation, own_pictures=False)
    assert quality.judged == (int((sure >= 0.6).sum()), 1.0)
    assert 0 < quality.decided < 200
    assert quality.agreement < 1


def test_a_head_has_a_bar_of_its_own_and_few_pictures_are_told_from_many() -> None:
    q = quality(85, 100)
    assert not q.passes(0.97)
    assert replace(q, own_bar=0.8).passes(0.97)
    assert [quality(*counts).passes_for_few(0.97) for counts in ((9, 10), (10, 10), (5, 10), (98, 100))] == [
        True, False, False, False
    ]  # fmt: skip
    both = Quality((q, quality(100, 100)), 20.0)
    assert not both.reaches(0.97)
    assert Quality((replace(q, own_bar=0.8), quality(100, 100)), 20.0).reaches(0.97)


@pytest.mark.parametrize("own", [True, False])
def test_a_head_that_fails_is_named_with_its_figures_and_the_remedy(own: bool) -> None:
    q = replace(on_others([False] * 40 + [True] * 60, [0.6] * 100), own_pictures=own)
    found = reason_of_failure(q, 0.97, "pictures", precision="int8", chosen_by_name=True)
    assert "head a: agrees with its original on 60.0% of" in found
    assert "leave precision out" in found
    assert ("in a folder named a" in found) is not own
    assert ("none are pictures of its own" in found) is not own
    assert "[heads.a]" in found
    assert "\n" not in found
    assert "softmax" in reason_of_failure(
        replace(q, kind="softmax is applied twice"), 0.97, "pictures", precision="int8", chosen_by_name=True
    )
