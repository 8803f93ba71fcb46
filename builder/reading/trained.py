"""What a model's values are according to the loss that it was trained with, where its file tells that."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Keras's losses, and the shorter names that ``compile`` takes, in lower case without "_".
_ONE_LABEL = ("categoricalcrossentropy", "sparsecategoricalcrossentropy", "categoricalfocalcrossentropy")
_EACH_LABEL = ("binarycrossentropy", "binaryfocalcrossentropy", "bce")
_NUMBERS = (
    "meansquarederror", "mse", "meanabsoluteerror", "mae", "meanabsolutepercentageerror", "mape",
    "meansquaredlogarithmicerror", "msle", "huber", "huberloss", "logcosh", "poisson", "tweedie", "cosinesimilarity",
    "hinge", "squaredhinge", "categoricalhinge",
)  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """``loss``: its name. ``activation``: ``softmax`` (one label) or ``sigmoid`` (each label on its own) of its logits;
    None where the model learnt numbers. ``from_logits``: whether the loss takes logits.
    """

    loss: str
    activation: str | None
    from_logits: bool = False


def loss_in(text: bytes | str | None, *keys: str) -> Any:
    """The loss in a training configuration, as the file has it; ``keys`` lead to it. None where there is none."""
    try:
        found = None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None
    for key in (*keys, "loss"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def trained_with(loss: Any, outputs: Sequence[str], place: int) -> Trained | None:
    """What ``loss`` says of the output at ``place`` of ``outputs``; None for no loss and for those that are not known.

    ``loss``: one for all outputs, or a list or a table with one for each.
    """
    if isinstance(loss, Mapping) and "class_name" not in loss:
        loss = loss.get(outputs[place]) if place < len(outputs) else None
    elif isinstance(loss, list):
        loss = loss[place] if place < len(loss) else None
    settings: Any = {}
    if isinstance(loss, Mapping):
        loss, settings = loss.get("class_name"), loss.get("config")
        if loss == "function":
            loss = settings
    if not isinstance(loss, str):
        return None
    name = loss.lower().replace("_", "")
    from_logits = isinstance(settings, Mapping) and settings.get("from_logits") is True
    if name in _NUMBERS:
        return Trained(loss, None)
    activation = "softmax" if name in _ONE_LABEL else "sigmoid" if name in _EACH_LABEL else None
    return None if activation is None else Trained(loss, activation, from_logits)
