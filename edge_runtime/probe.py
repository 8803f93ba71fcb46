"""The time of each kind of operator on this device: ``edge-runtime benchmark probe.tflite --operators``.

The builder makes the probe; its member ``probe.json`` says what its signatures hold. A case is two of them, chains of one
operator that differ in length alone: what the longer takes beyond the shorter is the operators' own, the way to the
interpreter and back left out.
"""

from __future__ import annotations

import json
import platform
import zipfile
import zlib
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from edge_runtime.benchmark import measure
from edge_runtime.counting import count_of
from edge_runtime.errors import BundleError, EdgeRuntimeError
from edge_runtime.files import open_file, read_file
from edge_runtime.flatbuffer import check_model
from edge_runtime.signatures import Signatures

MEMBER = "probe.json"
FORMAT_VERSION = 1
PRECISIONS = ("float", "int8", "dynamic")
MAX_BYTES = 16 << 20
_FOREIGN = "no probe; builder probe --output FILE makes one"
_MODEL_FILE = "/proc/device-tree/model"


class Case(NamedTuple):
    """``work``: of one operator, multiply-adds of layers, else elements. ``signatures``: of the short and the long chain;
    ``operators``: how many each has.
    """

    kind: str
    precision: str
    work: float
    signatures: Tuple[str, str]
    operators: Tuple[int, int]


def operator_times(
    path: str, *, runs: int = 50, interpreter: Optional[str] = None, num_threads: Optional[int] = None
) -> Mapping[str, Any]:
    """Microseconds of each operator of the probe at ``path``: the least of ``runs`` runs, all cases in turns.

    ``num_threads``: None takes 1, as plans do. Raises ``BundleError`` for another file, ``EdgeRuntimeError`` where other
    work on this device hides what an operator takes.
    """
    model, cases = read_probe(path)
    threads = num_threads or 1
    signatures = Signatures(path, (2, 10), lambda names: model, interpreter=interpreter, num_threads=threads)
    own = [s for case in cases for s in case.signatures]
    name, opened = signatures.open(*own)
    rng, parts = np.random.default_rng(0), {}  # type: Tuple[Any, Dict[str, Callable[[], object]]]
    for signature in own:
        parts[signature] = _call(signatures, opened, signature, rng)
    least = {signature: min(times) for signature, times in measure(parts, runs).items()}
    rows = [{"kind": c.kind, "precision": c.precision, "work": c.work, "us": _each_us(c, least)} for c in cases]
    return {
        "format_version": FORMAT_VERSION,
        "device": device_name(),
        "interpreter": name,
        "threads": threads,
        "runs": runs,
        "operators": rows,
    }


def _call(signatures: Signatures, opened: Any, signature: str, rng: Any) -> Callable[[], object]:
    inputs = {}
    for name, given in opened.get_signature_runner(signature).get_input_details().items():
        values = rng.uniform(0.5, 1.5, given["shape"])
        real = given["dtype"] == np.float32
        inputs[name] = values.astype(np.float32) if real else (values * 60).astype(given["dtype"])
    return lambda: signatures.run(signature, inputs)


def _each_us(case: Case, least: Mapping[str, float]) -> float:
    short, long = (least[signature] for signature in case.signatures)
    us = (long - short) * 1000 / (case.operators[1] - case.operators[0])
    if us <= 0:
        raise EdgeRuntimeError(
            f"{case.kind} in {case.precision}: more of it took less time; end other programs, or give more --runs"
        )
    return round(us, 4)


def read_probe(path: str) -> Tuple[bytes, List[Case]]:
    """The flatbuffer, checked, and its cases. Raises ``BundleError`` in one line, ``OSError`` where it cannot be read."""
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            if MEMBER not in archive.namelist() or archive.getinfo(MEMBER).file_size > MAX_BYTES:
                raise BundleError(_FOREIGN)
            document = json.loads(archive.read(MEMBER).decode("utf-8"))
            end = min(info.header_offset for info in archive.infolist())
        model = read_file(path, MAX_BYTES)[:end]
        if zlib.crc32(model) != document["model_crc32"]:
            raise BundleError("the probe is damaged; copy it again")
        check_model(model)
        return model, [_case(entry) for entry in document["cases"]]
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        TypeError,
        KeyError,
        RecursionError,
        NotImplementedError,
    ) as error:
        raise BundleError(f"{path}: {_FOREIGN} ({type(error).__name__})") from error


def _case(entry: Mapping[str, Any]) -> Case:
    signatures, operators = (tuple(entry[key]) for key in ("signatures", "operators"))
    if len(signatures) != 2 or len(operators) != 2 or not operators[0] < operators[1]:
        raise ValueError("a case is two signatures")
    return Case(entry["kind"], entry["precision"], float(entry["work"]), signatures, operators)


def device_name() -> str:
    """The name that the board reports, or else its processor."""
    try:
        return read_file(_MODEL_FILE, 1000).decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return f"{platform.machine()}, {platform.system()}"


def times_lines(path: str, document: Mapping[str, Any]) -> List[str]:
    """The document of ``operator_times`` for people: float and int8 side by side."""
    runs = count_of(document["runs"], "runs")
    lines = [f"{path}: {document['device']}, {document['interpreter']}, {runs}; microseconds"]
    lines.append(f"  {'operator':28s}{'work':>12s}" + "".join(f"{precision:>11s}" for precision in PRECISIONS))
    found: Dict[Tuple[str, float], Dict[str, float]] = {}
    for row in document["operators"]:
        found.setdefault((row["kind"], row["work"]), {})[row["precision"]] = row["us"]
    for (kind, work), times in found.items():
        cells = (f"{times[p]:11.2f}" if p in times else f"{'-':>11s}" for p in PRECISIONS)
        lines.append(f"  {kind:28s}{work:12,.0f}{''.join(cells)}")
    return lines
