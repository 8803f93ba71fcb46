"""The result of verification in words: what a head reached, why it fails, and what to do."""

from __future__ import annotations

from builder.judging.verify import MOST_DRIFT, HeadQuality
from builder.support.naming import head_bar
from edge_runtime.counting import count_of

MARK = "*"  # after the agreement of a head that passed only because it has few pictures


def reason_of_failure(q: HeadQuality, min_agreement: float, noun: str, *, precision: str, chosen_by_name: bool) -> str:
    """One line with the figures and the remedy. ``precision``: of the file; ``chosen_by_name``: no other was tried."""
    if q.kind is not None:
        return f"head {q.head_name}: {q.kind}; {_figures(q, noun)}"
    return f"head {q.head_name}: {_figures(q, noun)}, {_below(q, min_agreement)}; {_remedy(q, precision, chosen_by_name)}"


def _figures(q: HeadQuality, noun: str) -> str:
    if q.own_pictures:
        return f"agrees with its original on {q.agreement:.1%} of {count_of(q.pictures, f'held-out {noun}')}"
    if not q.decided:
        return (
            f"it has no {noun.split()[-1]} of its own, and its original is confident on none of the {q.pictures} "
            f"held-out {noun} (agreement {q.agreement:.1%})"
        )
    return (
        f"agrees with its original on {q.decided_agreement:.1%} of the {q.decided} held-out {noun} on which the original "
        f"is confident ({q.agreement:.1%} of all {q.pictures}; none are {noun.split()[-1]} of its own)"
    )


def _below(q: HeadQuality, min_agreement: float) -> str:
    bar = q.bar(min_agreement)
    if q.upper >= bar:
        return f"and its probabilities drift there by {q.decided_drift:.3f} on average, more than {MOST_DRIFT:g}"
    return f"and even {q.upper:.1%}, the upper end of the 95 % interval, is below min_agreement {bar:g}"


def shortfall(q: HeadQuality, min_agreement: float) -> str:
    """Why a head does not pass, in a few words."""
    bar = q.bar(min_agreement)
    if q.kind is None and not q.own_pictures and q.upper >= bar:
        return f"drift {q.decided_drift:.3f}, at most {MOST_DRIFT:g} passes,"
    return f"{q.agreement:.2f} of {bar:.2f}"


def _remedy(q: HeadQuality, precision: str, chosen_by_name: bool) -> str:
    own = "" if q.own_pictures else f"give it pictures of its own, in a folder named {q.head_name}; "
    if precision == "float":
        return f"{own}or lower {head_bar(q.head_name)}"
    other = "leave precision out to try more accurate ones" if chosen_by_name else "calibrate with more pictures"
    return f"{own}{other}, or lower {head_bar(q.head_name)}"


def marked_agreement(q: HeadQuality, min_agreement: float) -> str:
    """The agreement for a table, with ``MARK`` where the head passes only because it has few pictures."""
    return f"{q.agreement:.3f}{MARK if q.passes_for_few(min_agreement) else ''}"


def caption(heads: list[HeadQuality], min_agreement: float, noun: str) -> list[str]:
    """Explanations of the marks in the table of heads, a sentence each."""
    found = []
    if any(q.passes_for_few(min_agreement) for q in heads):
        found.append(f"{MARK} below min_agreement; passes because so few {noun} cannot prove that it is worse")
    others = [q for q in heads if not q.own_pictures]
    if others:
        some = f"{len(others)} of {len(heads)} heads have no {noun} of their own"
        one = f"1 of {len(heads)} heads has no {noun} of its own"
        which = f"no head has {noun} of its own" if len(others) == len(heads) else one if len(others) == 1 else some
        found.append(f"{which}: only {noun} on which the original is confident count")
    return found
