"""The precisions, from the smallest file to the most exact: which one is used, its content and its answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from builder import BuildResult, build, candidates, precisions
from builder.judging.verify import Quality, verify
from builder.quantizing import latency
from builder.quantizing.mixed import Plan
from builder.reporting.made import verdict_on
from builder.settings.config import ALGORITHMS, PRECISIONS, BuildConfig
from builder.support.errors import ConfigError, ConversionError, QualityError, TargetError
from builder.support.interval import wilson_interval
from builder.tflite.flatbuffer import FLOAT32, INT8, INT16, Part, operator_name, plain_tensor, read_parts
from builder.tflite.pixel_input import take_pixels
from builder.tflite.splice import result_name
from builder.tflite.writer import write_parts
from edge_runtime import MultiHeadClassifier
from edge_runtime.errors import InterpreterError
from edge_runtime.interpreter import find_interpreter
from edge_runtime.metadata import OLDEST_RUNTIME
from tests.device_files import two_float_operators
from tests.joint_models import head_of, with_joint

BACKBONE_MS = latency.backbone_ms  # the real one, which conftest.py replaces
TYPES = {
    "int8": INT8,
    "mixed": INT8,
    "int16": INT16,
    "dynamic": FLOAT32,
    "weights": FLOAT32,
    "float16": FLOAT32,
    "float": FLOAT32,
}


@pytest.fixture(scope="module", autouse=True)
def untimed() -> Iterator[None]:
    """Times do not matter in so small a network: the float operators are fixed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "plans", two_float_operators)
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> BuildConfig:
    """Models and pictures of three heads, with a joint list."""
    return with_joint(tmp_path_factory.mktemp("precisions"))


@pytest.fixture(scope="module")
def by_precision(config: BuildConfig) -> dict[str, BuildResult]:
    """The same classifiers in every precision."""
    folder = config.output.parent
    return {
        name: build(replace(config, precision=name, output=folder / name / "x.tflite", rounding="learnt"))
        for name in PRECISIONS
    }


def test_every_backbone_has_a_time(by_precision: dict[str, BuildResult]) -> None:
    parts = [read_parts(by_precision[name].output.read_bytes())["backbone"] for name in ("int8", "float")]
    times = BACKBONE_MS(*parts)
    assert len(times) == 2
    assert all(time > 0 for time in times)


def test_each_precision_is_nearer_to_float_than_int8_and_the_last_is_float(by_precision: dict[str, BuildResult]) -> None:
    found = {name: result.quality.features_snr_db for name, result in by_precision.items()}
    assert found["mixed"] > found["int8"] - 0.5  # two operators, not those that lose most
    assert all(found[name] > found["int8"] + 10 for name in PRECISIONS[2:] if name != "dynamic"), found
    assert found["dynamic"] > found["int8"]
    assert found["float"] > 100


def test_a_file_says_its_precision_and_has_it(by_precision: dict[str, BuildResult]) -> None:
    for name, result in by_precision.items():
        parts = read_parts(result.output.read_bytes())
        backbone = parts["backbone"]
        assert backbone.tensors[backbone.outputs["features"]].type == TYPES[name]
        assert all(part.tensors[part.inputs["image"]].name == b"backbone/image" for part in (backbone,))
        assert result.metadata.built["precision"] == name
        seam = np.dtype(result.metadata.seam[0].quantization.dtype)
        assert seam.name == {"mixed": "int8", "int8": "int8", "int16": "int16"}.get(name, "float32")


def test_ranges_are_measured_only_where_activations_become_integers(by_precision: dict[str, BuildResult]) -> None:
    measured = [name for name, result in by_precision.items() if "calibrate" in result.report.seconds]
    assert measured == ["int8", "mixed", "int16"]


def test_weights_cost_a_byte_two_or_four(by_precision: dict[str, BuildResult]) -> None:
    size = {name: result.report.linked.backbone_bytes for name, result in by_precision.items()}
    assert size["int8"] < 1.2 * size["weights"]
    assert size["weights"] < size["float16"] < size["float"]


def test_every_precision_answers_with_probabilities_and_a_joint_list(
    by_precision: dict[str, BuildResult], config: BuildConfig
) -> None:
    picture = next(p for p in sorted((config.calibration_data / "animals").iterdir()))
    answers = {}
    for name, result in by_precision.items():
        with MultiHeadClassifier(result.output, num_threads=1) as classifier:
            found = classifier.classify(picture, joint=True)
            assert found.joint is not None
            answers[name] = [c.score for c in sorted(found.joint.categories, key=lambda c: c.index)]
            for head in found.classifications:
                assert sum(c.score for c in head.categories) == pytest.approx(1, abs=0.02)
        assert head_of(result).pictures == head_of(by_precision["float"]).pictures
    for name, scores in answers.items():
        atol = 0.12 if name in ("int8", "mixed") else 0.03
        np.testing.assert_allclose(scores, answers["float"], atol=atol, err_msg=name)


@pytest.mark.slow
def test_learnt_rounding_helps_weights_of_every_precision(
    by_precision: dict[str, BuildResult], config: BuildConfig
) -> None:
    for name in ("int16", "weights"):
        output = config.output.parent / f"{name}-nearest.tflite"
        nearest = build(replace(config, precision=name, output=output, rounding="nearest"))
        assert by_precision[name].quality.features_snr_db > nearest.quality.features_snr_db + 3


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS[1:])
def test_the_algorithms_of_others_are_to_be_had(
    algorithm: str, config: BuildConfig, by_precision: dict[str, BuildResult]
) -> None:
    """The same operators, each with its own numbers; int8 alone, whatever it reaches."""
    stock = build(
        replace(config, algorithm=algorithm, output=config.output.parent / f"{algorithm}.tflite", min_agreement=0.0)
    )
    assert [tried.precision for tried in stock.report.tried] == ["int8"]
    assert stock.metadata.built["algorithm"] == algorithm
    theirs, ours = (read_parts(result.output.read_bytes())["backbone"] for result in (stock, by_precision["int8"]))
    assert [operator_name(theirs, op) for op in theirs.operators] == [operator_name(ours, op) for op in ours.operators]
    assert not theirs.activations()
    assert stock.quality.features_snr_db < by_precision["int8"].quality.features_snr_db
    assert stock.quality.features_snr_db > 10


def judged_as(monkeypatch: pytest.MonkeyPatch, agreements: list[float]) -> None:
    """Fix the agreement of all precisions that are built from now on."""
    left = list(agreements)

    def judge(*args: Any) -> Quality:
        quality, agreement = verify(*args), left.pop(0)
        interval = wilson_interval(round(agreement * 100), 100)
        heads = tuple(replace(q, agreement=agreement, interval=interval) for q in quality.heads)
        return replace(quality, heads=heads)

    monkeypatch.setattr(precisions, "verify", judge)


def test_auto_takes_the_first_precision_that_passes_and_tells_of_those_before(
    config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_as(monkeypatch, [0.5, 0.9, 0.98, 1.0, 1.0])
    result = build(replace(config, output=config.output.parent / "auto.tflite", min_agreement=0.97))
    document = result.report.to_json()
    assert [tried["precision"] for tried in document["precisions"]] == list(PRECISIONS[:3])
    assert [tried["agreement"] for tried in document["precisions"]] == [0.5, 0.9, 0.98]
    assert document["precision"] == result.metadata.built["precision"] == PRECISIONS[2]
    assert all(
        tried["bytes"] > 0 and tried["backbone_ms"] > 0 and tried["min_runtime"] for tried in document["precisions"]
    )


def test_more_float_operators_are_tried_until_it_passes(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def growing(float_parts: Any, *_: Any) -> Iterator[Plan]:
        names = [result_name(float_parts["backbone"], op) for op in float_parts["backbone"].operators]
        for count in (1, 2, 3, 4):
            yield Plan(tuple(names[:count]), [])

    monkeypatch.setattr(candidates, "plans", growing)
    judged_as(monkeypatch, [0.5, 0.9, 0.95, 0.98, 1.0])
    result = build(replace(config, output=config.output.parent / "more.tflite", min_agreement=0.97))
    found = result.report.to_json()["precisions"]
    assert [tried["precision"] for tried in found] == ["int8", "mixed", "mixed", "mixed"]
    assert [len(tried["float_operators"]) for tried in found[1:]] == [1, 2, 3]
    assert len(result.report.chosen.plan.layers) == 3


def test_not_refuted_is_not_enough_to_stop_at(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """95 of 100 pictures: the interval includes 0.97, so no head fails, but a more accurate precision is tried."""
    judged_as(monkeypatch, [0.95, 0.99])
    result = build(replace(config, output=config.output.parent / "better.tflite", min_agreement=0.97))
    assert len(result.report.tried) == 2
    judged_as(monkeypatch, [0.95])
    named = replace(config, precision="int8", output=config.output.parent / "named.tflite", min_agreement=0.97)
    assert len(build(named).report.tried) == 1


def test_a_precision_by_name_is_the_only_one_tried(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    judged_as(monkeypatch, [0.5])
    output = config.output.parent / "stopped.tflite"
    with pytest.raises(QualityError, match=r"agrees with its original on 50\.0%"):
        build(replace(config, precision="int8", output=output, min_agreement=0.97))
    assert not output.exists()


def test_a_precision_that_cannot_be_had_is_left_out_with_the_reason(
    config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model: bytes, ranges: Any, precision: str) -> bytes:
        if precision == "int8":
            raise ConversionError("CUMSUM is not to be had in int8")
        return original(model, ranges, precision)

    original = candidates.quantize
    monkeypatch.setattr(candidates, "quantize", refuse)
    result = build(replace(config, output=config.output.parent / "without.tflite"))
    first, mixed, second = result.report.to_json()["precisions"]
    assert first == {"precision": "int8", "skipped": "CUMSUM is not to be had in int8"}
    assert (mixed["precision"], mixed["skipped"]) == ("mixed", first["skipped"])  # they are mixed in int8
    assert second["precision"] == "int16"
    with pytest.raises(ConversionError, match="CUMSUM"):
        build(replace(config, precision="int8"))


def test_a_precision_that_no_interpreter_runs_is_left_out_with_the_reason(
    config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *args: Any) -> Quality:
        if precision_of(path) in ("int8", "mixed"):
            raise InterpreterError(f"{path}: failed to prepare")
        return verify(path, *args)

    def precision_of(path: Path) -> str:
        with MultiHeadClassifier(path) as classifier:
            return str(classifier.metadata.built["precision"])

    monkeypatch.setattr(precisions, "verify", refuse)
    result = build(replace(config, output=config.output.parent / "runs.tflite"))
    first, mixed, second = result.report.to_json()["precisions"]
    assert first == {"precision": "int8", "skipped": "failed to prepare"}
    assert mixed["precision"] == "mixed"
    assert (second["precision"], "skipped" in second) == ("int16", False)
    with pytest.raises(ConversionError, match=r"^failed to prepare$"):
        build(replace(config, precision="int8", output=config.output.parent / "not.tflite"))
    assert not (config.output.parent / "not.tflite").exists()


def test_int16_that_is_slower_than_float_is_left_out_unless_it_is_asked_for(
    config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def milliseconds(*parts: Part) -> list[float]:
        return [9.0 if any(tensor.type == INT16 for tensor in part.tensors) else 3.0 for part in parts]

    monkeypatch.setattr(latency, "backbone_ms", milliseconds)
    judged_as(monkeypatch, [0.5, 0.5, 1.0])
    result = build(replace(config, output=config.output.parent / "slow.tflite", min_agreement=0.97))
    found = result.report.to_json()["precisions"]
    assert [tried["precision"] for tried in found] == ["int8", "mixed", "int16", "dynamic"]
    assert "slower than float on this machine (9.00 ms against 3.00 ms)" in found[2]["skipped"]
    judged_as(monkeypatch, [1.0])
    named = build(replace(config, precision="int16", output=config.output.parent / "slow.tflite"))
    assert named.metadata.built["precision"] == "int16"


def is_dynamic(part: Part) -> bool:
    """Whether convolutions read float and hold int8 weights."""
    layers = [op for op in part.operators if operator_name(part, op) == "CONV_2D"]
    return any([part.tensors[i].type for i in op.inputs[:2]] == [FLOAT32, INT8] for op in layers)


@pytest.mark.parametrize(
    ("dynamic_ms", "agreements", "order"),
    [
        (2.0, [0.5, 1.0, 1.0], ["int8", "mixed", "dynamic"]),  # quicker than mixed, and passes: taken
        (2.0, [0.5, 1.0, 0.5], ["int8", "dynamic", "mixed"]),  # does not pass
        (4.0, [0.5, 1.0], ["int8", "mixed"]),  # slower than mixed: not built
        (4.0, [0.5, 0.5, 0.5, 1.0], ["int8", "mixed", "int16", "dynamic"]),  # quicker than float at least
        (9.0, [0.5, 0.5, 0.5, 1.0], ["int8", "mixed", "int16", "dynamic", "weights"]),  # slower: left out
    ],
)
def test_dynamic_is_taken_where_it_is_the_quickest_that_passes(
    config: BuildConfig,
    monkeypatch: pytest.MonkeyPatch,
    dynamic_ms: float,
    agreements: list[float],
    order: list[str],
) -> None:
    def milliseconds(*parts: Part) -> list[float]:
        float_ms = [5.0 if all(t.type not in (INT8, INT16) for t in part.tensors) else 3.0 for part in parts]
        return [dynamic_ms if is_dynamic(part) else ms for part, ms in zip(parts, float_ms, strict=True)]

    monkeypatch.setattr(latency, "backbone_ms", milliseconds)
    judged_as(monkeypatch, agreements)
    result = build(
        replace(config, output=config.output.parent / "dynamic.tflite", min_agreement=0.97, rounding="nearest")
    )
    found = result.report.to_json()["precisions"]
    assert [tried["precision"] for tried in found] == order
    assert result.metadata.built["precision"] == order[-1]
    skipped = [tried["precision"] for tried in found if "skipped" in tried]
    assert skipped == (["dynamic"] if dynamic_ms > 5 else [])
    report = result.report
    slower = [t.precision for t in report.tried if verdict_on(report.config, report.chosen, t) == "slower"]
    assert slower == (["mixed"] if order[1:] == ["mixed", "dynamic"] else [])


def test_dynamic_runs_on_the_oldest_interpreter(by_precision: dict[str, BuildResult]) -> None:
    """One scale for a whole dense layer: FULLY_CONNECTED version 12 is not needed. Depthwise layers compute in float."""
    built = by_precision["dynamic"]
    backbone = read_parts(built.output.read_bytes())["backbone"]
    assert is_dynamic(backbone)
    depthwise = [op for op in backbone.operators if operator_name(backbone, op) == "DEPTHWISE_CONV_2D"]
    assert {backbone.tensors[op.inputs[1]].type for op in depthwise} == {FLOAT32}
    assert built.metadata.min_runtime == OLDEST_RUNTIME


def test_what_no_precision_can_do_is_an_error(config: BuildConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_new(*_: Any) -> None:
        raise TargetError("target coral: too old")

    monkeypatch.setattr(candidates, "check_target", too_new)
    with pytest.raises(TargetError, match="coral"):
        build(replace(config, target="coral"))


def test_a_precision_there_is_not_is_refused(config: BuildConfig) -> None:
    with pytest.raises(ConfigError, match=r"precision: expected one of auto, int8, .*found 'int4'"):
        replace(config, precision="int4")


@pytest.mark.parametrize("span", [(-1.0, 1.0), (0.0, 255.0), (0.0, 1.0), (-127 / 128, 1.0), (-2.1, 2.6), (0.5, 1.5)])
def test_pixels_become_what_they_stand_for_in_float(span: tuple[float, float]) -> None:
    part = Part("backbone", 0, [], [], {}, {}, [], [None])
    part.tensors = [plain_tensor(name, [1, 16, 16, 1], np.float32) for name in ("image", "features")]
    part.inputs, part.outputs = {"image": 0}, {"features": 1}
    part.operators = [part.operator("LOGISTIC", [0], [1])]
    found = take_pixels(part, span)
    assert take_pixels(found, span) is found
    assert len(found.operators) == 2 + (span[0] not in (0.0, -127 / 128))
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    _, factory = find_interpreter("ai_edge_litert")
    answer = factory(model_content=write_parts({"backbone": found})).get_signature_runner("backbone")(image=pixels)
    expected = span[0] + (span[1] - span[0]) / 255 * pixels.astype(np.float64)
    np.testing.assert_allclose(answer["features"], 1 / (1 + np.exp(-expected)), rtol=1e-5)


def test_end_to_end_has_what_the_parts_have(by_precision: dict[str, BuildResult]) -> None:
    for result in by_precision.values():
        parts = read_parts(result.output.read_bytes())
        kinds = {name: [operator_name(part, op) for op in part.operators] for name, part in parts.items()}
        heads = [kind for head in result.metadata.heads for kind in kinds[head.head_name]]
        count = len(kinds["backbone"]) + len(heads)
        assert kinds["serving_default"][:count] == kinds["backbone"] + heads


def test_one_head_that_fails_computes_in_float_and_the_backbone_stays_int8(
    config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is read and answers; the other heads are what they were, bit for bit, and the joint list is there."""
    calls = []

    def judge(*args: Any) -> Quality:
        quality = verify(*args)
        first, *others = quality.heads
        calls.append(first.head_name)
        failed = replace(first, agreement=0.5, interval=(0.4, 0.6)) if len(calls) == 1 else replace(first, agreement=1.0)
        return replace(quality, heads=(failed, *(replace(q, agreement=1.0, interval=(0.9, 1.0)) for q in others)))

    monkeypatch.setattr(precisions, "verify", judge)
    result = build(replace(config, output=config.output.parent / "one_in_float.tflite", min_agreement=0.9))
    tried = result.report.to_json()["precisions"]
    assert [(t["precision"], t.get("float_heads")) for t in tried] == [("int8", None), ("int8", [calls[0]])]
    assert result.metadata.built["float_heads"] == [calls[0]]
    assert head_of(result).layout.labels
    before, after = (read_parts(built.model) for built in result.report.tried)
    kinds = {name: [operator_name(part, op) for op in part.operators] for name, part in after.items()}
    assert "DEQUANTIZE" in kinds[calls[0]]
    for name in [head.head_name for head in result.metadata.heads if head.head_name != calls[0]]:
        assert kinds[name] == [operator_name(before[name], op) for op in before[name].operators]
    exact = {q.head_name: q.drift for q in result.quality.heads}
    assert exact[calls[0]] < 0.1
