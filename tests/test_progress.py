"""The output of a build, during it and at its end: on a terminal, in a pipe, as JSON, or none."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from builder.commands import building
from builder.commands.cli import main
from builder.judging.evaluation import Evaluation, print_evaluation
from builder.judging.metrics import Accuracy
from builder.judging.verify import HeadQuality
from builder.precisions import SkippedPrecision
from builder.reporting import made as words
from builder.settings.config import PRECISIONS
from builder.support.errors import ConfigError, QualityError
from builder.support.progress import Stages
from builder.support.quiet import quiet

ROOT = Path(__file__).parent.parent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run_stages(stages: Stages) -> list[int]:
    """Run three stages, with another inside each. Returns the number of bars in each."""
    bars = []
    for name, precision in (("read", ""), ("round", "int8"), ("verify", "mixed")):
        stages.precision = precision
        with stages(name, 3) as advance, stages("plan"):
            advance()
            bars.append(len(stages._progress.tasks))
    return bars


def test_a_pipe_gets_a_line_a_stage() -> None:
    pipe = io.StringIO()
    run_stages(Stages(pipe))
    choosing = "choosing the operators that stay in float"
    assert pipe.getvalue().splitlines() == [
        "reading the models", choosing,
        "int8: learning how to round the weights", f"int8: {choosing}",
        "mixed: verifying the finished file", f"mixed: {choosing}",
    ]  # fmt: skip


def test_verbose_says_how_long_each_took() -> None:
    for stream in (io.StringIO(), Terminal()):
        run_stages(Stages(stream, verbose=True))
        assert len(re.findall(r"int8: learning how to round the weights: \d+\.\d s", stream.getvalue())) == 1


def test_a_terminal_has_one_bar_and_it_ends() -> None:
    terminal = Terminal()
    assert run_stages(Stages(terminal)) == [1, 1, 1]
    assert "\x1b[2K" in terminal.getvalue().rpartition("verifying")[2]  # the last is wiped away


@pytest.mark.parametrize("verbose", [False, True])
def test_what_libraries_say_is_on_the_terminal_only_with_verbose(
    verbose: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """``quiet`` holds back the process's standard error, and a bar must not show it."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", os.fdopen(2, "w", closefd=False))  # as outside pytest
    with nullcontext() if verbose else quiet(), Stages(terminal, verbose=verbose)("convert", 2) as advance:
        print("2401.65it/s", file=sys.stderr, flush=True)
        advance()
    assert ("2401.65it/s" in terminal.getvalue() + capfd.readouterr().err) is verbose


def test_the_table_of_an_evaluation_fits_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Each list is one line, whatever its name; only the header of the table has two."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    accuracy = Accuracy(1_000_000, 333_333, (0.332, 0.334), 0.5, 0.123, 0.004)
    lists = dict.fromkeys(("joint", "joint, float heads", "concatenated scores", "one label of all"), accuracy)
    heads = {"instruments": {"int8": accuracy, "float": accuracy}}
    print_evaluation(Evaluation(Path("a.tflite"), 1, heads, lists, {}, {}, {}, ""), Path("page.html"))
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in capsys.readouterr().out.splitlines()]
    assert sum("0.332 to 0.334" in line for line in lines) == len(lists) + 2
    assert max(map(len, lines)) <= 80 and not any("…" in line for line in lines)
    assert not any(line.strip() in ("heads", "scores") for line in lines)


def test_nothing_is_shown_where_nothing_is_wanted() -> None:
    stages = Stages(None)
    run_stages(stages)
    assert list(stages.seconds) == ["plan", "read", "round", "verify"]


def test_every_stage_has_words() -> None:
    from builder.support.progress import WORDS

    used = {
        name
        for folder in ("quantizing", ".")
        for path in (ROOT / "builder" / folder).glob("*.py")
        for name in re.findall(r'\bstages\("(\w+)"', path.read_text())
    }
    assert len(used) > 10
    assert used <= set(WORDS)


# What was made


def tried(precision: str, **agreement: float) -> Any:
    heads = [HeadQuality(name, 1000, value, (value, value), 0.0, 0.0, (), ()) for name, value in agreement.items()]
    quality = SimpleNamespace(heads=heads, reaches=lambda bar: min(agreement.values()) >= bar)
    metadata = SimpleNamespace(heads=list(agreement), input=SimpleNamespace(noun="pictures"))
    return SimpleNamespace(precision=precision, title=precision, model=b"1234", quality=quality, metadata=metadata)


@pytest.fixture
def config() -> Any:
    return SimpleNamespace(
        output=Path("house.tflite"),
        min_agreement=0.97,
        report_folder=Path("house.report"),
        keras_output=None,
        saved_model=None,
    )


def test_every_precision_has_words() -> None:
    assert set(words._COMPUTES) == set(PRECISIONS)


def test_the_sentence_says_what_was_made_and_why_not_int8(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "last_built", lambda tried: tried[-1])
    int8, skipped = tried("int8", cats=1.0, things=0.86, dogs=0.9), SkippedPrecision("int16", "slower than float here")
    assert words.made(config, [tried("int8", cats=1.0)]) == (
        "house.tflite: 1 head on one backbone, 4 bytes; computes in integers (int8)"
    )
    assert words.made(config, [int8, skipped, tried("float16", cats=1.0, things=1.0, dogs=1.0)]) == (
        "house.tflite: 3 heads on one backbone, 4 bytes; has float16 weights and computes in float (float16); int8 was "
        "too inexact: 0.86 of 0.97 on things; also not taken: int16"
    )
    assert words.made(config, [tried("mixed", cats=1.0), tried("float16", cats=1.0)]).endswith("; mixed was slower")


def test_the_sentence_is_short_however_many_precisions_were_tried(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "last_built", lambda tried: tried[-1])
    some_float = tried("int8", cats=0.9, dogs=0.86)
    some_float.title = "int8, cats, dogs in float"
    reason = "61 operators in float are not enough"
    others = [
        tried("int8", cats=0.8, dogs=1.0),
        some_float,
        SkippedPrecision("mixed", reason),
        tried("weights", cats=0.9),
    ]
    sentence = words.made(config, [*others, tried("float16", cats=1.0, dogs=1.0)])
    assert sentence.endswith("int8 was too inexact: 0.80 of 0.97 on cats; also not taken: mixed, weights")
    assert words.verdict_on(config, others[0], others[2]) == f"left out: {reason}"
    for float_heads_taken in (others[:2], [*others[:2], some_float]):
        assert words.made(config, float_heads_taken).count("not taken") == 0


def test_a_head_that_agrees_and_drifts_is_told_its_drift(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "last_built", lambda tried: tried[-1])
    int8 = tried("int8", cats=0.98, dogs=1.0)
    dogs = replace(int8.quality.heads[1], own_pictures=False, decided=9, decided_agreement=1.0, decided_drift=0.0604)
    int8.quality = SimpleNamespace(heads=[int8.quality.heads[0], dogs], reaches=lambda bar: False)
    sentence = words.made(config, [int8, tried("float16", cats=1.0, dogs=1.0)])
    assert sentence.endswith("int8 was too inexact: drift 0.060, at most 0.04 passes, on dogs")


def test_the_last_lines_say_where_the_file_is_and_what_to_run(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "last_built", lambda tried: tried[-1])
    config.saved_model, config.output = Path("served"), Path("my house.tflite")
    lines = words.made_lines(config, [tried("int8", cats=1.0)])
    assert lines[1:] == [
        "report: house.report/index.html",
        "SavedModel for servers: served",
        "next: edge-runtime classify 'my house.tflite' PICTURE, or edge-runtime camera 'my house.tflite'",
    ]


# The options


def run(monkeypatch: pytest.MonkeyPatch, outcome: Any, *options: str) -> Result:
    """Run ``builder build`` with a build that returns at once."""
    import builder.pipeline
    import builder.reporting.summary

    def build(settings: Any, *, progress: Any, verbose: bool) -> Any:
        if progress is not None:
            print("reading the models", file=progress, flush=True)
        if isinstance(outcome, Exception):
            raise outcome
        return SimpleNamespace(report=SimpleNamespace(to_json=lambda: outcome))

    monkeypatch.setattr(building, "check_early", lambda settings: None)
    monkeypatch.setattr(builder.pipeline, "build", build)
    monkeypatch.setattr(builder.reporting.summary, "print_summary", lambda report: print("a table"))
    return CliRunner().invoke(main, ["build", "--head", "a=a.keras", "--output", "o.tflite", *options])


def test_with_json_standard_output_has_json_only(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, {"passed": True, "output": "é\x1b"}, "--json")
    assert (done.exit_code, json.loads(done.stdout), done.stderr) == (0, {"passed": True, "output": "é\x1b"}, "")


def test_with_json_a_failed_head_gives_the_report_too(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, QualityError("head a: no", {"passed": False}), "--json")
    assert (done.exit_code, json.loads(done.stdout), done.stderr) == (3, {"passed": False}, "error: head a: no\n")
    other = run(monkeypatch, ConfigError("no"), "--json")
    assert (other.exit_code, other.stdout) == (2, "")


def test_quiet_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, {}, "--quiet")
    assert (done.exit_code, done.output) == (0, "")
    failed = run(monkeypatch, QualityError("head a: no"), "--quiet")
    assert (failed.exit_code, failed.output) == (3, "error: head a: no\n")


def test_without_options_there_is_a_line_for_each_stage_and_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, {})
    assert (done.exit_code, done.stdout, done.stderr) == (0, "a table\n", "reading the models\n")


def test_verbose_quiet_and_json_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, {}, "--quiet", "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "expected at most one of --verbose, --quiet and --json" in done.stderr
