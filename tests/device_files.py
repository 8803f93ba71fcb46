"""Files for ``tests/device``, which runs without TensorFlow: ``python -m tests.device_files build/device-files``.

Writes ``three.tflite`` and ``twenty.tflite`` (3 and 20 heads on one backbone, built as usual), ``pictures/`` (a dozen, in
several modes and formats), ``expected.npz`` (the input tensors and the features) and ``expected.json`` (the scores of
ai-edge-litert). ``int16.tflite``, ``mixed.tflite`` and so on have the other precisions, and ``precisions.npz`` their
scores. ``joint.tflite`` has a joint head, and ``joint.npz`` the arrays with which numpy computes the same; ``apart/`` and
``task.tflite`` are exports of this file. ``text.tflite`` takes texts; ``text.json`` has texts with their tokens and
scores.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import PIL
from PIL import Image

from builder import build
from builder.exporting.export import export_split, export_task
from builder.quantizing.mixed import Plan
from builder.support.quiet import quiet
from builder.tflite.flatbuffer import Part
from builder.tflite.splice import result_name
from edge_runtime import MultiHeadClassifier
from tests.joint_models import head_of, logits_tensors, with_joint, with_none
from tests.laws import scores_of
from tests.tiny_models import THREE_HEADS, build_tiny, tiny_picture
from tests.tiny_texts import sentences, text_base, text_config

INTERPRETER = "ai_edge_litert"
PRECISIONS = ("mixed", "int16", "dynamic", "weights", "float16", "float")
FILES = {"three": THREE_HEADS, "twenty": {f"head_{i:02d}": 2 + i % 4 for i in range(20)}}


def main() -> None:
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "pictures").mkdir(parents=True)
    pictures = write_pictures(folder / "pictures")
    arrays, scores = {}, {}
    for name, heads in FILES.items():
        path = folder / f"{name}.tflite"
        build_file(path, heads)
        with MultiHeadClassifier(path, interpreter=INTERPRETER) as classifier:
            images = np.concatenate([classifier.prepare(picture) for picture in pictures])
            features = np.concatenate([classifier.features_of(image[None]) for image in images])
            answers = [scores_of(classifier.classify_features(row[None])) for row in features]
        arrays.update({f"{name}/images": images, f"{name}/features": features})
        scores[name] = [{head: values.tolist() for head, values in answer.items()} for answer in answers]
    np.savez_compressed(folder / "expected.npz", **arrays)
    write_precisions(folder, pictures)
    write_joint(folder, pictures)
    write_text(folder)
    names = [path.name for path in pictures]
    document = {"interpreter": INTERPRETER, "pillow": PIL.__version__, "pictures": names, "scores": scores}
    (folder / "expected.json").write_text(json.dumps(document), "utf-8")


def build_file(path: Path, heads: dict[str, int], **options: Any) -> None:
    with tempfile.TemporaryDirectory() as scratch, quiet():
        shutil.copyfile(build_tiny(Path(scratch), heads, **options).output, path)


def two_float_operators(float_parts: Mapping[str, Part], *_: Any) -> Iterator[Plan]:
    """A fixed plan with two operators in float: in so small a network, measured times would choose at random."""
    backbone = float_parts["backbone"]
    yield Plan(tuple(result_name(backbone, backbone.operators[i]) for i in (0, 3)), [])


def write_precisions(folder: Path, pictures: list[Path]) -> None:
    """Write the scores (pictures, labels) of each head, by the names of precision and head."""
    arrays = {}
    for precision in PRECISIONS:
        path = folder / f"{precision}.tflite"
        with mock.patch("builder.candidates.plans", two_float_operators):
            build_file(path, THREE_HEADS, precision=precision)
        with MultiHeadClassifier(path, interpreter=INTERPRETER) as classifier:
            answers = [scores_of(classifier.classify(picture).classifications) for picture in pictures]
        arrays.update({f"{precision}/{head}": np.stack([answer[head] for answer in answers]) for head in THREE_HEADS})
    np.savez_compressed(folder / "precisions.npz", **arrays)


def write_joint(folder: Path, pictures: list[Path]) -> None:
    with tempfile.TemporaryDirectory() as scratch, quiet():
        result = build(with_none(with_joint(Path(scratch))))
        shutil.copyfile(result.output, folder / "joint.tflite")
    export_split(folder / "joint.tflite", folder / "apart")
    export_task(folder / "joint.tflite", folder / "task.tflite")
    with MultiHeadClassifier(folder / "joint.tflite", interpreter=INTERPRETER) as classifier:
        features = [classifier.features(picture) for picture in pictures]
    router, seam = head_of(result).fitted.router, result.metadata.seam[0].quantization
    subgraph, logits = logits_tensors(folder / "joint.tflite", len(router.gains))
    arrays = {name: getattr(router, name) for name in ("weights", "steps", "bias", "widths", "gains")}
    arrays.update(features=np.concatenate(features), seam=np.array(seam[:2]), subgraph=subgraph, logits=np.array(logits))
    np.savez_compressed(folder / "joint.npz", **arrays)


def write_text(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch, quiet():
        base = text_base(mask_zero=True)
        shutil.copyfile(build(text_config(Path(scratch), {"a": 3, "b": 4}, base=base)).output, folder / "text.tflite")
    texts = [*sentences(10, seed=11), "nothing known", "W1, w2!\tw3 \u00a0 \U0001f642 w4"]
    with MultiHeadClassifier(folder / "text.tflite", interpreter=INTERPRETER) as classifier:
        answers = [scores_of(classifier.classify_text(text).classifications) for text in texts]
        document = [
            {
                "text": text,
                "tokens": classifier.prepare(text)[0].tolist(),
                "scores": {name: scores.tolist() for name, scores in answer.items()},
            }
            for text, answer in zip(texts, answers, strict=True)
        ]
    (folder / "text.json").write_text(json.dumps(document), "utf-8")


def write_pictures(folder: Path) -> list[Path]:
    """Write two pictures of each kind; PNG where possible, because JPEG decoders may differ in the last bit."""
    paths = []
    for number, size in enumerate(((64, 48), (50, 90))):
        picture = tiny_picture(700 + number, size)
        turned = Image.Exif()
        turned[0x0112] = 6
        alpha = picture.copy()
        alpha.putalpha(Image.linear_gradient("L").resize(size))
        kinds = {
            "rgb.png": (picture, {}),
            "photo.jpg": (picture, {"quality": 95}),
            "turned.png": (picture, {"exif": turned}),
            "grey.png": (picture.convert("L"), {}),
            "palette.png": (picture.quantize(16), {"transparency": 3}),
            "alpha.png": (alpha, {}),
        }
        for kind, (image, options) in kinds.items():
            paths.append(folder / f"{number}_{kind}")
            image.save(paths[-1], **options)
    return paths


if __name__ == "__main__":
    main()
