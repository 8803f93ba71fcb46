"""Measures a file on this device: opening it, preparing a picture, the backbone, and the heads."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Mapping

import numpy as np

from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.inputs import InputSpec, Sample
from edge_runtime.text import TextInput

Part = Callable[[], object]


def benchmark(model_path: str, *, runs: int = 50, **options: Any) -> Mapping[str, Any]:
    """Median and spread in milliseconds of each part, over ``runs`` interleaved rounds after one that warms up.

    The picture is noise of 640 x 480, which costs no less to resize than a real one; the text has more words than the
    model reads. ``options``: as ``MultiHeadClassifier`` takes them.
    """
    start = time.perf_counter()
    classifier = MultiHeadClassifier(model_path, **options)
    opened = time.perf_counter()
    sample = _sample(classifier.metadata.input)
    classifier.classify_features(classifier.features(sample), heads=[0])
    answered = time.perf_counter()
    tensor = classifier.prepare(sample)
    features = classifier.features_of(tensor)
    noun = "text" if isinstance(classifier.metadata.input, TextInput) else "picture"
    parts: Dict[str, Part] = {
        "preprocess": lambda: classifier.prepare(sample),
        "backbone": lambda: classifier.features_of(tensor),
        "one_head": lambda: classifier.classify_features(features, heads=[0], top_k=1),
        "all_heads": lambda: classifier.classify_features(features, top_k=1),
        f"{noun}_all_heads": lambda: classifier.classify_features(classifier.features(sample), top_k=1),
    }
    times = measure(parts, runs)
    return {
        "interpreter": classifier.interpreter_name,
        "heads": len(classifier.head_names),
        "runs": runs,
        "open_ms": round((opened - start) * 1000, 3),
        "open_to_first_answer_ms": round((answered - start) * 1000, 3),
        "latency_ms": {name: _summary(values) for name, values in times.items()},
    }


def _sample(spec: InputSpec) -> Sample:
    rng = np.random.default_rng(0)
    if not isinstance(spec, TextInput):
        return rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    return " ".join(spec.vocabulary[i] for i in rng.integers(0, len(spec.vocabulary), 2 * spec.length))


def _summary(values: List[float]) -> Mapping[str, float]:
    low, median, high = np.percentile(values, (5, 50, 95))
    return {"median": round(float(median), 4), "p5": round(float(low), 4), "p95": round(float(high), 4)}


def measure(parts: Mapping[str, Part], runs: int) -> Dict[str, List[float]]:
    """Milliseconds of each part in each round; the first round is for warming up and is not counted."""
    times: Dict[str, List[float]] = {name: [] for name in parts}
    for round_number in range(runs + 1):
        for name, part in parts.items():
            begin = time.perf_counter()
            part()
            if round_number:
                times[name].append((time.perf_counter() - begin) * 1000)
    return times
