"""A plan uses the times of the named board, from a probe or a profile; the built-in profiles are complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("litert_quantizer")

from builder.boards.probe import make_probe
from builder.boards.profile import NEEDED, Profile, built_in, names_built_in, read_profile
from builder.boards.work import kind_of, precision_of, work_of
from builder.commands.cli import main as builder_main
from builder.quantizing.quantize import quantize
from builder.settings.targets import TARGETS
from builder.support.errors import ConfigError
from builder.tflite.flatbuffer import Part, read_parts, tensor_name
from builder.tflite.versions import min_runtime
from builder.tflite.writer import write_parts
from edge_runtime import probe as on_device
from edge_runtime.bundle import append_files
from edge_runtime.cli import main as device_main
from edge_runtime.errors import BundleError, EdgeRuntimeError
from edge_runtime.metadata import OLDEST_RUNTIME


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("boards") / "probe.tflite"
    done = CliRunner().invoke(builder_main, ["probe", "--output", str(path)])
    assert done.exit_code == 0, done.output
    return path


def document(*, int8: float = 2.0, **changes: Any) -> dict[str, Any]:
    """The profile of a board on which int8 is so many times faster than float."""
    rows = [
        {"kind": kind, "precision": precision, "work": 1e6, "us": us}
        for kind in NEEDED
        for precision, us in (("float", 100.0), ("int8", 100.0 / int8))
    ]
    rows.append({"kind": "conversion", "precision": "float", "work": 1e6, "us": 50.0})
    return {"format_version": 1, "device": "a board", "operators": rows, **changes}


def written(folder: Path, content: Any) -> Path:
    path = folder / "board.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def test_the_probe_is_small_the_same_each_time_and_runs_on_the_oldest_interpreter(probe: Path) -> None:
    assert probe.stat().st_size < 800_000
    assert probe.read_bytes() == make_probe()
    model, cases = on_device.read_probe(str(probe))
    parts = read_parts(model)
    assert min_runtime(parts.values())[0] == OLDEST_RUNTIME
    assert sorted(parts) == sorted(signature for case in cases for signature in case.signatures)
    assert {(kind, precision) for kind in NEEDED for precision in ("float", "int8")} <= {c[:2] for c in cases}


def test_a_case_says_what_its_chains_hold(probe: Path) -> None:
    model, cases = on_device.read_probe(str(probe))
    parts = read_parts(model)
    for case in cases:
        for signature, count in zip(case.signatures, case.operators, strict=True):
            own = [op for op in parts[signature].operators if kind_of(parts[signature], op) == case.kind]
            assert len(own) == count, case
            assert {precision_of(parts[signature], op) for op in own} == {case.precision}, case
            assert sum(work_of(parts[signature], op) for op in own) == pytest.approx(case.work * count), case


def test_what_the_board_measures_is_what_the_builder_reads(
    probe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every signature runs; the clock is a count of the operators, so that each takes 1 ms a million of its work."""
    _, cases = on_device.read_probe(str(probe))
    ms = {s: 3 + n * case.work / 1e6 for case in cases for s, n in zip(case.signatures, case.operators, strict=True)}

    def clock(parts: Any, runs: int) -> dict[str, list[float]]:
        for part in parts.values():
            part()
        return {name: [ms[name] + 1, ms[name]] for name in parts}

    monkeypatch.setattr(on_device, "measure", clock)
    done = CliRunner().invoke(device_main, ["benchmark", str(probe), "--operators", "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    profile = read_profile(written(tmp_path, done.stdout))
    assert profile.name == on_device.device_name()
    for case in cases:
        assert profile.us(case.kind, case.precision, 2e6) == pytest.approx(2000, rel=1e-3), case
    text = CliRunner().invoke(device_main, ["benchmark", str(probe), "--operators"]).stdout
    refused = CliRunner().invoke(device_main, ["benchmark", str(probe), "--operators", "--trusted-key", str(probe)])
    assert (refused.exit_code, "nobody signs" in refused.output) == (2, True)
    assert len(text.splitlines()) == 2 + len({(case.kind, case.work) for case in cases})


def test_a_time_that_other_work_hides_is_an_error_and_no_figure(probe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_device, "measure", lambda parts, runs: {name: [1.0] for name in parts})
    with pytest.raises(EdgeRuntimeError, match="more of it took less time; end other programs, or give more --runs"):
        on_device.operator_times(str(probe))


@pytest.mark.parametrize("harm", ["cut", "one byte", "no member", "text", "other member", "list"])
def test_what_is_no_probe_is_refused_in_a_line(probe: Path, tmp_path: Path, harm: str) -> None:
    content = probe.read_bytes()
    model, _ = on_device.read_probe(str(probe))
    damaged = {
        "cut": content[:-9000],
        "one byte": content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
        "no member": model,
        "text": b"time flies",
        "other member": append_files(model, {"polyhead.json": b"{}"}),
        "list": append_files(model, {"probe.json": b"[1]"}),
    }
    path = tmp_path / "x.tflite"
    path.write_bytes(damaged[harm])
    with pytest.raises(BundleError, match=r"x\.tflite: .*(builder probe --output FILE|damaged; copy it again)"):
        on_device.read_probe(str(path))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "no JSON document"),
        ("not json", "no JSON document"),
        ("[1, 2]", "a JSON list"),
        ("{}", "no 'format_version'"),
        (document(format_version=2), "format_version 2 where 1 is read"),
        (document(operators=[]), "no times of CONV_2D 1x1 in float, CONV_2D 1x1 in int8"),
        ({**document(), "operators": document()["operators"][:-1]}, "no times of conversion"),
        (document(operators=[{"kind": "ADD", "precision": "float", "work": 1, "us": -1}]), "us -1 of 'ADD'"),
        (document(operators=[{"kind": "ADD", "precision": "float", "work": True, "us": 1}]), "work True of 'ADD'"),
        (document(operators=[{"kind": "ADD", "precision": "float", "work": float("nan"), "us": 1}]), "work nan of 'ADD'"),
        (document(operators=7), "'int' object is not iterable"),
        ({"classifications": []}, "no 'format_version'"),
    ],
)
def test_a_foreign_or_damaged_profile_is_one_clear_line(tmp_path: Path, content: Any, found: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        read_profile(path)
    line = str(caught.value)
    assert line.startswith(f"device {path}: expected the times of a board, found {found}")
    assert "edge-runtime benchmark probe.tflite --operators --json" in line
    assert "\n" not in line


def test_a_profile_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"device .*none\.json: No such file"):
        read_profile(tmp_path / "none.json")


def test_what_was_not_measured_counts_as_what_is_like_it(tmp_path: Path) -> None:
    profile = read_profile(written(tmp_path, document(int8=4)))
    assert profile.us("CONV_2D", "int8", 1e6) == pytest.approx(25)
    assert profile.us("CONV_2D", "int8", 4e6) == pytest.approx(100)  # one size says nothing of what is fixed
    assert profile.us("BATCH_MATMUL", "float", 1e6) == pytest.approx(100)
    assert profile.us("GELU", "float", 1e6) == pytest.approx(100)
    assert profile.us("CONV_2D", "dynamic", 1e6) == profile.us("ADD", "int16", 1.0) == float("inf")


@pytest.mark.parametrize("name", names_built_in())
def test_built_in_profiles_say_where_they_come_from_and_how_far_they_are(name: str) -> None:
    profile = built_in(name)
    assert profile.source
    assert "%" in profile.error
    for kind in NEEDED:
        assert 0 < profile.us(kind, "int8", 1e6) < profile.us(kind, "float", 1e6)


def test_targets_name_profiles_that_are_there() -> None:
    assert {target.profile for target in TARGETS.values()} - {None} == set(names_built_in())


def test_a_backbone_takes_what_its_operators_take(probe: Path) -> None:
    """The chains of the probe themselves: in int8 less than in float, in int16 not known."""
    floating = read_parts(on_device.read_probe(str(probe))[0])["float_0_short"]
    profile = Profile("a board", built_in("cortex-a72").measured)
    (ms,) = profile.backbones(floating)
    assert ms == pytest.approx(
        sum(profile.us("CONV_2D 1x1", "float", work_of(floating, op)) for op in floating.operators) / 1e3
    )
    ranges = dict.fromkeys(activations(floating), (-4.0, 4.0))
    int16 = read_parts(quantize(write_parts({"backbone": floating}), ranges, "int16"))["backbone"]
    assert profile.backbones(int16) == [float("inf")]


def activations(part: Part) -> list[str]:
    return [tensor_name(part.tensors[i]) for i in part.activations()]
