"""Measure how pictures of no head are separated from the heads' own: the joint list beside methods of the literature.

    python -m benchmarks.unknown --file build/demo.tflite --pictures DIR --output build/bench/unknown.json

``DIR`` holds photographs that nothing was fitted on: ``NNNN_name.jpg``, where NNNN is the class of ImageNet, 288 x 288,
of which the middle 252 x 252 are used. Photographs of what a head of the demo may know are left out. Every method is
fitted to the calibration pictures of ``--data`` and evaluated on the held-out pictures there and on the photographs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.special import logsumexp, softmax
from sklearn.covariance import LedoitWolf

from builder.growing.finished import Finished, read_finished
from builder.joint.head import with_everyday
from builder.joint.layout import known_score
from builder.joint.observe import grouped_samples, observe, tensors_of
from builder.joint.router import Evidence, energies, fit_router, unit
from builder.joint.unknown import separation
from builder.samples.files import find_samples
from edge_runtime import MultiHeadClassifier
from edge_runtime.joint import judge
from edge_runtime.metadata import HeadInfo

CROP = 252
# Classes of ImageNet that the demo's heads may know: animals, food and plants, and things that its labels include.
ANIMALS, PLANTS = range(398), (*range(936, 958), 738, 580, *range(984, 999))
INSTRUMENTS = (
    401, 402, 420, 432, 486, 494, 513, 541, 546, 558, 566, 577, 579, 593, 594, 641, 642, 683, 684, 687, 776,
    822, 875, 881, 889,
)  # fmt: skip
TOOLS = (462, 473, 477, 499, 512, 587, 596, 621, 623, 677, 696, 710, 714, 726, 730, 740, 783, 784, 792)
VEHICLES = (
    403, 404, 405, 407, 408, 417, 428, 436, 444, 450, 466, 468, 472, 479, 484, 510, 511, 547, 554, 555, 561,
    565, 569, 573, 576, 586, 595, 603, 609, 612, 625, 627, 628, 654, 656, 660, 661, 665, 670, 671, 675, 690,
    694, 705, 717, 724, 734, 751, 757, 779, 780, 791, 802, 803, 812, 814, 817, 820, 829, 833, 847, 856, 864,
    866, 867, 870, 871, 874, 880, 895, 908, 914,
)  # fmt: skip
SIGNS = (919, 920)
KNOWN = {*ANIMALS, *PLANTS, *INSTRUMENTS, *TOOLS, *VEHICLES, *SIGNS}
Score = Callable[[Evidence], np.ndarray]  # (pictures,), higher for pictures of the heads


def photographs(folder: Path, classifier: MultiHeadClassifier) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (class of none, tensor) of each photograph of no head."""
    for path in sorted(folder.glob("*.jpg")):
        if int(path.name[:4]) not in KNOWN:
            image = Image.open(path).convert("RGB")
            left, top = ((edge - CROP) // 2 for edge in image.size)
            middle = image.crop((left, top, left + CROP, top + CROP))
            yield len(classifier.head_names), classifier.prepare(middle)


def loudest(of_head: Callable[[np.ndarray], np.ndarray]) -> Score:
    """The largest score of any head."""
    return lambda e: np.max([of_head(z) for z in e.logits], axis=0)


def energy(seen: Evidence) -> Score:
    """The largest normalized energy of any head."""
    widths = np.array([z.std() for z in seen.logits])
    raw = energies(seen.logits, widths)
    return lambda e: ((energies(e.logits, widths) - raw.mean(0)) / raw.std(0)).max(1)


def mahalanobis(seen: Evidence, *, normalised: bool) -> Score:
    """Smallest distance to the mean of a head, with one covariance (Lee et al. 2018; normalized: Müller, Hein 2025)."""
    form = unit if normalised else (lambda x: x.astype(float))
    features, heads = form(seen.features), range(len(seen.logits))
    means = np.stack([features[seen.classes == h].mean(0) for h in heads])
    inverse = np.linalg.cholesky(LedoitWolf(assume_centered=True).fit(features - means[seen.classes]).precision_)
    return lambda e: -np.min([(((form(e.features) - m) @ inverse) ** 2).sum(1) for m in means], axis=0)


def nearest(seen: Evidence, k: int = 10) -> Score:
    """Cosine similarity to the k-th nearest calibration picture (Sun et al. 2022)."""
    features = unit(seen.features)
    return lambda e: np.sort(unit(e.features) @ features.T, axis=1)[:, -min(k, len(features))]


def vim(seen: Evidence, directions: int = 256) -> Score:
    """Virtual logit: the energy minus the norm outside the principal directions (Wang et al. 2022)."""
    mean = seen.features.mean(0)
    kept = min(directions, len(seen.features) // 2)
    basis = np.linalg.svd(seen.features - mean, full_matrices=False)[2][:kept].T

    def left_out(e: Evidence) -> np.ndarray:
        centred = e.features - mean
        return np.asarray(np.linalg.norm(centred - centred @ basis @ basis.T, axis=1))

    scale = np.concatenate(seen.logits, axis=1).max(1).mean() / left_out(seen).mean()
    return lambda e: np.asarray(logsumexp(np.concatenate(e.logits, axis=1), axis=1) - scale * left_out(e))


def joint_list(seen: Evidence) -> Score:
    """The score of the joint list: the likeliest head against none."""
    router, heads = fit_router(seen).router, len(seen.logits)
    return lambda e: known_score(router.probabilities(e.features, e.logits), heads)


def distances(seen: Evidence) -> dict[str, Score]:
    """Scores of the literature. ``seen``: calibration pictures, with known heads."""
    return {
        "largest softmax (MSP)": loudest(lambda z: softmax(z, axis=1).max(1)),
        "energy": energy(seen),
        "Mahalanobis": mahalanobis(seen, normalised=False),
        "Mahalanobis, unit length": mahalanobis(seen, normalised=True),
        "ViM": vim(seen),
        "KNN": nearest(seen),
    }


def ways(seen: Evidence, everyday: Evidence) -> dict[str, Score]:
    return {
        **distances(seen),
        "joint list, no pictures of none": joint_list(seen),
        "joint list (default)": joint_list(everyday),
    }


def few(evidence: Evidence, a_head: int | None, seed: int) -> Evidence:
    """``a_head`` pictures of each head, drawn by ``seed``; None: all pictures."""
    if a_head is None:
        return evidence
    order = np.random.default_rng(seed).permutation(len(evidence.classes))
    chosen = [order[evidence.classes[order] == h][:a_head] for h in range(len(evidence.logits))]
    return evidence.part(np.concatenate(chosen))


def shipped(file: Path, own: Sequence[Path], folder: Path) -> dict[str, float]:
    """The shares that the file refuses with its own thresholds."""
    with MultiHeadClassifier(file) as classifier:
        assert classifier.joint is not None
        info = classifier.joint

        def refused(tensors: Iterator[np.ndarray]) -> float:
            answers = [judge(info, *classifier.joint_scores(classifier.features_of(t))) for t in tensors]
            return float(np.mean([not answer.known for answer in answers]))

        return {
            "own held-out refused": refused(classifier.prepare(path) for path in own),
            "unknown refused": refused(tensor for _, tensor in photographs(folder, classifier)),
        }


def observed(file: Finished, heads: Sequence[HeadInfo], data: Path, folder: Path) -> tuple[Evidence, ...]:
    """Evidence of the calibration pictures, of these with everyday pictures, of held-out pictures, of photographs."""
    spec, names = file.metadata.input, [head.head_name for head in heads]
    held_out = find_samples(data / "held_out", names, spec)
    seen = grouped_samples(data, names, spec, held_out)
    with MultiHeadClassifier(file.path) as classifier:
        unknown = observe(file.parts, names, photographs(folder, classifier), spec)
    own, later = (observe(file.parts, names, tensors_of(s, names, spec), spec) for s in (seen, held_out))
    assert own is not None and later is not None and unknown is not None
    return own, with_everyday(own, file.parts, names, spec), later, unknown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, default=Path("build/demo.tflite"))
    parser.add_argument("--data", type=Path, default=Path("calibration_data"))
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    file = read_finished(arguments.file)
    seen, everyday, later, unknown = observed(file, file.metadata.heads, arguments.data, arguments.pictures)
    none = everyday.part(everyday.classes == len(everyday.logits))
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for a_head in (10, 30, None):
        found: dict[str, list[tuple[float, float]]] = {}
        for seed in range(1 if a_head is None else 3):
            drawn = few(seen, a_head, seed)
            for name, score in ways(drawn, drawn.beside(none)).items():
                found.setdefault(name, []).append(separation(score(later), score(unknown)))
        rows["all" if a_head is None else str(a_head)] = {
            name: {"auroc": float(np.mean([a for a, _ in f])), "refused": 1 - float(np.mean([p for _, p in f]))}
            for name, f in found.items()
        }
    own = [sample.path for sample in find_samples(arguments.data / "held_out", (), file.metadata.input)]
    document = {
        "own held-out pictures": len(later.classes),
        "unknown photographs": len(unknown.classes),
        "pictures a head": rows,
        "as shipped": shipped(arguments.file, own, arguments.pictures),
    }
    for number, methods in rows.items():
        print(
            f"\n{number} pictures a head: AUROC; share refused where 5 % of the heads' own held-out pictures are refused"
        )
        for name, figures in methods.items():
            print(f"  {name:34} {figures['auroc']:.3f}  {figures['refused']:.3f}")
    print(f"\nas shipped: {document['as shipped']}")
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
