"""Models in the wrappers of TensorFlow's optimization toolkit are the models without them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from builder.merging.backbone import find_backbone  # noqa: E402
from builder.merging.merge import merge  # noqa: E402
from builder.reading.classifier import Classifier  # noqa: E402
from builder.reading.formats.toolkit import unwrap  # noqa: E402
from builder.reading.reader import Reader  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING  # noqa: E402
from builder.support.errors import ModelFileError  # noqa: E402
from tests.toolkit_models import KINDS  # noqa: E402

pytestmark = pytest.mark.slow
FILES = [f"{name}{suffix}" for name in ("pruned", "quantized") for suffix in KINDS]


def read(name: str, path: Path) -> Classifier:
    return Reader().read(name, path, PREPROCESSING["unit"]).with_labels(("a", "b", "c"), None)


@pytest.fixture(scope="module")
def plain(tf_keras_files: Path) -> Classifier:
    return read("plain", tf_keras_files / "plain.h5")


@pytest.mark.parametrize("file", FILES)
def test_a_wrapped_model_shares_its_base_with_the_plain_one_and_answers_alike(
    tf_keras_files: Path, plain: Classifier, file: str
) -> None:
    kept = np.load(tf_keras_files / "toolkit.npz")
    assert np.ptp(kept["answers"], axis=0).max() > 0.1
    wrapped = read("wrapped", tf_keras_files / file)
    backbone = find_backbone([plain, wrapped])
    merged = merge([plain, wrapped], backbone)
    features = merged.features(kept["pictures"])
    found, same = (merged.head_scores(name, features) for name in ("wrapped", "plain"))
    np.testing.assert_allclose(found, same, rtol=0, atol=1e-7)
    # Keras 3 and tf_keras add float32 in different orders: 1.4e-5 apart on a processor with AVX2 alone.
    np.testing.assert_allclose(found, kept["answers"], rtol=0, atol=1e-4)
    original = wrapped.ask(kept["pictures"])
    np.testing.assert_allclose(original(), kept["answers"], atol=1e-5)
    assert original.note is None  # tf_keras itself ran it
    assert not any(node.kind.startswith(("Prune", "Quantize")) for node in wrapped.graph.nodes)
    word = "trained for quantization" if file.startswith("quantized") else "pruned"
    assert [word in note for note in wrapped.notes] == [True]


@pytest.mark.parametrize("place", [0, 1])
def test_a_weight_that_moved_while_it_was_pruned_is_seen(
    tf_keras_files: Path, tmp_path: Path, plain: Classifier, place: int
) -> None:
    """The weights are those of the layer, never a mask or a range."""
    import h5py

    path = tmp_path / "moved.h5"
    path.write_bytes((tf_keras_files / "pruned.h5").read_bytes())
    name = ("base/stem/conv/kernel:0", "base/prune_low_magnitude_stem/conv/mask:0")[place]
    with h5py.File(path, "r+") as file:
        file[f"model_weights/{name}"][0, 0, 0, 0] += 1e-3
    moved = read("moved", path)
    same = moved.graph.nodes[0].weights[0].digest == plain.graph.nodes[0].weights[0].digest
    assert same == (place == 1)


def test_weights_come_in_the_order_of_their_layer() -> None:
    """The first version of the toolkit lists them in another order."""
    dense = {"class_name": "Dense", "config": {"name": "scores", "units": 2}}
    wrapper = {"class_name": "QuantizeWrapper", "config": {"name": "quant_scores", "layer": dense}}
    model = unwrap({"class_name": "Sequential", "config": {"name": "m", "layers": [wrapper]}})
    listed = [("scores/bias:0", 1), ("scores/kernel:0", 0), ("quant_scores/kernel_min:0", 2)]
    assert [name for name, _ in model.weights("quant_scores", listed)] == ["scores/kernel:0", "scores/bias:0"]


@pytest.mark.parametrize(
    "broken",
    [
        {"name": "w"},
        {"name": "w", "layer": None},
        {"name": "w", "layer": {"class_name": "Dense"}},
        {"name": "w", "layer": {"class_name": "Dense", "config": []}},
        {"name": "w", "layer": {"class_name": "Lambda", "config": {"name": "l"}}},
        {"name": "w", "layer": {"class_name": "mine>Layer", "config": {"name": "l"}}},
        {"layer": {"class_name": "Dense", "config": {"units": 3}}},
    ],
)
def test_a_wrapper_hides_nothing(tf_keras_files: Path, tmp_path: Path, broken: dict[str, Any]) -> None:
    """The layer inside is checked like any other."""
    import h5py

    path = tmp_path / "broken.h5"
    path.write_bytes((tf_keras_files / "pruned.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        definition = json.loads(file.attrs["model_config"])
        definition["config"]["layers"][-1]["config"] = broken
        file.attrs["model_config"] = json.dumps(definition)
    with pytest.raises(ModelFileError) as error:
        Reader().read("a", path, PREPROCESSING["unit"])
    assert "\n" not in str(error.value)
