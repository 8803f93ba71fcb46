"""Task files through MediaPipe Tasks' own ``ImageClassifier``, and what their metadata say."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from ai_edge_litert import schema_py_generated as schema

from builder import BuildResult
from builder.exporting.export import export_task
from builder.exporting.mediapipe import labels_of
from edge_runtime import MultiHeadClassifier
from tests.tiny_models import THREE_HEADS, tiny_picture

pytestmark = pytest.mark.slow

# In a process of its own: it brings its own copies of the libraries that TensorFlow has loaded here.
PROGRAM = """
import json, sys
import numpy as np
from PIL import Image
import mediapipe as mp
from mediapipe.tasks.python import BaseOptions, vision
from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata

model, metadata_buffer, *pictures = sys.argv[1:]
options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=model))
answers = []
with vision.ImageClassifier.create_from_options(options) as classifier:
    for path in pictures:
        pixels = np.ascontiguousarray(Image.open(path))
        found = classifier.classify(mp.Image(image_format=mp.ImageFormat.SRGB, data=pixels))
        answers.append([
            [head.head_index, head.head_name, [[c.index, c.category_name, c.score] for c in head.categories]]
            for head in found.classifications
        ])
content = open(metadata_buffer, "rb").read()
assert metadata.ModelMetadata.ModelMetadataBufferHasIdentifier(content, 0)

def plain(value):
    if hasattr(value, "__dict__"):
        return {key: plain(item) for key, item in vars(value).items()}
    if isinstance(value, (list, np.ndarray)):
        return [plain(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value.item() if isinstance(value, np.generic) else value

print(json.dumps({"answers": answers, "metadata": plain(metadata.ModelMetadataT.InitFromPackedBuf(content, 0))}))
"""


@pytest.fixture(scope="module")
def task(joint: BuildResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("task") / "tiny.task.tflite"
    export_task(joint.output, path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures of the model's own size, because MediaPipe resizes by another method than the runtime."""
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(6):
        tiny_picture(60 + seed, (32, 32)).save(folder / f"{seed}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def told(task: Path, pictures: list[Path]) -> dict[str, Any]:
    """What MediaPipe answers on the pictures, and the metadata as its generated code reads them."""
    if find_spec("mediapipe") is None:
        pytest.skip("mediapipe is not installed")
    buffer = task.with_suffix(".metadata")
    buffer.write_bytes(metadata_buffer(task))
    command = [sys.executable, "-c", PROGRAM, str(task), str(buffer), *map(str, pictures)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot open shared object file" in done.stderr:
        pytest.skip(f"mediapipe cannot be loaded: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def metadata_buffer(path: Path) -> bytes:
    tree = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    (entry,) = tree.metadata
    assert entry.name == b"TFLITE_METADATA"
    return bytes(tree.buffers[entry.buffer].data)


def test_mediapipe_gives_every_head_and_the_joint_list_as_the_runtime_does(
    told: dict[str, Any], joint: BuildResult, pictures: list[Path]
) -> None:
    with MultiHeadClassifier(joint.output) as classifier:
        for answer, path in zip(told["answers"], pictures, strict=True):
            expected = classifier.classify(path, joint=True)
            assert expected.joint is not None
            lists = [expected.joint.categories, *(head.categories for head in expected.classifications)]
            assert [head[:2] for head in answer] == [[i, name] for i, name in enumerate(["joint", *THREE_HEADS])]
            for (_, name, found), categories in zip(answer, lists, strict=True):
                assert {(i, label): score for i, label, score in found} == pytest.approx(
                    {(c.index, c.category_name): c.score for c in categories}, abs=1e-6
                ), name
                assert found[0][2] == max(c.score for c in categories)
                scores = [score for _, _, score in found]
                assert scores == sorted(scores, reverse=True)


def test_mediapipes_answers_depend_on_the_picture(told: dict[str, Any]) -> None:
    tops = {tuple(head[2][0][1] for head in answer) for answer in told["answers"]}
    assert len(tops) > 1


def test_the_metadata_are_the_standards(told: dict[str, Any], joint: BuildResult, task: Path) -> None:
    (subgraph,) = told["metadata"]["subgraphMetadata"]
    (image,) = subgraph["inputTensorMetadata"]
    assert image["content"]["contentProperties"]["defaultSize"] == {"width": 32, "height": 32}
    assert (image["content"]["contentPropertiesType"], image["content"]["contentProperties"]["colorSpace"]) == (2, 1)
    assert (image["stats"]["min"], image["stats"]["max"]) == ([0.0], [255.0])
    labels = labels_of(joint.metadata)
    outputs = subgraph["outputTensorMetadata"]
    assert [output["name"] for output in outputs] == list(labels)
    with zipfile.ZipFile(task) as archive:
        for output in outputs:
            (file,) = output["associatedFiles"]
            assert file["type"] == 2
            assert tuple(archive.read(file["name"]).decode().splitlines()) == labels[output["name"]]
            assert archive.getinfo(file["name"]).compress_type == zipfile.ZIP_STORED
    assert told["metadata"]["minParserVersion"] == "1.0.0"


def test_normalised_and_quantized_pixels_are_the_pixels(told: dict[str, Any], task: Path) -> None:
    (unit,) = told["metadata"]["subgraphMetadata"][0]["inputTensorMetadata"][0]["processUnits"]
    assert unit["optionsType"] == 1
    (mean,), (std,) = unit["options"]["mean"], unit["options"]["std"]
    tree = schema.ModelT.InitFromPackedBuf(task.read_bytes(), 0)
    quantization = tree.subgraphs[0].tensors[tree.subgraphs[0].inputs[0]].quantization
    pixels = np.arange(256)
    steps = (pixels - mean) / std / float(quantization.scale[0]) + int(quantization.zeroPoint[0])
    np.testing.assert_allclose(steps, pixels, atol=1e-3)
    np.testing.assert_allclose((pixels - mean) / std, pixels / 127.5 - 1, atol=0.02)
