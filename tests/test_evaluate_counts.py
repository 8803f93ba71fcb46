"""What ``builder evaluate`` keeps of samples as they come, against all of them at once."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from builder.judging.lists import Lists
from builder.judging.seen import Seen
from builder.judging.wrong import MOST_SHOWN, Gallery
from edge_runtime.joint import JointInfo, judge


@pytest.mark.parametrize("seed", range(5))
def test_equal_samples_are_counted_and_those_that_contradict_the_first(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first: dict[bytes, tuple[int, int]] = {}
    equal = contradicting = 0
    with Seen() as seen:
        for content, head, label in rng.integers(0, [20, 2, 3], (60, 3)).tolist():
            digest = bytes([content])
            assert (digest in seen) == (digest in first)
            assert seen.is_new(digest, head, label) == (digest not in first)
            equal += digest in first
            contradicting += first.setdefault(digest, (head, label)) != (head, label)
        assert (seen.equal, seen.contradicting) == (equal, contradicting)
    assert 0 < contradicting < equal


@pytest.mark.parametrize("count", [0, 5, MOST_SHOWN, 200])
def test_the_surest_wrong_answers_are_those_of_all_blocks_together(count: int) -> None:
    rng, gallery, everything = np.random.default_rng(count), Gallery(), list[tuple[float, str, str, str]]()
    for start in range(0, 2 * count, 7):
        samples = [SimpleNamespace(sample=SimpleNamespace(source=f"{start + i}")) for i in range(7)]
        truth, answers = rng.integers(0, 3, (2, 7))
        scores = rng.uniform(0, 1, 7)
        gallery.add(samples, answers, truth, scores, "abc")  # type: ignore[arg-type]
        rows = zip(scores.tolist(), samples, truth.tolist(), answers.tolist(), strict=True)
        everything += [(score, one.sample.source, "abc"[t], "abc"[a]) for score, one, t, a in rows if t != a]
    expected = sorted(everything, reverse=True)[:MOST_SHOWN]
    assert [(one.score, one.source, one.truth, one.answer) for one in gallery.surest] == expected


@pytest.mark.parametrize("none", [False, True])
def test_evaluate_refuses_what_the_device_refuses(none: bool) -> None:
    """Ties included: where none is as likely as the likeliest head, and where a head just reaches the threshold."""
    labels = ("a", "b", "c", *(["none"] if none else []))
    info = JointInfo(labels, none, 0.5, {"one": 0.5, "two": 0.5}, ())
    lists = Lists(((0, 1), (2,)), ("a", "b", "c"), {"threshold": 0.5, "none": none})
    classes = np.random.default_rng(0).integers(0, 5, (300, 2 + none)).astype(np.float32) / 4
    scores = np.random.default_rng(1).integers(0, 5, (300, len(labels))).astype(np.float32) / 4
    device = [judge(info, *row) for row in zip(scores, classes, strict=True)]
    assert lists.refused(classes).tolist() == [not one.known for one in device]
    answers = [len(lists.labels) if one.best is None else one.best.index for one in device]
    assert lists.answered(classes, scores).tolist() == answers
    assert 20 < sum(one.known for one in device) < 280
