"""What a build made, in a sentence; why it is not a smaller precision; and what to run next."""

from __future__ import annotations

from collections.abc import Sequence

from builder.joint import JointHead
from builder.precisions import BuiltPrecision, SkippedPrecision, last_built
from builder.reporting.verdicts import shortfall
from builder.settings.config import BuildConfig
from edge_runtime.counting import count_of
from edge_runtime.escape import printable
from edge_runtime.metadata import Metadata

Tried = Sequence[BuiltPrecision | SkippedPrecision]
_COMPUTES = {
    "int8": "computes in integers",
    "mixed": "computes in integers, some operators in float",
    "int16": "computes in 16-bit integers",
    "dynamic": "has int8 weights and rounds activations to int8 at run time",
    "weights": "has int8 weights and computes in float",
    "float16": "has float16 weights and computes in float",
    "float": "computes in float",
}


def made(config: BuildConfig, tried: Tried) -> str:
    """``house.tflite: 2 heads on one backbone, 3,966,422 bytes; computes in integers (int8)``, and why not int8.

    Of several other precisions the first has its reason here; the list of all has the rest.
    """
    chosen = last_built(tried)
    heads = count_of(len(chosen.metadata.heads), "heads")
    file = (
        f"{config.output}: {heads} on one backbone, {len(chosen.model):,} bytes; "
        f"{_COMPUTES[chosen.precision]} ({chosen.title})"
    )
    others = [other for other in tried if other is not chosen]
    parts = [file, *(f"{_title(other)} was {verdict_on(config, chosen, other)}" for other in others[:1])]
    if rest := dict.fromkeys(o.precision for o in others if o.precision not in (chosen.precision, others[0].precision)):
        parts.append(f"also not taken: {', '.join(rest)}")
    return "; ".join(parts)


def _title(tried: BuiltPrecision | SkippedPrecision) -> str:
    return tried.precision if isinstance(tried, SkippedPrecision) else tried.title


def verdict_on(config: BuildConfig, chosen: BuiltPrecision, tried: BuiltPrecision | SkippedPrecision) -> str:
    """``taken``, or why a precision was not."""
    if tried is chosen:
        return "taken"
    if isinstance(tried, SkippedPrecision):
        return f"left out: {tried.reason}"
    bar = config.min_agreement
    if tried.quality.reaches(bar):
        return "slower"
    failed = [q for q in tried.quality.heads if not q.passes(bar)] or list(tried.quality.heads)
    worst = min(failed, key=lambda q: (q.upper >= q.bar(bar), q.agreement, -q.decided_drift))
    return f"too inexact: {shortfall(worst, bar)} on {worst.head_name}"


def made_lines(config: BuildConfig, tried: Tried) -> list[str]:
    """The sentence, the places of all outputs, and what to run next."""
    lines = [made(config, tried), f"report: {config.report_folder / 'index.html'}"]
    if config.keras_output is not None:
        lines.append(f"merged Keras model: {config.keras_output}")
    if config.saved_model is not None:
        lines.append(f"SavedModel for servers: {config.saved_model}")
    return [printable(line) for line in (*lines, f"next: {_next(last_built(tried).metadata, str(config.output))}")]


def _next(metadata: Metadata, output: str) -> str:
    name = f"'{output}'" if " " in output else output
    if metadata.input.noun == "texts":
        return f"edge-runtime classify-text {name} TEXT"
    return f"edge-runtime classify {name} PICTURE, or edge-runtime camera {name}"


def joint_line(joint: JointHead | None, reason: str = "") -> str:
    """The joint list in one line; ``reason``: why there is none."""
    if joint is None:
        return f"none: {reason}"
    count = sum(joint.pictures.values())
    labels = f"{len(joint.layout.labels)} labels, learned from {count_of(count, 'pictures')}"
    line = f"{labels}; below {joint.threshold} a picture belongs to no head"
    if joint.unknown is None:
        return line
    return f"{line}; AUROC {joint.unknown.auroc:.3f} against {joint.unknown.against}"
