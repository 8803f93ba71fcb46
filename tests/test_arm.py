"""The frame of ``make test-arm``: anything missing is reported in one line, and wrong answers are noticed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.arm import demo, machine
from tests.arm.__main__ import main


def refusal(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["arm", str(folder / "arm")])
    assert main() == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("make test-arm: ")
    return line


def test_without_apt_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert "apt-get" in refusal(tmp_path, monkeypatch, capfd)


def test_on_another_system_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(machine, "SUITE", "no-such-suite")
    assert "Debian 12" in refusal(tmp_path, monkeypatch, capfd)


def test_without_a_network_it_says_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "_check_host", lambda: None)
    monkeypatch.setattr(machine.shutil, "which", lambda name: name)
    failing = tmp_path / "apt-get"
    failing.write_text("#!/bin/sh\necho 'W: no index' >&2\necho 'E: Unable to locate package' >&2\nexit 100\n")
    failing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    line = refusal(tmp_path, monkeypatch, capfd)
    assert "apt-get failed: E: Unable to locate package" in line
    assert not (tmp_path / "arm/arm64.stamp").exists()


@pytest.mark.parametrize("processor", [machine.A53, machine.A7], ids=lambda processor: processor.name)
def test_the_emulated_processor_names_itself(tmp_path: Path, processor: machine.Processor) -> None:
    machine._write_cpuinfo(processor, tmp_path)
    blocks = (tmp_path / "proc/cpuinfo").read_text("ascii").strip().split("\n\n")
    for number, block in enumerate(blocks):
        fields = dict(line.split("\t: ") for line in block.splitlines() if "\t: " in line)
        assert fields == {"processor": str(number), "CPU implementer": "0x41", "CPU part": hex(processor.part)}


@pytest.fixture(scope="module")
def expected(tiny_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("arm") / "expected.npz"
    assert demo.write(str(tiny_file), str(path)) == 0
    return path


def test_the_same_answers_pass(expected: Path) -> None:
    assert demo.compare(str(expected), demo.REFERENCE) == 0


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("images", lambda a: a ^ 2),
        ("features", lambda a: np.where(a > 0, a - 20, a + 20).astype(np.int8)),
        ("scores", lambda a: np.clip(a + 6 / 256, 0, 1)),
        ("scores", lambda a: a[:, ::-1]),
    ],
    ids=["pixels", "features", "scores", "winners"],
)
def test_answers_that_differ_too_much_do_not_pass(expected: Path, tmp_path: Path, name: str, change: Callable) -> None:
    with np.load(expected) as arrays:
        np.savez(tmp_path / "off.npz", **{**arrays, name: change(arrays[name])})
    assert demo.compare(str(tmp_path / "off.npz"), demo.REFERENCE) == 1
