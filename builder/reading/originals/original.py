"""An original: the user's file and the framework that made it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary

import numpy as np

from builder.reading.originals.processes import FrameworkProcess, Job, OriginalError, process_for_a_job, process_of
from builder.settings.input_scaling import PixelTransform
from builder.support.errors import ModelFileError
from builder.support.frameworks import innermost
from builder.support.lazy import Lazy
from edge_runtime.temporary import TemporaryFolder

keras: Any = Lazy("keras")
tf: Any = Lazy("tensorflow")

_WEIGHTS = 4.0  # GB for a model's weights, besides what it computes
_SECONDS, _SECONDS_A_SAMPLE = 300.0, 2.0  # time limit to load and run an original


@dataclass(frozen=True)
class Shown:
    """Unscaled samples for an original.

    ``values``: pixels uint8 (samples, height, width, 3), tokens int32 (samples, length), or texts, bytes (samples,).
    ``transform``: the input scaling outside the model. ``rank``: of the string input, 1 for (n,) or 2 for (n, 1).
    """

    values: np.ndarray | Sequence[bytes]
    transform: PixelTransform | None = None
    rank: int = 1


class Answers(Protocol):
    """The answers of an original, computed when called. ``note``: what the user should know, set by the call."""

    note: str | None

    def __call__(self) -> np.ndarray:
        """Raw outputs, float32 (samples, ...). Raises ``ModelFileError``."""

    def abandon(self) -> None:
        """Give up the answers: they will not be called for."""


class Original(Protocol):
    """The file itself, run independently of the graph that a reader made from it."""

    def start(self) -> None:
        """Begin slow preparations in the background."""

    def of_output(self, place: int) -> Original:
        """The original for the output at index ``place``, of a model with several."""

    def ask(self, shown: Shown, *, max_memory: float) -> Answers:
        """Run the file on samples in a separate process. ``max_memory``: GB for what it computes."""


@dataclass(frozen=True)
class KerasOriginal:
    """A file of Keras 3 or Keras 2, or a TensorFlow graph, which runs in the process of Keras 3.

    ``framework``: ``keras`` or ``tf_keras``. ``copy``: writes a cleaned copy into a folder and returns the path to
    load. ``shape``: of the input, batch axis included. ``otherwise``: builds a Keras 3 model from what was read, for a
    file that its own framework cannot load, or where that is not installed; None where that is impossible. ``title``:
    what runs it, in words, where that is not the framework. ``output``: the index of the output, of a model with
    several. ``packages``: imported before it is loaded. ``preprocessor``: the model has one of its own, which scales the
    pixels.
    """

    path: Path
    framework: str
    copy: Callable[[Path], Path]
    allow_code: bool = False
    shape: Sequence[int | None] = ()
    otherwise: Callable[[], Any] | None = None
    title: str = ""
    output: int | None = None
    packages: tuple[str, ...] = ()
    preprocessor: bool = False

    def start(self) -> None:
        start_framework(self.framework)

    def of_output(self, place: int) -> KerasOriginal:
        return replace(self, output=place)

    def ask(self, shown: Shown, *, max_memory: float) -> Answers:
        if not _is_installed(self.framework):
            return _Asked(self, shown, process_of(self.framework), None)
        seconds = _SECONDS + _SECONDS_A_SAMPLE * len(shown.values)
        samples = _samples(shown.values)
        job = Job(lambda place: self._request(place, max_memory) | _request_of(shown, samples), seconds)
        process = process_for_a_job(self.framework)
        return _Asked(self, shown, process, process.submit(job))

    def convert(self, shape: Sequence[int | None], *, max_memory: float) -> bytes:
        """Convert it to a float ``.tflite`` with input ``shape``; sizes that are None are the model's own, and stay open
        where it takes any. Raises ``ModelFileError``.
        """
        job = Job(lambda place: self._request(place, max_memory) | {"kind": "convert", "shape": shape}, _SECONDS)
        process_of(self.framework).submit(job)
        try:
            return process_of(self.framework).result(job).tobytes()
        except OriginalError as error:
            raise ModelFileError(f"{self.path}: {self.told(error, job)}") from error

    def _request(self, place: Path, max_memory: float) -> dict[str, Any]:
        return {
            "model": str(self.copy(place)),
            "output": str(place / "answers.npy"),
            "allow_code": self.allow_code,
            "shape": self.shape,
            "memory": max_memory + _WEIGHTS,
            "of_outputs": self.output,
            "packages": self.packages,
            "preprocessor": self.preprocessor,
        }

    def told(self, error: OriginalError, job: Job | None) -> str:
        """Why the framework failed, in one line. ``job``: None where the framework is not installed."""
        said = str(error) if job is None else str(error).replace(job.request["model"], str(self.path))
        return f"{self.title or _TITLES[self.framework]} {_STEPS[error.step]}: {innermost(said)}"


@dataclass
class _Asked:
    original: KerasOriginal
    shown: Shown
    process: FrameworkProcess
    job: Job | None  # None where the framework is not installed
    note: str | None = None

    def __call__(self) -> np.ndarray:
        try:
            if self.job is None:
                raise OriginalError("load", f"it is not installed (pip install {self.original.framework})")
            return self.process.result(self.job)
        except OriginalError as error:
            told = self.original.told(error, self.job)
            if error.step != "load" or self.original.otherwise is None:
                raise ModelFileError(f"{self.original.path}: {told}") from error
            self.note = f"{told}; instead, the model as it was read was run by Keras 3"
            return run_float(self.original.otherwise(), as_input(self.shown), output=self.original.output)

    def abandon(self) -> None:
        if self.job is not None:
            self.process.abandon([self.job])


_STEPS = {
    "load": "cannot load it",
    "run": "cannot run it",
    "convert": "cannot convert it",
    "process": "could not run it",
}
_TITLES = {"keras": "Keras 3", "tf_keras": "Keras 2 (tf_keras)"}


def run_float(model: Any, *inputs: Any, batch_size: int = 32, output: int | None = None) -> np.ndarray:
    """Run a Keras model at inference, in batches; float32. Eager: ``predict`` would compile for each of 200 heads.

    ``output``: the index of the output, of a model with several.
    """
    batches = ([x[i : i + batch_size] for x in inputs] for i in range(0, len(inputs[0]), batch_size))
    answers = (keras.tree.flatten(model(b if len(b) > 1 else b[0], training=False)) for b in batches)
    chosen = slice(None) if output is None else slice(output, output + 1)  # outputs may be a dict or a list of one
    return np.concatenate([np.asarray(one, np.float32) for (one,) in (flat[chosen] for flat in answers)])


def as_input(shown: Shown) -> Any:
    """The samples as a model in this process takes them."""
    if not isinstance(shown.values, np.ndarray):
        return tf.reshape(tf.constant(list(shown.values), tf.string), (-1, *(1,) * (shown.rank - 1)))
    return shown.values if shown.transform is None else shown.transform.apply(shown.values)


def start_framework(framework: str) -> None:
    """Begin to import it in its process, in the background."""
    if _is_installed(framework):
        process_of(framework).start()


def _is_installed(framework: str) -> bool:
    return find_spec(framework) is not None


class _Samples:
    """Samples as a file for a child process, written when it is needed and removed with this object."""

    def __init__(self, values: np.ndarray | Sequence[bytes]) -> None:
        self.values = values
        self._lock, self._folder, self._told = threading.Lock(), TemporaryFolder(), dict[str, Any]()

    def told(self) -> dict[str, Any]:
        """What a request says of them."""
        with self._lock:
            self._told = self._told or self._write(Path(self._folder.name))
        return self._told

    def _write(self, folder: Path) -> dict[str, Any]:
        if not isinstance(self.values, np.ndarray):
            ends = np.cumsum([len(text) for text in self.values], dtype=np.int64)
            whole = np.frombuffer(b"".join(self.values), np.uint8)
            np.savez(folder / "texts.npz", ends=ends, bytes=whole)
            return {"kind": "strings", "inputs": str(folder / "texts.npz")}
        np.save(folder / "inputs.npy", self.values)
        told = {"kind": "tokens", "inputs": str(folder / "inputs.npy")}
        if self.values.ndim < 3:
            return told
        digest = hashlib.sha256(np.ascontiguousarray(self.values).data).hexdigest()  # of pictures
        return {**told, "digest": f"{digest} {self.values.shape}"}


_SAMPLES: WeakValueDictionary[int, _Samples] = WeakValueDictionary()  # of jobs that have not ended, by their values' id


def _samples(values: np.ndarray | Sequence[bytes]) -> _Samples:
    """The originals of a build that are shown one array share one file."""
    found = _SAMPLES.get(id(values))
    if found is None:
        found = _SAMPLES[id(values)] = _Samples(values)
    return found


def _request_of(shown: Shown, samples: _Samples) -> dict[str, Any]:
    """What a request says of the samples and of how the model takes them."""
    if shown.transform is not None:
        return samples.told() | {"kind": "pixels", "transform": vars(shown.transform)}
    return samples.told() | {"rank": shown.rank}


def write_definition(definition: Any, folder: Path) -> Path:
    """Write ``definition.json`` for a model whose weights are in a checkpoint. Returns the folder for both."""
    (folder / "saved").mkdir()
    (folder / "saved" / "definition.json").write_text(json.dumps(definition), encoding="utf-8")
    return folder / "saved"
