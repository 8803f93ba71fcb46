"""What a killed process leaves in temporary folders is removed by the next one, and nothing else is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from edge_runtime.files import DRAFT, whole_file
from edge_runtime.temporary import FOLDER, TemporaryFolder, claimed, remove_left_behind

# Makes what the names say, one after the other, then stays until its input ends.
PROGRAM = """
import sys
from pathlib import Path
from edge_runtime.files import draft_beside
from edge_runtime.temporary import TemporaryFolder
kept = []
for step in sys.argv[2:]:
    if step == "folder":
        kept.append(TemporaryFolder())
    elif step == "content":
        (Path(kept[-1].name) / "inner").mkdir()
        (Path(kept[-1].name) / "inner" / "file").write_text("text")
    elif step == "cleanup":
        kept.pop().cleanup()
    elif step == "draft":
        kept.append(draft_beside(Path(sys.argv[1]) / "output"))
        kept[-1].__enter__()
print("ready", flush=True)
sys.stdin.read()
"""
STEPS = [
    ("folder",),
    ("folder", "content"),
    ("folder", "content", "folder", "content"),
    ("folder", "cleanup"),
    ("folder", "content", "cleanup", "folder"),
    ("draft",),
    ("draft", "folder", "content", "draft"),
]


@contextmanager
def process(folder: Path, *steps: str) -> Iterator[subprocess.Popen[str]]:
    """One that has made what ``steps`` say, with its temporary files and drafts in ``folder``."""
    line = [sys.executable, "-c", PROGRAM, str(folder), *steps]
    environment = {**os.environ, "TMPDIR": str(folder)}
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True, env=environment) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        yield running
        running.kill()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process and the others have their temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("steps", STEPS)
def test_the_next_process_removes_what_a_killed_one_left(place: Path, steps: tuple[str, ...]) -> None:
    with process(place, *steps) as running:
        before = sorted(place.rglob("*"))
        with TemporaryFolder(), whole_file(place / "output"):
            assert set(before) <= set(place.rglob("*"))  # it is alive
        assert bool(before) == (steps != ("folder", "cleanup"))
    assert running.returncode < 0
    (place / "output").unlink()
    other = place / "elsewhere" / "output"  # this process has looked at ``place`` already
    other.parent.mkdir()
    for left in place.glob(f"{DRAFT}*"):
        left.rename(other.parent / left.name)
    with TemporaryFolder() as own, whole_file(other):
        assert [one for one in place.iterdir() if one != other.parent] == [Path(own).parent]
        assert len(list(other.parent.iterdir())) == 1  # its own draft
    assert list(place.iterdir()) == [other.parent]
    assert list(other.parent.iterdir()) == [other]


def test_what_only_looks_like_it_stays(place: Path) -> None:
    inside = place / "real"
    inside.mkdir()
    (inside / "file").touch()
    (place / f"{FOLDER}abcdefgh").symlink_to(inside)
    for name in (FOLDER, f"{FOLDER}abcdefghi", f"{FOLDER}ABCDEFGH", f"my-{FOLDER}abcdefgh"):
        (place / name).mkdir()
    held = place / f"{FOLDER}pipe0000"
    os.mkfifo(held)
    found = sorted(place.rglob("*"))
    with TemporaryFolder():
        pass
    assert sorted(place.rglob("*")) == [one for one in found if one != held]  # ours by its name, and free
    if os.geteuid() == 0:
        foreign = place / f"{FOLDER}foreign0"
        foreign.mkdir()
        os.chown(foreign, 12345, -1)
        remove_left_behind(str(place), FOLDER)
        assert foreign.exists()


def test_one_thing_that_cannot_be_removed_keeps_no_other(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = os.unlink

    def stubborn(path: object, **options: int) -> None:
        if str(path).endswith("stuck"):
            raise PermissionError(path)
        unlink(path, **options)  # type: ignore[arg-type, call-overload]

    monkeypatch.setattr("os.unlink", stubborn)
    for folder in ("aaaaaaaa", "bbbbbbbb"):
        for name in ("stuck", *"abcdefghijklm"):  # in whatever order the system lists them
            (place / f"{FOLDER}{folder}" / name).mkdir(parents=True)
            (place / f"{FOLDER}{folder}" / name / name).touch()
    remove_left_behind(str(place), FOLDER)
    assert {one.name for one in place.rglob("*") if not one.name.startswith(FOLDER)} == {"stuck"}


def test_a_folder_that_was_taken_for_left_behind_is_made_again(place: Path) -> None:
    names = []

    def make() -> str:
        names.append(tempfile.mkdtemp(prefix=FOLDER))
        if len(names) < 3:
            remove_left_behind(str(place), FOLDER)  # as another process does before it is locked
        return names[-1]

    path, handle = claimed(make)
    assert handle is not None
    remove_left_behind(str(place), FOLDER)
    assert [str(one) for one in place.iterdir()] == [path] == names[2:]
    os.close(handle)


def test_processes_that_begin_and_end_at_once_leave_each_other_alone(place: Path) -> None:
    program = (
        "from edge_runtime.temporary import TemporaryFolder\n"
        "import os\n"
        "for number in range(200):\n"
        "    with TemporaryFolder() as one, TemporaryFolder() as two:\n"
        "        open(one + '/file', 'w').close()\n"
        "        assert os.path.isdir(two) and os.listdir(one) == ['file'], number\n"
    )
    environment = {**os.environ, "TMPDIR": str(place)}
    running = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(3)]
    assert [one.wait() for one in running] == [0, 0, 0]
    assert list(place.iterdir()) == []


def test_a_folder_that_a_cleaner_removed_is_made_again(place: Path) -> None:
    first = TemporaryFolder()
    for one in sorted(place.rglob("*"), reverse=True):
        one.rmdir()
    with TemporaryFolder() as second:
        assert Path(second).is_dir()
    first.cleanup()
    assert list(place.iterdir()) == []


def test_a_copy_of_the_process_removes_nothing_of_it(place: Path) -> None:
    with TemporaryFolder() as own:
        child = os.fork()
        if child == 0:
            with TemporaryFolder() as other:
                os._exit(0 if Path(other).parent != Path(own).parent and Path(own).exists() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert Path(own).exists()


def test_what_the_system_still_holds_is_removed_at_the_end(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows holds a file that an interpreter has mapped."""
    later, remove = list[partial[None]](), shutil.rmtree
    monkeypatch.setattr("atexit.register", lambda *call, **options: later.append(partial(*call, **options)))
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    with TemporaryFolder() as folder:
        (Path(folder) / "model.tflite").write_bytes(b"mapped")
    assert Path(folder).is_dir()
    monkeypatch.setattr("shutil.rmtree", remove)
    for call in later:
        call()
    assert not list(place.iterdir())
