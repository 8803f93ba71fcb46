"""The router: against scikit-learn where the formula is ours, and the laws it must keep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from builder.joint.graph import lay_out, reference
from builder.joint.logistic import balanced_weights, fit_logistic, folds, log_softmax, out_of_fold
from builder.joint.router import Evidence, Router, energies, fit_router, pooled
from builder.joint.unknown import separation, thresholds, unknown_by_leaving_out
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
    found = np.exp(log_softmax(ours.evidence(unseen.features)))
    np.testing.assert_allclose(found, theirs.predict_proba(unseen.features), atol=2e-4)


def test_weights_are_scikit_learns_balanced_ones() -> None:
    class_weight = pytest.importorskip("sklearn.utils.class_weight")
    classes = np.repeat([0, 1, 2], [5, 50, 20])
    np.testing.assert_allclose(balanced_weights(classes), class_weight.compute_sample_weight("balanced", classes))


def test_more_features_than_pictures() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    features, classes = rng.normal(size=(20, 300)), np.arange(20) % 2
    ours = fit_logistic(features, classes, penalty=3.0, number=2).evidence(features)
    # Two outputs of half the weight each: scikit-learn fits their difference, under twice the penalty for each of them.
    theirs = linear_model.LogisticRegression(C=2 / 3.0, tol=1e-10, max_iter=10_000).fit(features, classes)
    np.testing.assert_allclose(ours[:, 1] - ours[:, 0], theirs.decision_function(features), atol=2e-3)


def test_auroc_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    known, strange = rng.integers(0, 30, 200) / 30, rng.integers(0, 20, 90) / 30  # with ties
    truth = np.r_[np.ones(200), np.zeros(90)]
    assert separation(known, strange)[0] == pytest.approx(metrics.roc_auc_score(truth, np.r_[known, strange]))
    assert separation(known, known + 1) == (pytest.approx(0.0, abs=0.05), 1.0)


def test_it_learns() -> None:
    router = fit_router(draw()).router
    assert accuracy(router, draw(seed=5)) > 0.9


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


def test_ten_pictures_a_head_are_enough_to_be_better_than_chance_and_humble() -> None:
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
    auroc, _ = separation(p[known, :HEADS].max(1), p[~known, :HEADS].max(1))
    assert auroc > 0.9
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-12)


def test_without_pictures_of_none_heads_stand_for_it_in_turn() -> None:
    found = unknown_by_leaving_out(draw())
    assert found is not None
    assert found.pictures == 180
    assert found.auroc > 0.6
    assert unknown_by_leaving_out(draw().only_heads([0, 1]).part(np.arange(120))) is None


def test_thresholds_pass_the_share_they_state() -> None:
    fitted, evidence = fit_router(draw((200, 200, 200))), draw((200, 200, 200))
    own, bar = thresholds(fitted.held_out, evidence.classes, HEADS, 0.1)
    assert np.mean(fitted.held_out[:, :HEADS].max(1) >= bar) == pytest.approx(0.9, abs=0.01)
    for h in range(HEADS):
        assert np.mean(fitted.held_out[evidence.classes == h, h] >= own[h]) == pytest.approx(0.9, abs=0.01)
    assert thresholds(fitted.held_out, evidence.classes, HEADS, 0.01)[1] < bar


def test_no_picture_is_judged_by_a_fit_that_saw_it_or_its_twin() -> None:
    """Labels at random: who looks is right, who does not is at chance."""
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
