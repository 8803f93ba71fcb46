"""Compare methods for the joint list on random splits of the demo's pictures: the reason for ``joint/router.py``.

    python -m benchmarks.joint --file build/demo.tflite --output build/bench/joint.json

The features of all pictures in ``calibration_data`` (training and held-out) are computed once. Each split holds out about
30 % of each class, without dividing a kind of object, and trains one head for each task on the rest, with its labels.
Every method then learns P(head | picture); it is given the head of each picture, not its label. All figures are of the
held-out pictures.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported: splits run in parallel

import numpy as np
from scipy.special import softmax

from benchmarks.joint_data import Pictures, Problem, evidence_of, heads_of, load, split, train
from benchmarks.joint_methods import methods
from benchmarks.unknown import distances
from builder.joint.router import Evidence, fit_router
from builder.joint.unknown import separation
from builder.judging.metrics import reliability


def run_split(pictures: Pictures, seed: int, a_head: int | None) -> dict[str, np.ndarray]:
    """By method: the probability of each answer, and whether it is right. ``a_head``: pictures a head; None: all."""
    rng, aside = np.random.default_rng(seed), split(pictures, seed)
    heads = heads_of(pictures, ~aside)
    logits = [head(pictures.features) for head in heads]
    everything = Evidence(pictures.features, tuple(logits), pictures.heads)
    chosen = rng.permutation(np.flatnonzero(~aside))
    if a_head is not None:
        chosen = np.concatenate([chosen[pictures.heads[chosen] == h][:a_head] for h in np.unique(pictures.head_of)])
    first = np.searchsorted(pictures.head_of, np.arange(len(logits)))
    pseudo = np.array([first[pictures.heads[i]] + logits[pictures.heads[i]][i].argmax() for i in chosen])
    truth = pictures.classes[aside]
    views = evidence_of(pictures, heads, chosen)
    problem = Problem(everything.part(chosen), views, everything.part(aside), truth, pseudo, pictures.head_of)
    scores = methods(problem)
    anew = train(pictures.features[~aside], pictures.classes[~aside])(pictures.features[aside])
    scores["one head trained anew on all labels"] = softmax(anew, axis=1)
    return {name: _answers(s, truth) for name, s in scores.items()}


def _answers(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.stack([np.minimum(scores.max(1), 1.0), scores.argmax(1) == truth])


def run_unknown(
    pictures: Pictures, seed: int, strange: Sequence[int], shown: Sequence[int]
) -> dict[str, tuple[float, float]]:
    """AUROC and FPR at 95 % TPR of the largest P(head) against pictures of the unseen classes ``strange``: with the
    classes ``shown`` as pictures of no head, and without them. The same for other scores.
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

    def told(score: np.ndarray) -> tuple[float, float]:
        return separation(score[aside & known], score[aside & np.isin(pictures.classes, strange)])

    result = {}
    for name, none in (("without pictures of none", []), ("with other pictures of none", list(shown))):
        learn = ~aside & (known | np.isin(pictures.classes, none))
        if name.startswith("with ") and not none:
            continue
        router = fit_router(everything.part(learn)).router
        largest = router.probabilities(features, logits)[:, :number].max(1)
        result[name] = told(largest)
    for name, score in distances(everything.part(~aside & known)).items():
        result[name] = told(score(everything))
    return result


def summarize(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, dict[str, float]]:
    """Means over the splits; half the 95 % interval of the mean difference from one head trained on all labels; and the
    calibration error: its mean over the splits, its mean by chance, and that of the answers of all splits together.
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
    """(split, unseen classes, classes shown as none) for two questions: half of a task unseen, a single class unseen."""
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
    """Means of AUROC and FPR at 95 % TPR; prints them too."""
    found = {}
    for name in results[0]:
        values = np.array([r[name] for r in results])
        (auroc, fpr), half = values.mean(0), 1.96 * values[:, 0].std(ddof=1) / np.sqrt(len(values))
        row = {"auroc": auroc, "half_interval": half, "fpr_at_95_tpr": fpr}
        found[name] = {key: round(float(v), 4) for key, v in row.items()}
        print(f"{question} unknown, {name}: AUROC {auroc:.3f} ± {half:.3f}, FPR {fpr:.2f}", flush=True)
    return found


def print_table(title: str, table: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table as Markdown."""
    titles = ("method", "accuracy", "points from trained anew", "calibration error", "by chance", "all splits as one")
    print(f"\n{title}\n\n| {' | '.join(titles)} |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, row in table.items():
        points = f"{100 * row['difference']:+.1f} ± {100 * row['difference_half_interval']:.1f}"
        errors = [row[key] for key in ("calibration_error", "calibration_floor", "calibration_error_together")]
        print(f"| {name} | {row['accuracy']:.3f} | {points} | {' | '.join(f'{e:.3f}' for e in errors)} |", flush=True)


if __name__ == "__main__":
    main()
