"""A file is compared with its originals, each run once, and not with a model that was changed since."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from builder import BuildConfig, build  # noqa: E402
from builder.judging.truth import Truth  # noqa: E402
from builder.merging.backbone import find_backbone  # noqa: E402
from builder.merging.equivalence import check_equivalence  # noqa: E402
from builder.merging.merged import merge  # noqa: E402
from builder.merging.tolerance import align  # noqa: E402
from builder.reading.loading import load_classifiers  # noqa: E402
from builder.reading.originals.original import KerasOriginal  # noqa: E402
from builder.samples.gathered import collect_samples  # noqa: E402
from builder.support.errors import NoSharedBackboneError  # noqa: E402
from edge_runtime import MultiHeadClassifier  # noqa: E402
from edge_runtime.image_input import ImageInput  # noqa: E402
from tests.tiny_models import tiny_base, tiny_classifier, tiny_config  # noqa: E402


def moved(base: Any, by: float) -> Any:
    """Every weight of a copy of ``base`` by a share of its value, up or down."""
    other = keras.models.clone_model(base)
    signs = [np.sign(np.random.default_rng(i).normal(size=w.shape)) for i, w in enumerate(base.get_weights())]
    other.set_weights([(w * (1 + by * s)).astype(np.float32) for w, s in zip(base.get_weights(), signs, strict=True)])
    return other


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> BuildConfig:
    """Two heads whose bases are nearly the same."""
    base = tiny_base()
    heads = {"a": tiny_classifier(base, 3), "b": tiny_classifier(moved(base, 0.002), 4, seed=2)}
    return tiny_config(tmp_path_factory.mktemp("near"), heads, tolerance=0.01, rounding="nearest", precision="int8")


def test_truth_is_the_original_though_its_weights_are_taken_for_others(near: BuildConfig) -> None:
    classifiers = load_classifiers(near.heads)
    samples = collect_samples(near, ImageInput(32, 32))
    with Truth(classifiers, samples.shown, samples.verification) as truth:
        aligned, apart = align(truth.settle_unclear(classifiers), near.tolerance)
        aligned = truth.settle(aligned)
    assert apart > 0
    own = samples.verification.at(samples.verification.of_head("b").tolist())
    original = keras.models.load_model(near.heads[1].model)
    expected = np.asarray(original(own.tensors.astype(np.float32) / np.float32(127.5) - 1, training=False))
    np.testing.assert_allclose(truth.scores("b", own.sources), expected, atol=1e-6)
    merged = merge(aligned, find_backbone(aligned))
    replaced = merged.head_scores("b", merged.features(own.tensors))
    assert np.abs(replaced - expected).max() > 1e-4  # what the merged model says is another model's answer


def test_weights_too_far_apart_are_seen_when_the_originals_run(near: BuildConfig) -> None:
    classifiers = load_classifiers(near.heads)
    aligned, apart = align(classifiers, near.tolerance)
    merged = merge(aligned, find_backbone(aligned))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    said = {c.name: 1 - c.predict(list(pixels)) for c in classifiers}
    with pytest.raises(NoSharedBackboneError, match=r"were treated as equal \(tolerance\)"):
        check_equivalence(aligned, merged, pixels, said, apart=apart)


def test_an_original_is_run_once_however_many_precisions_are_tried(
    near: BuildConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []
    ask = KerasOriginal.ask
    monkeypatch.setattr(
        KerasOriginal, "ask", lambda self, *given, **more: asked.append(self.path.stem) or ask(self, *given, **more)
    )
    result = build(replace(near, precision="auto", output=tmp_path / "x.tflite", min_agreement=1.0))
    assert len(result.report.tried) > 1 or result.quality.agreement == 1.0
    assert sorted(asked) == ["a", "b"]


def test_one_question_goes_the_whole_way(tmp_path: Path) -> None:
    """Bare logits of one output: with one label p, with two 1 - p and p, and a report that says so."""
    base = tiny_base()
    head = tiny_classifier(base, 1, activation=None)
    config = tiny_config(tmp_path, {"one": head, "two": head}, rounding="nearest", precision="weights")
    heads = replace(config.heads[0], labels=("dog",)), replace(config.heads[1], labels=("cat", "dog"))
    result = build(replace(config, heads=heads))
    kinds = [(head.labels, head.activation) for head in result.metadata.heads]
    assert kinds == [(("dog",), "sigmoid"), (("cat", "dog"), "softmax")]
    assert all(q.agreement > 0.9 and q.kind is None for q in result.quality.heads)
    with MultiHeadClassifier(result.output) as opened:
        for pixels in result.report.verification.tensors[:4]:
            logit = float(np.asarray(head(pixels[None] / np.float32(127.5) - 1, training=False))[0, 0])
            expected, features = 1 / (1 + np.exp(-logit)), opened.features(pixels)
            assert opened.head_scores(features, "one") == pytest.approx([expected], abs=0.05)
            assert opened.head_scores(features, "two") == pytest.approx([1 - expected, expected], abs=0.05)
