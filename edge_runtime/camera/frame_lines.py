"""What ``edge-runtime camera`` prints of a frame and of an event, and what the live page shows."""

from __future__ import annotations

import json
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence

from edge_runtime.camera.camera import Event, Heads, LatestScores, Seen
from edge_runtime.results import Category, top_categories

SHOWN_LABELS, SHOWN_IN_ALL = 5, 40  # labels of a head in a state at least, and of all heads where they are few
_ENCODE = json.JSONEncoder(ensure_ascii=False).encode


def frame_json(
    seen: Seen,
    *,
    fps: float,
    dropped: int,
    temperature: Optional[float],
    model: Optional[Mapping[str, Any]] = None,
    replaces: Optional[Mapping[str, Any]] = None,
) -> str:
    """The frame as ``classify --json`` prints a picture, with the current answers and the state of the device."""
    answers = {n: {"category_name": a.category_name, "score": round(a.score, 4)} for n, a in seen.answers.items()}
    document = {
        "frame": seen.frame.number,
        "time": round(seen.time, 3),
        "source": seen.frame.shot.name,
        **seen.result.to_dict(),
        "answers": answers,
        "events": [event.to_dict() for event in seen.events],
        "fps": round(fps, 2),
        "dropped": dropped,
        "temperature": temperature,
        **_model(model),
        **({} if replaces is None else {"replaces": dict(replaces)}),
    }
    return _ENCODE(document)


def frame_text(seen: Seen, *, fps: float, dropped: int) -> str:
    answers = ", ".join(f"{name} {a.category_name or '-'} {a.score:.2f}" for name, a in seen.answers.items())
    return f"{seen.frame.number}  {answers}  ({fps:.1f} frames/s, {dropped} dropped)"


def event_json(event: Event, model: Optional[Mapping[str, Any]] = None) -> str:
    return _ENCODE({**event.to_dict(), **_model(model)})


def takeover_json(now: float, new: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    """The line of a new model that takes over."""
    return _ENCODE({"time": round(now, 3), "model": dict(new), "replaces": dict(old)})


def _model(model: Optional[Mapping[str, Any]]) -> Dict[str, Any]:
    """Whose answer it is; the digest only where nobody gave a version."""
    if model is None:
        return {}
    return {"model": {key: value for key, value in model.items() if key != "digest" or model["version"] is None}}


def event_text(event: Event) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time))
    return f"{when}  {event.head_name}: {event.previous or '-'} -> {event.category_name or '-'} ({event.score:.2f})"


def heads_document(heads: Heads) -> List[Dict[str, Any]]:
    """For each head its answer and the bars of its best labels, smoothed; the fewer heads, the more labels."""
    shown = max(SHOWN_LABELS, SHOWN_IN_ALL // max(len(heads.plans), 1))
    return [
        {
            "head_name": name,
            "answer": answer.category_name,
            "score": round(answer.score, 4),
            "labels": heads.label_count(name),
            "categories": _categories(best),
        }
        for name, answer, best in heads.smoothed(top_k=shown)
    ]


def labels_document(latest: Sequence[LatestScores]) -> Dict[str, Any]:
    """By head all of its labels, smoothed, best first."""
    return {name: _categories(top_categories(scores, labels)) for name, labels, scores in latest}


def _categories(best: Sequence[Category]) -> List[Dict[str, Any]]:
    return [{"category_name": c.category_name, "score": round(c.score, 4)} for c in best]
