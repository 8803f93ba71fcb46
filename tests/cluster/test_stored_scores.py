"""Comparing and searching stored scores block by block equals doing it on all of them at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow", reason="needs the extra `cluster`; make test has an environment with it")
from click.testing import CliRunner  # noqa: E402

from builder.commands.cli import main  # noqa: E402
from builder.scoring.compare import compare  # noqa: E402
from builder.scoring.features import open_features  # noqa: E402
from builder.scoring.output import begin, part, write_part  # noqa: E402
from builder.scoring.plan import blocks_of, read_block, write_plan  # noqa: E402
from builder.scoring.rows import Scorer, Wanted  # noqa: E402
from builder.scoring.samples import planned  # noqa: E402
from builder.scoring.search import MEANINGS, disagreeing, far, like, search, uncertain  # noqa: E402
from builder.scoring.sheet import _folder  # noqa: E402
from builder.scoring.stored import Result, open_result  # noqa: E402
from builder.support.errors import ConfigError  # noqa: E402
from builder.training.stored import read_features  # noqa: E402
from edge_runtime import MultiHeadClassifier  # noqa: E402
from edge_runtime.cli import main as runtime  # noqa: E402
from edge_runtime.identity import file_digest  # noqa: E402
from tests.cluster.material import FOLDER, pictures  # noqa: E402

THREE, INT16 = FOLDER / "three.tflite", FOLDER / "int16.tflite"
HEADS = ("animals", "garden")


def scored(file: Path, data: Path, folder: Path, *, block: int = 5, heads: tuple[str, ...] = HEADS) -> Result:
    """What ``score`` writes, without Ray."""
    wanted = Wanted(heads, features=True)
    samples = write_plan(folder / "plan", planned(str(data), texts=False), block=block)
    request = {"file": file_digest(str(file)), "data": str(data), "column": None, "heads": list(heads)}
    begin(folder, {**request, "joint": False, "features": True, "block": block}, samples)
    scorer = Scorer(str(file), wanted)
    for number in range(len(blocks_of(folder / "plan"))):
        write_part(folder, number, scorer.table(read_block(folder / "plan", number)))
    return open_result(folder)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    pictures(folder, 23)
    (folder / "0" / "0000b.png").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="module")
def old(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return scored(THREE, archive, tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def new(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return scored(INT16, archive, tmp_path_factory.mktemp("new"))


def whole(result: Result) -> list[dict]:
    rows = pa.concat_tables(result.tables()).to_pylist()
    return [row for row in rows if row["error"] is None]


def test_features_to_train_on_are_those_of_the_device(old: Result, new: Result) -> None:
    for file, result in ((THREE, old), (INT16, new)):
        samples = read_features(result.folder)
        assert (samples.labels, len(samples.sources)) == (("0", "1", "2"), 23)
        assert [samples.labels[c] for c in samples.classes] == [Path(source).parent.name for source in samples.sources]
        with MultiHeadClassifier(file) as opened:
            (tensor,) = opened.metadata.seam
            real = [tensor.quantization.dequantize(opened.features(source)) for source in samples.sources]
        expected = np.concatenate(real).reshape(23, -1, tensor.shape[-1]).mean(1)
        np.testing.assert_allclose(samples.inputs, expected, rtol=1e-6)


def test_the_runtime_writes_features_to_train_on_as_parquet_and_as_arrays(
    archive: Path, old: Result, tmp_path: Path
) -> None:
    """Both files hold what ``score --features`` holds, however their rows are read in blocks."""
    wanted = read_features(old.folder)
    for name in ("f.npz", "f.parquet"):
        done = CliRunner().invoke(runtime, ["features", str(THREE), str(archive), "-o", str(tmp_path / name)])
        assert done.exit_code == 2 and "features of 23 pictures, 1 left out" in done.output, done.output
        found = read_features(tmp_path / name)
        assert (found.sources, found.labels) == (wanted.sources, wanted.labels)
        np.testing.assert_array_equal(found.inputs, wanted.inputs)
        stored = open_features(tmp_path / name)
        with MultiHeadClassifier(THREE) as opened:
            assert stored.backbone == opened.metadata.backbone_digest == open_features(old.folder).backbone
            assert [t.quantization for t in stored.seam] == [t.quantization for t in opened.metadata.seam]
    nothing = tmp_path / "nothing.parquet"
    done = CliRunner().invoke(runtime, ["features", str(THREE), str(archive / "0" / "0000b.png"), "-o", str(nothing)])
    assert done.exit_code == 2 and "no picture could be read" in done.output and not nothing.exists()


def test_changes_are_those_of_the_rows(old: Result, new: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.scoring.compare.MOST_SHOWN", 2)
    found = compare(old, new)
    assert tuple(found) == HEADS
    for head, changes in found.items():
        pairs = [(b, a) for b, a in zip(whole(old), whole(new), strict=True)]
        drift = [np.abs(np.subtract(b[f"{head}_scores"], a[f"{head}_scores"])).max() for b, a in pairs]
        changed = [i for i, (b, a) in enumerate(pairs) if b[f"{head}_label"] != a[f"{head}_label"]]
        assert (changes.samples, changes.changed) == (23, len(changed))
        assert changes.mean_drift == pytest.approx(np.mean(drift)) and changes.mean_drift > 0
        worst = sorted((drift[i] for i in changed), reverse=True)[:2]
        assert sorted((c.drift for c in changes.shown), reverse=True) == pytest.approx(worst)
    assert all(changes.changed == 0 and not changes.shown for changes in compare(old, old).values())


def test_results_that_cannot_be_compared(archive: Path, old: Result, tmp_path: Path) -> None:
    other_heads = scored(THREE, archive, tmp_path / "things", heads=("things",))
    with pytest.raises(ConfigError, match="have no head in common"):
        compare(old, other_heads)
    with pytest.raises(ConfigError, match=r"expected block 5 as in .*, found 4"):
        compare(old, scored(THREE, archive, tmp_path / "blocks", block=4))
    moved = scored(THREE, archive, tmp_path / "moved")
    write_part(moved.folder, 1, next(iter(moved.tables())))
    with pytest.raises(ConfigError, match="holds other samples than"):
        compare(old, moved)
    part(moved.folder, 2).unlink()
    with pytest.raises(ConfigError, match="1 block of 5 missing"):
        open_result(moved.folder)
    with pytest.raises(ConfigError, match=r"expected a folder from builder score, found no score.json in it"):
        open_result(archive)


def test_a_search_finds_what_a_sort_of_everything_finds(old: Result, new: Result) -> None:
    rows = whole(old)
    with MultiHeadClassifier(THREE) as classifier:
        tensor = classifier.metadata.seam[0]
    real = tensor.quantization.dequantize(np.array([row["features"] for row in rows], np.int8))
    unit = real / np.linalg.norm(real, axis=1, keepdims=True)
    cosine = unit @ unit.T
    scores, theirs = (np.array([row["animals_scores"] for row in r]) for r in (rows, whole(new)))
    sorted_scores = np.sort(scores, axis=1)
    np.fill_diagonal(others := cosine.copy(), -1)
    expected = {
        "like": cosine[4],
        "uncertain": 1 - sorted_scores[:, -1] + sorted_scores[:, -2],
        "disagree": np.abs(scores - theirs).sum(1) / 2,
        "far": 1 - others.max(1),
    }
    ways = {
        "like": like(np.array(rows[4]["features"], np.int8), tensor),
        "uncertain": uncertain("animals"),
        "disagree": disagreeing("animals", new),
        "far": far(old, tensor),
    }
    for way, measure in ways.items():
        columns = ["features"] if way in ("like", "far") else ["animals_scores"]
        hits = search(old, measure, columns, top=6)
        order = np.argsort(-expected[way])[:6]
        assert [hit.value for hit in hits] == pytest.approx(expected[way][order], abs=1e-5), way
        assert hits[0].source == rows[order[0]]["source"]
        assert hits[0].labels[0].rsplit(maxsplit=1)[0] == rows[order[0]]["animals_label"]
    assert search(old, uncertain("animals"), ["animals_scores"], top=100)[-1].value == pytest.approx(
        expected["uncertain"].min()
    )


def test_the_commands_write_pages_and_lines(archive: Path, old: Result, new: Result, tmp_path: Path) -> None:
    run = CliRunner().invoke
    done = run(main, ["compare", str(old.folder), str(new.folder), "--output", str(tmp_path / "c"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == json.loads((tmp_path / "c" / "compare.json").read_text())
    assert "answers change" in (tmp_path / "c" / "compare.html").read_text()
    picture = sorted(archive.rglob("*.png"))[0]
    asked = ["search", str(old.folder), "--output", str(tmp_path / "s.html")]
    done = run(main, [*asked, "--like", str(picture), "--file", str(THREE), "--top", "3", "--json"])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.output.splitlines()]
    assert lines[0]["source"] == str(picture) and lines[0]["value"] == pytest.approx(1) and len(lines) == 3
    page = (tmp_path / "s.html").read_text()
    assert page.count("data:image/jpeg") == 3
    assert MEANINGS["like"] in page and "animals: " in page  # the number and each answer are named
    for way in (("--uncertain", "garden"), ("--disagree", "garden", str(new.folder)), ("--far", "--file", str(THREE))):
        done = run(main, [*asked, *way])
        assert done.exit_code == 0 and "23 samples" in done.output, done.output
        assert MEANINGS[way[0].lstrip("-")] in (tmp_path / "s.html").read_text()
    for wrong, message in {
        ("--far", "--uncertain", "animals"): "expected one of --like, --uncertain, --far and --disagree",
        ("--uncertain", "plants"): "no head 'plants'; there are: animals, garden",
        ("--far",): "need --file",
        ("--far", "--file", str(INT16)): "with another file; expected the digest sha256:",
    }.items():
        done = run(main, [*asked, *wrong])
        assert done.exit_code == 2 and message in done.output, done.output


@pytest.mark.parametrize(
    ("sources", "folder"),
    [
        (["a/b/1.jpg", "a/b/2.jpg"], "a/b/"),
        (["a/b/1.jpg", "a/bc/1.jpg"], "a/"),
        (["s3://bucket/x/1.jpg", "s3://bucket/y/1.jpg"], "s3://bucket/"),
        (["1.jpg", "12.jpg"], ""),
        (["/1.jpg", "a/1.jpg"], ""),
        (["t.csv#1", "t.csv#12"], ""),
        ([], ""),
    ],
)
def test_captions_leave_out_the_folder_of_all(sources: list[str], folder: str) -> None:
    assert _folder(sources) == folder
    assert all(source.startswith(folder) for source in sources)
