"""Open a variant and classify a picture with it. This module does not import TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.interpreter import open_interpreter

INTERPRETER = "ai_edge_litert"
PICTURES = "pictures.npy"  # uint8 (pictures, height, width, 3), as the device's own preprocessing made them
# Height and width of the pictures, by backbone. `tiny` only shows that the program runs; its figures mean nothing.
SIDES = {"efficientnet_lite0": 224, "tiny": 32}
VARIANTS = {
    "ours": "polyhead, one file",
    "separate": "N files, N interpreters",
    "signatures": "one file, N signatures",
}


@dataclass(frozen=True)
class Opened:
    """``one`` and ``all`` classify one picture, uint8 (1, height, width, 3), with one head and with all heads."""

    one: Callable[[np.ndarray], object]
    all: Callable[[np.ndarray], object]


def paths(folder: Path, variant: str, heads: int) -> list[Path]:
    """The paths of a variant's files. For ``separate`` these are the first ``heads`` of one set of files."""
    if variant == "separate":
        return [folder / f"separate_{i:03d}.tflite" for i in range(heads)]
    return [folder / f"{variant}_{heads}.tflite"]


def open_variant(variant: str, files: Sequence[Path], *, num_threads: int) -> Opened:
    return _OPENERS[variant](files, num_threads)


def _open_ours(files: Sequence[Path], num_threads: int) -> Opened:
    classifier = MultiHeadClassifier(files[0], interpreter=INTERPRETER, num_threads=num_threads)

    def answer(image: np.ndarray, heads: list[int] | None = None) -> object:
        return classifier.classify_features(classifier.features_of(image), heads=heads)

    return Opened(lambda image: answer(image, [0]), answer)


def _open_bare(files: Sequence[Path], num_threads: int) -> Opened:
    run = _plain(files[0], num_threads)
    return Opened(run, run)


def _open_separate(files: Sequence[Path], num_threads: int) -> Opened:
    runs = [_plain(file, num_threads) for file in files]
    return Opened(runs[0], lambda image: [run(image) for run in runs])


def _open_signatures(files: Sequence[Path], num_threads: int) -> Opened:
    """Runners are created on first use and kept, as in ``MultiHeadClassifier``."""
    _, interpreter = open_interpreter(str(files[0]), name=INTERPRETER, num_threads=num_threads)
    names = list(interpreter.get_signature_list())
    runners: dict[str, Any] = {}

    def run(name: str, image: np.ndarray) -> object:
        if name not in runners:
            runners[name] = interpreter.get_signature_runner(name)
        return runners[name](image=image)

    return Opened(lambda image: run(names[0], image), lambda image: [run(name, image) for name in names])


def _plain(file: Path, num_threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Call set_tensor, invoke and get_tensor only: scores stay integers, and no labels are looked up."""
    _, interpreter = open_interpreter(str(file), name=INTERPRETER, num_threads=num_threads)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    result = interpreter.get_output_details()[0]["index"]

    def run(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source, image)
        interpreter.invoke()
        scores: np.ndarray = interpreter.get_tensor(result)
        return scores

    return run


_OPENERS = {"ours": _open_ours, "bare": _open_bare, "separate": _open_separate, "signatures": _open_signatures}
