"""The latency of operators on a board, from measurements: read from a file, or built in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from builder.boards.work import CONVERSION, kind_of, precision_of, work_of
from builder.support.errors import ConfigError
from builder.tflite.flatbuffer import Part
from builder.tflite.parts import constant_operators
from builder.tflite.splice import result_name
from edge_runtime.files import read_file
from edge_runtime.probe import FORMAT_VERSION, PRECISIONS

MAX_PROFILE_FILE = 4 << 20
NEEDED = ("CONV_2D 1x1", "DEPTHWISE_CONV_2D", "ADD")  # in float and int8: without them mixed precision cannot be planned
_HOW = "edge-runtime benchmark probe.tflite --operators --json > FILE writes one on the board"
_LIKE = {
    "CONV_2D": "CONV_2D 1x1",
    "BATCH_MATMUL": "FULLY_CONNECTED",
    "FULLY_CONNECTED": "CONV_2D 1x1",
}  # any other as ADD
_BUILT_IN = Path(__file__).parent / "profiles"


@dataclass(frozen=True)
class Measured:
    """One operator on the board: its ``work`` as ``work.work_of`` counts it, and its microseconds."""

    work: float
    us: float


@dataclass(frozen=True)
class Profile:
    """``source``: where the figures come from. ``error``: its difference from published figures that were not used."""

    name: str
    measured: Mapping[tuple[str, str], tuple[Measured, ...]]
    source: str = "measured by a probe"
    error: str = ""

    def operators(self, part: Part) -> dict[str, float]:
        """Microseconds of each operator of ``part``, by its ``result_name``; those that unpack weights are left out.

        Infinite in a precision that no profile has.
        """
        unpacking = constant_operators(part)
        return {result_name(part, op): self._operator_us(part, op) for op in part.operators if op not in unpacking}

    def backbones(self, *parts: Part) -> list[float]:
        """Milliseconds of each of ``parts``: the sum of its operators."""
        return [sum(self.operators(part).values()) / 1000 for part in parts]

    def conversion_us(self, elements: float) -> float:
        return self.us(CONVERSION, "float", elements)

    def us(self, kind: str, precision: str, work: float) -> float:
        """Microseconds of one operator. A kind that was not measured counts as a similar one; a precision that was not
        measured is infinite.
        """
        while (kind, "float") not in self.measured:
            kind = _LIKE.get(kind, "ADD")
        fixed, each = self._lines.get((kind, precision), (math.inf, 0.0))
        return fixed + each * work

    def _operator_us(self, part: Part, op: Any) -> float:
        kind, precision = kind_of(part, op), precision_of(part, op)
        return self.us(kind, "float" if kind == CONVERSION else precision, work_of(part, op))

    @cached_property
    def _lines(self) -> dict[tuple[str, str], tuple[float, float]]:
        """Microseconds of an operator, and of each unit of its work: least relative squares, neither below 0."""
        return {key: _line(rows) for key, rows in self.measured.items()}

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "source": self.source, **({"error": self.error} if self.error else {})}


def _line(rows: tuple[Measured, ...]) -> tuple[float, float]:
    if len({row.work for row in rows}) == 1:  # one size does not show the fixed part
        return 0.0, float(np.mean([row.us for row in rows])) / rows[0].work
    matrix = np.array([[1 / row.us, row.work / row.us] for row in rows])
    scale = matrix.max(0)
    found, _ = nnls(matrix / scale, np.ones(len(rows)))
    return float(found[0] / scale[0]), float(found[1] / scale[1])


def read_profile(path: Path) -> Profile:
    """Read the output of ``edge-runtime benchmark --operators --json``. Raises ``ConfigError``."""
    try:
        document = json.loads(read_file(path, MAX_PROFILE_FILE).decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"device {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"device {path}: expected the times of a board, found no JSON document; {_HOW}") from error
    try:
        return _profile(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"device {path}: expected the times of a board, found {_found(error)}; {_HOW}") from error


def built_in(name: str) -> Profile:
    """One of ``names_built_in``."""
    return _profile(json.loads((_BUILT_IN / f"{name}.json").read_text("utf-8")))


def names_built_in() -> list[str]:
    return sorted(path.stem for path in _BUILT_IN.glob("*.json"))


def _found(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]


def _profile(document: Any) -> Profile:
    """Raises ``KeyError``, ``TypeError``, ``AttributeError`` or ``ValueError``."""
    if not isinstance(document, dict):
        raise ValueError(f"a JSON {type(document).__name__}")
    if document["format_version"] != FORMAT_VERSION:
        raise ValueError(f"format_version {document['format_version']!r:.20} where {FORMAT_VERSION} is read")
    measured: dict[tuple[str, str], tuple[Measured, ...]] = {}
    for row in document["operators"]:
        key = str(row["kind"]), str(row["precision"])
        measured[key] = (*measured.get(key, ()), Measured(_positive(row, "work"), _positive(row, "us")))
    missing = [f"{kind} in {p}" for kind in NEEDED for p in PRECISIONS[:2] if (kind, p) not in measured]
    if missing or (CONVERSION, "float") not in measured:
        raise ValueError(f"no times of {', '.join(missing) or CONVERSION}")
    texts = {key: str(document[key])[:500] for key in ("source", "error") if key in document}
    return Profile(str(document["device"])[:200], measured, **texts)


def _positive(row: Mapping[str, Any], key: str) -> float:
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12:
        raise ValueError(f"{key} {value!r:.40} of {row['kind']!r:.40}")
    return float(value)
