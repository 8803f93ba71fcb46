"""The joint head of a build: which pictures it may learn from, the router, thresholds, and why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from builder.joint.graph import NONE, Layout, joint_part, lay_out
from builder.joint.router import Evidence, FittedRouter, fit_router, pooled
from builder.joint.unknown import Unknown, thresholds, unknown_by_leaving_out, unknown_from_none
from builder.samples.files import Sample, draw_evenly, find_samples
from builder.settings.config import JointConfig
from builder.tflite.flatbuffer import Part, operator_name, quantization, write_parts
from builder.tflite.link import logits_tensor
from edge_runtime.errors import PictureError
from edge_runtime.inputs import InputSpec, tensor_maker
from edge_runtime.interpreter import find_interpreter
from edge_runtime.metadata import BACKBONE, FEATURES, HeadInfo

MIN_PICTURES = 5  # of a head: one for each fold of the cross-validation
FEW_PICTURES = 10  # from here on the joint list was measured to be worth having; see docs/concepts/joint-list.md
MAX_PICTURES = 4000  # unless there are so many heads that each would have fewer than FEW_PICTURES
MAX_PICTURES_OF_A_HEAD = 200
_ENDS = ("SOFTMAX", "LOGISTIC")


@dataclass(frozen=True)
class NoJoint:
    """Why a build has no joint head, in words for the user."""

    reason: str


@dataclass(frozen=True)
class JointHead:
    """``part``: its subgraph. ``fitted``: the router. ``pictures``: how many each head had, and ``none``.

    ``thresholds``: by the names of the heads; ``threshold``: of the list. ``notes``: what the user should know.
    """

    part: Part
    fitted: FittedRouter
    layout: Layout
    pictures: Mapping[str, int]
    thresholds: Mapping[str, float]
    threshold: float
    config: JointConfig
    unknown: Unknown | None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The member's ``joint``; see ``edge_runtime.joint.JointInfo``."""
        return {
            "labels": list(self.layout.labels),
            "none": self.layout.none,
            "gated": [head.head_name for head in self.layout.heads if head.activation == "sigmoid"],
            "threshold": self.threshold,
            "head_thresholds": dict(self.thresholds),
            "false_alarm": self.config.false_alarm,
            "merge_labels": self.config.merge_labels,
            "unknown": None if self.unknown is None else self.unknown.to_json(),
            "pictures": dict(self.pictures),
        }


def grouped_samples(folder: Path, names: Sequence[str], spec: InputSpec, held_out: Sequence[Sample]) -> list[Sample]:
    """Calibration samples in a folder named as a head, or in ``none``: in an order that their content alone decides.

    ``held_out``: samples that must not be looked at.
    """
    forbidden = {p.digest for p in held_out}
    found = [p for p in find_samples(folder, [*names, NONE], spec) if p.head and p.digest not in forbidden]
    most = min(MAX_PICTURES_OF_A_HEAD, max(FEW_PICTURES, MAX_PICTURES // (len(names) + 1)))
    kept = [p for name in dict.fromkeys((*names, NONE)) for p in draw_evenly([q for q in found if q.head == name], most)]
    return sorted(kept, key=lambda p: p.digest)


def fit_joint(
    config: JointConfig,
    spec: InputSpec,
    parts: Mapping[str, Part],
    heads: Sequence[HeadInfo],
    pictures: Sequence[Sample],
    advance: Callable[[], None] = lambda: None,
) -> JointHead | NoJoint:
    """Learn the joint head from calibration pictures of which is known to which head they belong, or that to none.

    ``parts``: the backbone, as the device feeds it, and the heads. ``pictures``: from ``grouped_samples``. ``advance`` is
    called after each.
    """
    if not config.enabled:
        return NoJoint("it is switched off")
    names = [head.head_name for head in heads]
    odd = [name for name in names if _logits_part(parts[name]) is None]
    if odd:
        return NoJoint(f"head {odd[0]} does not end in a softmax or a sigmoid of logits")
    if len({p.digest for p in pictures}) < len(pictures):
        return NoJoint("the same text lies in the folders of several heads")
    counts = {name: sum(p.head == name for p in pictures) for name in (*names, NONE)}
    few = [f"{name} has {counts[name]}" for name in names if counts[name] < MIN_PICTURES]
    if few:
        more = f" and {len(few) - 4} heads more" if few[4:] else ""
        return NoJoint(
            f"each head needs at least {MIN_PICTURES} calibration pictures in a folder of its name, and "
            f"{', '.join(few[:4])}{more}"
        )
    if counts[NONE] < MIN_PICTURES and NONE not in names:
        pictures = [p for p in pictures if p.head != NONE]
    evidence = observe(parts, names, pictures, spec, advance)
    if np.bincount(evidence.classes, minlength=len(names))[: len(names)].min() < MIN_PICTURES:
        return NoJoint("too many pictures of a head cannot be read")
    return assemble(config, parts, heads, evidence, none_pictures=0 if NONE in names else counts[NONE])


def assemble(
    config: JointConfig, parts: Mapping[str, Part], heads: Sequence[HeadInfo], evidence: Evidence, *, none_pictures: int
) -> JointHead:
    """The joint head from what was observed. ``none_pictures``: found, whether they were enough to be used or not."""
    fitted = fit_router(evidence)
    layout = lay_out(heads, none=fitted.router.none, merge=config.merge_labels)
    names = [head.head_name for head in heads]
    bars, bar = thresholds(fitted.held_out, evidence.classes, len(heads), config.false_alarm)
    unknown = (
        unknown_from_none(fitted.held_out, evidence.classes, len(heads))
        if fitted.router.none
        else unknown_by_leaving_out(evidence)
    )
    used = np.bincount(evidence.classes, minlength=len(heads) + 1)
    backbone = parts[BACKBONE]
    part = joint_part(
        fitted.router,
        layout,
        backbone.tensors[backbone.outputs[FEATURES]],
        {name: parts[name].tensors[logits_tensor(parts[name])] for name in names},
    )
    return JointHead(
        part=part,
        fitted=fitted,
        layout=layout,
        pictures=dict(zip((*names, NONE), used.tolist(), strict=True)),
        thresholds=dict(zip(names, bars, strict=True)),
        threshold=bar,
        config=config,
        unknown=unknown,
        notes=_notes(
            config,
            layout,
            dict(zip(names, used.tolist(), strict=False)),
            none_pictures,
            [(*names, NONE)[c] for c in fitted.one_scene],
        ),
    )


def observe(
    parts: Mapping[str, Part],
    names: Sequence[str],
    pictures: Sequence[Sample],
    spec: InputSpec,
    advance: Callable[[], None] = lambda: None,
) -> Evidence:
    """Run the backbone as the device will, and the heads up to their logits."""
    logits_parts = {name: part for name in names if (part := _logits_part(parts[name])) is not None}
    backbone = parts[BACKBONE]
    _, factory = find_interpreter("ai_edge_litert")
    interpreter = factory(model_content=write_parts({BACKBONE: backbone, **logits_parts}), num_threads=2)
    seam = quantization(backbone.tensors[backbone.outputs[FEATURES]])
    scales = {name: quantization(part.tensors[part.outputs["logits"]]) for name, part in logits_parts.items()}
    runners = {name: interpreter.get_signature_runner(name) for name in (BACKBONE, *names)}
    rows, logits, classes = [], [], []
    for picture, tensor in _readable(pictures, spec):
        found = {name: values.copy() for name, values in runners[BACKBONE](**{spec.name: tensor}).items()}
        rows.append(pooled(seam.dequantize(found[FEATURES]))[0])
        raw = {n: runners[n](**{tensor: found[tensor] for tensor in logits_parts[n].inputs})["logits"] for n in names}
        logits.append([scales[n].dequantize(raw[n][0].copy()) for n in names])
        classes.append(names.index(picture.head) if picture.head in names else len(names))
        advance()
    columns = tuple(np.stack(column) for column in zip(*logits, strict=True))
    return Evidence(np.stack(rows), columns, np.asarray(classes))


def _logits_part(part: Part) -> Part | None:
    """A head without its last operator; None where that is not a softmax or a sigmoid of logits."""
    last, logits = part.operators[-1], logits_tensor(part)
    ends = operator_name(part, last) in _ENDS and list(last.outputs) == [part.outputs["scores"]]
    if not ends or len(part.tensors[logits].shape) != 2:
        return None
    return replace(part, operators=part.operators[:-1], outputs={"logits": logits})


def _readable(pictures: Sequence[Sample], spec: InputSpec) -> Iterator[tuple[Sample, np.ndarray]]:
    """Broken ones were named when the pictures were collected."""
    make = tensor_maker(spec)
    for picture in pictures:
        try:
            image = make(picture.content)
        except PictureError:
            continue
        yield picture, image


def _notes(
    config: JointConfig, layout: Layout, pictures: Mapping[str, int], none_pictures: int, one_scene: Sequence[str]
) -> tuple[str, ...]:
    notes, shared = [], layout.shared()
    few = [f"{name} has {count}" for name, count in pictures.items() if count < FEW_PICTURES]
    if few:
        notes.append(
            f"the joint list is rough with fewer than {FEW_PICTURES} calibration pictures a head: {', '.join(few[:8])}"
        )
    if one_scene:
        notes.append(
            f"all calibration pictures of {', '.join(one_scene[:8])} are nearly the same; how sure the joint list may be "
            "of others is not known: add pictures of other scenes"
        )
    if shared:
        how = (
            "stand once in the joint list, their probabilities added up"
            if config.merge_labels
            else "are kept apart as head/label in the joint list; [joint] merge_labels = true adds them up"
        )
        notes.append(f"labels of more than one head ({', '.join(shared[:8])}{', ...' if shared[8:] else ''}) {how}")
    if 0 < none_pictures < MIN_PICTURES:
        notes.append(
            f"{none_pictures} pictures in {NONE}/ are too few to learn from ({MIN_PICTURES}); they were left out"
        )
    return tuple(notes)
