"""Which heads run on which frames, and by which rule each answers: ``door:every=1,threshold=0.8``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Dict, List, Sequence, Tuple

from edge_runtime.camera.smoothing import DEFAULT_RULE, Rule
from edge_runtime.errors import EdgeRuntimeError, UnknownHeadError
from edge_runtime.metadata import JOINT

_FORM = "expected NAME or NAME:every=N,threshold=P,hysteresis=P,smoothing=W,consensus=K/N"
_KEYS = ("every", "threshold", "hysteresis", "smoothing", "consensus")


@dataclass(frozen=True)
class HeadPlan:
    """``every``: the head runs on the first frame that is answered and then on each ``every``-th after it."""

    head_name: str
    every: int = 1
    rule: Rule = DEFAULT_RULE

    def due(self, answered: int) -> bool:
        """``answered``: frames answered before this one."""
        return answered % self.every == 0


def parse_plans(
    texts: Sequence[str], head_names: Sequence[str], rule: Rule, *, joint: bool = False
) -> Tuple[HeadPlan, ...]:
    """What ``--head`` says, in the order given; nothing given means every head on every frame.

    The joint list may be among them as ``joint``; where ``joint`` asks for it and it is not, it comes last. ``rule``
    holds for what a text leaves open. Raises ``UnknownHeadError``, and ``EdgeRuntimeError`` for other mistakes.
    """
    plans = tuple(_parse(text, head_names, rule) for text in texts)
    names = [plan.head_name for plan in plans]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise EdgeRuntimeError(f"--head {twice[0]}: given twice; say everything about a head in one")
    plans = plans or tuple(HeadPlan(name, rule=rule) for name in head_names)
    return (*plans, HeadPlan(JOINT, rule=rule)) if joint and JOINT not in names else plans


def _parse(text: str, head_names: Sequence[str], rule: Rule) -> HeadPlan:
    name, colon, rest = text.partition(":")
    if name.isdecimal() and name not in head_names and int(name) < len(head_names):
        name = head_names[int(name)]
    if name not in head_names and name != JOINT:
        shown = ", ".join(head_names[:20]) + (f" and {len(head_names) - 20} more" if len(head_names) > 20 else "")
        raise UnknownHeadError(f"--head {text}: no head {name!r}; this file has {len(head_names)}: {shown}")
    every = 1
    changes: Dict[str, Any] = {}
    for setting in rest.split(",") if colon else []:
        for key, value in _setting(text, setting):
            if key == "every":
                every = value
            else:
                changes[key] = value
    try:
        return HeadPlan(name, every, replace(rule, **changes))
    except EdgeRuntimeError as error:
        raise EdgeRuntimeError(f"--head {text}: {error}") from error


def _setting(text: str, setting: str) -> List[Tuple[str, Any]]:
    key, _, value = setting.partition("=")
    try:
        if key == "every" and int(value) >= 1:
            return [(key, int(value))]
        if key == "consensus":
            return list(zip(("agree", "of"), parse_consensus(value)))
        if key in _KEYS and key != "every":
            return [(key, float(value))]
    except ValueError as error:
        raise EdgeRuntimeError(f"--head {text}: {setting!r} is not understood; {_FORM}") from error
    raise EdgeRuntimeError(f"--head {text}: {setting!r} is not understood; {_FORM}")


def parse_consensus(text: str) -> Tuple[int, int]:
    """``3/5`` as (3, 5). Raises ``ValueError``."""
    agree, _, of = text.partition("/")
    return int(agree), int(of)
