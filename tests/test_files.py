"""The file writer: whenever the process ends, the old or the new file is whole, and nothing is left behind."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builder.support import files
from builder.support.errors import ConfigError
from builder.support.files import locked, written, written_folder
from builder.support.places import check_file, report_folder

# Ends as a power cut would, at the step of this number: no ``finally`` runs.
DYING = """
import os, sys
from pathlib import Path
steps, folder, kind, exchange = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4] == "True"
from builder.support import files
def step(event, arguments):
    global steps
    if event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "fsync", "swap", "os.chmod"):
        if event == "open" and arguments[0] == str(path) and arguments[2] & 3:
            os._exit(7)  # nothing is written in its place
        if event != "open" or str(arguments[0]).startswith(folder):
            if steps == 0:
                os._exit(9)
            steps -= 1
path = Path(folder) / ("mine.tflite" if kind == "file" else "served")
sync = os.fsync
os.fsync = lambda handle: (step("fsync", ()), sync(handle))
if not exchange:
    files.ctypes.CDLL = lambda *_, **__: None  # a system that cannot exchange two names at one stroke
sys.addaudithook(step)
if kind == "file":
    with files.written(path) as draft:
        draft.write_bytes(b"new" * 1000)
else:
    with files.written_folder(path, mark="mark") as draft:
        (draft / "inner").mkdir()
        (draft / "inner" / "weights").write_bytes(b"new" * 1000)
        (draft / "mark").write_bytes(b"new")
"""


def content(folder: Path) -> dict[str, bytes]:
    return {str(item.relative_to(folder)): item.read_bytes() for item in folder.rglob("*") if item.is_file()}


def visible(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in content(folder).items() if not name.startswith(".")}


OLD = {"file": {"mine.tflite": b"old"}, "folder": {"served/mark": b"old", "served/inner/old": b"old"}}
NEW = {
    "file": {"mine.tflite": b"new" * 1000},
    "folder": {"served/mark": b"new", "served/inner/weights": b"new" * 1000},
}


def lay_out(folder: Path, files_there: dict[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in files_there.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


@pytest.mark.parametrize(("kind", "exchange"), [("file", True), ("folder", True), ("folder", False)])
def test_a_writer_that_dies_at_any_step_leaves_the_old_or_the_new_folder(
    tmp_path: Path, kind: str, exchange: bool
) -> None:
    folder, died = tmp_path / "out", 0
    for step in range(100):
        lay_out(folder, OLD[kind])
        command = [sys.executable, "-c", DYING, str(step), str(folder), kind, str(exchange)]
        code = subprocess.run(command, check=False).returncode
        if code == 0:
            break
        assert code == 9
        died += 1
        found = visible(folder)
        # Without an exchange there is a moment between two renames: what stood there lies beside it, whole.
        parted = not exchange and found == {}
        assert found in (OLD[kind], NEW[kind]) or parted, step
        again = subprocess.run([*command[:3], "-1", *command[4:]], check=False)
        assert again.returncode == 0
        assert content(folder) == NEW[kind], step
    assert died > 7
    assert content(folder) == NEW[kind]


def test_an_older_folder_comes_back_where_its_writer_died_between_two_renames(tmp_path: Path) -> None:
    folder = tmp_path / "served"
    lay_out(tmp_path, {"served/mark": b"old"})
    folder.rename(files.beside(folder, "old"))
    with pytest.raises(RuntimeError), locked(folder):
        raise RuntimeError
    assert content(tmp_path) == {"served/mark": b"old"}


def test_an_older_folder_stays_where_the_new_one_is_gone(tmp_path: Path) -> None:
    lay_out(tmp_path, {"served/mark": b"old"})
    with pytest.raises(OSError), written_folder(tmp_path / "served", mark="mark") as draft:
        draft.rmdir()
    assert content(tmp_path) == {"served/mark": b"old"}


def test_a_link_at_the_name_of_a_draft_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one that has guessed the name."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "0" * 16)
    output = tmp_path / "mine.tflite"
    with locked(output) as held:
        files.beside(output, "0" * 16 + ".tflite").symlink_to(victim)
        with pytest.raises(FileExistsError), held.draft():
            pass
    files.beside(output, "lock").symlink_to(victim)
    with pytest.raises(OSError), locked(output):
        pass
    assert victim.read_text() == "precious"


def test_no_two_drafts_have_one_name(tmp_path: Path) -> None:
    names = set()
    for _ in range(20):
        with written(tmp_path / "mine.tflite") as draft:
            names.add(draft.name)
            assert draft.suffix == ".tflite"
    assert len(names) == 20


def test_what_is_behind_a_link_is_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "latest.tflite"
    link.symlink_to("elsewhere/v1.tflite")
    for data in (b"one", b"two"):  # the first time the link leads to nothing yet
        with written(link) as draft:
            draft.write_bytes(data)
        assert link.is_symlink()
        assert content(tmp_path / "elsewhere") == {"v1.tflite": data}
    assert report_folder(link) == tmp_path.resolve() / "elsewhere" / "v1.report"


def test_the_mode_of_a_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "mine.tflite"
    path.write_bytes(b"old")
    path.chmod(0o600)
    with written(path) as draft:
        draft.write_bytes(b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@contextmanager
def pipe(folder: Path) -> Iterator[Path]:
    os.mkfifo(folder / "pipe.tflite")
    yield folder / "pipe.tflite"


def test_devices_and_pipes_are_refused(tmp_path: Path) -> None:
    with pipe(tmp_path) as fifo:
        for path in (fifo, Path("/dev/null")):
            for act in (check_file, lambda path: written(path).__enter__()):
                with pytest.raises(ConfigError, match="found a device, a pipe or a socket"):
                    act(path)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "me").symlink_to("me")
    with pytest.raises(ConfigError, match="a link to itself"):
        check_file(tmp_path / "me")


def test_a_second_writer_is_told_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "mine.tflite"
    with locked(path):
        with pytest.raises(ConfigError, match=f"process {os.getpid()} is writing it"), locked(path):
            pass
        program = "from builder.support.files import locked\nfrom pathlib import Path\nimport sys\n"
        program += "with locked(Path(sys.argv[1]), wait=0): pass"
        other = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
        assert f"process {os.getpid()} is writing it" in other.stderr
    with locked(path), locked(tmp_path / "another.tflite"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_somebody_else_put_there_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "mine.tflite"
    changed = pytest.raises(ConfigError, match="another program changed it meanwhile")
    with changed, locked(path) as output, output.draft(was_read=True) as draft:
        draft.write_bytes(b"mine")
        path.write_bytes(b"theirs")
    assert content(tmp_path) == {"mine.tflite": b"theirs"}
    with written(path) as draft:  # what does not depend on what stood there takes its place
        draft.write_bytes(b"mine")
        path.write_bytes(b"theirs")
    assert content(tmp_path) == {"mine.tflite": b"mine"}


def test_files_of_others_stay(tmp_path: Path) -> None:
    """Only drafts of this writer for this very name are removed."""
    others = [".mine.tflite", ".mine.0123456789abcdef.tflite", "mine.0123456789abcdef.tflite", ".mine.old"]
    others.append(files.beside(tmp_path / "another.tflite", "0" * 16 + ".tflite").name)
    for name in others:
        (tmp_path / name).write_bytes(b"theirs")
    dead = files.beside(tmp_path / "mine.tflite", "0" * 16 + ".tflite")
    dead.write_bytes(b"half")
    with written(tmp_path / "mine.tflite") as draft:
        draft.write_bytes(b"new")
    assert sorted(content(tmp_path)) == sorted([*others, "mine.tflite"])


def test_a_long_name(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 120 + ".tflite")
    with written(path) as draft:
        draft.write_bytes(b"new")
    assert content(tmp_path) == {path.name: b"new"}


def test_errors_name_the_place_and_never_the_draft(tmp_path: Path) -> None:
    place = tmp_path / "mine.tflite"
    with pytest.raises(ConfigError, match=rf"^{place}: torn$"), written(place) as draft:
        raise ConfigError(f"{draft}: torn")
    with pytest.raises(OSError, match="No space left") as error, written(place) as draft:
        raise OSError(28, "No space left on device", str(draft))
    assert error.value.filename == str(place)
    with pytest.raises(OSError, match="gone") as error, written_folder(tmp_path / "folder") as draft:
        raise OSError(2, "gone", str(draft / "inner"))
    assert error.value.filename == str(tmp_path / "folder" / "inner")


def test_the_content_is_on_the_disk_before_the_rename_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, int]] = []
    sync, replace = os.fsync, Path.replace

    def synced(handle: int) -> None:
        events.append(("fsync", os.fstat(handle).st_ino))
        sync(handle)

    def replaced(draft: Path, target: Path) -> Path:
        events.append(("rename", draft.stat().st_ino))
        return replace(draft, target)

    monkeypatch.setattr(files.os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    with written(tmp_path / "mine.tflite") as draft:
        draft.write_bytes(b"new")
    made = (tmp_path / "mine.tflite").stat().st_ino
    assert events == [("fsync", made), ("rename", made), ("fsync", tmp_path.stat().st_ino)]
    events.clear()
    with written_folder(tmp_path / "served") as draft:
        (draft / "inner").mkdir()
        (draft / "inner" / "weights").write_bytes(b"new")
    served = tmp_path / "served"
    inside = {("fsync", path.stat().st_ino) for path in (served, served / "inner", served / "inner" / "weights")}
    assert set(events) == inside | {("fsync", tmp_path.stat().st_ino)}
    assert events[-1] == ("fsync", tmp_path.stat().st_ino)


def test_a_folder_is_replaced_where_the_system_has_no_library_to_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where ``ctypes.CDLL(None)`` is a TypeError."""

    def refuse(*_: object, **__: object) -> None:
        raise TypeError("bad argument type for built-in operation")

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(files.ctypes, "CDLL", refuse)
    for text in ("old", "new"):
        with written_folder(tmp_path / "served", mark="mark") as draft:
            (draft / "mark").write_text(text)
    assert visible(tmp_path) == {"served/mark": b"new"}
