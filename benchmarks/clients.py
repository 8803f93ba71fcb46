"""Compare MediaPipe Tasks with the runtime: ``python -m benchmarks.clients build/demo.tflite calibration_data/held_out``.

Exports the file for MediaPipe and runs both on every picture, in two ways. If the runtime resizes the picture, all scores
must be equal. If MediaPipe resizes it, they may differ, because its method is another.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

from builder.exporting.export import export_task
from builder.exporting.mediapipe import labels_of
from edge_runtime import MultiHeadClassifier
from edge_runtime.preprocess import PICTURE_SUFFIXES


def main() -> None:
    file, folder = map(Path, sys.argv[1:])
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    with tempfile.TemporaryDirectory() as scratch, MultiHeadClassifier(file, head_packs=()) as classifier:
        task = Path(scratch) / "task.tflite"
        export_task(file, task)
        names = list(labels_of(classifier.metadata))
        same, same_resized = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
        furthest = dict.fromkeys(names, 0.0)
        options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=str(task)))
        with vision.ImageClassifier.create_from_options(options) as other:
            for path in pictures:
                tensor = classifier.prepare(path)
                expected = _expected(classifier, tensor, names)
                exact = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=tensor[0])
                for name, scores in _scores(other.classify(exact)).items():
                    same[name] += int(scores.argmax() == expected[name].argmax())
                    furthest[name] = max(furthest[name], float(np.abs(scores - expected[name]).max()))
                for name, scores in _scores(other.classify(mediapipe.Image.create_from_file(str(path)))).items():
                    same_resized[name] += int(scores.argmax() == expected[name].argmax())
    print(f"{file}: {len(pictures)} pictures; on how many both give the same top label (largest difference of a score)")
    for name in names:
        print(
            f"{name}: {same[name]} resized by the runtime ({furthest[name]:g}), {same_resized[name]} resized by MediaPipe"
        )


def _expected(classifier: MultiHeadClassifier, tensor: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    features = classifier.features_of(tensor)
    return {
        name: classifier.joint_scores(features)[0] if name == "joint" else classifier.head_scores(features, name)
        for name in names
    }


def _scores(result: Any) -> dict[str, np.ndarray]:
    """The scores of each head, float32 (labels,), in the order of its labels."""
    found = {}
    for head in result.classifications:
        scores = np.zeros(len(head.categories), np.float32)
        for category in head.categories:
            scores[category.index] = category.score
        found[head.head_name] = scores
    return found


if __name__ == "__main__":
    main()
