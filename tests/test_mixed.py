"""Mixed precision: runs of float operators are where the plan says, and each operator's cost is measured alone."""

from __future__ import annotations

import copy
import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from builder import BuildResult, build, candidates, precisions
from builder.boards.profile import NEEDED, Measured, Profile
from builder.boards.work import CONVERSION
from builder.judging.foresee import Foresight
from builder.judging.verify import Expected, verify
from builder.quantizing.latency import ThisMachine
from builder.quantizing.mixed import OperatorCost, Plan, by_gain, float_runs, plans
from builder.quantizing.noise import snr_db
from builder.quantizing.quantize import pin, quantize
from builder.quantizing.ranges import measure_ranges
from builder.quantizing.rounding import measure_noise, round_parts
from builder.quantizing.sensitivity import answers, some_heads
from builder.support.errors import ConfigError, ConversionError
from builder.support.progress import Stages
from builder.tflite.flatbuffer import FLOAT32, INT8, Part, operator_name, plain_tensor, read_parts, tensor_name
from builder.tflite.link import link
from builder.tflite.parts import as_held
from builder.tflite.pixel_input import take_pixels
from builder.tflite.splice import result_name, splice
from edge_runtime.bundle import append_members
from tests.tiny_models import THREE_HEADS, tiny_config


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The material of a tiny build, intercepted during the build."""
    caught = []

    def catch(material: Any, *_: Any) -> Any:
        caught.append(material)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builder.pipeline.try_precisions", catch)
        with pytest.raises(KeyboardInterrupt):
            build(tiny_config(tmp_path_factory.mktemp("mixed")))
    return caught[0]


@pytest.fixture
def parts(made: Any) -> dict[str, dict[str, Part]]:
    return {
        p: read_parts(quantize(made.calibrated.prepared.integer, made.calibrated.ranges, p))
        for p in ("float", "int8", "weights")
    }


@dataclass(frozen=True)
class Agreeing:
    """A verdict on a backbone whose heads have this agreement."""

    agreement: float

    def reaches(self, min_agreement: float) -> bool:
        return self.agreement >= min_agreement


def layers(part: Part) -> list[str]:
    return [result_name(part, op) for op in part.operators]


def in_float(part: Part) -> set[str]:
    """The operators with an activation in float among what they read, conversions aside."""
    return {
        result_name(part, op)
        for op in part.operators
        if operator_name(part, op) not in ("QUANTIZE", "DEQUANTIZE") and part.tensors[op.inputs[0]].type == FLOAT32
    }


@pytest.mark.parametrize("chosen", [[0], [1], [2, 3], [0, 4], [4], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("second", ["weights", "float"])
def test_exactly_the_planned_operators_are_float(
    parts: dict[str, dict[str, Part]], chosen: list[int], second: str
) -> None:
    base = parts["int8"]["backbone"]
    plan = {layers(base)[i] for i in chosen}
    found = splice(base, parts[second]["backbone"], plan)
    assert in_float(found) == plan
    converted = [op for op in found.operators if operator_name(found, op) == "QUANTIZE"]
    assert all(found.tensors[op.inputs[0]].type == FLOAT32 for op in converted)
    ends = [*found.inputs.values(), *found.outputs.values()]
    assert [found.tensors[i].type for i in ends] == [INT8, INT8]


def test_neighbouring_float_operators_share_one_pair_of_conversions(parts: dict[str, dict[str, Part]]) -> None:
    base = parts["int8"]["backbone"]
    found = splice(base, parts["float"]["backbone"], set(layers(base)[:3]))
    kinds = [operator_name(found, op) for op in found.operators]
    assert (kinds[0], kinds.count("DEQUANTIZE"), kinds.count("QUANTIZE")) == ("DEQUANTIZE", 1, 1)


def test_no_operator_in_float_is_the_int8_part_and_all_in_float_are_the_float_part(
    made: Any, parts: dict[str, dict[str, Part]]
) -> None:
    images, heads = made.inputs(3), {n: p for n, p in parts["float"].items() if n != "backbone"}
    base, second = parts["int8"]["backbone"], parts["float"]["backbone"]
    same = answers(splice(base, second, ()), heads, images)
    for name, scores in answers(base, heads, images).items():
        np.testing.assert_array_equal(same[name], scores)
    truth, noise = answers(second, heads, images)["animals"], {}
    for count in (0, 5):
        mixed = splice(base, second, set(layers(base)[:count]))
        noise[count] = snr_db(truth, answers(mixed, heads, images)["animals"])
    assert noise[5] > noise[0]


def test_splicing_changes_neither_source(parts: dict[str, dict[str, Part]]) -> None:
    base, second = parts["int8"]["backbone"], parts["weights"]["backbone"]
    before = [copy.deepcopy((part.operators, part.tensors, part.inputs, part.outputs)) for part in (base, second)]
    splice(base, second, set(layers(base)[1:3]))
    for part, (operators, tensors, *ends) in zip((base, second), before, strict=True):
        assert [vars(op).keys() for op in part.operators] == [vars(op).keys() for op in operators]
        assert [(list(o.inputs), list(o.outputs)) for o in part.operators] == [(o.inputs, o.outputs) for o in operators]
        assert [t.buffer for t in part.tensors] == [t.buffer for t in tensors]
        assert [part.inputs, part.outputs] == ends


def test_a_ruined_operator_moves_the_heads_the_most(made: Any, parts: dict[str, dict[str, Part]]) -> None:
    int8 = parts["int8"]["backbone"]
    ruined = int8.operators[1]
    weights = int8.tensors[ruined.inputs[1]]
    int8.set_constant(ruined.inputs[1], np.zeros(weights.shape, np.int8))
    found = measure_noise(parts["float"], int8, made.inputs(8))
    assert [noise.layer for noise in found] == layers(parts["float"]["backbone"])
    assert max(found, key=lambda noise: noise.head_noise).layer == result_name(int8, ruined)
    assert all(noise.head_noise > 0 for noise in found)


def test_the_noise_at_the_heads_is_that_of_the_operator_alone(made: Any, parts: dict[str, dict[str, Part]]) -> None:
    """The noise is as if only this operator were int8, also if it is the last one."""
    int8, floating = parts["int8"]["backbone"], parts["float"]["backbone"]
    heads, inputs = {n: p for n, p in parts["float"].items() if n != "backbone"}, made.inputs(8)
    truth = answers(floating, heads, inputs)
    for noise in measure_noise(parts["float"], int8, inputs):
        moved = answers(splice(floating, int8, {noise.layer}), heads, inputs)
        expected = np.mean([np.mean((moved[head] - truth[head]) ** 2) for head in heads])
        assert noise.head_noise == pytest.approx(expected, rel=1e-3), noise.layer


def chain(count: int, *, skip: tuple[int, int] | None = None) -> Part:
    """LOGISTIC after LOGISTIC, each as its number; ``skip``: an ADD of what two of them give, behind the second."""
    part = Part("backbone", 0, [plain_tensor("image", [1, 100], np.float32)], [], {"image": 0}, {}, [], [None])

    def add(kind: str, inputs: list[int], options: Any = None) -> None:
        part.tensors.append(plain_tensor(str(len(part.operators)), [1, 100], np.float32))
        part.operators.append(part.operator(kind, inputs, [len(part.tensors) - 1], options))

    for i in range(count):
        add("LOGISTIC", [len(part.tensors) - 1])
        if skip is not None and i == skip[1]:
            add("ADD", [skip[0] + 1, skip[1] + 1], ("AddOptions", {}))
    part.outputs = {"features": len(part.tensors) - 1}
    return part


def cost(layer: int, noise: float, more_us: float) -> OperatorCost:
    return OperatorCost(str(layer), "LOGISTIC", noise, 10 + more_us, 10)


def test_the_operators_beside_a_skip_connection_are_one_run() -> None:
    assert float_runs(chain(4)) == [["0"], ["1"], ["2"], ["3"]]
    assert float_runs(chain(5, skip=(1, 3))) == [["0"], ["1"], ["2", "3", "4"], ["5"]]


def test_what_gains_most_for_each_microsecond_comes_first() -> None:
    costs = [cost(0, 9, 90), cost(2, 4, 10), cost(4, 2, -5), cost(6, 0, 1)]
    assert by_gain(chain(7), costs, ThisMachine()) == [["4"], ["2"], ["0"], ["6"]]


def test_there_is_no_conversion_between_two_float_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that are alike the neighbour of a float operator comes first, and a run between two of them before that."""
    monkeypatch.setattr("builder.quantizing.latency._BYTES_PER_US", 10.0)  # a conversion costs 50 us
    costs = [cost(0, 5, 30), cost(2, 90, 10), cost(3, 5, 30), cost(4, 80, 10), cost(5, 5, 30)]
    assert by_gain(chain(7), costs, ThisMachine()) == [["2"], ["4"], ["3"], ["5"], ["0"]]


def test_heads_that_failed_are_judged_first() -> None:
    names = [f"head{i}" for i in range(20)]
    parts = dict.fromkeys(["backbone", *names], chain(1))
    for first in ([], ["head7"], ["head13", "head2"], names[5:]):
        found = list(some_heads(parts, first=first))
        assert found[: len(first)] == first[:8]
        assert len(set(found)) == len(found) == 8
    assert list(some_heads(dict.fromkeys(["backbone", "a", "b"], chain(1)), first=["b"])) == ["b", "a"]


@pytest.mark.parametrize("owners", [("animals", "things"), ("animals",), (), None])
def test_a_plan_is_judged_by_the_rules_of_verification(
    made: Any, parts: dict[str, dict[str, Part]], tmp_path: Path, owners: tuple[str, ...] | None
) -> None:
    """Whether heads have pictures of their own, or there are none (None): by the same samples the verdict is the same."""
    given = made.samples.verification
    sources = tuple(replace(s, head=s.head if s.head in (owners or ()) else None) for s in given.sources)
    samples, bars = replace(given, sources=sources, noise=owners is None), {"things": 0.5}
    inputs = made.merged.source_input.device_input(samples.tensors)
    float_parts, int8 = parts["float"], parts["int8"]
    judge = Foresight(float_parts, int8, made.heads, samples, inputs, first=["things"], bars=bars)
    found = {q.head_name: q for q in judge(int8["backbone"]).heads}

    entering = made.merged.source_input.input_range
    linked = link({**int8, "backbone": take_pixels(int8["backbone"], entering)}, None)
    path = tmp_path / "file.tflite"
    path.write_bytes(append_members(linked.model, made.metadata(linked, "int8")))
    floats = {name: part for name, part in float_parts.items() if name != "backbone"}
    truth = answers(float_parts["backbone"], floats, inputs)
    scores = {name: values[samples.of_head(name)] for name, values in truth.items()}
    features = made.merged.features(samples.tensors)["features"]
    assert set(found) == set(THREE_HEADS)
    for q in verify(path, samples, Expected(features, scores, bars)).heads:
        mine = found[q.head_name]
        assert (mine.own_pictures, mine.own_bar, mine.pictures) == (q.own_pictures, q.own_bar, q.pictures)
        assert (mine.judged, mine.agreement) == (q.judged, q.agreement)
        assert (mine.drift, mine.decided_drift) == pytest.approx((q.drift, q.decided_drift), abs=1e-6)


def test_plans_are_judged_on_the_last_samples_if_there_are_many(
    made: Any, parts: dict[str, dict[str, Part]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rounding is learnt on the first samples."""
    monkeypatch.setattr("builder.judging.foresee.JUDGED", 5)
    given, int8 = made.samples.verification, parts["int8"]

    def judged(samples: Any) -> Any:
        inputs = made.merged.source_input.device_input(samples.tensors)
        quality = Foresight(parts["float"], int8, made.heads, samples, inputs)(int8["backbone"])
        return [(q.pictures, q.agreement, q.drift) for q in quality.heads]

    last = given.at(range(len(given.sources))[-5:])
    assert judged(given) == judged(last) != judged(given.first(5))


@pytest.mark.parametrize("span", [(-1, 1), (0, 1), (0, 255), (-127 / 128, 1), (-0.5, 0.5), (-2.1, 2.6), (-0.3, 1.7)])
def test_learning_sees_the_integer_that_a_device_has_for_a_pixel(made: Any, span: tuple[float, float]) -> None:
    """Also where 0 lies in the middle between two pixel values: p - 128."""
    source = read_parts(made.calibrated.prepared.integer)["backbone"].inputs["image"]
    name = read_parts(made.calibrated.prepared.integer)["backbone"].tensors[source].name.decode()
    ranges = {key: span if key.split(";")[0] == name else limits for key, limits in made.calibrated.ranges.items()}
    assert ranges != made.calibrated.ranges or span == (-1, 1)
    backbone = read_parts(quantize(made.calibrated.prepared.integer, ranges))["backbone"]
    low, high = span
    pixels = np.arange(256, dtype=np.float32)
    for entering in (pixels * np.float32((high - low) / 255) + np.float32(low), low + pixels / 255 * (high - low)):
        held = as_held(backbone.tensors[backbone.inputs["image"]], entering.astype(np.float32))
        np.testing.assert_array_equal(held, np.arange(256) - 128)


def test_float_operators_of_a_plan_are_as_well_rounded_as_int8_ones(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded to nearest they would be worse than learnt int8 ones, and no plan would help; each is learnt once."""
    given, learnt = list[Any](), list[Part]()
    monkeypatch.setattr(candidates, "plans", lambda *arguments: given.append(arguments) or iter(()))

    def learn(floating: Any, parts: Any, *args: Any, **options: Any) -> Any:
        learnt.append(parts["backbone"])
        return round_parts(floating, parts, *args, **options)

    monkeypatch.setattr(candidates, "round_parts", learn)
    made_once = candidates.Candidates(replace(made, config=replace(made.config, rounding="learnt")), Stages(None))
    for precision in ("int8", "mixed", "weights"):
        list(made_once.of(precision))
    ((_, int8, weights_only, *_),) = given
    assert [int8["backbone"] is learnt[0], weights_only is learnt[1], len(learnt)] == [True, True, 2]


def test_plans_grow_as_long_as_float_is_slower(
    made: Any, parts: dict[str, dict[str, Part]], monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = measure_noise(parts["float"], parts["int8"]["backbone"], made.inputs(8))
    monkeypatch.setattr("builder.quantizing.latency.operator_us", lambda part: dict.fromkeys(layers(part), 1.0))
    monkeypatch.setattr("builder.quantizing.latency.backbone_ms", lambda *parts: [1.0, 2.0])

    def planned(agreement: float) -> list[Plan]:
        weights_only, judge = parts["weights"]["backbone"], lambda _: Agreeing(agreement)
        return list(plans(parts["float"], parts["int8"], weights_only, noise, judge, 0.97, ThisMachine()))

    found = planned(1.0)
    assert [len(plan.layers) for plan in found] == sorted({len(plan.layers) for plan in found})
    assert len(found) > 1
    assert all(set(a.layers) < set(b.layers) for a, b in itertools.pairwise(found))
    assert [plan.layers for plan in planned(0.975)] == [found[-1].layers]  # as the bar says, but not half way to always
    with pytest.raises(ConversionError, match=r"on calibration samples the heads agree on 90\.0%$"):
        planned(0.9)
    monkeypatch.setattr(Agreeing, "reaches", lambda *_: False)
    with pytest.raises(ConversionError, match=r"the heads agree on 98\.0%, but one of them alone does not pass$"):
        planned(0.98)


def test_a_build_with_float_operators_has_them_in_the_file(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names = layers(read_parts(made.calibrated.prepared.integer)["backbone"])
    monkeypatch.setattr(candidates, "plans", lambda *_: iter([Plan((names[0], names[3]), [])]))
    result: BuildResult = build(replace(made.config, precision="mixed"))
    backbone = read_parts(Path(result.output).read_bytes())["backbone"]
    assert in_float(backbone) == {"/".join(name.split("/")[:2]) for name in (names[0], names[3])}  # called as layers
    (precision,) = result.report.to_json()["precisions"]
    assert precision["float_operators"] == [names[0], names[3]]
    assert list(result.quality.to_json()["heads"]) == list(THREE_HEADS)


@pytest.mark.parametrize("own", [1.0, 0.97])
def test_where_float_is_as_quick_float_operators_are_left_out(
    made: Any, monkeypatch: pytest.MonkeyPatch, own: float
) -> None:
    monkeypatch.setattr("builder.quantizing.latency.backbone_ms", lambda *parts: [own, *[1.0] * (len(parts) - 1)])
    with pytest.raises(ConversionError, match=r"^no mix of float and int8 operators takes at most 0.95 of float's time$"):
        build(replace(made.config, precision="mixed", rounding="nearest"))


@pytest.mark.parametrize("estimate", ["percentile", "mse"])
def test_ranges_by_other_methods_lie_within_min_and_max(made: Any, estimate: str) -> None:
    heads, images = list(THREE_HEADS), made.inputs(8)
    widest = measure_ranges(made.calibrated.prepared.integer, images, heads)
    found = measure_ranges(made.calibrated.prepared.integer, images, heads, estimate=estimate)
    assert list(found) == list(widest)
    part = read_parts(made.calibrated.prepared.integer)["backbone"]
    adding = {
        tensor_name(part.tensors[i]) for op in part.operators if operator_name(part, op) == "ADD" for i in op.inputs
    }
    narrower = 0
    for name, (low, high) in found.items():
        within = min(widest[name][0], 0) <= low <= high <= max(widest[name][1], 0)
        assert within or (estimate == "mse" and name in adding)  # which may get the step of their sum
        narrower += within and (low, high) != widest[name]
    assert narrower > 1
    assert pin(made.calibrated.prepared.integer, found, made.merged.source_input.input_range)["backbone/image"] == (
        -1.0,
        1.0,
    )


def board(name: str, quicker: float) -> Profile:
    """A board on which int8 is so many times faster than float."""
    rows = [(kind, p, us) for kind in NEEDED for p, us in (("float", 100.0), ("int8", 100.0 / quicker))]
    measured = {(kind, p): (Measured(1e6, us),) for kind, p, us in [*rows, (CONVERSION, "float", 1.0)]}
    return Profile(name, measured)


def test_the_plan_depends_on_the_times_of_the_board(made: Any, parts: dict[str, dict[str, Part]]) -> None:
    """Where int8 is three times quicker many operators may be float before float is; where it is slower none may."""
    noise = measure_noise(parts["float"], parts["int8"]["backbone"], made.inputs(8))
    weights_only, judge = parts["weights"]["backbone"], lambda _: Agreeing(0.98)  # no more than the last resort
    arguments = parts["float"], parts["int8"], weights_only, noise, judge, 0.97
    (quick,) = plans(*arguments, board("quick", 3.0))
    assert 0 < len(quick.layers) < len(layers(parts["float"]["backbone"]))
    assert all(cost.float_us == pytest.approx(3 * cost.int8_us) for cost in quick.costs)
    with pytest.raises(ConversionError, match=r"^no mix of float and int8 operators takes at most 0.95 of float's time$"):
        list(plans(*arguments, board("slow", 0.8)))


def test_the_precision_float_takes_the_time_of_float(made: Any, tmp_path: Path) -> None:
    """The first operator, which takes the pixels, is in both times."""
    material = replace(made, config=replace(made.config, precision="float"), times=board("", 3.0))
    (built,) = precisions.try_precisions(material, tmp_path / "draft.tflite", Stages(None))
    assert built.backbone_ms == built.float_ms > 0


def test_a_build_for_a_board_says_so_and_takes_its_times(made: Any, tmp_path: Path) -> None:
    rows = [
        {"kind": kind, "precision": precision, "work": measured[0].work, "us": measured[0].us}
        for (kind, precision), measured in board("", 3.0).measured.items()
    ]
    device = tmp_path / "pi.json"
    device.write_text(json.dumps({"format_version": 1, "device": "the Pi", "operators": rows}), "utf-8")
    result = build(replace(made.config, precision="int8", rounding="nearest", device=device, target="cortex-a72"))
    report = result.report.to_json()
    assert report["planned_for"] == {"name": "the Pi", "source": "measured by a probe"}
    (precision,) = report["precisions"]
    assert precision["float_ms"] == pytest.approx(3 * precision["backbone_ms"], rel=0.2)
    with pytest.raises(ConfigError, match=r"device .*pi\.json: expected the times of a board, found no JSON document"):
        device.write_text("{", "utf-8")
        build(replace(made.config, device=device))
