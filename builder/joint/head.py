"""The joint head of a build: the router, thresholds, notes for the user, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from builder.joint.graph import joint_part
from builder.joint.layout import NONE, Layout, lay_out
from builder.joint.observe import (
    FEW_PICTURES,
    everyday_samples,
    held_out_tensors,
    logits_part,
    observe,
    scenes_of,
    tensors_of,
    unlike_the_heads,
)
from builder.joint.router import Evidence, FittedRouter, fit_router
from builder.joint.unknown import Judged, Unknown, head_thresholds, refusing, unknown_by_leaving_out, unknown_from_none
from builder.samples.calibration import SampleSet
from builder.samples.files import Sample
from builder.settings.config import JointConfig
from builder.tflite.flatbuffer import Part
from builder.tflite.link import logits_tensor
from edge_runtime.counting import count_of
from edge_runtime.inputs import InputSpec
from edge_runtime.metadata import BACKBONE, FEATURES, HeadInfo

MIN_PICTURES = 5  # of a head: one for each fold of the cross-validation
WORTHLESS = 0.7  # AUROC below which the list cannot recognize pictures of no head
_HELD_OUT = 10  # with so many held-out pictures of each head, these set the thresholds


@dataclass(frozen=True)
class JointHead:
    """``part``: the subgraph. ``fitted``: the router. ``pictures``: number of pictures of each head, and of ``none``.

    ``thresholds``: by head name; ``threshold``: of the list. ``notes``: what the user should know.
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

    def on(self, parts: Mapping[str, Part]) -> JointHead:
        """The same list for parts in another precision: it was fitted to real-valued features and logits."""
        return replace(self, part=_part(self.fitted, self.layout, parts))

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
            "everyday": self.config.everyday,
            "unknown": None if self.unknown is None else self.unknown.to_json(),
            "pictures": dict(self.pictures),
        }


class FittedOnce:
    """The joint head of one build, fitted on first use and then reused for all precisions.

    ``samples``: from ``grouped_samples``. ``held_out``: samples that the heads were not trained on; they set thresholds.
    """

    def __init__(
        self,
        config: JointConfig,
        spec: InputSpec,
        heads: Sequence[HeadInfo],
        samples: Sequence[Sample],
        held_out: SampleSet | None = None,
    ) -> None:
        self._config, self._spec, self._heads = config, spec, heads
        self._samples, self._held_out = samples, held_out
        self._found: tuple[JointHead | None, str] | None = None

    def impossible(self, parts: Mapping[str, Part]) -> str:
        """Why no joint head can be fitted on ``parts``; empty where one can."""
        return _impossible(self._config, self._spec, parts, [head.head_name for head in self._heads], self._samples)

    def __call__(
        self, parts: Mapping[str, Part], advance: Callable[[], None] = lambda: None
    ) -> tuple[JointHead | None, str]:
        """The joint head on ``parts`` (the backbone, as the device feeds it, and the heads), or None and the reason."""
        if self._found is None:
            self._found = fit_joint(
                self._config, self._spec, parts, self._heads, self._samples, advance, held_out=self._held_out
            )
            return self._found
        joint, reason = self._found
        return (None if joint is None else joint.on(parts)), reason


def fit_joint(
    config: JointConfig,
    spec: InputSpec,
    parts: Mapping[str, Part],
    heads: Sequence[HeadInfo],
    samples: Sequence[Sample],
    advance: Callable[[], None] = lambda: None,
    *,
    held_out: SampleSet | None = None,
) -> tuple[JointHead | None, str]:
    """Fit the joint head to calibration samples that are known to belong to a head or to none.

    Arguments as of ``FittedOnce``. Returns the joint head, or None and the reason.
    """
    names = [head.head_name for head in heads]
    reason = _impossible(config, spec, parts, names, samples)
    if reason:
        return None, reason
    none_pictures = 0 if NONE in names else sum(s.head == NONE for s in samples)
    if none_pictures < MIN_PICTURES and NONE not in names:
        samples = [s for s in samples if s.head != NONE]
    everyday = config.everyday and spec.noun == "pictures" and none_pictures < MIN_PICTURES
    evidence = observe(parts, names, tensors_of(samples, names, spec), spec, advance)
    if evidence is None or np.bincount(evidence.classes, minlength=len(names))[: len(names)].min() < MIN_PICTURES:
        return None, "too many pictures of one head cannot be read"
    if everyday:
        evidence = with_everyday(evidence, parts, names, spec)
    unseen = None if held_out is None else observe(parts, names, held_out_tensors(held_out, names), spec)
    against = "everyday pictures" if everyday else "pictures of none"
    return assemble(config, parts, heads, evidence, unseen, none_pictures=none_pictures, against=against), ""


def with_everyday(evidence: Evidence, parts: Mapping[str, Part], names: Sequence[str], spec: InputSpec) -> Evidence:
    """Add the builder's everyday pictures as pictures of none, except those that look like a head's own."""
    shown = everyday_samples()
    found = observe(parts, names, tensors_of(shown, names, spec), spec)
    assert found is not None
    found = found.part(unlike_the_heads(evidence, replace(found, scenes=scenes_of(shown))))
    return evidence.beside(found) if len(found.classes) >= MIN_PICTURES else evidence


def _impossible(
    config: JointConfig, spec: InputSpec, parts: Mapping[str, Part], names: Sequence[str], samples: Sequence[Sample]
) -> str:
    """The reason why there can be no joint head; empty where there can."""
    if not config.wanted(spec.noun):
        return "it is switched off" if config.enabled is False else "for texts it needs joint = true"
    odd = [name for name in names if logits_part(parts[name]) is None]
    if odd:
        return f"head {odd[0]} does not end in softmax or sigmoid"
    if len({s.digest for s in samples}) < len(samples):
        return "the same text is in the folders of several heads"
    counts = {name: sum(s.head == name for s in samples) for name in names}
    few = [f"{name} has {count}" for name, count in counts.items() if count < MIN_PICTURES]
    if not few:
        return ""
    more = f", and {count_of(len(few) - 4, 'more heads')} with too few" if few[4:] else ""
    return (
        f"each head needs at least {MIN_PICTURES} calibration {spec.noun} in a folder of its name; "
        f"{', '.join(few[:4])}{more}"
    )


def assemble(
    config: JointConfig,
    parts: Mapping[str, Part],
    heads: Sequence[HeadInfo],
    evidence: Evidence,
    unseen: Evidence | None = None,
    *,
    none_pictures: int = 0,
    against: str = "pictures of none",
) -> JointHead:
    """The joint head from observed pictures. ``unseen``: held-out pictures of the heads.

    ``none_pictures``: number of pictures in ``none``, whether they were enough to be used or not.
    """
    names, count = [head.head_name for head in heads], len(heads)
    fitted = fit_router(evidence)
    layout = lay_out(heads, none=fitted.router.none, merge=config.merge_labels)
    judged = Judged.of(fitted, evidence, unseen, _HELD_OUT)
    shift, bar = refusing(judged, config.false_alarm)
    fitted, judged = fitted.with_none(shift), judged.with_none(shift)
    unknown = (
        unknown_from_none(fitted.held_out, evidence.classes, count, against)
        if fitted.router.none
        else unknown_by_leaving_out(evidence, fitted.penalty)
    )
    used = dict(zip((*names, NONE), np.bincount(evidence.classes, minlength=count + 1).tolist(), strict=True))
    return JointHead(
        part=_part(fitted, layout, parts),
        fitted=fitted,
        layout=layout,
        pictures=used,
        thresholds=dict(zip(names, head_thresholds(judged, config.false_alarm), strict=True)),
        threshold=bar,
        config=config,
        unknown=unknown,
        notes=(
            *_few(used, names, none_pictures),
            *_one_scene([(*names, NONE)[c] for c in fitted.one_scene]),
            *_shared(layout, merged=config.merge_labels),
            *_worthless(unknown, judged, layout),
        ),
    )


def _part(fitted: FittedRouter, layout: Layout, parts: Mapping[str, Part]) -> Part:
    backbone = parts[BACKBONE]
    logits = {
        head.head_name: parts[head.head_name].tensors[logits_tensor(parts[head.head_name])] for head in layout.heads
    }
    return joint_part(fitted.router, layout, backbone.tensors[backbone.outputs[FEATURES]], logits)


def _few(pictures: Mapping[str, int], names: Sequence[str], none_pictures: int) -> tuple[str, ...]:
    notes, few = [], [f"{name} has {pictures[name]}" for name in names if pictures[name] < FEW_PICTURES]
    if few:
        notes.append(
            f"the joint list is inaccurate with fewer than {FEW_PICTURES} calibration pictures of a head: "
            f"{', '.join(few[:8])}"
        )
    if 0 < none_pictures < MIN_PICTURES:
        notes.append(
            f"{NONE}/ is left out: {count_of(none_pictures, 'pictures')}, and at least {MIN_PICTURES} are needed"
        )
    return tuple(notes)


def _one_scene(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    return (
        f"all calibration pictures of {', '.join(names[:8])} are nearly the same, so the joint list's confidence in "
        "others could not be measured: add pictures of other scenes",
    )


def _shared(layout: Layout, *, merged: bool) -> tuple[str, ...]:
    shared = layout.shared()
    if not shared:
        return ()
    how = (
        "appear once in the joint list, with their probabilities added"
        if merged
        else "are listed separately as head/label in the joint list; [joint] merge_labels = true merges them"
    )
    return (f"labels of more than one head ({', '.join(shared[:8])}{', ...' if shared[8:] else ''}) {how}",)


def _worthless(unknown: Unknown | None, judged: Judged, layout: Layout) -> tuple[str, ...]:
    """Warnings where the user is better off without the list."""
    notes, what = [], "set joint = false, or calibrate with more pictures, including some in none/"
    if unknown is not None and unknown.auroc < WORTHLESS:
        notes.append(
            f"the joint list barely separates pictures of no head from the heads' own (AUROC {unknown.auroc:.2f} against "
            f"{unknown.against}; 0.5 is chance): {what}"
        )
    own = judged.classes < len(layout.heads)
    told = judged.evidence[own, : len(layout.heads)].argmax(1) == judged.classes[own]
    if len(layout.heads) < 2:
        return tuple(notes)
    kinds = [expit if head.activation == "sigmoid" else (lambda z: softmax(z, axis=1)) for head in layout.heads]
    loudest = np.stack([kind(z[own]).max(1) for kind, z in zip(kinds, judged.logits, strict=True)], axis=1)
    plain = loudest.argmax(1) == judged.classes[own]
    if told.mean() < plain.mean():
        notes.append(
            f"the joint list finds the right head on {told.mean():.1%} of {len(told)} held-out pictures, but the "
            f"largest score of all heads does so on {plain.mean():.1%}: {what}"
        )
    return tuple(notes)
