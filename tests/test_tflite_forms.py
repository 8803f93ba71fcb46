"""One function in other operators is one backbone; another function in the same operators is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builder.merging.backbone import find_backbone
from builder.merging.merged import merge
from builder.merging.tolerance import align
from builder.reading.classifier import Classifier
from builder.reading.reader import Reader
from builder.settings.input_scaling import PREPROCESSING, PixelTransform
from builder.support.errors import ModelFileError, NoSharedBackboneError
from builder.tflite.assembler import Assembler
from builder.tflite.writer import write_parts

SIZE, LABELS = 16, 3
RELU6, SAME, VALID = 3, 0, 1
EXACT = 1e-5


def write(path: Path, **how: Any) -> Path:
    """A stem, a block with a sum, a mean and a dense layer, written in one of many ways."""
    made, rng = Assembler("network"), np.random.default_rng(how.get("seed", 0))
    kernels = {name: rng.normal(0, 0.5, shape) for name, shape in _SHAPES.items()}
    biases = {name: rng.normal(0, 0.2, shape[0] if name != "block" else 8) for name, shape in _SHAPES.items()}
    kernels["stem"] = kernels["stem"] * how.get("stem", 1.0)
    head = np.random.default_rng(how.get("head", 1))
    x = _pixels(made, **how)
    x = _window(made, "CONV_2D", x, kernels["stem"], biases["stem"], 2, **how)
    y = _window(made, "DEPTHWISE_CONV_2D", x, kernels["block"], biases["block"], 1, **{**how, "pad": "same"})
    pair = [y, x] if how.get("turned") else [x, y]
    x = made.operator("ADD", pair, [(1, 8, 8, 8)], ("AddOptions", {"fusedActivationFunction": how.get("sum", 0)}))[0]
    x = _pooled(made, x, **how)
    weights, bias = (head.normal(0, 1, shape).astype(np.float32) for shape in ((LABELS, 8), (LABELS,)))
    x = _dense(made, x, weights, bias, **how)
    made.part.outputs = {"scores": made.add("SOFTMAX", [x], (1, LABELS))}
    path.write_bytes(write_parts({"network": made.part}))
    return path


_SHAPES = {"stem": (8, 3, 3, 3), "block": (1, 3, 3, 8)}


def _pixels(made: Assembler, **how: Any) -> int:
    front = how.get("front", "nothing")
    shape = (1, 3, SIZE, SIZE) if how.get("first") else (1, SIZE, SIZE, 3)
    x = made.source("image", shape)
    for kind, value in _FRONTS[front]:
        values = np.asarray(value, np.float32)
        values = values.reshape(-1, 1, 1) if how.get("first") and values.size == 3 else values
        x = made.operator(kind, [x, made.constant(np.atleast_1d(values))], [shape], (f"{kind.title()}Options", {}))[0]
    if how.get("first"):
        turn = made.constant(np.array([0, 2, 3, 1], np.int32))
        x = made.operator("TRANSPOSE", [x, turn], [(1, SIZE, SIZE, 3)], ("TransposeOptions", {}))[0]
    return x


_FRONTS: dict[str, list[tuple[str, Any]]] = {
    "nothing": [],
    "divide, subtract": [("DIV", 127.5), ("SUB", 1.0)],
    "multiply, add": [("MUL", 1 / 127.5), ("ADD", -1.0)],
    "subtract, multiply": [("SUB", [127.5] * 3), ("MUL", [1 / 127.5] * 3)],
    "divide": [("DIV", 255.0)],
}


def _window(made: Assembler, kind: str, x: int, kernel: Any, bias: Any, stride: int, **how: Any) -> int:
    options = {"strideW": stride, "strideH": stride, "dilationWFactor": 1, "dilationHFactor": 1}
    padding, before = SAME, how.get("before", (0, 1))
    if how.get("pad") == "zeros":
        padding = VALID
        amounts = made.constant(np.array([(0, 0), before, before, (0, 0)], np.int32))
        x = made.operator("PAD", [x, amounts], [(1, SIZE + 1, SIZE + 1, 3)], ("PadOptions", {}))[0]
    table, own = ("Conv2DOptions", {}) if kind == "CONV_2D" else ("DepthwiseConv2DOptions", {"depthMultiplier": 1})
    separate = how.get("activation") == "separate"
    settings = {**options, **own, "padding": padding, "fusedActivationFunction": 0 if separate else RELU6}
    inputs = [x, made.constant(kernel.astype(np.float32)), made.constant(bias.astype(np.float32))]
    x = made.operator(kind, inputs, [(1, 8, 8, 8)], (table, settings))[0]
    return made.add("RELU6", [x], (1, 8, 8, 8)) if separate else x


def _pooled(made: Assembler, x: int, **how: Any) -> int:
    pool = how.get("pool", "mean")
    if pool in ("average", "maximum"):
        window = {"padding": VALID, "strideW": 8, "strideH": 8, "filterWidth": 8, "filterHeight": 8}
        x = made.operator(
            "AVERAGE_POOL_2D" if pool == "average" else "MAX_POOL_2D", [x], [(1, 1, 1, 8)], ("Pool2DOptions", window)
        )[0]
    else:
        axes = made.constant(np.array(how.get("axes", [1, 2]), np.int32))
        kept = pool == "mean, kept"
        x = made.operator("MEAN", [x, axes], [(1, 1, 1, 8) if kept else (1, 8)], ("ReducerOptions", {"keepDims": kept}))[
            0
        ]
    if how.get("flatten") == "squeeze" and pool != "mean":
        return made.operator("SQUEEZE", [x], [(1, 8)], ("SqueezeOptions", {"squeezeDims": [1, 2]}))[0]
    return (
        made.reshape(x, (1, 8)) if how.get("flatten", "reshape") == "reshape" and how.get("end") != "convolution" else x
    )


def _dense(made: Assembler, x: int, weights: np.ndarray, bias: np.ndarray, **how: Any) -> int:
    if how.get("end") != "convolution":
        return made.add("FULLY_CONNECTED", [x, made.constant(weights), made.constant(bias)], (1, LABELS))
    settings = {"padding": VALID, "strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
    inputs = [x, made.constant(weights.reshape(LABELS, 1, 1, 8)), made.constant(bias)]
    x = made.operator("CONV_2D", inputs, [(1, 1, 1, LABELS)], ("Conv2DOptions", settings))[0]
    return made.reshape(x, (1, LABELS))


def read(paths: list[Path], transform: PixelTransform | None = PREPROCESSING["tf"]) -> tuple[Classifier, ...]:
    reader = Reader()
    found = [reader.read(f"head{i}", path, transform) for i, path in enumerate(paths)]
    return tuple(c.with_labels(("a", "b", "c"), None) for c in found)


SAME_FUNCTION: list[dict[str, Any]] = [
    {"pad": "zeros"},
    {"activation": "separate"},
    {"turned": True},
    {"pool": "average"},
    {"pool": "mean, kept"},
    {"pool": "mean, kept", "flatten": "squeeze"},
    {"pool": "average", "flatten": "squeeze"},
    {"pool": "average", "end": "convolution"},
    {"pool": "mean, kept", "end": "convolution"},
    {"axes": [2, 1]},
    {"axes": [-3, -2]},
    {"first": True},
    {"pad": "zeros", "activation": "separate", "turned": True, "pool": "average", "end": "convolution", "first": True},
]


@pytest.mark.parametrize("how", SAME_FUNCTION, ids=str)
def test_one_function_in_other_operators_is_one_backbone(tmp_path: Path, how: dict[str, Any]) -> None:
    paths = [write(tmp_path / "first.tflite"), write(tmp_path / "other.tflite", head=2, **how)]
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    for order in (paths, paths[::-1]):
        classifiers = read(order)
        merged = merge(classifiers, find_backbone(classifiers))
        assert find_backbone(classifiers).parameters == 8 * 27 + 8 + 72 + 8
        features = merged.features(pixels)
        assert list(features) == ["features"]
        for classifier in classifiers:
            found = merged.head_scores(classifier.name, features)
            assert np.abs(classifier.predict(pixels) - found).max() < EXACT


OTHER_FUNCTION: list[dict[str, Any]] = [
    {"pad": "zeros", "before": (1, 0)},
    {"pool": "maximum"},
    {"sum": RELU6},
    {"seed": 5},
    {"stem": 1 + 1e-5},
]


@pytest.mark.parametrize("how", OTHER_FUNCTION, ids=str)
def test_another_function_in_the_same_operators_is_another_backbone(tmp_path: Path, how: dict[str, Any]) -> None:
    paths = [write(tmp_path / "first.tflite"), write(tmp_path / "other.tflite", head=2, **how)]
    classifiers, _ = align(read(paths), 0.0)
    whole = find_backbone(read(paths[:1]))
    try:
        found = find_backbone(classifiers)
    except NoSharedBackboneError:
        return
    assert found.digest != whole.digest


FRONTS = [name for name in _FRONTS if name not in ("nothing", "divide")]


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("first", [False, True])
def test_what_happens_to_pixels_in_front_is_the_input_scaling(tmp_path: Path, front: str, first: bool) -> None:
    outside = read([write(tmp_path / "outside.tflite")])
    inside = read([write(tmp_path / "inside.tflite", front=front, first=first, head=2)], None)
    both = (*outside, replace(inside[0], name="inside"))
    merged = merge(both, find_backbone(both))
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    features = merged.features(pixels)
    for classifier in both:
        assert np.abs(classifier.predict(pixels) - merged.head_scores(classifier.name, features)).max() < EXACT


def test_another_scaling_is_named(tmp_path: Path) -> None:
    outside = read([write(tmp_path / "outside.tflite")])
    inside = read([write(tmp_path / "inside.tflite", front="divide")], None)
    with pytest.raises(NoSharedBackboneError, match="its input scaling is"):
        find_backbone((*outside, *inside))


def test_channels_first_without_a_turn_are_refused(tmp_path: Path) -> None:
    made = Assembler("network")
    image = made.source("image", (1, 3, SIZE, SIZE))
    axes = made.constant(np.array([2, 3], np.int32))
    x = made.add("MEAN", [image, axes], (1, 3))
    made.part.outputs = {"scores": made.add("SOFTMAX", [x], (1, 3))}
    (tmp_path / "a.tflite").write_bytes(write_parts({"network": made.part}))
    with pytest.raises(ModelFileError, match="channels come first"):
        Reader().read("a", tmp_path / "a.tflite", None)
