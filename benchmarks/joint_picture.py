"""Draw the picture of ``docs/concepts/joint-list.md``: a sure answer, a tie between heads, and no answer.

python -m benchmarks.joint_picture --file build/demo.tflite --output docs/images/joint.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from builder.reporting.plots import BLUE, GREY, RED, tidy
from edge_runtime import MultiHeadClassifier
from edge_runtime.joint import JointClassification

SHOWN = 5  # labels


def choose(found: dict[Path, JointClassification]) -> list[tuple[str, Path]]:
    """A sure answer, the closest tie between the two likeliest heads, and an answer below the list's threshold."""
    sure = max(found, key=lambda p: found[p].categories[0].score)
    tied = min(found, key=lambda p: np.ptp(sorted(h.score for h in found[p].heads)[-2:]))
    odd = [p for p in found if not found[p].known and p != tied]
    refused = min(odd, key=lambda p: found[p].categories[0].score)
    return [("a sure answer", sure), ("a tie between heads", tied), ("below the threshold", refused)]


def draw(column: Any, title: str, path: Path, joint: JointClassification) -> None:
    """Draw one column of three plots: the picture, P(head) with the thresholds, the joint list."""
    picture, heads, labels = column
    with Image.open(path) as image:
        picture.imshow(image.convert("RGB"))
    picture.set_title(f"{title}\n{path.parent.name}", fontsize=10)
    picture.axis("off")
    colours = [BLUE if h.known else GREY for h in joint.heads]
    heads.barh([h.head_name for h in joint.heads], [h.score for h in joint.heads], color=colours)
    for i, h in enumerate(joint.heads):
        heads.plot((h.threshold, h.threshold), (i - 0.4, i + 0.4), color=RED, linewidth=1.5)
    heads.axvline(joint.threshold, color=RED, linestyle="--", linewidth=1)
    heads.set_xlabel("P(head), and what it takes")
    best = joint.categories[:SHOWN]
    labels.barh([c.category_name for c in best], [c.score for c in best], color=BLUE if joint.known else GREY)
    labels.set_xlabel(f"answer: {joint.best.category_name}" if joint.best else "answer: none of these", fontweight="bold")
    for axes in (heads, labels):
        axes.set_xlim(0, 1)
        axes.invert_yaxis()


def main() -> None:
    from matplotlib import pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, default=Path("build/demo.tflite"))
    parser.add_argument("--data", type=Path, default=Path("calibration_data/held_out"))
    parser.add_argument("--output", type=Path, default=Path("docs/images/joint.png"))
    arguments = parser.parse_args()
    with MultiHeadClassifier(arguments.file) as classifier:
        paths = sorted(arguments.data.rglob("*.jpg"))
        found = {path: classifier.classify_joint(classifier.features(path)) for path in paths}
    figure, plots = plt.subplots(3, 3, figsize=(10, 6.6), height_ratios=(1.5, 1, 1.3))
    for column, (title, path) in zip(plots.T, choose(found), strict=True):
        draw(column, title, path, found[path])
    tidy(figure).savefig(arguments.output, dpi=80)


if __name__ == "__main__":
    main()
