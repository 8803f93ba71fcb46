"""``train-head``: validation samples train nothing, equal inputs give equal weights, and the base stays unchanged."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from builder.commands.cli import main
from builder.support.errors import ConfigError, SamplesError
from builder.training.fit import class_weights, fit_head
from builder.training.samples import Samples, read_class_folders, read_csv, validating
from edge_runtime.image_input import ImageInput
from edge_runtime.preprocess import image_tensor
from edge_runtime.quantization import Quantization
from tests.tiny_models import SIZE, tiny_base, tiny_classifier, tiny_picture

SPEC = ImageInput(SIZE, SIZE)


def samples(classes: np.ndarray, groups: np.ndarray) -> Samples:
    return Samples(np.zeros(len(classes)), classes, groups, tuple("abc"[: classes.max() + 1]), ())


def shown_twice(groups_of_class: list[int]) -> Samples:
    """Two samples of each group, the second ones after all the first."""
    classes = np.repeat(range(len(groups_of_class)), groups_of_class)
    names = [f"{label}{number}" for label, count in enumerate(groups_of_class) for number in range(count)]
    return samples(np.tile(classes, 2), np.tile(names, 2))


def test_validation_takes_whole_groups_and_some_of_each_class() -> None:
    found = shown_twice([4, 13, 7])
    chosen = validating(found)
    assert not set(found.groups[chosen]) & set(found.groups[~chosen])
    assert np.bincount(found.classes[chosen]).tolist() == [2 * 1, 2 * 3, 2 * 2]
    assert np.bincount(found.classes[~chosen]).tolist() == [2 * 3, 2 * 10, 2 * 5]


def test_a_group_name_that_two_classes_use_is_two_groups() -> None:
    found = samples(np.array([0, 0, 1, 1]), np.array(["a", "b", "b", "c"]))
    assert validating(found).tolist() == [True, False, True, False]


class FakeHead:
    """A stand-in that records each training. Its validation loss is lowest in the third epoch."""

    def __init__(self) -> None:
        self.fits: list[Any] = []
        self.weights = "initial"

    def compile(self, *arguments: Any, **options: Any) -> None:
        pass

    def get_weights(self) -> str:
        return self.weights

    def set_weights(self, weights: str) -> None:
        self.weights = weights

    def predict(self, features: np.ndarray, verbose: int) -> np.ndarray:
        return np.full((len(features), 2), len(self.fits))

    def fit(self, features: Any, classes: Any, *, epochs: int, validation_data: Any = None, **options: Any) -> Any:
        self.fits.append((self.weights, sorted(features[:, 0]), epochs, validation_data))
        self.weights = "trained"
        return SimpleNamespace(history={"val_loss": [3.0, 2.0, 1.0, 2.0]})


def test_the_head_is_trained_again_on_everything_for_as_long_as_validation_says() -> None:
    features = np.array([[0.0, 1, 2, 3], [10, 11, 12, 13]])[..., None]  # two views of four samples
    head, validates = FakeHead(), np.array([False, True, False, False])
    fit = fit_head(head, features, np.array([0, 0, 1, 1]), validates, epochs=9, learning_rate=0.1, seed=0)
    (_, searched, most, (seen, truth)), (weights, learned, epochs, nothing) = head.fits
    assert (searched, most) == ([0, 2, 3, 10, 12, 13], 9)
    assert (seen.tolist(), truth.tolist()) == ([[1.0]], [0]), "what validates is not augmented"
    assert (weights, epochs, nothing) == ("initial", 3, None)
    assert learned == sorted(features.ravel())
    assert (fit.epochs, fit.scores.tolist()) == (3, [[1, 1]]), "scored by the head that had not learned from them"


def test_every_class_weighs_the_same() -> None:
    classes = np.array([0] * 4 + [1] * 13 + [2] * 7)
    weights = class_weights(classes)
    sums = [weights[index] * np.sum(classes == index) for index in range(3)]
    np.testing.assert_allclose(sums, [8.0, 8.0, 8.0])


# What is read


def save_pictures(folder: Path, colours: dict[str, tuple[int, int, int]], number: int = 12) -> Path:
    """Pictures of one colour on another, different enough that a random base tells them apart."""
    for place, (label, colour) in enumerate(colours.items()):
        (folder / label).mkdir(parents=True)
        for i in range(number):
            picture = tiny_picture(100 * place + i)
            picture.paste(Image.new("RGB", (60, 40), colour), (i % 10, i % 7))
            picture.save(folder / label / f"shot{i // 2}_{i}.png")
    return folder


COLOURS = {"blue": (20, 40, 220), "red": (220, 30, 20), "white": (250, 250, 250)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pictures(tmp_path_factory.mktemp("labelled") / "colours", COLOURS)


def test_pictures_of_one_shot_are_one_group(folder: Path) -> None:
    found = read_class_folders(folder, SPEC, group_by=r"(shot\d+)_")
    assert found.labels == ("blue", "red", "white")
    assert found.inputs.shape == (36, SIZE, SIZE, 3)
    assert len(np.unique(found.groups)) == 6
    assert len(np.unique(read_class_folders(folder, SPEC).groups)) == 36


def test_folders_that_are_refused(folder: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    shutil.copytree(folder / "red", one / "red")
    with pytest.raises(SamplesError, match=r"two labels or more.* found 1 folder$"):
        read_class_folders(one, SPEC)
    (one / "empty").mkdir()
    with pytest.raises(SamplesError, match="no pictures in empty"):
        read_class_folders(one, SPEC)
    with pytest.raises(SamplesError, match="found none"):
        read_class_folders(tmp_path / "missing", SPEC)
    with pytest.raises(SamplesError, match=r"2 or more samples of blue that are independent"):
        broken = shutil.copytree(folder, tmp_path / "groups")
        read_class_folders(broken, SPEC, group_by="(s)hot")
    with pytest.raises(ConfigError, match="--group-by"):
        read_class_folders(folder, SPEC, group_by="(shot")
    with pytest.raises(ConfigError, match="--group-by"):
        read_class_folders(folder, SPEC, group_by="shot")
    (broken / "red" / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(SamplesError, match=r"bad.png.*repair or remove it"):
        read_class_folders(broken, SPEC)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "columns text and label"),
        ("a,b\n1,2\n", "columns text and label"),
        ("text,label\nhello,\n", "both in every row"),
        ("text,label\nhello\n", "both in every row"),
        ("text,label\nhello,x\nthere,x\n", "two labels or more, found x"),
        ("text,label\nhello,x\nthere,x\nworld,y\n", "2 or more samples of y"),
        (b"text,label\n\xff\xfe,x\n", "CSV file in UTF-8"),
    ],
)
def test_tables_that_are_refused(text: str | bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises((ConfigError, SamplesError), match=words):
        read_csv(path)


def test_a_table_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('text,label\n"one, two",b\nthree,a\nfour,a\nfive,b\n', "utf-8")
    found = read_csv(path)
    assert (found.inputs.tolist(), found.classes.tolist()) == (["one, two", "three", "four", "five"], [1, 0, 0, 1])


# The whole


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "base.keras"
    tiny_base(0, pooling=False).save(path)
    return path


@pytest.fixture(scope="module")
def trained(folder: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "colours.keras"
    result = run(
        "train-head", folder, "--backbone", base, "--preprocessing", "tf", "--output", output, "--no-flip", "--seed", 2
    )
    assert result.exit_code == 0, result.output
    return output


@pytest.mark.slow
def test_nothing_stays_in_the_temporary_folder(folder: Path, base: Path, tmp_path: Path, temporary: Path) -> None:
    chosen = ("--preprocessing", "tf", "--epochs", 1, "--held-out", folder, "--output", tmp_path / "o.keras")
    assert run("train-head", folder, "--backbone", base, *chosen).exit_code == 0
    assert not list(temporary.iterdir())  # TensorFlow writes code there, and compiles it


@pytest.mark.slow
def test_a_head_is_trained_that_tells_colours_apart(trained: Path, folder: Path) -> None:
    import keras

    model = keras.models.load_model(trained)
    found = read_class_folders(folder, SPEC)
    assert np.mean(model.predict(found.inputs, verbose=0).argmax(1) == found.classes) > 0.9
    assert trained.with_suffix(".txt").read_text() == "blue\nred\nwhite\n"
    document = json.loads((trained.parent / "colours_report" / "report.json").read_text())
    assert document["validation"]["pictures"] == 6
    assert len(document["curves"]["val_loss"]) >= document["epochs"]
    assert (trained.parent / "colours_report" / "index.html").stat().st_size > 10_000
    assert sorted(p.name for p in trained.parent.iterdir()) == ["colours.keras", "colours.txt", "colours_report"]


@pytest.mark.slow
def test_two_heads_trained_apart_share_the_base_and_the_pixels_are_settled(
    trained: Path, folder: Path, base: Path, tmp_path: Path
) -> None:
    """Also one trained on a classifier that was trained before, of which the base is taken."""
    other = tmp_path / "other.keras"
    result = run("train-head", folder, "--backbone", trained, "--output", other, "--hidden", 8, "--seed", 5, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["features"].startswith("64 features, behind")
    shared = run("inspect", trained, other, "--json")
    assert shared.exit_code == 0, shared.output
    document = json.loads(shared.stdout)
    assert document["shared"]
    parameters = (
        sum(w.size for w in (layer.get_weights() for layer in []) for w in w) or document["backbone"]["parameters"]
    )
    assert parameters == tiny_base(0, pooling=False).count_params()


@pytest.mark.slow
def test_the_same_twice_gives_the_same_weights(trained: Path, folder: Path, base: Path, tmp_path: Path) -> None:
    import keras

    again = tmp_path / "again.keras"
    run("train-head", folder, "--backbone", base, "--preprocessing", "tf", "--output", again, "--no-flip", "--seed", 2)
    one, two = (keras.models.load_model(path).get_weights() for path in (trained, again))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def store(path: Path, base: Path, sources: list[Path], **changed: Any) -> Path:
    """What ``edge-runtime features`` writes of a file with this base: its map, in int8."""
    import keras

    model = keras.models.load_model(base)
    images = np.concatenate([image_tensor(source, SPEC) for source in sources]).astype(np.float32)
    real = np.asarray(model(images / 127.5 - 1))
    kept = Quantization(
        float(real.max() - real.min()) / 255, -128 - round(255 * float(real.min() / (real.max() - real.min()))), np.int8
    )
    arrays = {
        "features": kept.quantize(real),
        "features_scale": np.float32(kept.scale),
        "features_zero_point": np.int32(kept.zero_point),
        "paths": np.array([str(source) for source in sources]),
    }
    np.savez(path, **{key: value for key, value in {**arrays, **changed}.items() if value is not None})
    return path


@pytest.mark.slow
def test_a_head_trained_on_stored_features_is_the_one_trained_on_the_pictures(
    folder: Path, base: Path, tmp_path: Path
) -> None:
    import keras

    features = store(tmp_path / "features.npz", base, sorted(folder.rglob("*.png")))
    chosen = ("--backbone", base, "--preprocessing", "tf", "--views", 1, "--epochs", 8, "--json")
    documents, answers = [], []
    for place, source in enumerate((folder, features)):
        output = tmp_path / f"{place}.keras"
        result = run("train-head", source, *chosen, "--held-out", (features, folder)[place], "--output", output)
        assert result.exit_code == 0, result.output
        documents.append(json.loads(result.stdout))
        images = read_class_folders(folder, SPEC).inputs
        answers.append(keras.models.load_model(output).predict(images, verbose=0))
    first, second = documents
    assert (first["labels"], first["samples"]) == (second["labels"], second["samples"]) == (["blue", "red", "white"], 36)
    assert first["held_out"]["pictures"] == second["held_out"]["pictures"] == 36
    assert np.abs(answers[0] - answers[1]).max() < 0.05
    assert np.ptp(answers[0], axis=0).max() > 0.2  # else this would say nothing


@pytest.mark.slow
def test_heads_side_by_side_are_those_trained_one_by_one(folder: Path, base: Path, tmp_path: Path) -> None:
    """The same weights; a head that cannot be trained is named, and the others go on."""
    import keras

    sources = sorted(folder.rglob("*.png"))
    features = store(tmp_path / "features.npz", base, sources)
    heads = {
        "colours": {str(path): path.parent.name for path in sources},
        "red": {str(path): "red" if path.parent.name == "red" else "other" for path in sources[::-1]},
        "one": {str(path): "same" for path in sources},
    }
    table = tmp_path / "table.csv"
    lines = [f"{head},{source},{label}" for head, said in heads.items() for source, label in said.items()]
    table.write_text("\n".join(["head,source,label", *lines]) + "\n")
    chosen = ("--backbone", base, "--preprocessing", "tf", "--epochs", 6)
    result = run("train-heads", table, "--features", features, *chosen, "--output", tmp_path / "heads", "--json")
    assert result.exit_code == 2, result.output
    colours, red, one = json.loads(result.stdout)
    assert "two labels or more; found same" in one["error"] and colours["labels"] == 3 and red["samples"] == 36
    written = sorted(path.name for path in (tmp_path / "heads").iterdir())
    assert written == ["colours.keras", "colours.txt", "heads.csv", "heads.json", "red.keras", "red.txt"]
    table_lines = (tmp_path / "heads" / "heads.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table_lines] == ["head", "colours", "red", "one"]
    alone = run("train-head", features, *chosen, "--output", tmp_path / "alone.keras", "--json")
    assert alone.exit_code == 0, alone.output
    assert json.loads(alone.stdout)["validation"]["right"] == colours["right"]
    together = keras.models.load_model(tmp_path / "heads" / "colours.keras")
    for one_weight, other in zip(
        together.get_weights(), keras.models.load_model(tmp_path / "alone.keras").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one_weight, other)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("head,source\na,b\n", "expected the columns head, source, label; found head, source"),
        ("head,source,label\n", "expected rows with head, source, label, found none"),
        ("head,source,label\na,/nowhere.png,b\n", "/nowhere.png of head a has no features in"),
        ("head,source,label\n../a,FIRST,b\n", "expected the name of a file as head"),
        ("head,source,label\na,FIRST,\n", "and a label"),
        ('head,source,label\na,FIRST,"two\nlines"\n', "and a label"),
        ("head,source,label\na\x1b[31m,FIRST,b\n", "expected the name of a file as head"),
        (f"head,source,label\n{'n' * 201},FIRST,b\n", "expected the name of a file as head"),
        ("head,source,label\na,FIRST,\xe9\n", "expected a CSV file in UTF-8"),
        (f"head,source,label\na,{'x' * 200_000},b\n", "expected a CSV file in UTF-8"),
        ("", "expected the columns head, source, label; found none"),
    ],
)
def test_tables_of_heads_that_are_refused(folder: Path, base: Path, tmp_path: Path, rows: str, message: str) -> None:
    sources = sorted(folder.rglob("*.png"))
    features = store(tmp_path / "features.npz", base, sources)
    (tmp_path / "t.csv").write_bytes(rows.replace("FIRST", str(sources[0])).encode("latin-1"))
    output = tmp_path / "heads"
    result = run("train-heads", tmp_path / "t.csv", "--features", features, "--backbone", base, "--output", output)
    assert result.exit_code == 2 and message in result.output, result.output
    assert not output.exists()


def test_stored_features_that_are_refused(folder: Path, base: Path, tmp_path: Path) -> None:
    sources = sorted(folder.rglob("*.png"))
    good = store(tmp_path / "good.npz", base, sources)
    other = tmp_path / "other.keras"
    tiny_base(7, pooling=False).save(other)

    def message(features: Path, backbone: Path = base) -> str:
        result = run(
            "train-head", features, "--backbone", backbone, "--preprocessing", "tf", "--output", tmp_path / "o.keras"
        )
        assert result.exit_code == 2, result.output
        assert not (tmp_path / "o.keras").exists()
        return result.stderr.strip().splitlines()[-1]

    assert "features of this base, found those of another (correlation" in message(good, other)
    short = store(tmp_path / "short.npz", base, sources, features=np.zeros((36, 5), np.int8))
    assert "expected 64 features of a picture, as the base gives, found 5" in message(short)
    one = store(tmp_path / "one.npz", base, sources, paths=np.array([f"/p/{i}.png" for i in range(36)]))
    assert "two labels or more, each in a folder of its name; found p" in message(one)
    for name, changed in {
        "none": {"features_scale": None},
        "two": {"second_scale": np.float32(1), "second": np.zeros(3)},
        "nan": {"features_scale": np.float32("nan")},
        "lines": {"paths": None},
        "objects": {"paths": np.array([{}], object)},
    }.items():
        assert f"{name}.npz: " in message(store(tmp_path / f"{name}.npz", base, sources, **changed))
    (tmp_path / "text.npz").write_text("no archive")
    assert "expected features from edge-runtime features" in message(tmp_path / "text.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    assert "found a pipe" in message(tmp_path / "pipe.npz")
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "score.json").write_text("{}")
    assert "pip install 'polyhead[parquet]'" in message(tmp_path / "scores")


@pytest.mark.slow
def test_texts(tmp_path: Path) -> None:
    import keras

    words = ["cold", "snow", "ice", "frost", "hot", "sun", "fire", "heat"]
    vectorize = keras.layers.TextVectorization(max_tokens=20, output_sequence_length=6, vocabulary=words)
    source = keras.Input((), dtype="string", name="text")
    x = keras.layers.Embedding(20, 16, name="embedding")(vectorize(source))
    keras.utils.set_random_seed(3)
    keras.Model(source, keras.layers.GlobalAveragePooling1D()(x)).save(tmp_path / "base.keras")
    rng = np.random.default_rng(0)
    rows = [
        (" ".join(rng.choice(words[4 * c : 4 * c + 4], 4)), "warm" if c else "cold") for c in (0, 1) for _ in range(40)
    ]
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    output = tmp_path / "weather.keras"
    result = run(
        "train-head", tmp_path / "t.csv", "--backbone", tmp_path / "base.keras", "--output", output, "--epochs", 200
    )
    assert result.exit_code == 0, result.output
    model = keras.models.load_model(output)
    found = np.asarray(model(keras.ops.convert_to_tensor(["snow ice snow frost", "sun fire hot sun"]))).argmax(1)
    assert found.tolist() == [0, 1]


def refused(result: Result, code: int, *words: str) -> None:
    message = result.stderr.strip().splitlines()[-1]
    assert (result.exit_code, result.stdout) == (code, "")
    assert message.lower().startswith("error: ")
    assert all(word in message for word in words), message


def test_what_is_refused_writes_nothing(folder: Path, base: Path, tmp_path: Path) -> None:
    output = ("--output", tmp_path / "o" / "m.keras")
    refused(run("train-head", folder, "--backbone", base, *output), 2, "input scaling of", "--preprocessing")
    refused(run("train-head", folder, "--backbone", base, "--preprocessing", "caffe", *output), 2, "RGB order")
    refused(run("train-head", folder, "--backbone", tmp_path / "no.keras", *output), 2, "no.keras")
    refused(run("train-head", folder, "--backbone", base, "--output", tmp_path / "m.h5"), 2, ".keras")
    other = shutil.copytree(folder, tmp_path / "other")
    shutil.move(other / "red", other / "green")
    options = ("--backbone", base, "--preprocessing", "tf", "--held-out", other)
    refused(run("train-head", folder, *options, *output), 2, "expected the labels blue, red, white", "blue, green, white")
    (tmp_path / "t.csv").write_text("text,label\na,x\nb,x\nc,y\nd,y\n")
    refused(run("train-head", tmp_path / "t.csv", *output), 2, "texts need a base for texts")
    refused(run("train-head", tmp_path / "t.csv", "--backbone", base, *output), 2, "one text input")
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_of_a_classifier_that_pools_nothing_what_the_last_layer_reads_is_taken(folder: Path, tmp_path: Path) -> None:
    tiny_classifier(tiny_base(0), 3, 4, hidden=12).save(tmp_path / "c.keras")
    options = ("--preprocessing", "tf", "--output", tmp_path / "m.keras", "--epochs", 1, "--views", 1, "--json")
    pooled = run("train-head", folder, "--backbone", tmp_path / "c.keras", *options)
    assert json.loads(pooled.stdout)["features"].startswith("64 features, behind")
