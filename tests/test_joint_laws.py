"""Laws of the joint list over generated heads, labels and logits; models are a few operators."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.joint.graph import joint_part, reference
from builder.joint.layout import lay_out
from builder.joint.logistic import _DIRECTIONS, folds, principal
from builder.joint.observe import FEW_PICTURES, grouped_samples
from builder.joint.router import Evidence, Router, fit_router, near_duplicates
from builder.tflite.flatbuffer import plain_tensor
from builder.tflite.link import JOINT_SEAM
from builder.tflite.writer import write_parts
from edge_runtime.interpreter import find_interpreter
from edge_runtime.metadata import HeadInfo

FEATURES = 6
NAMES = ("a", "b", "c", "d")
# Names that a list could make by itself, and labels that are another head's.
LABELS = st.sampled_from(["x", "y", "none", "a/x", "b/x", "a/b/x", "b/a/x", "a/none", "c/y", "a/a/x", "/x", "é"])
HEADS = st.lists(
    st.tuples(st.lists(LABELS, min_size=1, max_size=6, unique=True), st.sampled_from(["softmax", "softmax", "sigmoid"])),
    min_size=1,
    max_size=4,
).map(lambda heads: [HeadInfo(n, tuple(labels), kind) for n, (labels, kind) in zip(NAMES, heads, strict=False)])


@given(heads=HEADS, none=st.booleans(), merge=st.booleans())
@settings(max_examples=400, deadline=None)
def test_every_label_of_every_head_has_one_place_and_every_name_one_meaning(
    heads: list[HeadInfo], none: bool, merge: bool
) -> None:
    layout = lay_out(heads, none=none, merge=merge)
    assert len(set(layout.labels)) == len(layout.labels) == len(layout.members)
    places = [place for own in layout.members for place in own]
    assert sorted(places) == [(h, i) for h, head in enumerate(heads) for i in range(len(head.labels))]
    for name, own in zip(layout.labels, layout.members, strict=True):
        for h, i in own:
            label = heads[h].labels[i]
            assert name in (label, f"{heads[h].head_name}/{label}")
        assert len(own) < 2 or (merge and {heads[h].activation for h, _ in own} == {"softmax"})
        assert len({heads[h].labels[i] for h, i in own}) < 2
    assert (layout.labels[-1] == "none" and layout.members[-1] == ()) == none
    turned = lay_out(heads[::-1], none=none, merge=merge)
    assert set(turned.labels) == set(layout.labels)


class Subgraph:
    """The joint part of heads with float logits, run by an interpreter."""

    def __init__(self, counts: Sequence[int], kinds: Sequence[str], router: Router) -> None:
        self.heads = [
            HeadInfo(n, tuple(f"{n}{i}" for i in range(c)), kind)
            for n, c, kind in zip(NAMES, counts, kinds, strict=False)
        ]
        self.layout, self.router = lay_out(self.heads, none=router.none, merge=False), router
        logits = {h.head_name: plain_tensor(h.head_name, (1, len(h.labels)), np.float32) for h in self.heads}
        part = joint_part(router, self.layout, plain_tensor("features", (1, FEATURES), np.float32), logits)
        _, factory = find_interpreter("ai_edge_litert")
        self._run = factory(model_content=write_parts({"joint": part})).get_signature_runner("joint")

    def assert_equals_numpy(self, features: np.ndarray, logits: Sequence[np.ndarray]) -> None:
        scores, classes = reference(self.router, self.layout, features, logits)
        for p, row in enumerate(features):
            given_logits = {h.head_name: z[p : p + 1] for h, z in zip(self.heads, logits, strict=True)}
            found = self._run(**{JOINT_SEAM: row[None]}, **given_logits)
            np.testing.assert_allclose(found["heads"][0], classes[p], atol=1e-3)
            np.testing.assert_allclose(found["scores"][0], scores[p], atol=1e-3)


@given(
    counts=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    none=st.booleans(),
    scale=st.floats(-6, 8),
    apart=st.floats(0, 5),
    shift=st.sampled_from([0.0, 1.0, -1.0, 20.0, -20.0, -300.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_the_subgraph_is_its_reference_for_logits_of_any_size(
    counts: list[int], none: bool, scale: float, apart: float, shift: float, seed: int
) -> None:
    """``scale``: of all logits, a power of 10; ``apart``: by how many powers heads differ; ``shift``: in widths."""
    rng, number = np.random.default_rng(seed), len(counts)
    sizes = 10.0 ** (scale + apart * np.linspace(-0.5, 0.5, number))
    logits = [(s * (shift + rng.normal(0, 2, (5, c)))).astype(np.float32) for s, c in zip(sizes, counts, strict=True)]
    # As ``fit_router`` does: energies have a spread of about 1 and no mean.
    router = Router(
        rng.integers(-127, 128, (FEATURES, number + none)).astype(np.int8),
        np.full(number + none, 0.01, np.float32),
        np.append(np.full(number, -shift), [0.0] * none).astype(np.float32),
        (2 * sizes).astype(np.float32),
        np.full(number, 2.0, np.float32),
        none=none,
    )
    kinds = rng.choice(["softmax", "sigmoid"], number).tolist()
    Subgraph(counts, kinds, router).assert_equals_numpy(rng.normal(size=(5, FEATURES)).astype(np.float32), logits)


@given(
    lengths=st.lists(st.integers(1, 9), min_size=5, max_size=12),
    classes=st.integers(1, 3),
    step=st.floats(0.05, 0.6),
    seed=st.integers(0, 99),
)
@settings(max_examples=100, deadline=None)
def test_near_duplicates_are_in_one_fold(lengths: list[int], classes: int, step: float, seed: int) -> None:
    """Films of slow pans: each frame is like the next, the last is nothing like the first."""
    rng, frames, owners = np.random.default_rng(seed), [], []
    for film, length in enumerate(lengths):
        one, other = np.linalg.qr(rng.normal(size=(40, 2)))[0].T
        angles = step * np.arange(length)
        frames.append(np.cos(angles)[:, None] * one + np.sin(angles)[:, None] * other)
        owners += [film % classes] * length
    features, owner = np.concatenate(frames), np.array(owners)
    order = rng.permutation(len(owner))
    features, owner = features[order], owner[order]
    groups = near_duplicates(features, owner)
    fold = folds(groups, owner, 5)
    centred = features - features.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    alike = (unit @ unit.T > 0.8) & (owner[:, None] == owner)
    assert np.all(fold[:, None] == fold, where=alike)
    assert np.all(groups[:, None] == groups, where=alike)
    assert len(np.unique(np.stack([groups, owner]), axis=1).T) == len(np.unique(groups))  # a group is of one head


def test_a_head_that_is_one_scene_is_named_and_does_not_spoil_the_others() -> None:
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(size=(30, 40)), 5 + rng.normal(size=40) + rng.normal(0, 0.05, (12, 40))])
    classes = np.repeat([0, 1], [30, 12])
    logits = tuple(rng.normal(size=(42, 3)) for _ in range(2))
    fitted = fit_router(Evidence(features, logits, classes))
    assert fitted.one_scene == (1,)
    assert fitted.held_out[np.arange(42), classes].mean() > 0.9


@pytest.mark.parametrize("heads", [1, 5, 400, 800, 5000])
def test_however_many_heads_there_are_each_keeps_pictures_enough(
    heads: int, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    names = [f"h{i}" for i in range(heads)]
    found = [SimpleNamespace(digest=f"{n}/{i}", head=n, group=n) for n in (*names[:2], names[-1]) for i in range(300)]
    monkeypatch.setattr("builder.joint.observe.find_samples", lambda *_: found)
    kept = grouped_samples(tmp_path_factory.getbasetemp(), names, None, [])  # type: ignore[arg-type]
    for name in (*names[:2], names[-1]):
        assert FEW_PICTURES <= sum(s.head == name for s in kept) <= 300


@pytest.mark.parametrize(("pictures", "features"), [(40, 90), (90, 40), (1, 5), (_DIRECTIONS + 60, _DIRECTIONS + 30)])
def test_principal_directions_are_those_of_the_singular_values(pictures: int, features: int) -> None:
    """Orthonormal, and with the most of the pictures' energy that so many directions can have."""
    rng = np.random.default_rng(pictures)
    values = (rng.normal(size=(pictures, features)) * np.geomspace(1, 0.05, features)).astype(np.float32)
    basis = principal(values)
    centred = values - values.mean(0, dtype=np.float64)
    number = min(_DIRECTIONS, features, pictures - 1)
    assert basis.shape == (features, number)
    np.testing.assert_allclose(basis.T @ basis, np.eye(number), atol=1e-6)
    most = np.sum(np.linalg.svd(centred, compute_uv=False)[:number] ** 2)
    assert np.isclose(np.sum((centred @ basis) ** 2), most, rtol=1e-9)
