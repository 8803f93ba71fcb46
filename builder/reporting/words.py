"""What the words of the pages mean, once for all of them."""

from __future__ import annotations

_WORDS = {
    "backbone": "The frozen base that all models share. It is stored once and runs once for each {noun}.",
    "head": "What a model has behind the backbone: from the features to the scores of its labels.",
    "features": "The numbers that the backbone gives and every head reads.",
    "agreement": "The share of held-out {noun}s on which the file's first label is the first label of the float original"
    ". It is no accuracy: the original may be wrong.",
    "95 % interval": "Where the true share may lie, given so many {noun}s (Wilson 1927). A head fails verification only "
    "where even the upper end lies below the bar.",
    "drift": "How far the probability of the original's first label moved, from 0 (not at all) to 1.",
    "dB": "Signal to noise, in decibels: at 20 dB the error has 1/100 of the signal's power, at 30 dB 1/1000.",
    "digest": "A number computed from what the backbone does and holds. Equal digests are equal backbones.",
    "calibration": "The {noun}s that set the ranges of the int8 numbers.",
    "verification": "The {noun}s that were held out: they calibrated nothing and judge the finished file.",
    "joint list": "One list of the labels of all heads, with probabilities that can be compared.",
    "AUROC": "How well {noun}s of the heads are told from {noun}s of none: 1 is perfect, 0.5 is chance.",
    "right": "Answers whose first label is the folder's name.",
    "calibration error": "The mean distance between the probability of an answer and the share of such answers that is "
    "right (15 bins, Guo et al. 2017).",
    "by chance": "The calibration error that perfectly calibrated answers would show on so few {noun}s.",
    "confusion": "Rows are the true labels, columns the labels found; right answers lie on the diagonal.",
    "precision": "Of the answers that are this label, the share that is right.",
    "recall": "Of the {noun}s with this label, the share that is so answered.",
    "reliability": "Probability of the answers against the share that is right; calibrated answers lie on the diagonal.",
    "validation": "The {noun}s that no weight was learned from. They say when to stop.",
    "loss": "Cross-entropy: what the training makes smaller.",
}


def meanings(*words: str, noun: str = "picture") -> list[tuple[str, str]]:
    """Pairs of word and meaning."""
    return [(word, _WORDS[word].format(noun=noun)) for word in words]
