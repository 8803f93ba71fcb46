"""Fixtures from the files of ``python -m tests.device_files build/device-files``. Imports no builder."""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from edge_runtime import MultiHeadClassifier

FOLDER = Path(__file__).parents[2] / "build" / "device-files"
FILES = ("three", "twenty")
HAS_LITERT_WHEEL = platform.machine() in ("x86_64", "aarch64", "arm64") and sys.version_info >= (3, 9)


@dataclass(frozen=True)
class Expected:
    """The answers of ai-edge-litert on the machine that built the file, in the order of ``pictures``."""

    path: Path
    pictures: tuple[Path, ...]
    images: np.ndarray  # uint8 (pictures, height, width, 3)
    features: np.ndarray  # int8 (pictures, features)
    scores: tuple[dict[str, np.ndarray], ...]  # by head: float32 (labels,)
    pillow: str  # the version that made ``images``


def pytest_report_header() -> str:
    versions = [f"{n}: {'yes' if importlib.util.find_spec(n) else 'no'}" for n in ("ai_edge_litert", "tflite_runtime")]
    return f"device files: {FOLDER}; {', '.join(versions)}"


@pytest.fixture(scope="session", params=FILES)
def expected(request: pytest.FixtureRequest) -> Expected:
    return load_expected(request.param)


@pytest.fixture(scope="session")
def three() -> Expected:
    return load_expected("three")


@pytest.fixture(params=["tflite_runtime", "ai_edge_litert"])
def interpreter(request: pytest.FixtureRequest) -> str:
    if request.param == "ai_edge_litert" and not HAS_LITERT_WHEEL:
        pytest.skip(f"ai-edge-litert has no wheel for Python {platform.python_version()} on {platform.machine()}")
    return request.param


@pytest.fixture
def classifier(expected: Expected, interpreter: str) -> Iterator[MultiHeadClassifier]:
    with MultiHeadClassifier(expected.path, interpreter=interpreter) as opened:
        yield opened


def load_expected(name: str) -> Expected:
    if not (FOLDER / "expected.json").is_file():
        pytest.fail(
            f"{FOLDER} is missing; run, where TensorFlow is installed: python -m tests.device_files build/device-files"
        )
    document = json.loads((FOLDER / "expected.json").read_text("utf-8"))
    scores = tuple({k: np.asarray(v, np.float32) for k, v in item.items()} for item in document["scores"][name])
    with np.load(FOLDER / "expected.npz") as arrays:
        images, features = arrays[f"{name}/images"], arrays[f"{name}/features"]
    pictures = tuple(FOLDER / "pictures" / file for file in document["pictures"])
    return Expected(FOLDER / f"{name}.tflite", pictures, images, features, scores, document["pillow"])
