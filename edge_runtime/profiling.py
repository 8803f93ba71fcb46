"""The time of each step of a camera frame on this device: ``edge-runtime benchmark --profile``."""

from __future__ import annotations

import io
from typing import Any, Callable, Dict, List, Mapping, Tuple

import numpy as np
from PIL import Image

from edge_runtime.benchmark import Part, measure
from edge_runtime.camera.camera import Heads, Seen
from edge_runtime.camera.capture import Frame, is_blank
from edge_runtime.camera.frame_lines import event_json, frame_json, heads_document
from edge_runtime.camera.live_hub import encode
from edge_runtime.camera.schedule import parse_plans
from edge_runtime.camera.smoothing import DEFAULT_RULE, Decision
from edge_runtime.camera.sources import Shot
from edge_runtime.counting import count_of
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.image_input import ImageInput
from edge_runtime.inputs import picture_input
from edge_runtime.results import top_categories
from edge_runtime.seam import Features

LARGE, SMALL = (640, 480), (320, 240)  # (width, height): what cameras send, and the smallest they can


def profile(model_path: str, *, runs: int = 50, **options: Any) -> Mapping[str, Any]:
    """Milliseconds (median, p5, p95) of each step, over ``runs`` interleaved rounds after one that warms up.

    ``prepare`` holds the ways a picture can come, of which a camera takes one; ``steps`` what that way consists of, and
    all that follows it; ``frame_ms`` the sum of a frame by the cheapest way that needs no special camera.
    ``options``: as ``MultiHeadClassifier`` takes them.
    """
    with MultiHeadClassifier(model_path, **options) as classifier:
        prepare, steps = prepare_parts(picture_input(classifier.metadata.input)), step_parts(classifier)
        times = measure({**prepare, **steps}, runs)
        medians = {name: float(np.median(values)) for name, values in times.items()}
        follows = ("blank check", "backbone", "heads, decisions, events", "frame as JSON")
        return {
            "interpreter": classifier.interpreter_name,
            "heads": len(classifier.head_names),
            "runs": runs,
            "prepare": {name: summary(times[name]) for name in prepare},
            "steps": {name: summary(times[name]) for name in steps},
            "beside_the_interpreter_ms": round(medians["array 320 x 240"], 4),
            "frame_ms": round(sum(medians[name] for name in follows), 4),
        }


def summary(values: List[float]) -> Mapping[str, float]:
    low, median, high = np.percentile(values, (5, 50, 95))
    return {"median": round(float(median), 4), "p5": round(float(low), 4), "p95": round(float(high), 4)}


def text(file: str, document: Mapping[str, Any]) -> str:
    """The document of ``profile`` for people."""
    heads, runs = count_of(document["heads"], "heads"), count_of(document["runs"], "runs")
    lines = [f"{file}: {heads}, {document['interpreter']}, {runs}; milliseconds"]
    for title, key in (("a picture becomes the input, beside the interpreter", "prepare"), ("steps", "steps")):
        lines.append(title)
        lines += [
            f"  {name:40s} {ms['median']:9.4f}  ({ms['p5']:.4f} to {ms['p95']:.4f})" for name, ms in document[key].items()
        ]
    lines.append(f"a frame, preparation beside it: {document['frame_ms']:.3f} ms")
    return "\n".join(lines)


def prepare_parts(spec: ImageInput) -> Dict[str, Part]:
    """The ways in which a picture becomes the input tensor."""
    large, small = scene(LARGE), scene(SMALL)
    whole = io.BytesIO()
    Image.fromarray(large).save(whole, "JPEG", quality=85)
    jpeg = whole.getvalue()
    exact = Shot(large, scene((spec.width, spec.height)))
    return {
        "JPEG 640 x 480, decoded whole": lambda: Shot(decoded(jpeg)).tensor(spec),
        "JPEG 640 x 480, decoded at reduced size": lambda: Shot(jpeg).tensor(spec),
        "array 640 x 480": lambda: Shot(large).tensor(spec),
        "array 320 x 240": lambda: Shot(small).tensor(spec),
        "scaled by the camera's hardware": lambda: exact.tensor(spec),
    }


def step_parts(classifier: MultiHeadClassifier) -> Dict[str, Part]:
    """What ways of preparing a picture consist of, and what follows them."""
    spec = picture_input(classifier.metadata.input)
    large, small = scene(LARGE), scene((spec.width, spec.height))
    image, size = Image.fromarray(large), (spec.width, spec.height)
    bilinear: Any = 2
    resized = image.resize(size, bilinear)
    frame = Frame(1, 0.0, Shot(large), Shot(small).tensor(spec), spec, 1.0)
    features, name = classifier.features_of(frame.image), classifier.head_names[0]
    scores, labels = classifier.head_scores(features, 0), classifier.heads[0].labels
    heads, answering, decision = _heads(classifier), _heads(classifier, _Remembers), Decision(DEFAULT_RULE)
    seen = heads.see(frame)
    return {
        "array 640 x 480 to Pillow": lambda: Image.fromarray(large),
        "resize 640 x 480 to the model's size": lambda: image.resize(size, bilinear),
        "Pillow to array": lambda: np.asarray(resized),
        "blank check": lambda: is_blank(frame.image),
        "backbone": lambda: classifier.features_of(frame.image),
        "one head": lambda: classifier.head_scores(features, name),
        "one head's categories": lambda: top_categories(scores, labels),
        "one head's decision": lambda: decision.update(scores),
        "heads, decisions, events": lambda: answering.see(frame),
        "frame as JSON": lambda: _json(seen),
        "state for the live page": lambda: heads_document(heads),
        "picture for the live page": lambda: encode(frame.shot),
    }


class _Remembers:
    """A classifier whose backbone has run already: what is left is what the heads and all around them cost."""

    def __init__(self, classifier: MultiHeadClassifier) -> None:
        self._classifier = classifier
        spec = picture_input(classifier.metadata.input)
        self._features = classifier.features_of(Shot(scene((spec.width, spec.height))).tensor(spec))
        self.heads, self.head_names = classifier.heads, classifier.head_names
        self.scores, self.joint = classifier.scores, classifier.joint

    def features_of(self, _: np.ndarray) -> Features:
        return self._features


def _heads(classifier: MultiHeadClassifier, wrap: Callable[[MultiHeadClassifier], Any] = lambda c: c) -> Heads:
    return Heads(wrap(classifier), parse_plans((), classifier.head_names, DEFAULT_RULE))


def _json(seen: Seen) -> Tuple[str, List[str]]:
    line = frame_json(seen, fps=25.0, dropped=0, temperature=50.0)
    return line, [event_json(event) for event in seen.events]


def decoded(jpeg: bytes) -> np.ndarray:
    """The whole picture, RGB."""
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        return np.asarray(image.convert("RGB"))


def scene(size: Tuple[int, int]) -> np.ndarray:
    """Something to look at, uint8 RGB (height, width, 3) for ``size`` (width, height): shapes and a little noise."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    bicubic: Any = 3
    noise = rng.integers(-6, 7, (size[1], size[0], 3))
    return (np.asarray(coarse.resize(size, bicubic)).astype(np.int16) + noise).clip(0, 255).astype(np.uint8)
