"""The kinds of input of ``tests.fuzz``: valid seeds, a way to damage them, and the reader of the result.

``python -m tests.fuzz_readers KIND FOLDER FIRST COUNT`` runs the cases FIRST, FIRST + 1, ... of one kind in this process,
with 2 GB more memory than it has after its imports. It prints ``begin N`` before and ``end N OUTCOME`` after each case,
and a traceback between them where there is one. ``tests.fuzz`` watches it.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from builder.settings.problems import MAX_LINES
from builder.support.errors import BuilderError, ModelFileError
from edge_runtime.errors import EdgeRuntimeError, PictureError
from tests.fuzz_formats import mutate_file, mutated_bytes, mutated_json
from tests.tiny_models import tiny_picture

MEMORY = 2 << 30  # bytes that a reader may take for one input
REFUSALS = (BuilderError, EdgeRuntimeError)


@dataclass(frozen=True)
class Kind:
    """``damage``: writes one damaged input into a folder and returns its path. ``read``: what a command does with it."""

    damage: Callable[[Path, Path, random.Random], Path]
    read: Callable[[Path], object]
    lines: int = 1  # of an error message; for settings it lists all mistakes


def make_seeds(folder: Path, old: Path | None = None) -> None:
    """Write valid inputs of every kind, which all workers use. Needs TensorFlow.

    ``old``: a folder that ``tests.tf_keras_files`` wrote; None: write it, where tf_keras is installed.
    """
    import keras

    from builder.growing.grow import build_head
    from builder.settings.growing import GrowConfig
    from builder.settings.heads import HeadConfig
    from builder.settings.input_scaling import PREPROCESSING
    from tests.tiny_models import build_tiny, tiny_base, tiny_classifier

    models = folder / "models"
    models.mkdir(parents=True)
    tiny_classifier(tiny_base(size=16), 3).save(models / "nested.keras")
    tiny_classifier(tiny_base(size=16), 3, hidden=4).save(models / "nested.h5")
    layers = keras.layers
    flat = [layers.Rescaling(1 / 255), layers.Normalization(mean=[0.5] * 3, variance=[0.2] * 3), layers.Conv2D(4, 3)]
    flat += [
        layers.GlobalAveragePooling2D(),
        layers.RepeatVector(4),
        layers.LSTM(3),
        layers.Dense(2, activation="softmax"),
    ]
    keras.Sequential([keras.Input((16, 16, 3)), *flat]).save(models / "flat.keras")
    numbers = keras.Input((8,), dtype="int32")
    embedded = layers.GlobalAveragePooling1D()(layers.Embedding(20, 4)(numbers) * 2 + 1)
    keras.Model(numbers, layers.Dense(3, activation="softmax")(embedded)).save(models / "tokens.keras")
    words = keras.Input((), dtype="string")
    vectors = layers.TextVectorization(vocabulary=["a", "b", "c"], output_sequence_length=6)(words)
    pooled = layers.GlobalAveragePooling1D()(layers.Embedding(5, 4)(vectors))
    keras.Model(words, layers.Dense(3, activation="softmax")(pooled)).save(models / "words.keras")
    if old is None and importlib.util.find_spec("tf_keras") is not None:
        old = folder / "tf_keras"  # in a process of its own: two Keras share TensorFlow's state
        subprocess.run([sys.executable, "-m", "tests.tf_keras_files", str(old)], check=True, capture_output=True)
    for path in [] if old is None else old.iterdir():
        if path.suffix not in (".npz", ".npy"):
            (shutil.copytree if path.is_dir() else shutil.copyfile)(path, models / f"tf_{path.name}")
    _make_sources(folder / "sources")
    built = build_tiny(folder / "tiny", rounding="nearest", precision="int8")
    shutil.copyfile(built.output, folder / "finished.tflite")
    dogs = tiny_classifier(tiny_base(0), 2, seed=9)
    dogs.save(folder / "dogs.keras")
    head = HeadConfig("dogs", folder / "dogs.keras", ("a", "b"), PREPROCESSING["tf"])
    pictures = folder / "tiny" / "pictures"
    pack = GrowConfig(built.output, folder / "pack.tflite", calibration_data=pictures, head=head, min_agreement=0.0)
    build_head(replace(pack, rounding="nearest"))


def _make_sources(folder: Path) -> None:
    """Write ``.tflite`` classifiers as other tools make them: in float, with int8 weights, all in int8."""
    import tensorflow as tf

    from tests.tflite_files import convert, save
    from tests.tiny_models import tiny_base, tiny_classifier

    model = tiny_classifier(tiny_base(size=16), 3, hidden=4)
    shown = [np.asarray(tiny_picture(i, (16, 16)), np.float32)[None] / 127.5 - 1 for i in range(4)]
    small: dict[str, Any] = {"optimizations": [tf.lite.Optimize.DEFAULT]}
    whole = {**small, "representative_dataset": lambda: ([one] for one in shown), "inference_input_type": tf.uint8}
    folder.mkdir()
    save(folder, {"float": convert(model), "weights": convert(model, **small), "int8": convert(model, **whole)})


def damaged_source(seeds: Path, folder: Path, rng: random.Random) -> Path:
    source = rng.choice(sorted((seeds / "sources").iterdir()))
    (folder / source.name).write_bytes(damaged_tables(source.read_bytes(), rng))
    return folder / source.name


def read_source(path: Path) -> None:
    """Read a file, cut it at a seam, and run it in this process; a build runs it in another."""
    from builder.merging.backbone import find_backbone
    from builder.merging.merged import merge
    from builder.reading.reader import Reader
    from builder.reading.tflite.original import run_here
    from builder.settings.input_scaling import PREPROCESSING

    classifier: Any = Reader().read("head", path, PREPROCESSING["tf"])
    classifier = replace(classifier, labels=("a", "b", "c"))
    merge((classifier,), find_backbone((classifier,))).float_model()
    pixels = np.zeros((1, *classifier.entry.size, 3), np.uint8)
    try:
        run_here(str(path), classifier.entry.take(classifier.source_input.declared.apply(pixels)))
    except (RuntimeError, ValueError) as error:  # raised by the interpreter
        raise ModelFileError(f"{path}: {' '.join(str(error).split())}"[:1000]) from error


def damaged_model(seeds: Path, folder: Path, rng: random.Random) -> Path:
    source = rng.choice(sorted((seeds / "models").iterdir()))
    mutate_file(source, folder / source.name, rng)
    return folder / source.name


def read_model(path: Path) -> None:
    from builder.merging.inspection import inspect, print_tree, to_json
    from builder.settings.heads import HeadConfig
    from builder.settings.input_scaling import PixelTransform

    pixels = None if path.name.startswith(("words", "tokens")) else PixelTransform(scale=(1 / 255,) * 3)
    groups = inspect([HeadConfig("model", path, preprocessing=pixels)])
    to_json(groups)
    sys.stdout, shown = io.StringIO(), sys.stdout
    try:
        print_tree(groups)
    finally:
        sys.stdout = shown


LABELS = {
    ".txt": b"0 cat\n1 dog\n2 bird\n",
    ".json": b'{"labels": {"0": "cat", "1": "dog"}, "cat": 0, "dog": 1}',
    ".csv": b"index,label\n0,cat\n1,dog\n",
    ".tsv": b"cat\t0\ndog\t1\n",
}


def damaged_labels(seeds: Path, folder: Path, rng: random.Random) -> Path:
    suffix = rng.choice(list(LABELS))
    data = LABELS[suffix]
    if suffix == ".json" and rng.random() < 0.7:
        data = mutated_json(data, rng).encode("utf-8", "surrogatepass")
    elif rng.random() < 0.3:
        odd = ["9" * 5000, "٣", "\x1b[0m", "\u2028", '"', ";", ",", "\t", "\0", "-1", "1e9", " ", "²"]
        data = "".join(rng.choice([*odd, "cat", "0", " ", "\n", "\r"]) for _ in range(rng.randrange(60))).encode()
    else:
        data = mutated_bytes(data, rng)
    (folder / f"labels{suffix}").write_bytes(data)
    return folder / f"labels{suffix}"


def read_labels(path: Path) -> None:
    from builder.reading.formats.labels import read_label_file

    read_label_file(path)


TOML: dict[str, Any] = {
    "output": "o.tflite", "calibration_data": "p", "verification_data": "v", "min_agreement": 0.9,
    "keras_output": "k.keras", "saved_model": "s", "report": "r", "precision": "auto", "algorithm": "polyhead",
    "equalize": True, "ranges": "mse",
    "rounding": "learnt", "refit": True, "tolerance": 0.0, "allow_code": False, "inference_mode": True,
    "target": "coral", "device": "d.json", "max_memory": 4.0,
    "max_steps": 1000, "size": 224, "name": "n", "version": 3, "author": "a", "licence": "l",
    "resize": {"method": "bilinear", "antialias": True, "fit": "crop"},
    "joint": {"enabled": True, "merge_labels": False, "false_alarm": 0.05, "everyday": True},
    "text": {"vocabulary": "v.txt", "standardize": "lower", "split": "whitespace", "ngrams": [1, 2],
             "padding": "pre", "truncating": "post", "maxlen": 7},
    "heads": {
        "cats": {"model": "c.keras", "labels": ["a", "b"], "preprocessing": "tf", "activation": "softmax"},
        "dogs": {
            "model": "d.keras", "labels": "d.txt", "preprocessing": {"scale": [1, 1, 1], "offset": 0.5},
            "size": [96, 64], "resize": {"method": "area", "fit": "pad", "antialias": True}, "min_agreement": 1,
            "title": "Dogs",
            "output_name": "dogs",
        },
    },
}  # fmt: skip
VALUES: list[Any] = [
    *(0, -1, 1, 3, 300_000_000, 10**18, 0.5, 1e308, float("nan"), float("inf"), True, False, "", "x", "\0", "a" * 5000),
    *("../../etc/passwd", "/dev/zero", "\x1b", [], [[]], ["coral"], [1, "a"], {}, {"a": 1}, [{}]),
]


def damaged_toml(seeds: Path, folder: Path, rng: random.Random) -> Path:
    document = json.loads(json.dumps(TOML))
    for _ in range(rng.randint(1, 3)):
        table = document
        while isinstance(table, dict) and table:
            key = rng.choice(list(table))
            if isinstance(table[key], dict) and rng.random() < 0.8:
                table = table[key]
                continue
            if rng.random() < 0.15:
                del table[key]
            else:
                table[rng.choice([key, key, key, rng.choice(list(TOML)), "x"])] = rng.choice(VALUES)
            break
    data = "".join(f"{key} = {toml_value(value)}\n" for key, value in document.items()).encode()
    (folder / "c.toml").write_bytes(mutated_bytes(data, rng) if rng.random() < 0.2 else data)
    return folder / "c.toml"


def toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value) if value is not None else '""'


def read_toml(path: Path) -> None:
    from builder.settings.config import BuildConfig

    config = BuildConfig.from_toml(path)
    config.report_folder, config.limits  # noqa: B018 - properties compute


FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF")


def damaged_picture(seeds: Path, folder: Path, rng: random.Random) -> Path:
    kind, stream = rng.choice(FORMATS), io.BytesIO()
    image = tiny_picture(rng.randrange(20), (rng.choice([1, 17, 48]), rng.choice([1, 33, 64])))
    mode = rng.choice(["RGB", "L"]) if kind in ("JPEG", "PPM", "WEBP", "AVIF") else rng.choice(["RGB", "L", "P", "1"])
    exif = Image.Exif()
    exif[0x0112] = rng.randrange(10)
    options = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    try:
        image.convert(mode).save(stream, kind, **options)
    except (KeyError, OSError):  # this Pillow has no such writer
        image.save(stream, "PNG")
    data = stream.getvalue()
    for _ in range(rng.randint(1, 3)):
        data = mutated_bytes(data, rng)
    path = folder / f"picture.{rng.choice(['jpg', 'png', 'gif', kind.lower()])}"
    path.write_bytes(data)
    return path


def read_picture(path: Path) -> None:
    from edge_runtime.image_input import ImageInput
    from edge_runtime.preprocess import encoded_tensor, image_tensor

    refused: list[PictureError] = []
    for spec in (ImageInput(24, 16), ImageInput(16, 16, fit="crop"), ImageInput(16, 16, fit="pad")):
        for act in (
            lambda spec=spec: image_tensor(path, spec),
            lambda spec=spec: encoded_tensor(path.read_bytes(), spec),
        ):
            try:
                tensor = act()
                assert (tensor.shape, tensor.dtype) == ((1, spec.height, spec.width, 3), np.uint8)
            except PictureError as error:
                refused.append(error)
    if refused:
        raise refused[0]


def damaged_members(seeds: Path, folder: Path, rng: random.Random) -> Path:
    """Change the members; the flatbuffer and its checksum stay correct."""
    from edge_runtime.bundle import append_files, read_head_pack, read_metadata

    pack = rng.random() < 0.3
    source = seeds / ("pack.tflite" if pack else "finished.tflite")
    metadata: Any = read_head_pack(str(source))[0] if pack else read_metadata(str(source))
    members = members_of(source)
    name = rng.choice(sorted(members))
    data = members[name]
    if name.endswith(".json") and rng.random() < 0.9:
        data = mutated_json(data, rng).encode("utf-8", "surrogatepass")
    else:
        data = mutated_bytes(data, rng)
    members[name] = data
    path = folder / source.name
    path.write_bytes(append_files(source.read_bytes()[: metadata.model_bytes], members))
    return path


def members_of(path: Path) -> dict[str, bytes]:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def damaged_flatbuffer(seeds: Path, folder: Path, rng: random.Random) -> Path:
    """Change the flatbuffer and correct its checksum."""
    from edge_runtime.bundle import append_members, read_metadata

    source = rng.choice(sorted(seeds.glob("finished*.tflite")))  # further files may be added there
    metadata = read_metadata(str(source))
    model = damaged_tables(source.read_bytes()[: metadata.model_bytes], rng)
    path = folder / "finished.tflite"
    path.write_bytes(append_members(model, replace(metadata, model_bytes=len(model))))
    return path


def damaged_pack(seeds: Path, folder: Path, rng: random.Random) -> Path:
    from edge_runtime.bundle import append_members, read_head_pack

    pack, whole = read_head_pack(str(seeds / "pack.tflite"))
    model = damaged_tables(whole, rng)
    shutil.copyfile(seeds / "finished.tflite", folder / "finished.tflite")
    (folder / "finished.heads").mkdir()
    (folder / "finished.heads" / "dogs.tflite").write_bytes(append_members(model, replace(pack, model_bytes=len(model))))
    return folder / "finished.tflite"


NUMBERS = [0, 1, 2, 3, 5, 100, 255, 1000, 65535, 2**31 - 1, -1, -2, -128, 127]
REALS = [0.0, -1.0, 1e-40, 1e-20, 1e-9, 1e9, 1e20, 1e38, float("nan"), float("inf"), -float("inf"), 0.5]


def damaged_tables(model: bytes, rng: random.Random) -> bytes:
    """Change one to three fields of the tables, or some bytes."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    if rng.random() < 0.2:
        return mutated_bytes(model, rng)
    tables = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    for _ in range(rng.randint(1, 3)):
        places = [place for place in fields(tables) if place[1] not in ("data", "description", "name")]
        holder, key = rng.choice(places)
        change_field(holder, key, rng)
    packer = flatbuffers.Builder(len(model))
    try:
        packer.Finish(tables.Pack(packer), b"TFL3")
    except (TypeError, ValueError, OverflowError, AttributeError, AssertionError):  # a value that no table can hold
        return mutated_bytes(model, rng)
    return bytes(packer.Output())


def fields(table: Any) -> Iterator[tuple[Any, Any]]:
    """Every number, text and list of numbers within a table."""
    for key, value in vars(table).items():
        if isinstance(value, list) and value and hasattr(value[0], "__dict__"):
            for item in value:
                yield from fields(item)
        elif hasattr(value, "__dict__"):
            yield from fields(value)
        elif value is not None:
            yield table, key


def change_field(holder: Any, key: Any, rng: random.Random) -> None:
    value = getattr(holder, key)
    if isinstance(value, (list, np.ndarray)):
        items = list(value)
        place = rng.randrange(len(items)) if items else 0
        real = bool(items) and isinstance(items[0], (float, np.floating))
        action = rng.randrange(4)
        if action == 0 and items:
            del items[place]
        elif action == 1:
            items.append(items[place] if items else 0)
        elif items:
            items[place] = rng.choice(REALS if real else NUMBERS)
        setattr(holder, key, np.asarray(items, np.asarray(value).dtype) if isinstance(value, np.ndarray) else items)
    elif isinstance(value, bool):
        setattr(holder, key, not value)
    elif isinstance(value, int):
        setattr(holder, key, rng.choice(NUMBERS))
    elif isinstance(value, float):
        setattr(holder, key, rng.choice(REALS))
    else:
        setattr(holder, key, b"other")


def read_file(path: Path) -> None:
    """Read a file as ``info`` and ``classify`` do, with the packs beside it."""
    from edge_runtime import MultiHeadClassifier
    from edge_runtime.bundle import read_head_pack, read_metadata
    from edge_runtime.describe import describe

    if path.name == "pack.tflite":
        read_head_pack(str(path))
        return
    describe(str(path), read_metadata(str(path)))
    with MultiHeadClassifier(path) as opened:
        if opened.metadata.input.kind == "tokens":
            opened.classify_text("w1 w2 nothing")
        else:
            opened.classify(np.zeros((32, 32, 3), np.uint8), joint=opened.joint is not None)


KINDS = {
    "models": Kind(damaged_model, read_model),
    "sources": Kind(damaged_source, read_source),
    "labels": Kind(damaged_labels, read_labels),
    "toml": Kind(damaged_toml, read_toml, MAX_LINES),
    "pictures": Kind(damaged_picture, read_picture),
    "members": Kind(damaged_members, read_file),
    "flatbuffers": Kind(damaged_flatbuffer, read_file),
    "packs": Kind(damaged_pack, read_file),
}


def outcome(kind: Kind, path: Path) -> str:
    """``read``, ``refused`` (in at most ``kind.lines`` lines), or ``traceback``, which is printed."""
    try:
        kind.read(path)
    except REFUSALS as error:
        lines = str(error).split("\n")
        short = len(lines) <= kind.lines and all(0 < len(line) < 1500 for line in lines)
        return "refused" if short else "not one line"
    except BaseException:  # noqa: BLE001 - any other end is a finding
        traceback.print_exc(limit=-8, file=sys.stdout)
        return "traceback"
    return "read"


def limit_memory() -> None:
    """Limit the memory to 2 GB more than this process has."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(name: str, folder: Path, first: int, count: int) -> None:
    kind, place = KINDS[name], folder / "cases" / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    warm = kind.damage(folder / "seeds", place, random.Random(f"{name} warm"))
    with Path(os.devnull).open("w") as nowhere:  # everything is imported now
        sys.stdout, shown = nowhere, sys.stdout
        outcome(kind, warm)
        sys.stdout = shown
    limit_memory()
    for number in range(first, first + count):
        shutil.rmtree(place)
        place.mkdir()
        path = kind.damage(folder / "seeds", place, random.Random(f"{name} {number}"))
        print(f"begin {number}", flush=True)
        print(f"end {number} {outcome(kind, path)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
