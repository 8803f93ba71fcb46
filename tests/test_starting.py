"""A folder of downloads becomes a TOML file that builds, with no invented names."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("keras")

from builder.commands.cli import main
from builder.settings.config import BuildConfig
from builder.starting.init import init
from builder.starting.names import ascii_name, head_names
from builder.starting.project import unpack
from builder.support.errors import ConfigError
from edge_runtime.metadata import check_head_name
from tests.tiny_models import save_pictures, tiny_base, tiny_classifier


@given(st.lists(st.text(max_size=60), max_size=8))
def test_any_titles_become_names_of_heads_that_differ(titles: list[str]) -> None:
    names = head_names(titles)
    assert len(set(names)) == len(names) == len(titles)
    for name in names:
        check_head_name(name)


@pytest.mark.parametrize(
    ("title", "name"),
    [("감정", "gamjeong"), ("Große Hunde", "grosse_hunde"), ("Кошки", "koshki"), ("3 cats", "head_3_cats"), ("", "head")],
)
def test_names_in_any_script(title: str, name: str) -> None:
    assert ascii_name(title) == name


@pytest.fixture(scope="module")
def folder(tf_keras_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three downloads with one base, one of them a zip archive and one without labels, and what is left out."""
    root = tmp_path_factory.mktemp("downloads")
    for name, labels in (("감정", "0 바위\n1 보\n2 가위\n"), ("converted_keras (1)", None), ("Pets", "Cat\nDog\nNone\n")):
        (root / name).mkdir()
        shutil.copy(tf_keras_files / "stack.h5", root / name / "keras_model.h5")
        (root / name / "._keras_model.h5").write_bytes(b"\0\5\x16\7")
        if labels:
            (root / name / "labels.txt").write_text(labels, "utf-8")
    shutil.copytree(tf_keras_files / "stack_saved", root / "감정" / "model.savedmodel")  # the same model once more
    with zipfile.ZipFile(root / "Pets.zip", "w") as archive:
        for file in ("keras_model.h5", "labels.txt"):
            archive.write(root / "Pets" / file, file)
    shutil.rmtree(root / "Pets")
    with zipfile.ZipFile(root / "감정" / "project.tm", "w") as archive:
        archive.writestr("manifest.json", "{}")
        for number in range(3):
            Image.new("RGB", (12, 12), (number * 80, 0, 0)).save(root / "one.jpg")
            archive.write(root / "one.jpg", f"바/위-!-{number}.jpg")
    (root / "one.jpg").unlink()
    (root / "broken.h5").write_bytes(b"\x89HDF\r\n\x1a\nno more")
    (root / "pictures.zip").write_bytes(b"PK\5\6" + b"\0" * 18)
    tiny_classifier(tiny_base(size=16), 2).save(root / "other.keras")
    tiny_classifier(tiny_base(size=20), 2).save(root / "alone.keras")  # read before those that become the file
    return root


def test_a_folder_becomes_a_file_that_says_what_was_found_and_what_is_missing(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    done = CliRunner().invoke(main, ["init", str(folder), "--output", str(config)])
    assert done.exit_code == 0, done.output
    assert f"next: builder build {config}" in done.stdout
    assert "missing: heads.head: labels" not in done.output  # never a name made up of nothing
    text = config.read_text("utf-8")
    read = BuildConfig.from_toml(config)
    assert {head.name: head.title for head in read.heads} == {"pets": "Pets", "keras_model": None, "gamjeong": "감정"}
    assert all(head.model.exists() for head in read.heads)
    assert "# missing: labels = [...] # 3 names" in text
    left = text[text.index("# Left out:") :]
    assert "# broken.h5: " in left
    for name, size in (("alone", 20), ("other", 16)):
        assert re.search(
            rf"# {name}\.keras: another base than 3 other classifiers: input is {size} x {size}, that of \S+ is 12 x 12;",
            left,
        )
    assert "pictures.zip" not in text
    assert sorted(p.name for p in (folder / "calibration_data" / "gamjeong" / "바_위").iterdir()) == [
        "0.jpg",
        "1.jpg",
        "2.jpg",
    ]
    with pytest.raises(ConfigError, match=r"c\.toml: exists already"):
        init(folder, config)


def test_building_a_folder_says_in_seconds_what_is_missing(folder: Path) -> None:
    done = CliRunner().invoke(main, ["build", str(folder)])
    assert done.exit_code == 2
    assert "missing: heads.keras_model: labels = [...]" in done.stderr
    (folder / "polyhead.toml").unlink()


def test_one_command_builds_what_says_everything(tmp_path: Path) -> None:
    base = tiny_base()
    for name in ("cats", "dogs"):
        tiny_classifier(base, 2, seed=len(name) + ord(name[0])).save(tmp_path / f"{name}.keras")
        (tmp_path / f"{name}.txt").write_text("yes\nno\n")
    save_pictures(tmp_path / "pictures", {"any": 8})
    started = init(tmp_path)
    assert [head.missing for head in started.heads] == [('preprocessing = "raw|unit|tf|torch|caffe"',)] * 2
    options = ("--preprocessing", "tf", "--min-agreement", "0", "--no-joint", "--precision", "float")
    done = CliRunner().invoke(main, ["build", str(tmp_path), *options])
    assert done.exit_code == 0, done.output
    assert (tmp_path / f"{tmp_path.name}.tflite").is_file()


def test_an_empty_folder_and_a_project_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected readable classifiers, found none"):
        init(tmp_path)
    (tmp_path / "project.tm").write_bytes(b"no zip")
    with pytest.raises(Exception, match=r"project\.tm: expected Teachable Machine's project"):
        unpack(tmp_path / "project.tm", tmp_path / "out")
