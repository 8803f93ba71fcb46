"""Fixtures of the builder's environment. Import late: ``tests/device`` loads this file too, without TensorFlow."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from builder import BuildResult

if importlib.util.find_spec("hypothesis"):
    from hypothesis import HealthCheck, settings

    # The same examples each time, and no deadline: a busy machine must not fail a test.
    settings.register_profile("seeded", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("seeded")


_T = TypeVar("_T")
# A picture of one pixel, transparent.
_EMPTY = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="
)


def _once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], _T]) -> _T:
    """The result of ``make`` in a folder. The first of xdist's workers makes it; the others wait and load it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return make(factory.mktemp(name))
    import fcntl

    folder = (
        factory.getbasetemp().parent / f"once-{name}"
    )  # the folders of the workers are beside each other in that of the run
    (folder / "files").mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / "made.pickle"
        if not made.exists():
            made.write_bytes(pickle.dumps(make(folder / "files")))
        result: _T = pickle.loads(made.read_bytes())  # noqa: S301  written above
        return result


@pytest.fixture(scope="session", autouse=True)
def _as_quick() -> Iterator[None]:
    """Backbones of all precisions take equally long. A busy machine would make one seem slower than float, and ``auto``
    leaves that one out. Tests of the choice give times of their own.
    """
    with pytest.MonkeyPatch.context() as patch:
        with contextlib.suppress(ImportError):  # no builder on a device
            from builder.quantizing import latency

            patch.setattr(latency, "backbone_ms", lambda *parts: [1.0] * len(parts))
        yield


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages get an empty picture for each plot unless marked ``draws``: drawing takes a quarter of a tiny build."""
    figures = sys.modules.get("matplotlib.figure")
    if figures is not None and request.node.get_closest_marker("draws") is None:
        monkeypatch.setattr(figures.Figure, "savefig", lambda figure, file, **_: file.write(_EMPTY))
        monkeypatch.setattr(figures.Figure, "tight_layout", lambda figure, **_: None)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """One file with the three heads of ``tiny_models.THREE_HEADS``, built once. Read it; never write to its folder."""
    from tests.tiny_models import build_tiny

    return _once(tmp_path_factory, "tiny", build_tiny)


@pytest.fixture(scope="session")
def tiny_file(tiny: BuildResult) -> Path:
    """The ``.tflite`` of ``tiny``."""
    return tiny.output


@pytest.fixture(scope="session")
def joint(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """The same heads with a joint list, and pictures of none. Read it; never write to its folder."""
    from builder import build
    from tests.joint_models import with_joint, with_none

    return _once(tmp_path_factory, "joint", lambda folder: build(with_none(with_joint(folder))))


@pytest.fixture(scope="session")
def tiny_pictures(tiny: BuildResult) -> list[Path]:
    """The pictures that ``tiny`` was built with, in a fixed order."""
    return sorted(p for p in (tiny.output.parent / "pictures").rglob("*") if p.is_file())


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for this process's temporary files. Modules imported from there are compiled, as for a user."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    return folder


@pytest.fixture(scope="session")
def tf_keras_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that ``tests.tf_keras_files`` writes, in a process of its own. Read it; never write to it."""
    if importlib.util.find_spec("tf_keras") is None:  # never imported here: it and Keras 3 share TensorFlow's state
        pytest.skip("tf_keras is not installed")
    return _once(tmp_path_factory, "tf_keras", _written_by_tf_keras)


def _written_by_tf_keras(folder: Path) -> Path:
    command = [sys.executable, "-m", "tests.tf_keras_files", str(folder)]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"tf_keras could not write its files:\n{done.stderr[-2000:]}")
    return folder
