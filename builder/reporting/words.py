"""The glossary of the HTML pages."""

from __future__ import annotations

import math

_WORDS = {
    "backbone": "The frozen base that all models share. It is stored once and runs once for each {noun}.",
    "head": "The layers of a model after the backbone, from the features to the scores of its labels.",
    "features": "The output of the backbone, which every head reads.",
    "agreement": "The share of held-out {noun}s on which the file's top label is the top label of the float original. It "
    "is not accuracy: the original may be wrong.",
    "95 % interval": "The range in which the true share lies, given the number of {noun}s (Wilson 1927). A head fails "
    "verification only if even the upper end lies below min_agreement.",
    "drift": "The change of the probability of the original's top label, from 0 (none) to 1; for a sigmoid head, of the "
    "label that changes most.",
    "dB": "Signal-to-noise ratio in decibels: at 20 dB the error has 1/100 of the signal's power, at 30 dB 1/1000.",
    "digest": "A hash of the operations and weights of the backbone. Equal digests mean equal backbones.",
    "calibration": "The {noun}s from which the ranges of the int8 activations are measured.",
    "verification": "The {noun}s that were held out from calibration. The finished file is verified on them.",
    "joint list": "One list of the labels of all heads, with comparable probabilities.",
    "AUROC": "How well {noun}s of the heads are separated from {noun}s of no head: 1 is perfect, 0.5 is chance.",
    "right": "Answers whose top label is the folder's name.",
    "calibration error": "The mean difference between the probability of answers and the share of them that is right "
    "(15 bins, Guo et al. 2017).",
    "by chance": "The calibration error that perfectly calibrated answers would show on this number of {noun}s.",
    "confusion": "Rows are true labels, columns are answers; right answers lie on the diagonal.",
    "precision": "The share of the answers with this label that is right.",
    "recall": "The share of the {noun}s with this label that is answered with it.",
    "reliability": "Probability of the answers against the share that is right; calibrated answers lie on the diagonal.",
    "validation": "The {noun}s that were held out from training. They decide when training stops.",
    "loss": "The cross-entropy that training minimizes.",
}


def meanings(*words: str, noun: str = "picture") -> list[tuple[str, str]]:
    """Pairs of a word and its meaning."""
    return [(word, _WORDS[word].format(noun=noun)) for word in words]


def decibels(ratio: float) -> str:
    """A signal to noise ratio in words, where there is no noise, or no signal, too."""
    if math.isfinite(ratio):
        return f"{ratio:.1f} dB"
    return "equal to float" if ratio > 0 else "zero in float"


def milliseconds(duration: float) -> str:
    """A latency in words, with two digits that are not 0; a board's profile may have no time for an operator."""
    if not math.isfinite(duration):
        return "unknown time"
    return f"{duration:.2f} ms" if duration >= 0.1 else f"{duration:.2g} ms"
