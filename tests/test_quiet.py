"""Hiding native logs does not hide the crash of a process."""

from __future__ import annotations

import faulthandler
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from builder.support.quiet import own_temporary_files, quiet
from edge_runtime.temporary import TemporaryFolder


@pytest.mark.parametrize("end", ["os.abort()", "os.kill(os.getpid(), signal.SIGSEGV)"])
def test_a_native_abort_leaves_a_word(end: str) -> None:
    program = f"import os, signal\nfrom builder.support.quiet import quiet\nwith quiet():\n    {end}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode < 0
    assert "Fatal Python error" in done.stderr


@pytest.mark.parametrize("before", [False, True])
def test_faults_are_watched_afterwards_as_they_were_before(before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(faulthandler, "is_enabled", lambda: before)
    monkeypatch.setattr(faulthandler, "enable", lambda fd: calls.append("enable"))
    monkeypatch.setattr(faulthandler, "disable", lambda: calls.append("disable"))
    with quiet():
        assert calls == ([] if before else ["enable"])
    assert calls == ([] if before else ["enable", "disable"])


def test_what_libraries_write_is_in_a_folder_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with own_temporary_files():
        theirs = Path(tempfile.mkdtemp())
        (theirs / "code.py").touch()
        ours = TemporaryFolder()  # of a process, say, that lives on
        (shared,) = tmp_path.iterdir()
        assert Path(ours.name).parent == theirs.parent.parent == shared
    assert tempfile.gettempdir() == str(tmp_path)
    assert [*shared.iterdir()] == [Path(ours.name)]
    ours.cleanup()
    assert not [*tmp_path.iterdir()]
