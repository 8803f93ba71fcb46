"""``benchmarks.imagenet`` counts correctly, and refuses a folder that is not a set of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorflow")

from benchmarks.imagenet import CALIBRATION, figures, picture_paths, plot, read_pictures, table
from benchmarks.imagenet_networks import LARGER, _deeper


def test_each_figure_counts_what_it_says() -> None:
    truth = np.array([[9, 1, 0, 0, 0, 0, 0], [0, 9, 1, 0, 0, 0, 0], [0, 0, 9, 8, 7, 6, 5], [9, 8, 7, 6, 5, 4, 0]], float)
    found = truth.copy()
    found[2, 3] = 9.0  # a tie that float does not have: the first stays first
    found[1, 0] = 10.0  # another answer
    row = figures(truth, found, np.array([0, 0, 5, 6]))
    assert (row["top1"][0], row["top5"][0], row["agreement"][0]) == (0.5, 0.75, 0.75)
    assert (row["ties"], row["pictures"]) == (1, 4)
    assert row["drift"] > 0.15
    same = figures(truth, truth, np.array([0, 1, 2, 0]))
    assert (same["top1"][0], same["agreement"][0], same["drift"], same["ties"]) == (1.0, 1.0, 0.0, 0)
    assert same["agreement"][1] < 0.7 < same["agreement"][2] == 1.0  # four pictures prove little


def test_pictures_are_read_by_their_class_and_cropped(tmp_path: Path) -> None:
    for i in range(2 * CALIBRATION):
        picture = np.zeros((32, 64, 3), np.uint8)
        picture[2:30, 18:46] = i  # 0.875 of the short side, in the middle
        Image.fromarray(picture).save(tmp_path / f"{1000 - 5 * i:04d}_x.jpg", quality=100)
    (tmp_path / "notes.txt").write_text("none of them")
    found = read_pictures(picture_paths(tmp_path), 14)
    assert found.classes.tolist() == sorted(1000 - 5 * i for i in range(2 * CALIBRATION))
    assert found.pixels.shape == (2 * CALIBRATION, 14, 14, 3)
    middle = found.pixels[:, 2:-2, 2:-2].astype(int)
    assert np.abs(middle - np.arange(2 * CALIBRATION)[::-1, None, None, None]).max() <= 3


@pytest.mark.parametrize("count", [0, 3, None])
def test_too_few_pictures_are_said(tmp_path: Path, count: int | None) -> None:
    for i in range(count or 0):
        (tmp_path / f"{i:04d}_x.jpg").touch()
    folder = tmp_path / "not there" if count is None else tmp_path
    with pytest.raises(
        SystemExit, match=f"expected {2 * CALIBRATION} pictures NNNN_name.jpg or more, found {count or 0}"
    ):
        picture_paths(folder)


@pytest.mark.draws
def test_the_table_has_a_row_for_each_way_and_the_plot_is_drawn(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(20, 10))
    rows = {name: figures(logits, logits + moved, np.arange(20) % 10) for name, moved in (("float", 0.0), ("way", 1.0))}
    assert len(table(rows).splitlines()) == 4
    plot(rows, tmp_path / "x.png")
    assert Image.open(tmp_path / "x.png").size[0] > 500


@pytest.mark.parametrize(("name", "repeats"), [("lite1", [1, 3, 3, 4, 4, 5, 1]), ("lite2", [1, 3, 3, 4, 4, 5, 1])])
def test_the_larger_lite_networks_are_as_deep_as_published(name: str, repeats: list[int]) -> None:
    assert [stage.repeats for stage in _deeper(LARGER[name][1])] == repeats
