"""Ways to one list of labels, compared on the demo's pictures over random splits: why ``joint/router.py`` is as it is.

    python -m benchmarks.joint --file build/demo.tflite --output build/bench/joint.json

All pictures of ``calibration_data`` (training and held-out ones) go through the file's backbone once. Each split then
sets aside some 30 % of each class, no kind of object on both sides, trains one head for each task on the rest, told its
labels, and lets every method learn P(head | picture), told only the heads. Figures are of the held-out pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: splits run side by side

import numpy as np
from scipy.special import softmax

from builder.joint.logistic import balanced_weights, cross_validated, fit_logistic, folds, log_loss, principal
from builder.joint.router import PENALTIES, Evidence, energies, fit_router, unit
from builder.joint.unknown import separation
from builder.judging.metrics import reliability
from edge_runtime import MultiHeadClassifier
from edge_runtime.engine import by_name
from edge_runtime.metadata import FEATURES

HELD_OUT = 0.3
TEMPERATURES = np.exp(np.linspace(np.log(0.02), np.log(50), 60))
SHRINKAGES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


@dataclass(frozen=True)
class Pictures:
    """Everything, a row a picture. ``kinds``: what must stay on one side of a split; ``head_of``: of each class."""

    features: np.ndarray
    classes: np.ndarray
    kinds: np.ndarray
    names: tuple[str, ...]
    head_of: np.ndarray

    @property
    def heads(self) -> np.ndarray:
        found: np.ndarray = self.head_of[self.classes]
        return found


def load(file: Path, data: Path) -> Pictures:
    """Features of every picture ``<task>/<class>/*`` and ``held_out/<task>/<class>/*``."""
    paths = sorted(data.rglob("*.jpg"))
    with MultiHeadClassifier(file) as classifier:
        seam = classifier.metadata.seam[0].quantization
        rows = [seam.dequantize(by_name(classifier.features(path))[FEATURES])[0] for path in paths]
        features = np.stack(rows).astype(np.float64)
    names = [f"{path.parent.parent.name}/{path.parent.name}" for path in paths]
    unique = tuple(sorted(set(names)))
    tasks = sorted({name.split("/")[0] for name in unique})
    head_of = np.array([tasks.index(name.split("/")[0]) for name in unique])
    classes = np.array([unique.index(name) for name in names])
    kinds = np.array([_kind(path) for path in paths])
    return Pictures(features, classes, kinds, unique, head_of)


def _kind(path: Path) -> str:
    """As ``calibration_data/make_pictures.py`` splits: the first word of the object's name."""
    name, label = path.stem.rpartition("__")[0].lower(), path.parent.name
    word = re.match(r"[a-z]*", name)[0].rstrip("s")  # type: ignore[index]  # * always matches
    return f"{label}/{name if word in ('', label) else word}"


def split(pictures: Pictures, seed: int) -> np.ndarray:
    """bool (pictures,): which are held out."""
    rng, aside = np.random.default_rng(seed), np.zeros(len(pictures.classes), bool)
    for each in range(len(pictures.names)):
        own = pictures.classes == each
        for kind in rng.permutation(np.unique(pictures.kinds[own])):
            group = pictures.kinds == kind
            if aside[own].sum() + group.sum() / 2 <= HELD_OUT * own.sum():
                aside |= group
    return aside


@dataclass(frozen=True)
class Problem:
    """One split. ``evidence``: what a method may learn from. ``unseen``: the held-out pictures, whose ``truth`` it may
    not see. ``pseudo``: the class that the head of each picture of ``evidence`` takes it for.
    """

    evidence: Evidence
    unseen: Evidence
    truth: np.ndarray
    pseudo: np.ndarray
    head_of: np.ndarray

    def joint(self, heads: np.ndarray, temperatures: Sequence[float] | None = None) -> np.ndarray:
        """P(head) x P(label | head), for P(head) (pictures, heads)."""
        scales = temperatures or [1.0] * len(self.unseen.logits)
        own = [softmax(z / t, axis=1) for z, t in zip(self.unseen.logits, scales, strict=True)]
        return np.concatenate([heads[:, [h]] * p for h, p in enumerate(own)], axis=1)


def heads_of(features: np.ndarray, classes: np.ndarray, head_of: np.ndarray, training: np.ndarray) -> list[np.ndarray]:
    """Logits (all pictures, labels) of a head for each task, trained on ``training``."""
    found = []
    for head in np.unique(head_of):
        own = training & (head_of[classes] == head)
        labels = np.unique(classes[own], return_inverse=True)[1]
        found.append(train(features[own], labels)(features))
    return found


def train(features: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Logistic regression as the router's; the same that trains one head on everything."""
    basis = principal(unit(features))
    inner, number = unit(features) @ basis, int(labels.max()) + 1
    fold = folds(np.arange(len(labels)), labels, 5)
    penalty, _ = cross_validated(inner, labels, PENALTIES, number=number, folds_of=fold)
    fit = fit_logistic(inner, labels, penalty=penalty, number=number)
    return lambda unseen: fit.evidence(unit(unseen) @ basis)


def tempered(unseen: np.ndarray, held_out: np.ndarray, classes: np.ndarray, pool: np.ndarray | None = None) -> np.ndarray:
    """P (pictures, heads) of evidence, its temperature chosen out of fold. ``pool``: the head of each column."""

    def by_head(evidence: np.ndarray) -> np.ndarray:
        p = softmax(evidence, axis=1)
        return p if pool is None else np.stack([p[:, pool == h].sum(1) for h in range(int(pool.max()) + 1)], axis=1)

    weights = balanced_weights(classes)
    losses = [log_loss(np.log(by_head(held_out * t) + 1e-30), classes, weights) for t in TEMPERATURES]
    return by_head(unseen * TEMPERATURES[int(np.argmin(losses))])


def discriminant(features: np.ndarray, classes: np.ndarray, shrinkage: float) -> Callable[[np.ndarray], np.ndarray]:
    """Linear discriminant with one covariance for all classes, shrunk to a multiple of 1; even priors."""
    means = np.stack([features[classes == c].mean(0) for c in range(int(classes.max()) + 1)])
    rest = features - means[classes]
    covariance = (rest * balanced_weights(classes)[:, None]).T @ rest / len(rest)
    size = len(covariance)
    whole = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / size * np.eye(size)
    slopes = np.linalg.solve(whole, means.T)
    return lambda unseen: unseen @ slopes - 0.5 * (means.T * slopes).sum(0)


def by_discriminant(p: Problem, shrinkages: Sequence[float], pseudo: bool = False) -> np.ndarray:
    """P(head); with ``pseudo`` the classes that the heads see in their own pictures have a mean each."""
    basis = np.linalg.svd(p.evidence.features - p.evidence.features.mean(0), full_matrices=False)[2].T
    features, unseen = ((e.features - p.evidence.features.mean(0)) @ basis for e in (p.evidence, p.unseen))
    present, classes = np.unique(p.pseudo, return_inverse=True) if pseudo else (None, p.evidence.classes)
    pool = None if present is None else p.head_of[present]
    fold = folds(np.arange(len(classes)), classes, 5)
    best: tuple[float, np.ndarray] | None = None
    for shrinkage in shrinkages:
        held_out = np.zeros((len(classes), int(classes.max()) + 1))
        for f in range(5):
            away = (fold == f) & (np.bincount(classes)[classes] > 1)
            fit = discriminant(features[~away], classes[~away], shrinkage)
            held_out[fold == f] = fit(features[fold == f])
        own = tempered(held_out, held_out, p.evidence.classes, pool)
        loss = log_loss(np.log(own + 1e-30), p.evidence.classes, balanced_weights(p.evidence.classes))
        if best is None or loss < best[0]:
            fit = discriminant(features, classes, shrinkage)
            best = loss, tempered(fit(unseen), held_out, p.evidence.classes, pool)
    assert best is not None
    return best[1]


def by_energy(p: Problem) -> np.ndarray:
    """P(head) from the heads' energies alone, normalised on the calibration pictures."""
    widths = np.array([z.std() for z in p.evidence.logits])
    raw, unseen = (energies(e.logits, widths) for e in (p.evidence, p.unseen))
    middle, scale = raw.mean(0), raw.std(0)
    return tempered((unseen - middle) / scale, (raw - middle) / scale, p.evidence.classes)


def by_pseudo_labels(p: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression on the classes that the heads see in their own pictures: P(head), and the list itself."""
    present, classes = np.unique(p.pseudo, return_inverse=True)
    likely = softmax(train(p.evidence.features, classes)(p.unseen.features), axis=1)
    pool, whole = p.head_of[present], np.zeros((len(likely), len(p.head_of)))
    whole[:, present] = likely
    return np.stack([likely[:, pool == h].sum(1) for h in range(int(p.head_of.max()) + 1)], axis=1), whole


def head_temperatures(p: Problem) -> list[float]:
    """For each head the temperature at which its energy says best which head a picture is of: no label is needed."""
    weights, found = balanced_weights(p.evidence.classes), []
    for h in range(len(p.evidence.logits)):
        losses = []
        for t in TEMPERATURES:
            scaled = [z / (t if g == h else 1.0) for g, z in enumerate(p.evidence.logits)]
            losses.append(log_loss(energies(scaled, np.ones(len(scaled))), p.evidence.classes, weights))
        found.append(float(TEMPERATURES[int(np.argmin(losses))]))
    return found


def methods(p: Problem) -> dict[str, np.ndarray]:
    """Every way's scores (pictures, labels)."""
    number = len(p.unseen.logits)
    even = np.full((len(p.truth), number), 1 / number)
    both = fit_router(p.evidence).router.probabilities(p.unseen.features, p.unseen.logits)
    alone = fit_router(p.evidence, fit_energies=False).router.probabilities(p.unseen.features, p.unseen.logits)
    pooled, direct = by_pseudo_labels(p)
    energy, temperatures = by_energy(p), head_temperatures(p)
    return {
        "concatenated softmaxes": p.joint(even),
        "energies": p.joint(energy),
        "nearest means": p.joint(by_discriminant(p, (1.0,))),
        "nearest means, pseudo-labels": p.joint(by_discriminant(p, (1.0,), pseudo=True)),
        "shrinkage discriminant": p.joint(by_discriminant(p, SHRINKAGES)),
        "shrinkage discriminant, pseudo-labels": p.joint(by_discriminant(p, SHRINKAGES, pseudo=True)),
        "regression": p.joint(alone),
        "regression, pseudo-labels": p.joint(pooled),
        "regression, pseudo-labels, as the list": direct,
        "regression and energies (chosen)": p.joint(both),
        "the same, heads with temperatures": p.joint(both, temperatures),
        "the right head told": p.joint(np.eye(number)[p.unseen.classes]),
    }


def run_split(pictures: Pictures, seed: int, a_head: int | None) -> dict[str, np.ndarray]:
    """By method: the probability of each answer and whether it is right; ``a_head``: pictures of each head, or all."""
    rng, aside = np.random.default_rng(seed), split(pictures, seed)
    logits = heads_of(pictures.features, pictures.classes, pictures.head_of, ~aside)
    everything = Evidence(pictures.features, tuple(logits), pictures.heads)
    chosen = rng.permutation(np.flatnonzero(~aside))
    if a_head is not None:
        chosen = np.concatenate([chosen[pictures.heads[chosen] == h][:a_head] for h in np.unique(pictures.head_of)])
    first = np.searchsorted(pictures.head_of, np.arange(len(logits)))
    pseudo = np.array([first[pictures.heads[i]] + logits[pictures.heads[i]][i].argmax() for i in chosen])
    truth = pictures.classes[aside]
    problem = Problem(everything.part(chosen), everything.part(aside), truth, pseudo, pictures.head_of)
    scores = methods(problem)
    anew = train(pictures.features[~aside], pictures.classes[~aside])(pictures.features[aside])
    scores["one head trained anew on all labels"] = softmax(anew, axis=1)
    return {name: _answers(s, truth) for name, s in scores.items()}


def _answers(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.stack([np.minimum(scores.max(1), 1.0), scores.argmax(1) == truth])


def run_unknown(
    pictures: Pictures, seed: int, strange: Sequence[int], shown: Sequence[int]
) -> dict[str, tuple[float, float]]:
    """AUROC and FPR at 95 % TPR of the largest P(head) against pictures of the classes ``strange``, of which nothing was
    seen; with the classes ``shown`` as pictures of none, and without.
    """
    aside, heads = split(pictures, seed), pictures.heads
    known = ~np.isin(pictures.classes, [*strange, *shown])
    left = [h for h in np.unique(heads) if np.any(known & (heads == h))]
    features, number = pictures.features, len(left)
    logits = []
    for head in left:
        own = ~aside & known & (heads == head)
        logits.append(train(features[own], np.unique(pictures.classes[own], return_inverse=True)[1])(features))
    place = np.full(int(heads.max()) + 1, number)
    place[left] = np.arange(number)
    everything = Evidence(features, tuple(logits), np.where(known, place[heads], number))
    result = {}
    for name, none in (("without pictures of none", []), ("with other pictures of none", list(shown))):
        learn = ~aside & (known | np.isin(pictures.classes, none))
        if name.startswith("with ") and not none:
            continue
        router = fit_router(everything.part(learn)).router
        largest = router.probabilities(features, logits)[:, :number].max(1)
        result[name] = separation(largest[aside & known], largest[aside & np.isin(pictures.classes, strange)])
    return result


def summarize(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, dict[str, float]]:
    """Means over the splits, half the 95 % interval of the mean difference from one head trained anew, and the
    calibration error: mean of the splits, what chance makes of it there, and of all splits' answers as one.
    """
    found = {}
    baseline = np.array([row["one head trained anew on all labels"][1].mean() for row in rows])
    for name in rows[0]:
        accuracy = np.array([row[name][1].mean() for row in rows])
        difference = accuracy - baseline
        together = np.concatenate([row[name] for row in rows], axis=1)
        found[name] = {
            "accuracy": accuracy.mean(),
            "accuracy_sd": accuracy.std(ddof=1),
            "difference": difference.mean(),
            "difference_half_interval": 1.96 * difference.std(ddof=1) / np.sqrt(len(rows)),
            "calibration_error": np.mean([reliability(*row[name]).error for row in rows]),
            "calibration_floor": np.mean([reliability(*row[name]).floor for row in rows]),
            "calibration_error_together": reliability(*together).error,
            "mean_probability": together[0].mean(),
        }
    return {name: {key: round(float(v), 4) for key, v in row.items()} for name, row in found.items()}


def unknown_jobs(pictures: Pictures, splits: int) -> dict[str, list[tuple[int, list[int], list[int]]]]:
    """(split, strange classes, classes shown as none) of two questions: a whole task unknown, a single class unknown."""
    jobs: dict[str, list[tuple[int, list[int], list[int]]]] = {"half of a task's classes": [], "a single class": []}
    for seed in range(splits):
        rng = np.random.default_rng(1000 + seed)
        for head in np.unique(pictures.head_of):
            own = rng.permutation(np.flatnonzero(pictures.head_of == head)).tolist()
            jobs["half of a task's classes"].append((seed, own[len(own) // 2 :], own[: len(own) // 2]))
        strange = int(rng.integers(len(pictures.names)))
        jobs["a single class"].append((seed, [strange], []))
    return jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, default=Path("build/demo.tflite"))
    parser.add_argument("--data", type=Path, default=Path("calibration_data"))
    parser.add_argument("--output", type=Path, default=Path("build/bench/joint.json"))
    parser.add_argument("--splits", type=int, default=12)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    pictures, seeds = load(arguments.file, arguments.data), range(arguments.splits)
    document: dict[str, object] = {"splits": arguments.splits, "pictures": len(pictures.classes)}
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for a_head in (None, 30, 10):
            rows = list(pool.map(run_split, [pictures] * len(seeds), seeds, [a_head] * len(seeds)))
            title = "all calibration pictures" if a_head is None else f"{a_head} a head"
            document[title] = table = summarize(rows)
            print_table(title, table)
        for question, jobs in unknown_jobs(pictures, arguments.splits).items():
            results = list(pool.map(run_unknown, [pictures] * len(jobs), *zip(*jobs, strict=True)))
            document[f"unknown: {question}"] = separations(question, results)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def separations(question: str, results: Sequence[Mapping[str, tuple[float, float]]]) -> dict[str, dict[str, float]]:
    """Means of AUROC and FPR at 95 % TPR, printed too."""
    found = {}
    for name in results[0]:
        values = np.array([r[name] for r in results])
        (auroc, fpr), half = values.mean(0), 1.96 * values[:, 0].std(ddof=1) / np.sqrt(len(values))
        row = {"auroc": auroc, "half_interval": half, "fpr_at_95_tpr": fpr}
        found[name] = {key: round(float(v), 4) for key, v in row.items()}
        print(f"{question} unknown, {name}: AUROC {auroc:.3f} ± {half:.3f}, FPR {fpr:.2f}", flush=True)
    return found


def print_table(title: str, table: Mapping[str, Mapping[str, float]]) -> None:
    """As Markdown."""
    titles = ("method", "accuracy", "points from trained anew", "calibration error", "by chance", "all splits as one")
    print(f"\n{title}\n\n| {' | '.join(titles)} |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, row in table.items():
        points = f"{100 * row['difference']:+.1f} ± {100 * row['difference_half_interval']:.1f}"
        errors = [row[key] for key in ("calibration_error", "calibration_floor", "calibration_error_together")]
        print(f"| {name} | {row['accuracy']:.3f} | {points} | {' | '.join(f'{e:.3f}' for e in errors)} |", flush=True)


if __name__ == "__main__":
    main()
