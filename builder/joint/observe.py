"""The samples that the joint head may learn from, and the finished heads' outputs for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from builder.joint.layout import NONE
from builder.joint.router import Evidence, unit
from builder.samples.calibration import SampleSet
from builder.samples.files import Sample, draw_evenly, find_pictures, find_samples
from builder.support.arrays import pooled
from builder.support.threads import OfEachThread, beside
from builder.tflite.flatbuffer import Part, operator_name, quantization
from builder.tflite.link import logits_tensor
from builder.tflite.writer import write_parts
from edge_runtime.errors import PictureError
from edge_runtime.inputs import InputSpec, tensor_maker
from edge_runtime.interpreter import find_interpreter
from edge_runtime.metadata import BACKBONE, FEATURES

FEW_PICTURES = 10  # with so many the joint list was measured to be useful; see docs/concepts/joint-list.md
MAX_PICTURES = 4000  # unless there are so many heads that each would have fewer than FEW_PICTURES
MAX_PICTURES_OF_A_HEAD = 200
EVERYDAY = Path(__file__).parent / "everyday_pictures"  # each with its licence in LICENCES.md
_OWN_LOOK = 0.05  # of a head's own pictures: a picture that resembles the head more than these counts as its own
_ENDS = ("SOFTMAX", "LOGISTIC")


def grouped_samples(folder: Path, names: Sequence[str], spec: InputSpec, held_out: Sequence[Sample]) -> list[Sample]:
    """Calibration samples in a folder named as a head, or in ``none``, ordered by content.

    ``held_out``: samples that must not be used.
    """
    forbidden = {p.digest for p in held_out}
    found = [p for p in find_samples(folder, [*names, NONE], spec) if p.head and p.digest not in forbidden]
    most = min(MAX_PICTURES_OF_A_HEAD, max(FEW_PICTURES, MAX_PICTURES // (len(names) + 1)))
    kept = [p for name in dict.fromkeys((*names, NONE)) for p in draw_evenly([q for q in found if q.head == name], most)]
    return sorted(kept, key=lambda p: p.digest)


def everyday_samples() -> list[Sample]:
    """Photographs that come with the builder and stand for pictures of no head."""
    return [replace(picture, head=NONE) for picture in find_pictures(EVERYDAY, ())]


def scenes_of(everyday: Sequence[Sample]) -> np.ndarray:
    """(pictures,): the index of the photograph that each picture is a crop of."""
    numbers: np.ndarray = np.unique([s.path.stem.rpartition("_")[0] for s in everyday], return_inverse=True)[1]
    return numbers


def tensors_of(samples: Sequence[Sample], names: Sequence[str], spec: InputSpec) -> Iterator[tuple[int, np.ndarray]]:
    """(class, tensor) of every readable sample; broken ones were reported when they were collected."""
    make = tensor_maker(spec)

    def read(sample: Sample) -> np.ndarray | None:
        try:
            return make(sample.content)
        except PictureError:
            return None

    for sample, tensor in zip(samples, beside(read, samples), strict=True):
        if tensor is not None:
            yield class_of(sample, names), tensor


def held_out_tensors(samples: SampleSet, names: Sequence[str]) -> Iterator[tuple[int, np.ndarray]]:
    """(class, tensor) of every verification sample that is known to belong to a head."""
    for source, tensor in zip(samples.sources, samples.tensors, strict=True):
        if source.head in names:
            yield class_of(source, names), tensor[None]


def class_of(sample: Sample, names: Sequence[str]) -> int:
    return names.index(sample.head) if sample.head in names else len(names)


def observe(
    parts: Mapping[str, Part],
    names: Sequence[str],
    seen: Iterable[tuple[int, np.ndarray]],
    spec: InputSpec,
    advance: Callable[[], None] = lambda: None,
) -> Evidence | None:
    """Run the backbone as the device will, and the heads up to their logits. Returns None without samples.

    ``seen``: (class, tensor) of each sample; ``advance`` is called after each.
    """
    logits_parts = {name: part for name in names if (part := logits_part(parts[name])) is not None}
    backbone = parts[BACKBONE]
    _, factory = find_interpreter("ai_edge_litert")
    model = write_parts({BACKBONE: backbone, **logits_parts})
    seam = quantization(backbone.tensors[backbone.outputs[FEATURES]])
    scales = {name: quantization(part.tensors[part.outputs["logits"]]) for name, part in logits_parts.items()}

    def opened() -> dict[str, Any]:
        interpreter = factory(model_content=model, num_threads=1)
        return {name: interpreter.get_signature_runner(name) for name in (BACKBONE, *names)}

    runners = OfEachThread(opened)

    def run(one: tuple[int, np.ndarray]) -> tuple[int, np.ndarray, list[np.ndarray]]:
        (own, tensor), run = one, runners()
        found = {name: values.copy() for name, values in run[BACKBONE](**{spec.name: tensor}).items()}
        raw = {n: run[n](**{tensor: found[tensor] for tensor in logits_parts[n].inputs})["logits"] for n in names}
        return own, pooled(seam.dequantize(found[FEATURES]))[0], [scales[n].dequantize(raw[n][0].copy()) for n in names]

    rows, logits, classes = [], [], []
    for own, row, columns in beside(run, seen):
        rows.append(row)
        logits.append(columns)
        classes.append(own)
        advance()
    if not rows:
        return None
    stacked = tuple(np.stack(column) for column in zip(*logits, strict=True))
    return Evidence(np.stack(rows), stacked, np.asarray(classes))


def unlike_the_heads(own: Evidence, others: Evidence) -> np.ndarray:
    """bool (others,): which of ``others`` resemble no head's ``own`` pictures.

    A photograph that stands for ``none`` may show what a head knows.
    """
    features, strange = unit(own.features), unit(others.features)
    kept = np.ones(len(strange), bool)
    for head in range(len(own.logits)):
        mean = features[own.classes == head].mean(0)
        kept &= strange @ mean < np.quantile(features[own.classes == head] @ mean, _OWN_LOOK)
    return kept


def logits_part(part: Part) -> Part | None:
    """A head without its last operator; None where that is neither softmax nor sigmoid."""
    last, logits = part.operators[-1], logits_tensor(part)
    ends = operator_name(part, last) in _ENDS and list(last.outputs) == [part.outputs["scores"]]
    if not ends or len(part.tensors[logits].shape) != 2:
        return None
    return replace(part, operators=part.operators[:-1], outputs={"logits": logits})
