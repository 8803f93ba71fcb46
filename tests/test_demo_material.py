"""Laws of the demo pictures: held-out pictures train nothing, and all can be read."""

import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builder.training import samples
from edge_runtime.image_input import ImageInput

DATA = Path(__file__).resolve().parent.parent / "calibration_data"
CLASSES = {
    "animals": {"bird", "fish", "insect", "mammal"},
    "garden": {"flower", "fruit", "tree", "vegetable"},
    "things": {"coin", "instrument", "roadsign", "tool", "vehicle"},
}
TASKS = sorted(CLASSES)
SIDES = {"training": DATA, "held_out": DATA / "held_out"}


def load_script(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


make_pictures = load_script(DATA / "make_pictures.py")
training = load_script(DATA.parent / "examples" / "train_demo_heads.py")


def pictures(side: str, task: str) -> list[Path]:
    return sorted((SIDES[side] / task).glob("*/*.jpg"))


def stamps(side: str, task: str) -> Counter:
    """(class, stamp) -> number of pictures."""
    return Counter((path.parent.name, path.stem.rpartition("__")[0]) for path in pictures(side, task))


def as_stamp(task: str, label: str, name: str):
    return make_pictures.Stamp(Path(f"{name}.webp"), task, label)


@pytest.mark.parametrize("task", TASKS)
def test_no_stamp_is_both_trained_on_and_held_out(task):
    assert not stamps("training", task).keys() & stamps("held_out", task).keys()


@pytest.mark.parametrize("task", TASKS)
def test_stamps_of_one_kind_stay_on_one_side(task):
    kinds = {
        side: {(label, make_pictures.kind(as_stamp(task, label, name))) for label, name in stamps(side, task)}
        for side in SIDES
    }
    assert not kinds["training"] & kinds["held_out"]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("task", TASKS)
def test_every_class_has_two_stamps_on_each_side(side, task):
    counts = Counter(label for label, _ in stamps(side, task))
    assert set(counts) == CLASSES[task]
    assert min(counts.values()) >= 2


@pytest.mark.parametrize("task", TASKS)
def test_about_three_tenths_of_each_class_are_held_out(task):
    held_out = Counter(label for label, _ in stamps("held_out", task))
    trained = Counter(label for label, _ in stamps("training", task))
    for label in CLASSES[task]:
        assert 0.15 < held_out[label] / (held_out[label] + trained[label]) < 0.45, label


def test_every_stamp_has_as_many_pictures_as_the_others_of_its_task():
    for task, variants in {"animals": 2, "garden": 2, "things": 3}.items():
        assert set(stamps("training", task).values()) == {variants}
        assert set(stamps("held_out", task).values()) == {2}


def test_every_picture_decodes_as_rgb_of_a_known_size():
    paths = [path for side in SIDES for task in TASKS for path in pictures(side, task)]
    assert sum("held_out" in path.parts for path in paths) >= 150
    shapes = set()
    for path in paths:
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode) == ("JPEG", "RGB"), path
            shapes.add(image.size)
    assert shapes == set(make_pictures.SIZES)


def test_nothing_else_lies_in_the_folders_and_no_picture_is_there_twice():
    texts = DATA / "glosses"
    paths = [path for path in DATA.rglob("*") if path.is_file() and not {"__pycache__", "glosses"} & {*path.parts}]
    shown = [path for side in SIDES for task in TASKS for path in pictures(side, task)]
    assert {path.name for path in paths} - {path.name for path in shown} == {
        "LICENSE.GPL-2", "README.md", "make_pictures.py"}  # fmt: skip
    assert len({path.read_bytes() for path in shown}) == len(shown)
    assert sum(path.stat().st_size for path in paths) <= 3_300_000
    assert {path.name for path in texts.iterdir()} == {"README.md", "glosses.tsv"}
    assert "WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved." in (texts / "README.md").read_text()


def test_readme_counts_what_is_there():
    rows = re.findall(r"\| ((?:\d+, )+\d+) \|", (DATA / "README.md").read_text(encoding="utf-8"))
    expected = [", ".join(str(len(pictures(side, task))) for task in TASKS) for side in SIDES]
    assert rows == expected


@pytest.mark.parametrize(
    ("label", "one", "other", "together"),
    [
        ("vehicle", "dumper", "dumper_mirror", True),
        ("mammal", "lion-2", "lion", True),
        ("vegetable", "garlic", "garlics", True),
        ("fruit", "Strawberry2", "strawberry", True),
        ("flower", "flower1", "flower10", False),
        ("coin", "005", "005nickel", False),
        ("mammal", "cow", "capybara", False),
    ],
)
def test_kind_tells_variants_from_others(label, one, other, together):
    kinds = {make_pictures.kind(as_stamp("any", label, name)) for name in (one, other)}
    assert (len(kinds) == 1) is together


def make_source(folder: Path, names: list[str]) -> Path:
    """A tiny source: coloured squares as stamps, flat backdrops."""
    for index, name in enumerate(make_pictures.TRAINING_BACKDROPS + make_pictures.HELD_OUT_BACKDROPS):
        path = folder / "backdrops" / f"{name}.webp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), (index * 20, 90, 10)).save(path)
    for task in TASKS:
        for name in names:
            path = folder / "stamps" / task / "kind" / f"{name}.webp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGBA", (20, 10), (len(name) * 10, 200, 50, 255)).save(path, lossless=True)
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.jpg")}


def test_one_stamp_more_changes_no_other_picture(tmp_path):
    trees = ["oak", "elm", "ash", "yew", "fir", "larch", "birch", "maple"]
    results = []
    for run, names in enumerate((trees, ["beech", *trees], trees)):
        output = tmp_path / f"out{run}"
        output.mkdir()
        make_pictures.make_pictures(make_source(tmp_path / f"in{run}", names), output)
        results.append(contents(output))
    few, more, again = results
    assert few == again
    assert {path.parts[0] for path in few} == {*TASKS, "held_out"}
    assert few.items() < more.items()
    assert {path.name.partition("__")[0] for path in more.keys() - few.keys()} == {"beech"}


def test_a_source_without_stamps_is_refused_and_old_pictures_stay(tmp_path):
    old = tmp_path / "animals" / "old.jpg"
    old.parent.mkdir()
    old.write_bytes(b"old")
    with pytest.raises(FileNotFoundError, match="expected stamps"):
        make_pictures.make_pictures(tmp_path / "nowhere", tmp_path)
    assert old.read_bytes() == b"old"


class FakeModel:
    """A classifier that answers class 0 to every picture, and saves a text or fails as on a full disk."""

    def __init__(self, *, fails: bool = False):
        self.fails = fails

    def predict(self, images, verbose):
        return np.eye(4)[np.zeros(len(images), int)]

    def save(self, path):
        path.write_text("half")
        if self.fails:
            raise OSError("no space left on device")


def test_training_ends_before_a_held_out_picture_is_read(tmp_path, monkeypatch):
    read, read_while_training = [], []
    picture = samples.image_tensor
    monkeypatch.setattr(samples, "image_tensor", lambda path, spec: (read.append(path), picture(path, spec))[1])

    def train(task, pictures):
        read_while_training.extend(read)
        assert len(pictures.classes) == len(read)
        return FakeModel()

    monkeypatch.setattr(training, "train", train)
    result = training.run_task("garden", pictures=DATA, output=tmp_path)
    assert sorted(read_while_training) == pictures("training", "garden")
    assert sorted(set(read) - set(read_while_training)) == pictures("held_out", "garden")
    assert (result["held_out_correct"], result["held_out_pictures"]) == (
        12,
        50,
    )  # all the flowers are class 0
    assert (tmp_path / "garden.txt").read_text() == "flower\nfruit\ntree\nvegetable\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["garden.json", "garden.keras", "garden.txt"]


def test_a_failed_save_leaves_the_old_files_and_no_others(tmp_path):
    for ending in ("keras", "txt", "json"):
        (tmp_path / f"garden.{ending}").write_text("old")
    with pytest.raises(OSError, match="no space"):
        training.save(FakeModel(fails=True), ("flower",), {"task": "garden"}, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "garden.json": "old", "garden.keras": "old", "garden.txt": "old"}  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_pictures_are_loaded_with_their_class_and_stamp(task, monkeypatch):
    monkeypatch.setattr(samples, "image_tensor", lambda path, spec: np.zeros((1, 1)))
    loaded = samples.read_class_folders(DATA / task, ImageInput(224, 224), group_by=training.STAMP)
    pairs = Counter((loaded.labels[index], stamp) for index, stamp in zip(loaded.classes, loaded.groups, strict=True))
    assert pairs == stamps("training", task)


@pytest.mark.parametrize("task", TASKS)
def test_no_two_pictures_of_a_stamp_share_a_backdrop(task, tmp_path):
    colours = {
        name: (index * 20, 90, 10)
        for index, name in enumerate(make_pictures.TRAINING_BACKDROPS + make_pictures.HELD_OUT_BACKDROPS)
    }
    backdrops = {name: Image.new("RGB", (64, 48), colour) for name, colour in colours.items()}
    sides = set()
    for name in ("oak", "elm", "ash", "yew", "fir", "larch", "birch", "maple"):
        path = tmp_path / f"{name}.webp"
        Image.new("RGBA", (20, 10), (len(name) * 10, 200, 50, 255)).save(path, lossless=True)
        stamp = make_pictures.Stamp(path, task, "kind")
        corners = [
            {picture.getpixel((x, y)) for x in (0, picture.width - 1) for y in (0, picture.height - 1)}
            for _, picture in make_pictures.pictures(stamp, backdrops)
        ]
        found = [colours_seen & set(colours.values()) for colours_seen in corners]
        assert all(len(one) == 1 for one in found)
        assert len(set.union(*found)) == len(found) >= 2
        sides.add(make_pictures.is_held_out(stamp))
    assert sides == {False, True}


def test_a_missing_task_is_one_clear_line_and_exit_code_2(tmp_path, monkeypatch, capsys):
    arguments = [
        "train_demo_heads",
        "--task",
        "things",
        "--pictures",
        str(tmp_path),
        "--output",
        str(tmp_path / "out"),
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    assert training.main() == 2
    error = capsys.readouterr().err
    assert "expected a folder with a folder of pictures" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
