"""Rows are what the device answers, bit for bit, whatever the samples come from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow", reason="needs the extra `cluster`; make test has an environment with it")
import pyarrow.parquet  # noqa: E402

from builder.scoring.plan import blocks_of, read_block, write_plan  # noqa: E402
from builder.scoring.rows import Scorer, Wanted, wanted_of  # noqa: E402
from builder.scoring.samples import Planned, planned  # noqa: E402
from builder.support.errors import SamplesError  # noqa: E402
from edge_runtime import MultiHeadClassifier  # noqa: E402
from edge_runtime.errors import UnknownHeadError  # noqa: E402
from tests.cluster.material import FOLDER, pictures  # noqa: E402

THREE, TEXT = FOLDER / "three.tflite", FOLDER / "text.tflite"


def expected(file: Path, samples: list) -> list[dict]:
    with MultiHeadClassifier(file, num_threads=1) as classifier:
        found = []
        for sample in samples:
            features = classifier.features(sample)
            found.append({name: classifier.head_scores(features, name).tolist() for name in classifier.head_names})
        return found


def scores_of(table) -> list[dict]:
    names = [name.removesuffix("_scores") for name in table.column_names if name.endswith("_scores")]
    return [{name: row[f"{name}_scores"] for name in names} for row in table.to_pylist()]


def every_way(folder: Path) -> dict[str, tuple[str, str | None]]:
    """The same pictures as a folder, a glob, a column of bytes, of paths, as datasets keep them, and in a CSV file."""
    files = pictures(folder / "pictures", 6)
    data = [path.read_bytes() for path in files]
    columns = {
        "bytes": data,
        "paths": [str(path) for path in files],
        "both": [{"bytes": content, "path": None} for content in data],
    }
    pyarrow.parquet.write_table(pa.table(columns), folder / "t.parquet", row_group_size=4)
    (folder / "t.csv").write_text("id,file\n" + "".join(f"{i},{path}\n" for i, path in enumerate(files)))
    ways: dict[str, tuple[str, str | None]] = {name: (str(folder / "t.parquet"), name) for name in columns}
    ways.update(folder=(str(folder / "pictures"), None), glob=(str(folder / "pictures/**/*.png"), None))
    return {**ways, "csv": (str(folder / "t.csv"), "file")}


def test_every_source_of_the_same_pictures_gives_the_rows_of_the_device(tmp_path: Path) -> None:
    for way, (place, column) in every_way(tmp_path).items():
        samples = list(planned(place, texts=False, column=column))
        table = Scorer(str(THREE), wanted_of(THREE, (), joint=False, features=True), column).table(samples)
        assert table.column("error").null_count == 6, way
        files = sorted((tmp_path / "pictures").rglob("*.png"))
        assert scores_of(table) == expected(THREE, files), way
        with MultiHeadClassifier(THREE) as classifier:
            first = classifier.features(files[0])
        assert table.column("features")[0].as_py() == np.ravel(first).tolist()
        assert table.schema.field("features").type == pa.list_(pa.int8())


def test_rows_of_a_table_may_be_read_in_any_order(tmp_path: Path) -> None:
    place, column = every_way(tmp_path)["bytes"]
    samples = list(planned(place, texts=False, column=column))
    scorer = Scorer(str(THREE), Wanted(("animals",)), column)
    straight = scores_of(scorer.table(samples))
    for order in ([5, 0, 3], [3, 2, 1, 0], [4, 4, 5]):
        assert scores_of(scorer.table([samples[i] for i in order])) == [straight[i] for i in order]


def test_texts_a_line_and_a_column(tmp_path: Path) -> None:
    lines = ["w1 w2", "w3", "äö w2", "w1"]
    (tmp_path / "a.txt").write_text("\n".join([*lines[:2], "", *lines[2:]]), "utf-8")
    pyarrow.parquet.write_table(pa.table({"text": lines}), tmp_path / "b.parquet")
    (tmp_path / "c.csv").write_text("text\n" + "\n".join(lines) + "\n", "utf-8")
    for name, column in {"a.txt": None, "b.parquet": "text", "c.csv": "text"}.items():
        samples = list(planned(str(tmp_path / name), texts=True, column=column))
        table = Scorer(str(TEXT), wanted_of(TEXT, (), joint=False, features=False), column).table(samples)
        assert scores_of(table) == expected(TEXT, lines), name
    assert [sample.source for sample in planned(str(tmp_path / "a.txt"), texts=True)][-1] == f"{tmp_path}/a.txt:5"


def test_what_cannot_be_read_has_its_reason_and_no_answer(tmp_path: Path) -> None:
    (good,) = pictures(tmp_path, 1)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    names = [str(good), str(tmp_path / "broken.png"), str(tmp_path / "gone.png")]
    table = Scorer(str(THREE), Wanted(("animals",))).table([Planned(name) for name in names])
    whole, broken, gone = table.to_pylist()
    assert whole["error"] is None and whole["animals_label"]
    assert "expected a picture" in broken["error"] and "No such file" in gone["error"]
    assert broken["animals_scores"] is None and gone["animals_score"] is None


@pytest.mark.parametrize("count", [1, 4, 5, 23])
def test_a_plan_holds_every_sample_once_in_order(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.scoring.plan._BLOCKS_PER_FILE", 2)
    samples = [Planned(f"s{i}", text=bytes([i]), table="t" if i % 2 else None, row=i) for i in range(count)]
    assert write_plan(tmp_path, samples, block=4) == count
    blocks = blocks_of(tmp_path)
    assert sum(blocks) == count and max(blocks) <= 4
    assert [sample for i in range(len(blocks)) for sample in read_block(tmp_path, i)] == samples


@pytest.mark.parametrize(
    ("place", "column", "message"),
    [
        ("nothing/*.png", None, "expected a folder, a file or a glob that finds files; found nothing"),
        ("t.parquet", None, "expected --column with one of bytes, paths, both; none was given"),
        ("t.parquet", "pixels", "found no 'pixels'"),
        ("t.csv", None, "expected --column with one of id, file"),
        ("wrong://bucket/folder", None, "expected a path, or an address such as s3://bucket/folder"),
    ],
)
def test_a_source_that_is_none(tmp_path: Path, place: str, column: str | None, message: str) -> None:
    every_way(tmp_path)
    with pytest.raises(SamplesError, match=message.replace("*", r"\*")):
        list(planned(place if "://" in place else str(tmp_path / place), texts=False, column=column))


def test_a_head_that_is_not_there() -> None:
    with pytest.raises(UnknownHeadError, match="no head 'plants'; this file has 3"):
        wanted_of(THREE, ("plants",), joint=False, features=False)
    with pytest.raises(UnknownHeadError, match="no joint head"):
        wanted_of(THREE, (), joint=True, features=False)
    assert json.dumps(wanted_of(THREE, (), joint=False, features=False).heads)
