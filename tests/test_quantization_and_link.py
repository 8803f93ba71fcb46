"""The content of the finished flatbuffer, read back from its bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from builder import BuildResult
from builder.support.errors import ConversionError
from builder.tflite.flatbuffer import INT8, Part, operator_name, read_parts, scale_and_zero_point
from builder.tflite.link import link
from edge_runtime.interpreter import open_interpreter
from tests.tiny_models import THREE_HEADS, build_tiny


@pytest.fixture
def parts(tiny_file: Path) -> dict[str, Part]:
    return read_parts(tiny_file.read_bytes())


def heads_and_backbone(parts: dict[str, Part]) -> dict[str, Part]:
    return {name: part for name, part in parts.items() if name not in ("serving_default", "all")}


def operators(part: Part) -> list[str]:
    return [operator_name(part, op) for op in part.operators]


def test_serving_default_is_subgraph_0_and_the_heads_follow_in_order(parts: dict[str, Part]) -> None:
    order = sorted(parts, key=lambda name: parts[name].subgraph)
    assert order == ["serving_default", "backbone", *THREE_HEADS, "all"]
    assert list(parts["serving_default"].outputs) == list(THREE_HEADS)
    assert list(parts["serving_default"].inputs) == list(parts["backbone"].inputs) == ["image"]


def test_end_to_end_is_the_backbone_once_and_then_the_heads(parts: dict[str, Part]) -> None:
    expected = operators(parts["backbone"]) + [name for head in THREE_HEADS for name in operators(parts[head])]
    assert operators(parts["serving_default"]) == expected


def test_every_tensor_is_an_integer_and_weights_have_a_scale_for_each_channel(parts: dict[str, Part]) -> None:
    for part in parts.values():
        assert not part.activations(), "a float activation"
        for op in part.operators:
            if operator_name(part, op) in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
                kernel = part.tensors[op.inputs[1]]
                channels = kernel.shape[3] if operator_name(part, op) == "DEPTHWISE_CONV_2D" else kernel.shape[0]
                assert kernel.type == INT8
                assert len(kernel.quantization.scale) == channels


def test_pixels_enter_as_they_are(parts: dict[str, Part]) -> None:
    backbone = parts["backbone"]
    quantize = backbone.operators[0]
    before, after = (backbone.tensors[i] for i in (*quantize.inputs, *quantize.outputs))
    (scale, zero), (scale_after, zero_after) = scale_and_zero_point(before), scale_and_zero_point(after)
    assert scale == scale_after == pytest.approx(1 / 127.5)
    assert zero - zero_after == 128


def test_the_seam_has_one_scale_on_both_sides_and_scores_the_fixed_one(parts: dict[str, Part]) -> None:
    backbone = parts["backbone"]
    seam = scale_and_zero_point(backbone.tensors[backbone.outputs["features"]])
    for name in THREE_HEADS:
        part = parts[name]
        assert scale_and_zero_point(part.tensors[part.inputs["features"]]) == seam
        assert scale_and_zero_point(part.tensors[part.outputs["scores"]]) == (1 / 256, -128)


def test_weights_are_stored_once(parts: dict[str, Part]) -> None:
    """The end-to-end subgraph and the others refer to the very same buffers, and no two buffers hold the same."""
    for name in ("backbone", *THREE_HEADS):
        shared = {t.buffer for t in parts["serving_default"].tensors} - {0}
        assert {t.buffer for t in parts[name].tensors} - {0} <= shared
    contents = [b.tobytes() for b in parts["backbone"].buffers if b is not None]
    assert len(contents) == len(set(contents))


def test_a_further_head_costs_its_weights_and_less_than_3_kilobytes(tmp_path: Path) -> None:
    small, large = (
        build_tiny(tmp_path / str(n), {f"head_{i}": 3 for i in range(n)}, rounding="nearest").output.stat().st_size
        for n in (1, 5)
    )
    weights = 3 * 64 + 3 * 4
    assert (large - small) / 4 <= weights + 3 * 1024


def test_linking_finished_parts_again_gives_the_same_answers(
    tiny_file: Path, tmp_path: Path, parts: dict[str, Part]
) -> None:
    """A finished file can be taken apart and linked again: what adding a head later rests on."""
    again = tmp_path / "again.tflite"
    again.write_bytes(link(heads_and_backbone(parts)).model)
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    answers = []
    for path in (tiny_file, again):
        _, interpreter = open_interpreter(str(path))
        answers.append(interpreter.get_signature_runner("serving_default")(image=image))
    assert {k: v.tolist() for k, v in answers[0].items()} == {k: v.tolist() for k, v in answers[1].items()}


def _other_scale(part: Part) -> None:
    part.tensors[part.inputs["features"]].quantization.scale = [0.123]


def _other_zero_point(part: Part) -> None:
    part.tensors[part.inputs["features"]].quantization.zeroPoint = [1]


def _other_shape(part: Part) -> None:
    part.tensors[part.inputs["features"]].shape = [1, 65]


def test_heads_with_scores_of_another_scale_are_not_linked(parts: dict[str, Part]) -> None:
    """Whoever puts their scores beside each other would compare what is not comparable."""
    scores = parts["garden"]
    scores.tensors[scores.outputs["scores"]].quantization.scale = [1 / 128]
    with pytest.raises(ConversionError, match="expected one scale for the scores of all heads"):
        link(heads_and_backbone(parts))


@pytest.mark.parametrize("spoil", [_other_scale, _other_zero_point, _other_shape])
def test_a_head_of_another_seam_is_not_linked(parts: dict[str, Part], spoil: Any) -> None:
    spoil(parts["garden"])
    with pytest.raises(ConversionError, match="head garden: expected features"):
        link(heads_and_backbone(parts))


def test_bytes_by_part_are_counted(tiny: BuildResult) -> None:
    assert "joint head" not in tiny.report.bytes_by_part  # there is none
    assert sum(tiny.report.bytes_by_part.values()) == tiny.output.stat().st_size
    assert all(size > 0 for size in tiny.report.bytes_by_part.values())
