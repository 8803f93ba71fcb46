"""A command that is interrupted or terminated ends with a short message and leaves no draft behind."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

# The signal comes while the module that is named is being imported.
AT_IMPORT = """
import signal, sys
package, module = sys.argv[1].split()
sys.argv, done = [package, "inspect" if package == "builder" else "info", sys.executable], []
def interrupt(event, arguments):
    if event == "import" and arguments[0] == module and not done:
        done.append(1)
        signal.raise_signal(signal.SIGINT)
sys.addaudithook(interrupt)
if package == "builder":
    from builder.__main__ import main
else:
    from edge_runtime.__main__ import main
main()
"""

AT_A_DRAFT = """
import pathlib, signal, sys, types
from builder.support.files import written
def command():
    with written(pathlib.Path(sys.argv[1])) as draft:
        draft.write_bytes(b"half")
        signal.raise_signal(signal.SIGTERM)
        draft.write_bytes(b"whole")
sys.modules["builder.commands.cli"] = types.SimpleNamespace(main=command)
from builder.__main__ import main
main()
"""


def run(program: str, argument: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parent.parent)
    # A process that a shell started in the background is deaf to SIGINT, and so are those that it starts.
    start = f"import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.path.insert(0, {root!r})"
    program = f"{start}\n{program}"
    return subprocess.run([sys.executable, "-c", program, argument], capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.parametrize(
    "module",
    [
        *(f"builder {name}" for name in ("click", "numpy", "rich.table", "tensorflow", "keras", "h5py")),
        *(f"edge_runtime {name}" for name in ("click", "numpy", "PIL.Image", "edge_runtime.metadata")),
    ],
)
def test_interrupted_while_it_imports(module: str, tmp_path: Path) -> None:
    done = run(AT_IMPORT, module, tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stderr.strip() == "Aborted!"


def test_sigterm_removes_the_draft_and_leaves_what_stood_there(tmp_path: Path) -> None:
    (tmp_path / "mine.tflite").write_bytes(b"old")
    done = run(AT_A_DRAFT, str(tmp_path / "mine.tflite"), tmp_path)
    assert (done.returncode, done.stderr) == (1, "Aborted!\n")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"mine.tflite": b"old"}


def test_a_disk_that_is_full_for_temporary_files_is_one_line(tmp_path: Path) -> None:
    import keras

    from builder.merging.convert import _convert, _frozen
    from builder.support.errors import ConversionError

    image = keras.Input((32,))
    model = keras.Model(image, keras.layers.Dense(1000)(image))
    function = _frozen(model, {"image": (32,)}, ["scores"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))  # no file grows beyond it: as a full disk
    try:
        with pytest.raises(
            ConversionError, match=r"temporary files of the conversion cannot be written .*TMPDIR"
        ) as error:
            _convert({"head": function})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_no_room_for_the_copy_of_a_model_is_one_line(tmp_path: Path, suffix: str) -> None:
    from builder.reading.formats.cleaned import load_original
    from builder.support.errors import ConfigError
    from tests.tiny_models import tiny_base, tiny_classifier

    tiny_classifier(tiny_base(size=16), 3).save(tmp_path / f"m{suffix}")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
    try:
        with pytest.raises(ConfigError, match=rf"no room for a copy of m\{suffix} .*TMPDIR") as error:
            load_original(tmp_path / f"m{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
