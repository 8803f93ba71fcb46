"""The benchmark computes its figures correctly and runs as a whole. No assertion depends on time."""

import itertools
import json
import random
import time
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import bench, camera, instructions, lean, measure, present, publish, summary
from benchmarks.text import judge


def row(heads, *, size=1000, one=1.0, every=1.0, first=10.0):
    """What ``bench`` notes of the variant `ours`, as far as the targets look at it."""
    steady = {"one": one, "all": every}
    return {
        "variant": "ours",
        "heads": heads,
        "bytes": size,
        "build": {"seconds": 1.0, "head_weight_bytes": 500},
        "steady": {"1": {which: {"ratio": summary.spread([ratio])} for which, ratio in steady.items()}},
        "first": {"one": {"first_answer_ms": summary.spread([first])}},
    }


def met(*rows):
    return [target.met for target in summary.targets({"rows": rows})]


def test_a_ratio_is_taken_within_a_round():
    """The machine halves its speed after round 1: no ratio sees it, and a round left out shifts none."""
    bare = [(0, 2.0), (1, 2.0), (2, 4.0), (3, 4.0)]
    assert summary.ratios([(0, 3.0), (2, 6.0), (3, 6.0)], bare) == [1.5, 1.5, 1.5]
    found = summary.summarise_steady({"bare": bare, "ours.all": [(3, 6.0)]})
    assert found["bare"]["ratio"]["median"] == 1.0
    assert (found["ours.all"]["ratio"]["median"], found["ours.all"]["ms"]["median"]) == (1.5, 6.0)


def test_a_task_in_a_round_that_the_backbone_missed_is_no_ratio():
    with pytest.raises(KeyError):
        summary.ratios([(1, 3.0)], [(0, 2.0)])


def test_spread():
    found = summary.spread([float(n) for n in random.Random(0).sample(range(101), 101)])
    assert found == {"median": 50.0, "p5": 5.0, "p95": 95.0, "count": 101}


def test_opening_is_told_in_milliseconds_and_in_backbones():
    runs = [{"open_ms": ms, "first_answer_ms": 2 * ms, "resident_kib": 7, "peak_kib": 9} for ms in (3.0, 1.0, 2.0)]
    found = summary.summarise_first(runs, 4.0)
    assert found["open_ms"]["median"] == 2.0 and found["resident_kib"]["median"] == 7
    assert (found["open_ratio"], found["first_answer_ratio"]) == (0.5, 1.0)


def test_targets_are_met_at_the_limit_and_missed_just_above_it():
    most = 1000 + 2 * (500 + 3 * 1024)
    one, three, many = row(1), row(3, size=most, every=1.05), row(200, one=1.01, every=1.06, first=12.0)
    assert met(one, three, many) == [True] * 5
    assert met(one, row(3, size=most + 1), many) == [False, True, True, True, True]
    assert met(one, row(3, size=most, every=1.0501), many) == [True, False, True, True, True]
    assert met(one, three, row(200, one=1.0101, every=1.0601, first=12.01)) == [True, True, False, False, False]


def test_a_target_depends_on_its_own_figure_only():
    """One of 3 heads and the bytes of 200 have no target."""
    assert met(row(1, every=9.0), row(3, one=9.0), row(200, size=10**9)) == [True] * 5


def test_what_was_not_measured_is_neither_met_nor_missed():
    assert met(row(1)) == [None] * 5
    assert met(row(3)) == [None, True, None, None, None]
    assert met(row(1), row(200)) == [None, None, True, True, True]
    assert met({**row(3), "variant": "separate"}) == [None] * 5


def test_the_readme_and_the_docs_show_the_figures_that_were_recorded():
    document = json.loads((publish.ROOT / publish.FIGURES).read_text("utf-8"))
    shown = publish.published(document)
    assert {path: (publish.ROOT / path).read_text("utf-8") for path in shown} == shown
    document["rows"][0]["bytes"] *= 2
    other = publish.published(document)
    assert all(other[path] != shown[path] for path in shown if path.suffix != ".svg")  # a picture of 20 heads


def test_figures_without_a_table_to_go_into_are_refused():
    with pytest.raises(ValueError, match=r"no table that begins with '\| heads \| file '"):
        publish.with_table("| heads | variant |\n", "| heads | file |\n| 1 | 2 |")


def test_build_time_of_copies_is_extrapolated_and_says_so():
    assert summary.separate_seconds([5.0, 2.0, 3.0], 1) == {"seconds": 5.0, "extrapolated_from": 0}
    assert summary.separate_seconds([5.0, 2.0, 3.0], 3) == {"seconds": 10.0, "extrapolated_from": 0}
    assert summary.separate_seconds([5.0, 2.0, 3.0], 20) == {"seconds": 10.0 + 17 * 3.0, "extrapolated_from": 3}


def test_tasks_take_turns_and_slow_ones_fewer(monkeypatch):
    """Time is counted in calls: `slow` pretends to take a second."""
    clock = itertools.count()
    now = SimpleNamespace(extra=0.0)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock) * 1e-3 + now.extra)
    calls = []

    def task(name, seconds):
        def run(picture):
            calls.append((name, int(picture)))
            now.extra += seconds

        return run

    tasks = {"bare": task("bare", 0), "fast": task("fast", 0), "slow": task("slow", 1)}
    times = measure.take_turns(tasks, np.arange(4), 2 * measure.SLOW_EVERY, random.Random(1))
    assert [number for number, _ in times["bare"]] == list(range(2 * measure.SLOW_EVERY))
    assert [number for number, _ in times["slow"]] == [0, measure.SLOW_EVERY]
    assert times["slow"][0][1] == pytest.approx(1001)
    counted = [name for name, _ in calls[2 * len(tasks) :]]
    assert counted.count("fast") == 2 * len(times["fast"]) and counted.count("slow") == 2
    assert {picture for name, picture in calls if name == "fast"} == {0, 1, 2, 3}


def test_memory_that_is_used_is_seen():
    before = measure.memory_kib()
    block = np.ones(64 << 20, np.uint8)  # more than glibc ever serves from memory that was freed before
    grown = measure.memory_kib()["VmRSS"] - before["VmRSS"]
    assert block.nbytes / 1024 * 0.9 < grown < block.nbytes / 1024 * 2
    assert before["VmHWM"] >= before["VmRSS"] * 0.99


@pytest.mark.parametrize("text", ["", "0", "1,x", "-3", "1000", "1,,2"])
def test_numbers_of_heads_that_are_none_are_refused(text, tmp_path):
    done = CliRunner().invoke(bench.main, ["--heads", text, "--output", str(tmp_path / "bench")])
    assert done.exit_code == 2 and "expected numbers" in done.output
    assert not (tmp_path / "bench").exists()


@pytest.mark.slow
def test_a_build_that_fails_ends_the_program_unless_it_is_the_one_that_may(tmp_path):
    broken = ("3", tmp_path, "tiny", 100)
    found = bench.run_child("benchmarks.make", "signatures", *broken, limit=60)  # there are no pictures
    assert found["unfinished"].startswith("failed: ") and "pictures.npy" in found["unfinished"]
    with pytest.raises(bench.click.ClickException, match=r"pictures\.npy"):
        bench.run_child("benchmarks.make", "ours", *broken)
    late = bench.run_child("benchmarks.make", "signatures", *broken, limit=0.01)
    assert late == {"unfinished": "not finished after 0 s"}


@pytest.mark.slow
@pytest.mark.draws
def test_the_whole_program_on_a_tiny_backbone(tmp_path):
    arguments = ["--backbone", "tiny", "--heads", "4", "--rounds", "3", "--openings", "1", "--gigabytes", "100", "--keep"]
    done = CliRunner().invoke(bench.main, [*arguments, "--output", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "bench.json").read_text())
    found = {(r["variant"], r["heads"]): r for r in results["rows"]}
    assert set(found) == set(itertools.product(("ours", "separate", "signatures"), (4,)))
    for (variant, heads), r in found.items():
        assert set(r["steady"]) == {"1", "2"} and set(r["steady"]["1"]) == set(r["first"]) == {"one", "all"}
        assert r["first"]["all"]["first_answer_ms"]["median"] >= r["first"]["all"]["open_ms"]["median"] > 0
        assert r["build"]["seconds"] > 0
        assert r["build"].get("extrapolated_from", 0) == (3 if (variant, heads) == ("separate", 4) else 0)
    files = tmp_path / "files"
    assert found["separate", 4]["bytes"] == sum(f.stat().st_size for f in files.glob("separate_*.tflite"))
    assert found["ours", 4]["bytes"] == (files / "ours_4.tflite").stat().st_size
    assert (files / "separate_003.tflite").read_bytes() == (files / "separate_000.tflite").read_bytes()
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    assert (tmp_path / "bench.md").read_text() in done.output


def test_an_unfinished_build_is_only_in_the_table(tmp_path):
    unfinished = {"variant": "signatures", "heads": 200, "build": {"unfinished": "not finished after 300 s"}}
    assert "not finished after 300 s" in present._line(present._cells(unfinished))


def lean_document(*, import_ms=149.0, ratio=1.19, more=11.9, **sizes):
    first = {"ms_ratio": ratio, "bare": {"resident_mb": 50.0}, "polyhead": {"resident_mb": 50.0 + more}}
    return {"import": {"edge_runtime": {"ms": import_ms}}, "first_answer": first, "installed_mb": sizes}


def test_the_targets_for_what_the_runtime_adds():
    small = {"polyhead": 1.0, "numpy": 5.0, "pillow": 5.0, "click": 1.0, "ai-edge-litert": 60.0}
    assert [target.met for target in lean.targets(lean_document(**small))] == [True] * 4
    large = lean_document(import_ms=151.0, ratio=1.21, more=12.1, **{**small, "numpy": 9.0})
    assert [target.met for target in lean.targets(large)] == [False] * 4
    del large["installed_mb"]
    assert len(lean.targets(large)) == 3


@pytest.mark.parametrize(("ratio", "json_ms", "p99"), [(0.96, 0.1, 1.4), (0.94, 0.3, 1.6)])
def test_the_targets_of_the_camera(ratio, json_ms, p99):
    document = {"ratio_median_of_blocks": ratio, "json_ms": {"median": json_ms}, "p99_over_median": p99}
    assert [target.met for target in camera.targets(document)] == [ratio > 0.95] * 3


def test_tasks_take_turns_and_the_first_round_does_not_count():
    ran = []
    found = lean.in_turns({name: lambda name=name: ran.append(name) or len(ran) for name in "ab"}, 2)
    assert (ran, found) == (list("ababab"), {"a": [3, 5], "b": [4, 6]})


def test_valgrinds_count_is_read(tmp_path):
    log = tmp_path / "1"
    log.write_text("==7== Cachegrind\n==7== \n==7== I   refs:      1,595,734,897\n")
    assert instructions._count(log) == 1_595_734_897
    log.write_text("==7== killed\n")
    with pytest.raises(RuntimeError, match="killed"):
        instructions._count(log)


def test_text_figures_are_ratios_of_medians_and_bytes_beside_weights() -> None:
    built = {"bytes": 10_000, "own_weights": [100, 200, 300], "seconds": 9.0, "agreement": [1.0, 0.95, 0.99]}
    turns = {"one of 3": [(0, 3.0), (1, 9.0), (2, 3.3)], "one of 1": [(0, 3.0)], "backbone": [(0, 2.0)]}
    answers = {"opening": {"3": 8.0, "1": 4.0}, "turns": {**turns, "serving_default": [(0, 5.0)]}}
    found = judge(built, {"bytes": 6_500}, answers)
    assert found == {
        "bytes a head beside its weights": (10_000 - 6_500 - 200 - 300) / 2,
        "one of many": pytest.approx(1.1),
        "all in one call": 2.5,
        "build seconds": 9.0,
        "mean agreement": pytest.approx(0.98),
        "worst agreement": 0.95,
        "backbone ms": 2.0,
        "opening to first answer": 2.0,
    }
