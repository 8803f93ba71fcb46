"""Unpack a Debian for ARM into a folder, without root. Its Python runs under an emulator of the processor.

The host's apt fetches the packages of the other architecture, with a state of its own; pip fetches the interpreters'
wheels.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

SUITE = "bookworm"  # Python 3.11, numpy 1.24, Pillow 9.4: Raspberry Pi OS Bookworm
PACKAGES = ("python3-numpy", "python3-pil", "python3-click", "python3-pytest")


class MissingError(Exception):
    """This machine lacks something; the message is one line."""


@dataclass(frozen=True)
class Architecture:
    """``triplet``: the folder of its libraries. ``wheels``: name, version and platform tag of each."""

    name: str
    qemu: str
    triplet: str
    wheels: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Processor:
    """``part``: its number in ``/proc/cpuinfo``, by which interpreters choose their kernels."""

    name: str
    part: int
    architecture: Architecture


ARM64 = Architecture(
    "arm64",
    "qemu-aarch64-static",
    "aarch64-linux-gnu",
    (
        ("tflite-runtime", "2.14.0", "manylinux_2_34_aarch64"),
        ("ai-edge-litert", "2.3.0", "manylinux_2_27_aarch64"),
    ),
)
ARMHF = Architecture(
    "armhf", "qemu-arm-static", "arm-linux-gnueabihf", (("tflite-runtime", "2.14.0", "manylinux_2_34_armv7l"),)
)
A53 = Processor("cortex-a53", 0xD03, ARM64)  # Raspberry Pi 3 and Zero 2 W, Coral Dev Board
A72 = Processor("cortex-a72", 0xD08, ARM64)  # Raspberry Pi 4
A76 = Processor("cortex-a76", 0xD0B, ARM64)  # Raspberry Pi 5
A7 = Processor("cortex-a7", 0xC07, ARMHF)  # a 32-bit system


def python_for(processor: Processor, folder: Path) -> Path:
    """A Python that runs as on ``processor``, in the system that ``fetch`` has put into ``folder``.

    It is a program that can be started, and is ``sys.executable`` of its children. Use one processor of an architecture
    at a time, because they share ``/proc/cpuinfo``.
    """
    architecture = processor.architecture
    root = folder / architecture.name
    emulator = shutil.which(architecture.qemu) or _emulators(folder) / architecture.qemu
    _write_cpuinfo(processor, root)
    program = root / "usr/bin" / processor.name
    inner = root / "usr/bin/python3.11"
    program.write_text(f'#!/bin/sh\nexec {emulator} -cpu {processor.name} -0 "$0" -L {root} {inner} "$@"\n', "utf-8")
    program.chmod(0o755)
    return program


def _write_cpuinfo(processor: Processor, root: Path) -> None:
    """Replace the host's file: ai-edge-litert from 2.2 on reads it, and crashes if it names no ARM processor."""
    lines = [
        "processor\t: {}",
        "CPU implementer\t: 0x41",
        "CPU architecture: 8",
        f"CPU part\t: {processor.part:#x}",
        "\n",
    ]
    text = "".join("\n".join(lines).format(number) for number in range(os.cpu_count() or 1))
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_text(text, "ascii")


def fetch(architecture: Architecture, folder: Path) -> None:
    """Fetch the system, the wheels and the emulator, unless an earlier run has. Raises ``MissingError``."""
    _check_host()
    if shutil.which(architecture.qemu) is None and not (_emulators(folder) / architecture.qemu).is_file():
        (host,) = _run(["dpkg", "--print-architecture"]).split()
        _unpack_debian(("qemu-user-static",), host, folder, folder / "host")
    root, stamp = folder / architecture.name, folder / f"{architecture.name}.stamp"
    wanted = repr((SUITE, PACKAGES, architecture))
    if stamp.is_file() and stamp.read_text("utf-8") == wanted:
        return
    shutil.rmtree(root, ignore_errors=True)
    _unpack_debian(PACKAGES, architecture.name, folder, root)
    libraries = root / "usr/lib" / architecture.triplet
    for name in ("blas/libblas.so.3", "lapack/liblapack.so.3"):  # Debian's alternatives, which an installation would link
        (libraries / Path(name).name).symlink_to(name)
    for name, version, platform in architecture.wheels:
        _unpack_wheel(f"{name}=={version}", platform, folder, root / "usr/local/lib/python3.11/dist-packages")
    stamp.write_text(wanted, "utf-8")


def _emulators(folder: Path) -> Path:
    """The folder of the emulators, static programs that run from where they were unpacked."""
    return folder / "host/usr/bin"


def _unpack_debian(packages: tuple[str, ...], architecture: str, folder: Path, root: Path) -> None:
    """Unpack ``packages`` and their dependencies, as for a machine of that architecture without any packages."""
    state = folder / "apt" / f"{architecture}-{packages[0]}"
    for part in ("lists/partial", "archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    (state / "status").write_text("", "ascii")
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state,
        "Debug::NoLocking": "true",
    }
    apt = ["apt-get", "--quiet", "--yes", *(f"--option={key}={value}" for key, value in settings.items())]
    with contextlib.suppress(MissingError):  # one of the indexes may be changing; what is really missing shows below
        _run([*apt, "update"])
    _run([*apt, "install", "--download-only", *packages])
    root.mkdir(parents=True, exist_ok=True)
    for package in sorted((state / "archives").glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(package), str(root)])


def _check_host() -> None:
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise MissingError(f"{program} of Debian 12 ({SUITE}) is missing; it fetches the packages for ARM")
    release = Path("/etc/os-release").read_text("utf-8")
    if f"VERSION_CODENAME={SUITE}\n" not in release:
        raise MissingError(f"this is not Debian 12 ({SUITE}), whose apt fetches the packages for ARM")


def _unpack_wheel(requirement: str, platform: str, folder: Path, site: Path) -> None:
    wheels = folder / "wheels" / f"{requirement}-{platform}"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp", f"--platform={platform}"]
    _run([*command, f"--dest={wheels}", requirement])
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise MissingError(f"{command[0]} failed: {said[-1] if said else done.returncode}")
    return done.stdout
