"""Compare a device's answers to real pictures with those of the machine that built the file.

python -m tests.arm.demo write build/demo.tflite build/arm/demo.npz        # on the machine that built it python -m
tests.arm.demo compare build/arm/demo.npz ai_edge_litert         # on the device; exit code 1 if they differ too much
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edge_runtime import MultiHeadClassifier
from tests.laws import SCORE_TOLERANCE, scores_of

PICTURES = Path("calibration_data/held_out")
TAKEN = 12  # pictures; each takes seconds under an emulator
REFERENCE = "ai_edge_litert"
CLEAR = 0.2  # between the two largest scores; closer ones may change places
PIXEL_TOLERANCE = 1  # of 255: Pillow 13 rounds differently from 12.1 and older
FEATURE_TOLERANCE = 16  # steps; on x86, tflite-runtime 2.14 and ai-edge-litert 2.3 differ by up to 10


def main() -> int:
    what, *arguments = sys.argv[1:]
    return {"write": write, "compare": compare}[what](*arguments)


def write(model: str, output: str) -> int:
    everything = sorted(PICTURES.rglob("*.jpg"))
    paths = everything[:: len(everything) // TAKEN][:TAKEN]
    with MultiHeadClassifier(model, interpreter=REFERENCE) as classifier:
        images = np.concatenate([classifier.prepare(path) for path in paths])
        features = np.concatenate([classifier.features_of(image[None]) for image in images])
        scores = [_scores(classifier, row[None]) for row in features]
    names = [str(path) for path in paths]
    np.savez_compressed(output, model=model, paths=names, images=images, features=features, scores=scores)
    return 0


def compare(expected: str, interpreter: str) -> int:
    with np.load(expected) as arrays:
        model, paths, images, features, scores = (arrays[k] for k in ("model", "paths", "images", "features", "scores"))
    with MultiHeadClassifier(str(model), interpreter=interpreter) as classifier:
        widths = [len(head.labels) for head in classifier.metadata.heads]
        own_images = np.concatenate([classifier.prepare(path) for path in paths])
        own_features = np.concatenate([classifier.features_of(image[None]) for image in images])
        on_equal = np.array([_scores(classifier, row[None]) for row in features])
        whole = np.array([_scores(classifier, classifier.features_of(image[None])) for image in own_images])
    same, clear, all_heads = _winners(whole, scores, widths)
    print(f"  pixels              {_distance(own_images, images)} of 255")
    print(f"  features            {_distance(own_features, features)} steps, from equal pixels")
    print(f"  scores              {_distance(on_equal * 256, scores * 256)} of 256, from equal features")
    print(f"  best label          {same} of {all_heads} as expected; {clear[0]} of the {clear[1]} that are clear")
    near = _largest(own_images, images) <= PIXEL_TOLERANCE and _largest(own_features, features) <= FEATURE_TOLERANCE
    return 0 if near and _largest(on_equal, scores) <= SCORE_TOLERANCE and clear[0] == clear[1] else 1


def _scores(classifier: MultiHeadClassifier, features: np.ndarray) -> np.ndarray:
    """The scores of all heads, concatenated."""
    return np.concatenate(list(scores_of(classifier.classify_features(features)).values()))


def _winners(found: np.ndarray, expected: np.ndarray, widths: list[int]) -> tuple[int, tuple[int, int], int]:
    """Number of equal top labels; the equal and all of those that are clear; number of all."""
    same = clear = clear_same = count = 0
    edges = np.cumsum(widths)[:-1]
    for mine, theirs in zip(found, expected, strict=True):
        for a, b in zip(np.split(mine, edges), np.split(theirs, edges), strict=True):
            second, first = np.sort(b)[-2:]
            agrees = bool(a.argmax() == b.argmax())
            count, same = count + 1, same + agrees
            if first - second > CLEAR:
                clear, clear_same = clear + 1, clear_same + agrees
    return same, (clear_same, clear), count


def _largest(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found.astype(np.float32) - expected.astype(np.float32)).max())


def _distance(found: np.ndarray, expected: np.ndarray) -> str:
    off = np.abs(found.astype(np.float32) - expected.astype(np.float32))
    return f"{np.mean(off > 0):6.1%} differ, by at most {off.max():.0f}"


if __name__ == "__main__":
    sys.exit(main())
