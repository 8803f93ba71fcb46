"""The router: compared with scikit-learn, and its laws."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import softmax

from builder.joint.graph import reference
from builder.joint.head import _worthless
from builder.joint.layout import known_score, lay_out
from builder.joint.logistic import balanced_weights, cross_validated, fit_logistic, folds, log_loss, out_of_fold
from builder.joint.router import PENALTIES, Evidence, Router, energies, fit_router, unit
from builder.joint.unknown import Judged, head_thresholds, refusing, separation, unknown_by_leaving_out
from builder.support.arrays import pooled
from edge_runtime.metadata import HeadInfo

HEADS, LABELS, WIDTH = 3, 4, 40


def draw(counts: tuple[int, ...] = (60, 60, 60), *, none: int = 0, seed: int = 0, noise: float = 1.0) -> Evidence:
    """Pictures of heads whose labels are blobs of features, and of heads that know their own labels only."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 0.7, (HEADS + 1, LABELS, WIDTH))
    classes = np.repeat(np.arange(HEADS + 1), (*counts, none))
    labels = rng.integers(0, LABELS, len(classes))
    features = 3 + centres[classes, labels] + rng.normal(0, noise, (len(classes), WIDTH))
    logits = tuple((features - 3) @ centres[h].T / 4 for h in range(HEADS))
    return Evidence(features, logits, classes)


def accuracy(router: Router, evidence: Evidence) -> float:
    found = router.probabilities(evidence.features, evidence.logits)
    return float((found.argmax(1) == evidence.classes).mean())


@pytest.mark.parametrize("penalty", [0.5, 5.0, 50.0])
@pytest.mark.parametrize("counts", [(60, 60, 60), (9, 80, 30)])
def test_logistic_regression_is_scikit_learns(penalty: float, counts: tuple[int, ...]) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    evidence, unseen = draw(counts), draw(seed=1)
    ours = fit_logistic(evidence.features, evidence.classes, penalty=penalty, number=HEADS)
    theirs = linear_model.LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000)
    theirs.fit(evidence.features, evidence.classes, sample_weight=balanced_weights(evidence.classes))
    found = softmax(ours.evidence(unseen.features), axis=1)
    np.testing.assert_allclose(found, theirs.predict_proba(unseen.features), atol=2e-4)


def test_more_features_than_pictures() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    features, classes = rng.normal(size=(20, 300)), np.arange(20) % 2
    ours = fit_logistic(features, classes, penalty=3.0, number=2).evidence(features)
    # Two outputs of half the weight each: scikit-learn fits their difference, under twice the penalty for each of them.
    theirs = linear_model.LogisticRegression(C=2 / 3.0, tol=1e-10, max_iter=10_000).fit(features, classes)
    np.testing.assert_allclose(ours[:, 1] - ours[:, 0], theirs.decision_function(features), atol=2e-3)


def test_ties_count_half() -> None:
    assert separation(np.array([0.5, 0.5]), np.array([0.5, 0.1])) == (0.75, 0.5)
    assert separation(np.arange(40) / 40, 1 + np.arange(40) / 40) == (0.0, 1.0)


def test_the_router_finds_the_head_of_unseen_pictures() -> None:
    router = fit_router(draw()).router
    assert accuracy(router, draw(seed=5)) > 0.9


def test_the_penalty_is_the_one_that_does_best_on_pictures_left_out() -> None:
    """Strong where the features say little, weak where they say much."""
    assert [fit_router(draw(noise=noise)).penalty for noise in (0.8, 2.0, 6.0)] == sorted(PENALTIES)
    evidence = draw(noise=2.0)
    features, fold = unit(evidence.features), folds(np.arange(180), evidence.classes, 5)
    left_out = {
        p: out_of_fold(features, evidence.classes, fold, penalty=p, number=HEADS) for p in (100.0, 1.0, 0.01, 1e-6)
    }
    weights = balanced_weights(evidence.classes)
    best = min(left_out, key=lambda p: log_loss(left_out[p], evidence.classes, weights))
    for order in (tuple(left_out), tuple(reversed(left_out))):
        found, scores = cross_validated(features, evidence.classes, order, number=HEADS, folds_of=fold)
        assert found == best and order.index(best) not in (0, 3)
        np.testing.assert_array_equal(scores, left_out[best])


def test_order_of_the_heads_changes_only_the_order() -> None:
    evidence, unseen, order = draw((40, 60, 20)), draw(seed=5), [2, 0, 1]
    turned = Evidence(evidence.features, tuple(evidence.logits[h] for h in order), np.argsort(order)[evidence.classes])
    first = fit_router(evidence).router.probabilities(unseen.features, unseen.logits)
    second = fit_router(turned).router.probabilities(unseen.features, [unseen.logits[h] for h in order])
    np.testing.assert_allclose(first[:, order], second, atol=1e-3)


def test_a_single_head_takes_everything() -> None:
    evidence = draw((50, 0, 0)).only_heads([0])
    np.testing.assert_array_equal(fit_router(evidence).router.probabilities(evidence.features, evidence.logits), 1.0)


def test_a_loud_head_does_not_take_over() -> None:
    evidence, unseen = draw(), draw(seed=5)

    def louder(e: Evidence) -> Evidence:
        return replace(e, logits=(10 * e.logits[0], *e.logits[1:]))

    quiet = fit_router(evidence).router.probabilities(unseen.features, unseen.logits)
    loud = fit_router(louder(evidence)).router.probabilities(unseen.features, louder(unseen).logits)
    np.testing.assert_allclose(loud, quiet, atol=1e-3)


def test_pictures_given_twice_change_little() -> None:
    evidence, unseen = draw((30, 30, 30)), draw(seed=5)
    rng = np.random.default_rng(0)
    twice = np.r_[np.arange(90), np.flatnonzero(evidence.classes == 0)]
    copied = evidence.part(twice)
    copied = replace(copied, features=copied.features + rng.normal(0, 1e-3, copied.features.shape))
    a, b = (fit_router(e).router.probabilities(unseen.features, unseen.logits) for e in (evidence, copied))
    assert np.abs(a - b).mean() < 0.03
    assert abs(fit_router(copied).held_out[:90].max(1).mean() - fit_router(evidence).held_out.max(1).mean()) < 0.05


def test_unequal_folders_do_not_outweigh_each_other() -> None:
    router = fit_router(draw((200, 12, 40))).router
    unseen = draw((100, 100, 100), seed=5)
    found = router.probabilities(unseen.features, unseen.logits).argmax(1)
    assert min(np.mean(found[unseen.classes == h] == h) for h in range(HEADS)) > 0.75


def test_ten_pictures_a_head_are_better_than_chance_and_not_overconfident() -> None:
    fitted = fit_router(draw((10, 10, 10), noise=2.0))
    unseen = draw(seed=5, noise=2.0)
    p = fitted.router.probabilities(unseen.features, unseen.logits)
    right = p.argmax(1) == unseen.classes
    assert right.mean() > 0.45
    assert p.max(1).mean() - right.mean() < 0.15  # not surer than it is right


def test_pictures_of_none_are_told_from_those_of_the_heads() -> None:
    fitted, unseen = fit_router(draw(none=60)), draw(none=60, seed=5)
    assert fitted.router.none
    p = fitted.router.probabilities(unseen.features, unseen.logits)
    known = unseen.classes < HEADS
    score = known_score(p, HEADS)
    auroc, _ = separation(score[known], score[~known])
    assert auroc > 0.9
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-12)


def test_without_pictures_of_none_heads_stand_for_it_in_turn() -> None:
    found = unknown_by_leaving_out(draw(), 0.2)
    assert found is not None
    assert found.pictures == 180
    assert found.auroc > 0.6
    assert unknown_by_leaving_out(draw().only_heads([0, 1]).part(np.arange(120)), 0.2) is None


@pytest.mark.parametrize("none", [0, 90])
@pytest.mark.parametrize("rate", [0.1, 0.02])
def test_the_stated_share_of_the_heads_pictures_is_refused(none: int, rate: float) -> None:
    evidence = draw((200, 200, 200), none=none, noise=1.5)
    fitted, known = fit_router(evidence), evidence.classes < HEADS
    judged = Judged.of(fitted, evidence, None, 1)
    shift, bar = refusing(judged, rate)
    p = softmax(judged.with_none(shift).evidence, axis=1)[known]
    passes = (p[:, :HEADS].max(1) >= bar) & (p[:, :HEADS].max(1) >= p[:, HEADS:].sum(1))
    assert 1 - passes.mean() == pytest.approx(rate, abs=0.003)
    for h, own in enumerate(head_thresholds(judged.with_none(shift), rate)):
        assert np.mean(p[evidence.classes[known] == h, h] >= own) == pytest.approx(1 - rate, abs=0.006)
    stored = fitted.with_none(shift).router.probabilities(evidence.features, evidence.logits)
    assert np.abs(stored - fitted.router.probabilities(evidence.features, evidence.logits)).max() > (0.01 if none else -1)


def test_thresholds_come_from_pictures_that_the_heads_have_not_seen_where_each_has_enough() -> None:
    evidence, unseen = draw(none=40), draw((12, 12, 12), seed=5)
    fitted = fit_router(evidence)
    assert len(Judged.of(fitted, evidence, unseen, 12).classes) == 36
    assert len(Judged.of(fitted, evidence, unseen, 13).classes) == 220
    assert len(Judged.of(fitted, evidence, None, 0).classes) == 220


@pytest.mark.parametrize("held_out", [0, 4, 30])
@pytest.mark.parametrize("good", [True, False])
def test_a_list_that_is_worse_than_the_largest_score_of_all_heads_says_so(held_out: int, good: bool) -> None:
    """On held-out pictures, and where those are too few on the others, each by a fit that did not see it."""
    evidence = draw((30, 30, 30))
    strange = draw((held_out,) * HEADS, seed=1) if held_out else None
    loud = [replace(e, logits=_loud(e)) for e in (evidence, strange) if e is not None]

    def found(e: Evidence) -> np.ndarray:
        """The answers of a list: the right head, or the next one."""
        return np.eye(HEADS)[(e.classes + (not good)) % HEADS]

    router = SimpleNamespace(evidence=lambda features, logits: found(loud[-1]))
    judged = Judged.of(SimpleNamespace(evidence=found(loud[0]), router=router), loud[0], [*loud[1:], None][0], 10)
    layout = lay_out(
        [HeadInfo(f"h{h}", tuple(f"h{h} {i}" for i in range(LABELS))) for h in range(HEADS)], none=False, merge=False
    )
    notes = _worthless(None, judged, layout)
    assert len(notes) == (0 if good else 1)
    counted = 3 * held_out if held_out > 10 else 90
    assert (
        good or f"0.0% of {counted} held-out pictures, but the largest score of all heads does so on 100.0%" in notes[0]
    )


def _loud(evidence: Evidence) -> tuple[np.ndarray, ...]:
    """Each head is sure of its own pictures, and of no others."""
    own = [evidence.classes == h for h in range(HEADS)]
    return tuple(np.where(o[:, None] & (np.arange(LABELS) == 0), 9.0, 0.0) for o in own)


def test_the_length_of_the_features_does_not_matter() -> None:
    evidence, unseen = draw(none=40), draw(none=40, seed=5)
    router = fit_router(evidence, fit_energies=False).router
    longer = router.probabilities(7 * unseen.features, unseen.logits)
    np.testing.assert_allclose(router.probabilities(unseen.features, unseen.logits), longer, atol=1e-9)
    np.testing.assert_array_equal(unit(np.zeros((1, 3))), 0)


def test_no_picture_is_judged_by_a_fit_that_saw_it_or_a_near_duplicate() -> None:
    """With random labels, a fit that saw a picture is right on it, and any other is right by chance."""
    rng = np.random.default_rng(0)
    half = rng.normal(size=(60, 80))
    features, classes = np.repeat(half, 2, axis=0), np.repeat(rng.integers(0, 2, 60), 2)
    groups = np.repeat(np.arange(60), 2)
    honest = out_of_fold(features, classes, folds(groups, classes, 5), penalty=1.0, number=2).argmax(1) == classes
    leaky = out_of_fold(features, classes, folds(np.arange(120), classes, 5), penalty=1.0, number=2).argmax(1) == classes
    assert honest.mean() < 0.7 < leaky.mean()


def test_folds_are_even() -> None:
    classes = np.repeat([0, 1], [23, 10])
    fold = folds(np.arange(33), classes, 5)
    assert [np.bincount(fold[classes == c]).tolist() for c in (0, 1)] == [[5, 5, 5, 4, 4], [2, 2, 2, 2, 2]]


def test_energy_does_not_depend_on_the_width() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 4))
    np.testing.assert_allclose(energies([7 * logits], np.array([7.0])), energies([logits], np.array([1.0])))
    assert np.isfinite(energies([1e4 * logits], np.array([1.0]))).all()


def test_a_map_of_features_is_averaged() -> None:
    features = np.random.default_rng(0).normal(size=(2, 3, 3, 5))
    np.testing.assert_allclose(pooled(features), features.mean((1, 2)))
    np.testing.assert_allclose(pooled(features[:, 0, 0]), features[:, 0, 0])


def test_labels_of_the_list() -> None:
    heads = [HeadInfo("a", ("x", "same", "none")), HeadInfo("b", ("same", "y")), HeadInfo("c", ("same",), "sigmoid")]
    apart = lay_out(heads, none=True, merge=False)
    assert apart.labels == ("x", "a/same", "a/none", "b/same", "y", "c/same", "none")
    merged = lay_out(heads, none=False, merge=True)
    assert merged.labels == ("x", "same", "none", "y", "c/same")
    assert merged.members[1] == ((0, 1), (1, 0))
    assert apart.shared() == ["same"]


def test_merged_scores_add_up() -> None:
    evidence = draw(none=20)
    router = fit_router(evidence).router
    heads = [HeadInfo(n, tuple(f"{n if i else ''}{i}" for i in range(LABELS))) for n in "abc"]
    apart, merged = (lay_out(heads, none=True, merge=merge) for merge in (False, True))
    p, q = (reference(router, layout, evidence.features, evidence.logits)[0] for layout in (apart, merged))
    np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_allclose(q.sum(1), 1)
    np.testing.assert_allclose(q[:, 0], p[:, [0, LABELS, 2 * LABELS]].sum(1))
