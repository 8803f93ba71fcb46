"""Evaluating an archive: the same figures whatever the samples come from and however the work is done."""

from __future__ import annotations

import csv
import json
import random
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow", reason="needs the extra `cluster`; make test has an environment with it")
import pyarrow.parquet  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from PIL import Image  # noqa: E402

from builder.commands.cli import main  # noqa: E402
from builder.judging import evaluate as evaluating  # noqa: E402
from builder.judging.answers import Asker  # noqa: E402
from builder.judging.evaluate import Running, evaluate  # noqa: E402
from builder.judging.evaluation import Evaluation  # noqa: E402
from builder.judging.labelled import Archive  # noqa: E402
from builder.judging.seen import Seen  # noqa: E402
from builder.scoring.features import StoredFeatures, open_features  # noqa: E402
from builder.support.errors import BuilderError, ConfigError, SamplesError  # noqa: E402
from builder.support.side_by_side import side_by_side  # noqa: E402
from edge_runtime import MultiHeadClassifier  # noqa: E402
from edge_runtime.cli import main as runtime  # noqa: E402
from tests.cluster.material import FOLDER  # noqa: E402

JOINT, TEXT, THREE = FOLDER / "joint.tflite", FOLDER / "text.tflite", FOLDER / "three.tflite"


def save(folder: Path, counts: dict[str, int]) -> list[Path]:
    """Noise of several sizes, the same each time."""
    rng, found = np.random.default_rng(5), []
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (20 + i, 24, 3), np.uint8)
            found.append(folder / name / f"{i:03d}.png")
            Image.fromarray(pixels).save(found[-1])
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labels of each head of ``joint.tflite``, and none."""
    folder = tmp_path_factory.mktemp("labelled")
    with MultiHeadClassifier(JOINT) as opened:
        wanted = {f"{head.head_name}/{label}": 4 for head in opened.heads for label in head.labels[:2]}
    save(folder, {**wanted, "none": 5})
    return folder


@pytest.fixture(scope="module")
def expected(data: Path) -> Evaluation:
    return evaluate(JOINT, Archive(str(data)))


def figures(found: Evaluation) -> dict:
    """All but where the samples lie."""
    document = found.to_json()
    wrong = {name: [{**w, "source": Path(w["source"]).name} for w in shown] for name, shown in document["wrong"].items()}
    return {**document, "wrong": wrong}


def counted(found: Evaluation) -> dict:
    """What does not depend on the order of the samples, or on what they are called."""
    document = found.to_json()
    for group in (*document["heads"].values(), document["joint"]):
        for kind in group.values():
            kind["calibration_floor"] = round(kind["calibration_floor"], 1)
    return {key: document[key] for key in ("samples", "heads", "joint", "labels", "unknown")}


def test_counts_are_those_of_the_runtime(data: Path, expected: Evaluation) -> None:
    """The joint list as the device answers, ``none`` among its labels."""
    table: dict[tuple[str, str], int] = {}
    with MultiHeadClassifier(JOINT) as opened:
        for path in sorted(data.rglob("*.png")):
            folder = path.parent.relative_to(data).parts
            found = opened.classify(path, joint=True).joint
            pair = folder[-1], found.best.category_name if found.known else "none"
            table[pair] = table.get(pair, 0) + 1
    for rates in expected.labels["joint"]:
        assert rates.samples == sum(n for (true, _), n in table.items() if true == rates.label), rates
        assert rates.found == sum(n for (_, answer), n in table.items() if answer == rates.label), rates
        assert rates.right == table.get((rates.label, rates.label), 0)
    assert expected.labels["joint"][-1].label == "none" and expected.labels["joint"][-1].samples == 5
    assert sum(rates.found for rates in expected.labels["joint"]) == expected.samples


def tables(data: Path, folder: Path) -> dict[str, Archive]:
    """The same samples as a glob, and as tables of bytes and of paths."""
    files = sorted(data.rglob("*.png"))
    names = ["/".join(path.parent.relative_to(data).parts) for path in files]
    columns = {"content": [path.read_bytes() for path in files], "file": list(map(str, files)), "what": names}
    pyarrow.parquet.write_table(pa.table(columns), folder / "t.parquet", row_group_size=7)
    with (folder / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "what"), *zip(columns["file"], names, strict=True)])
    return {
        "glob": Archive(f"{data}/**/*.png"),
        "address": Archive(f"file://{data}"),
        "bytes": Archive(str(folder / "t.parquet"), "content", "what"),
        "paths": Archive(str(folder / "t.parquet"), "file", "what"),
        "csv": Archive(str(folder / "t.csv"), "file", "what"),
    }


def test_figures_are_the_same_whatever_the_samples_come_from(data: Path, expected: Evaluation, tmp_path: Path) -> None:
    for name, archive in tables(data, tmp_path).items():
        assert counted(evaluate(JOINT, archive)) == counted(expected), name


def test_stored_features_give_the_same_figures_without_the_backbone(
    data: Path, expected: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("f.npz", "f.parquet"):
        done = CliRunner().invoke(runtime, ["features", str(JOINT), str(data), "-o", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
    monkeypatch.setattr(evaluating, "_COMPARED", 0)
    monkeypatch.setattr(MultiHeadClassifier, "features_of", lambda *_: pytest.fail("the backbone ran"))
    for name in ("f.npz", "f.parquet"):
        found = evaluate(JOINT, Archive(features=open_features(tmp_path / name)))
        assert figures(found) == figures(expected), name


def test_features_of_another_file_are_refused(data: Path, tmp_path: Path) -> None:
    stored = tmp_path / "f.npz"
    assert CliRunner().invoke(runtime, ["features", str(JOINT), str(data), "-o", str(stored)]).exit_code == 0
    with pytest.raises(ConfigError, match=r"of another backbone|like those of this file"):
        evaluate(FOLDER / "int16.tflite", Archive(features=open_features(stored)))
    arrays = dict(np.load(stored))
    np.savez(tmp_path / "moved.npz", **{**arrays, "features": arrays["features"][::-1]})
    with pytest.raises(ConfigError, match=r"the features of .* differ from this"):
        evaluate(JOINT, Archive(features=open_features(tmp_path / "moved.npz")))
    np.savez(tmp_path / "lost.npz", **{**arrays, "paths": np.array([f"/p/{i}" for i in range(len(arrays["paths"]))])})
    with pytest.raises(SamplesError, match="expected sources <head>/<class>/NAME"):
        evaluate(JOINT, Archive(features=open_features(tmp_path / "lost.npz")))


@pytest.fixture(scope="module")
def stored(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the features of ``data`` in both kinds of file."""
    folder = tmp_path_factory.mktemp("stored")
    for name in ("f.npz", "f.parquet"):
        assert CliRunner().invoke(runtime, ["features", str(JOINT), str(data), "-o", str(folder / name)]).exit_code == 0
    return folder


def read(path: Path) -> int:
    """How many samples stored features hold; every one is read, with and without its tensors."""
    features = open_features(path)
    sources = [source for some in features.sources() for source in some]
    assert sources == [source for block in features.blocks() for source in block.sources]
    return len(sources)


@pytest.mark.parametrize("name", ["f.npz", "f.parquet"])
def test_damaged_features_are_read_or_refused_in_one_line(stored: Path, tmp_path: Path, name: str) -> None:
    whole, rng, ends = (stored / name).read_bytes(), random.Random(name), set()
    assert read(stored / name) > 20
    for _ in range(150):
        data, place = bytearray(whole), rng.randrange(len(whole))
        data[place : place + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(9))
        (tmp_path / name).write_bytes(data if rng.random() < 0.8 else data[:place])
        try:
            ends.add(read(tmp_path / name) > 0)
        except ConfigError as error:
            ends.add("refused")
            assert str(error).startswith(str(tmp_path / name)) and "\n" not in str(error)
    assert "refused" in ends


def described(field: dict[str, object] | str) -> Callable[[pa.Table], pa.Table]:
    """What changes the metadata of the column of features; a string is no JSON."""
    text = field if isinstance(field, str) else json.dumps(field)

    def change(table: pa.Table) -> pa.Table:
        fields = [table.schema.field("source"), table.schema.field("features").with_metadata({"polyhead": text})]
        return table.cast(pa.schema(fields, metadata=table.schema.metadata))

    return change


def column(name: str, values: Callable[[int], list[object]]) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        field = table.schema.field(name)
        return table.set_column(place, field, pa.array(values(len(table)), field.type))

    return change


GOOD = {"shape": [8], "scale": 0.1, "zero_point": 0}


@pytest.mark.parametrize(
    "change",
    [
        described("{nope"),
        described("[1]"),
        described({**GOOD, "shape": "x"}),
        described({**GOOD, "shape": [-8]}),
        described({**GOOD, "shape": [7]}),
        described({**GOOD, "scale": "a"}),
        described({**GOOD, "scale": float("nan")}),
        described({"shape": [8]}),
        lambda table: table.replace_schema_metadata({"polyhead": "{nope"}),
        lambda table: table.replace_schema_metadata({"polyhead": "{}"}),
        lambda table: table.drop_columns(["source"]),
        column("source", lambda count: [None] * count),
        column("features", lambda count: [None] * count),
        column("features", lambda count: [[1, 2]] * count),
    ],
)
def test_a_table_that_describes_other_features_is_refused(
    stored: Path, tmp_path: Path, change: Callable[[pa.Table], pa.Table]
) -> None:
    path = tmp_path / "f.parquet"
    pyarrow.parquet.write_table(change(pyarrow.parquet.read_table(stored / "f.parquet")), path)
    with pytest.raises(ConfigError, match=r"f\.parquet: expected features from edge-runtime features"):
        read(path)


def test_features_are_read_once(data: Path, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, blocks = [], StoredFeatures.blocks
    monkeypatch.setattr(StoredFeatures, "blocks", lambda self: (read.append(block) or block for block in blocks(self)))
    monkeypatch.setattr(evaluating, "_COMPARED", 0)
    found = evaluate(JOINT, Archive(features=open_features(stored / "f.parquet")))
    assert found.samples + found.equal == sum(len(block.sources) for block in read[1:])  # the first is compared


def test_two_processes_count_what_one_counts(data: Path, expected: Evaluation, tmp_path: Path) -> None:
    lines = tmp_path / "lines.csv"
    found = evaluate(JOINT, Archive(str(data)), running=Running(jobs=2, csv=lines))
    assert found.to_json() == expected.to_json()
    with lines.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == [str(path) for path in sorted(data.rglob("*.png"))]
    right = sum(kinds["int8"].right for kinds in expected.heads.values())
    assert sum(row["right"] == "1" for row in rows) == right
    assert sum(row["joint_answer"] == "none" for row in rows) == expected.labels["joint"][-1].found
    assert {row["label"] for row in rows if not row["head"]} == {"none"}


def test_equal_contents_are_counted_once_and_said(data: Path, expected: Evaluation, tmp_path: Path) -> None:
    """Whoever comes first in the order of the names stays."""
    shutil.copytree(data, tmp_path / "with")
    head, label = sorted(path.relative_to(data).parts[:2] for path in data.rglob("*/*/*.png"))[0]
    folder = tmp_path / "with" / head / label
    shutil.copyfile(folder / "000.png", folder / "zz.png")
    shutil.copyfile(folder / "001.png", tmp_path / "with" / "none" / "zz.png")
    found = evaluate(JOINT, Archive(str(tmp_path / "with")))
    assert (found.equal, found.contradicting) == (2, 1)
    assert figures(found) == {**figures(expected), "equal": 2, "contradicting": 1}
    assert "2 duplicates by content; 1 of them with another label" in found.notes[0]
    assert found.notes[0] in found.page


def test_wrong_answers_are_shown_the_surest_first(
    data: Path, expected: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert expected.page.count("data:image/jpeg") == sum(map(len, expected.wrong.values())) > 0
    monkeypatch.setattr("builder.judging.wrong.MOST_SHOWN", 2)
    few = evaluate(JOINT, Archive(str(data))).wrong
    for name, shown in expected.wrong.items():
        assert [wrong.score for wrong in shown] == sorted((wrong.score for wrong in shown), reverse=True)
        assert [w.source for w in few[name]] == [w.source for w in shown[:2]]


def test_heads_of_packs_are_judged_beside_the_file(data: Path) -> None:
    """Without a joint list the one list is of all heads."""
    (main_file,) = (FOLDER / "apart").glob("*.tflite")
    found = evaluate(main_file, Archive(str(data)))
    whole = evaluate(JOINT, Archive(str(data)))
    assert {name: kinds["int8"] for name, kinds in found.heads.items()} == {
        name: kinds["int8"] for name, kinds in whole.heads.items()
    }


def test_texts_a_line_in_folders_and_files_of_labels_and_in_tables(tmp_path: Path) -> None:
    with MultiHeadClassifier(TEXT) as opened:
        head = opened.heads[0]
        texts = {label: [f"w{i} w{j}" for j in range(5)] for i, label in enumerate(head.labels)}
        lines = [text for lines in texts.values() for text in lines]
        said = {text: opened.classify_text(text).classifications[0].categories[0].category_name for text in lines}
    right = sum(said[text] == label for label, lines in texts.items() for text in lines)
    for label, lines in texts.items():
        for path in (tmp_path / "a" / head.head_name / label / "x.txt", tmp_path / "b" / head.head_name / f"{label}.txt"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n\n")
    rows = [(text, label) for label, lines in texts.items() for text in lines]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    table = Archive(str(tmp_path / "t.csv"), "text", "label", head.head_name)
    for archive in (Archive(str(tmp_path / "a")), Archive(str(tmp_path / "b")), table):
        found = evaluate(TEXT, archive)
        assert (found.heads[head.head_name]["int8"].right, found.samples) == (right, len(rows)), archive
    assert "w0 w" in found.page


@pytest.mark.parametrize(
    ("said", "head", "message"),
    [
        ("HEAD/nothing", None, "expected HEAD/LABEL of the file, or none; found '.*/nothing'"),
        ("LABEL", None, "expected HEAD/LABEL of the file"),
        ("", "HEAD", "expected a label of .*, HEAD/LABEL"),
        ("LABEL", "nobody", "--head nobody: no such head"),
    ],
)
def test_labels_of_a_table_that_are_none(data: Path, tmp_path: Path, said: str, head: str | None, message: str) -> None:
    first = sorted(data.rglob("*/*/*.png"))[0]
    name, label = first.relative_to(data).parts[:2]
    words = said.replace("HEAD", name).replace("LABEL", label)
    (tmp_path / "t.csv").write_text(f"file,label\n{first},{words}\n")
    archive = Archive(str(tmp_path / "t.csv"), "file", "label", head and head.replace("HEAD", name))
    with pytest.raises(BuilderError, match=message):
        evaluate(JOINT, archive)


def test_a_column_or_labels_that_are_not_there(data: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,label\na.png,b\n")
    run = CliRunner().invoke
    for options, message in {
        ("--data", str(tmp_path / "t.csv"), "--column", "picture"): "found no 'picture'",
        ("--data", str(tmp_path / "t.csv"), "--column", "file", "--labels", "what"): "expected --labels with one of file",
        ("--data", str(data), "--features", str(tmp_path / "t.csv")): "expected one of --data and --features",
        (): "expected one of --data and --features",
        ("--features", str(tmp_path / "t.csv")): "expected",
    }.items():
        done = run(main, ["evaluate", str(JOINT), "--report", str(tmp_path / "r"), *options])
        assert done.exit_code == 2 and message in done.output, (options, done.output)
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_the_command_on_a_ray_cluster(data: Path, expected: Evaluation, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra `cluster`; make test has an environment with it")
    asked = ["evaluate", str(JOINT), "--data", str(data), "--report", str(tmp_path), "--address", "local", "--jobs", "2"]
    done = CliRunner().invoke(main, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == expected.to_json()


class Doubler:
    def __init__(self, add: int) -> None:
        self._add = add

    def __call__(self, task: int) -> int:
        if task == 13:
            raise SamplesError("thirteen")
        return 2 * task + self._add


@pytest.mark.parametrize("jobs", [1, 2])
def test_tasks_are_asked_for_as_workers_come_free(jobs: int) -> None:
    asked: list[int] = []

    def tasks(numbers: range) -> Iterator[int]:
        for number in numbers:
            asked.append(number)
            yield number

    for done, found in enumerate(side_by_side(Doubler, {"add": 1}, tasks(range(12)), jobs=jobs), 1):
        assert found == 2 * (done - 1) + 1
        assert len(asked) <= done + 2 * jobs
    with pytest.raises(SamplesError, match="thirteen"):
        list(side_by_side(Doubler, {"add": 1}, tasks(range(10, 20)), jobs=jobs))


def test_no_answer_is_kept(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many blocks there were, those of the last two are alive."""
    monkeypatch.setattr("builder.judging.labelled.BLOCK", 1)
    monkeypatch.setattr(evaluating.blocks_of, "__kwdefaults__", {"texts": False, "size": 1})
    alive: list[weakref.ref] = []

    class Watched(Asker):
        def __call__(self, block):
            answers = super().__call__(block)
            assert sum(ref() is not None for ref in alive) <= 2
            alive.append(weakref.ref(answers))
            return answers

    monkeypatch.setattr(evaluating, "Asker", Watched)
    evaluate(JOINT, Archive(str(data)))
    assert len(alive) > 20


def test_what_was_seen_is_known_among_many() -> None:
    with Seen() as seen:
        assert [seen.is_new(bytes([i % 7]), 0, i % 7) for i in range(14)] == [True] * 7 + [False] * 7
        assert (seen.equal, seen.contradicting) == (7, 0)
        assert not seen.is_new(b"\0", 0, 1) and seen.contradicting == 1
