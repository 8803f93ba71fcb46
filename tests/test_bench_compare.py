"""The rule by which ``make bench-compare`` calls something slower. No assertion depends on time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import compare


def turns(*ratios: float, machine: tuple[float, ...] = (1.0,)) -> list[tuple[compare.Figures, compare.Figures]]:
    """Rounds on a machine whose speed changes: this tree takes ``ratios`` of the other."""
    return [({"open": r * m, "new": 1.0}, {"open": m}) for r, m in zip(ratios, machine * len(ratios), strict=False)]


@pytest.mark.parametrize(
    ("ratios", "found"),
    [
        ((1.0, 1.0, 1.0, 1.0), []),
        ((2.0, 2.0, 2.0, 2.0), ["open"]),
        ((1.1, 1.1, 1.1, 1.1), []),
        ((5.0, 0.9, 0.9, 1.0), []),
        ((5.0, 5.0, 0.9, 0.9), []),
        ((0.5, 0.5, 0.5, 0.5), []),
        ((1.2, 1.2, 1.3, 0.9), ["open"]),
    ],
)
def test_slower_is_what_most_rounds_say(ratios: tuple[float, ...], found: list[str]) -> None:
    """Whatever the machine does between the rounds; what the other tree cannot do is not compared."""
    assert compare.slower(turns(*ratios)) == found
    assert compare.slower(turns(*ratios, machine=(1.0, 7.0, 0.3, 2.0))) == found


def test_it_is_compared_with_the_commit_measured_last() -> None:
    known = {"a": {"open": 1.0}, "b": {"open": 1.0}, "own": {"open": 1.0}}
    assert compare.last(known, "own") == "b"
    assert compare.last({"own": {}}, "own") is None


@pytest.mark.parametrize(("own", "code"), [(1.0, 0), (2.0, 3)])
def test_the_program_notes_its_commit_and_says_what_is_slower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: float, code: int
) -> None:
    monkeypatch.setattr(compare, "measured", lambda tree: {"open": own if tree == compare.ROOT else 1.0})
    monkeypatch.setattr(compare, "_check_out", lambda commit, tree: None)
    monkeypatch.setattr(compare, "_git", lambda *words: b"this\n" if words[1] == "HEAD" else b"that\n")
    history = tmp_path / "deep" / "history.json"
    result = CliRunner().invoke(compare.main, ["--history", str(history)])
    assert result.exit_code == code
    assert "open: " in result.output
    assert json.loads(history.read_text()) == {"this": {"open": own}}


def test_an_unknown_commit_is_an_error_of_one_line(tmp_path: Path) -> None:
    history = tmp_path / "history.json"
    result = CliRunner().invoke(compare.main, ["--against", "no-such-commit", "--history", str(history)])
    assert result.exit_code == 2
    assert not history.exists()
