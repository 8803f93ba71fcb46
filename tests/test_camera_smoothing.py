"""From scores to an answer: the formulas of ``camera.smoothing`` on series whose outcome is known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.camera.schedule import parse_plans
from edge_runtime.camera.smoothing import Decision, JointDecision, Rule
from edge_runtime.errors import EdgeRuntimeError, UnknownHeadError
from edge_runtime.joint import JointInfo

PLAIN = Rule(smoothing=0, threshold=0.5, hysteresis=0, agree=1, of=1)


def two(p: float) -> np.ndarray:
    return np.asarray([p, 1 - p], np.float32)


def answers(rule: Rule, series: list[float]) -> list[int | None]:
    decision, found = Decision(rule), []
    for p in series:
        decision.update(two(p))
        found.append(decision.answer)
    return found


def test_without_any_of_it_the_answer_is_the_largest_score() -> None:
    assert answers(PLAIN, [0.9, 0.2, 0.51, 0.49]) == [0, 1, 0, 1]


def test_smoothing_is_the_weighted_mean_of_past_and_present() -> None:
    decision, expected = Decision(Rule(smoothing=0.75)), None
    for p in (0.9, 0.1, 0.4, 1.0, 0.0):
        decision.update(two(p))
        expected = p if expected is None else 0.75 * expected + 0.25 * p
        np.testing.assert_allclose(decision.smoothed, two(expected), atol=1e-6)


def test_a_steady_scene_is_not_changed_by_smoothing() -> None:
    decision = Decision(Rule(smoothing=0.9))
    for _ in range(50):
        decision.update(two(0.3))
    np.testing.assert_allclose(decision.smoothed, two(0.3), atol=1e-5)


def test_the_first_scores_are_taken_as_they_are() -> None:
    """Otherwise every start would begin with zeros, and without an answer for some frames."""
    decision = Decision(Rule(smoothing=0.99, agree=1, of=1))
    assert decision.update(two(0.95))
    assert (decision.answer, decision.score) == (0, pytest.approx(0.95))


@pytest.mark.parametrize(("best", "answer"), [(0.80, 0), (0.79, None), (1.0, 0)])
def test_a_score_below_the_threshold_is_no_answer(best: float, answer: int | None) -> None:
    decision = Decision(Rule(smoothing=0, threshold=0.8, hysteresis=0, agree=1, of=1))
    decision.update(np.asarray([best, 0.1, 0.1]))
    assert decision.answer == answer


def test_an_answer_is_given_up_only_when_it_falls_by_the_hysteresis() -> None:
    rule = Rule(smoothing=0, threshold=0.6, hysteresis=0.2, agree=1, of=1)
    decision, found = Decision(rule), []
    for p in (0.55, 0.65, 0.55, 0.45, 0.41, 0.39, 0.55, 0.61):
        decision.update(np.asarray([p, 0.3, 0.05]))
        found.append(decision.answer)
    assert found == [None, 0, 0, 0, 0, None, None, 0]


def test_another_answer_must_be_better_by_more_than_the_hysteresis() -> None:
    rule = Rule(smoothing=0, threshold=0.3, hysteresis=0.2, agree=1, of=1)
    assert answers(rule, [0.9, 0.45, 0.41, 0.39, 0.55, 0.59, 0.61]) == [0, 0, 0, 1, 1, 1, 0]


@pytest.mark.parametrize("step", [-1, 0, 1])
def test_the_hysteresis_has_its_ends_where_the_docs_put_them(step: int) -> None:
    """An answer stays while it is above threshold - hysteresis, and no other is above it by more than the hysteresis."""

    def near(value: float) -> np.float32:
        return np.nextafter(np.float32(value), np.float32(step)) if step else np.float32(value)

    decision = Decision(Rule(smoothing=0, threshold=0.75, hysteresis=0.25, agree=1, of=1))
    decision.update(np.asarray([0.875, 0, 0], np.float32))
    decision.update(np.asarray([near(0.5), 0.25, 0.125], np.float32))
    assert decision.answer == (0 if step > 0 else None)
    decision = Decision(Rule(smoothing=0, threshold=0.5, hysteresis=0.25, agree=1, of=1))
    decision.update(np.asarray([0.875, 0, 0], np.float32))
    decision.update(np.asarray([0.375, near(0.625), 0], np.float32))
    assert decision.answer == (1 if step > 0 else 0)


LIST = JointInfo(("a", "b", "c", "none"), True, 0.5, {"left": 0.5, "right": 0.5}, ())


def joint_answers(rule: Rule, *runs: tuple[list[float], list[float]]) -> list[int | None]:
    decision, found = JointDecision(rule, LIST), []
    for scores, heads in runs:
        decision.update_joint(np.asarray(scores, np.float32), np.asarray(heads, np.float32))
        found.append(decision.answer)
    return found


@pytest.mark.parametrize(("threshold", "answer"), [(None, 0), (0.625, 0), (0.75, None), (0.0, 0)])
def test_the_joint_list_has_the_users_threshold_or_the_files(threshold: float | None, answer: int | None) -> None:
    rule = Rule(smoothing=0, threshold=threshold, hysteresis=0.25, agree=1, of=1)
    assert joint_answers(rule, ([0.5, 0.125, 0.25, 0.125], [0.625, 0.25, 0.125])) == [answer]


@pytest.mark.parametrize(("better", "answer"), [(0.25, 0), (0.2500001, 1)])
def test_another_label_of_the_joint_list_must_be_better_by_more_than_the_hysteresis(better: float, answer: int) -> None:
    rule = Rule(smoothing=0, hysteresis=0.25, agree=1, of=1)
    heads = [0.875, 0.125, 0.0]
    assert joint_answers(rule, ([0.5, 0.25, 0, 0], heads), ([0.25, 0.25 + better, 0, 0], heads)) == [0, answer]


@pytest.mark.parametrize(("reached", "answer"), [(0.25, 0), (0.2499, None)])
def test_the_joint_list_keeps_its_answer_as_far_as_the_hysteresis_reaches(reached: float, answer: int | None) -> None:
    rule = Rule(smoothing=0, hysteresis=0.25, agree=1, of=1)
    scores = [0.125, 0.0625, 0, 0]
    assert joint_answers(rule, (scores, [0.5, 0, 0]), (scores, [reached, 0, 0])) == [0, answer]


def test_scores_that_flicker_about_a_half_change_nothing_within_the_hysteresis() -> None:
    rule = Rule(smoothing=0, threshold=0.4, hysteresis=0.15, agree=1, of=1)
    assert set(answers(rule, [0.9] + [0.47, 0.53] * 20)) == {0}
    assert set(answers(PLAIN, [0.9] + [0.47, 0.53] * 20)) == {0, 1}  # without it they would


@pytest.mark.parametrize(
    ("agree", "of", "series", "expected"),
    [
        (2, 2, [0.9, 0.9, 0.1, 0.9, 0.1, 0.1, 0.1], [None, 0, 0, 0, 0, 1, 1]),
        (3, 5, [0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.1], [None, None, None, None, 0, 1, 1]),
        (3, 5, [0.9, 0.9, 0.9, 0.1, 0.1, 0.9, 0.9], [None, None, 0, 0, 0, 0, 0]),
        (1, 1, [0.9, 0.1], [0, 1]),
    ],
)
def test_an_answer_needs_k_of_the_last_n(agree: int, of: int, series: list[float], expected: list[int | None]) -> None:
    assert answers(Rule(smoothing=0, threshold=0.5, hysteresis=0, agree=agree, of=of), series) == expected


def test_one_wrong_frame_in_a_steady_scene_is_no_event() -> None:
    decision = Decision(Rule(smoothing=0.5, agree=2, of=3))
    changes = [decision.update(two(p)) for p in [0.95] * 10 + [0.05] + [0.95] * 10]
    assert changes == [False, True] + [False] * 19


def test_update_says_exactly_when_the_answer_changes() -> None:
    rng = np.random.default_rng(0)
    decision, before = Decision(Rule(smoothing=0.3, threshold=0.55, agree=2, of=3)), None
    changes = 0
    for p in rng.uniform(0, 1, 500):
        changed = decision.update(two(p))
        assert changed == (decision.answer != before)
        before, changes = decision.answer, changes + changed
    assert changes > 10


def test_what_is_handed_in_is_not_changed() -> None:
    scores = two(0.7)
    decision = Decision(Rule())
    for _ in range(3):
        decision.update(scores)
    np.testing.assert_array_equal(scores, two(0.7))


@pytest.mark.parametrize(
    "wrong",
    [
        {"smoothing": 1.0}, {"smoothing": -0.1}, {"threshold": 1.01}, {"threshold": -0.1}, {"hysteresis": 1.5},
        {"smoothing": float("nan")}, {"threshold": float("nan")},
        {"agree": 0, "of": 1}, {"agree": 4, "of": 3}, {"agree": 2, "of": 4}, {"agree": 1, "of": 2},
        {"agree": 600, "of": 1001},
    ],
    ids=str,
)  # fmt: skip
def test_rules_that_cannot_be(wrong: dict) -> None:
    with pytest.raises(EdgeRuntimeError, match=r"expected"):
        Rule(**wrong)


NAMES = ("door", "plants", "0")


def test_plans_say_what_they_were_told() -> None:
    door, plants = parse_plans(["plants:every=30,threshold=0.9", "door"], NAMES, Rule(smoothing=0.2))
    assert (door.head_name, door.every, door.rule) == ("plants", 30, Rule(smoothing=0.2, threshold=0.9))
    assert (plants.head_name, plants.every, plants.rule) == ("door", 1, Rule(smoothing=0.2))


def test_nothing_given_means_every_head_on_every_frame() -> None:
    assert [(plan.head_name, plan.every) for plan in parse_plans([], NAMES, Rule())] == [(n, 1) for n in NAMES]


def test_the_joint_list_comes_last_and_once() -> None:
    assert [plan.head_name for plan in parse_plans([], NAMES, Rule(), joint=True)] == [*NAMES, "joint"]
    assert [plan.head_name for plan in parse_plans(["door"], NAMES, Rule(), joint=True)] == ["door", "joint"]
    both = parse_plans(["joint:every=3", "door"], NAMES, Rule(), joint=True)
    assert [(plan.head_name, plan.every) for plan in both] == [("joint", 3), ("door", 1)]


def test_heads_by_index_and_all_settings() -> None:
    (plan,) = parse_plans(["1:consensus=3/5,hysteresis=0,smoothing=0.9,every=2"], NAMES, Rule())
    assert plan.head_name == "plants"
    assert plan.rule == Rule(smoothing=0.9, hysteresis=0, agree=3, of=5)
    assert parse_plans(["0"], NAMES, Rule())[0].head_name == "0"  # a name before an index


@pytest.mark.parametrize(
    "text",
    [
        "door:", "door:every", "door:every=0", "door:every=-1", "door:every=1.5", "door:every=x", "door:often=3",
        "door:every=2,", "door:every=2;threshold=0.5", "door:threshold=2", "door:threshold=", "door:consensus=3",
        "door:consensus=1/4", "door:smoothing=1", "door:threshold=nan",
    ],
)  # fmt: skip
def test_plans_that_cannot_be_are_refused_by_name(text: str) -> None:
    with pytest.raises(EdgeRuntimeError, match="door") as caught:
        parse_plans([text], NAMES, Rule())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["cat", "cat:every=2", "", ":every=2", "Door", "3", "-1", "²"])
def test_unknown_heads_list_the_heads(text: str) -> None:
    with pytest.raises(UnknownHeadError, match="door, plants, 0"):
        parse_plans([text], NAMES, Rule())


def test_a_head_given_twice_is_refused() -> None:
    with pytest.raises(EdgeRuntimeError, match="door: given twice"):
        parse_plans(["door", "0", "door:every=2"], NAMES, Rule())
