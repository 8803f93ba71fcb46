"""The child process: it loads original files by their own framework and runs them, one after the other.

``python -m builder.reading.originals.child FRAMEWORK FOLDER``: the folder holds its temporary files. A line of JSON on
standard input is one job, a line on standard output its result; arrays go through files. It imports none of the code that
reads models, so that it shares no fault with it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from builder.reading.originals.built import BuiltModels
from builder.reading.originals.graph_model import MARK, GraphModel, as_tflite
from builder.reading.originals.shared import SharedRuns, digest
from builder.support.lean_keras import spare_keras

_BATCH, _SMALL_BATCH = 256, 8  # samples at once, of texts and of pictures
_GB = 1 << 30
_SAID = 4000  # letters of an error


def main(framework: str, folder: str) -> None:
    """Answer jobs until there are no more, then remove ``folder``. ``framework``: ``keras`` or ``tf_keras``."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of libraries must not be taken for an answer
    spare_keras()
    keras = importlib.import_module(framework)
    tensorflow = importlib.import_module("tensorflow")
    runner = _Runner(keras, tensorflow, framework)
    gc.freeze()  # the collection after each job does not search the framework's objects
    for line in sys.stdin:
        answers.write(json.dumps(runner.answer(json.loads(line))) + "\n")
        answers.flush()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # the parent may be gone


class _Runner:
    def __init__(self, keras: Any, tensorflow: Any, framework: str) -> None:
        self._keras, self._tf = keras, tensorflow
        self._shared = SharedRuns(keras)
        self._built = BuiltModels(keras if framework == "tf_keras" else None)

    def answer(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Run a job. Returns {} if the answers are in the job's ``output``, otherwise the step that failed and the
        reason.
        """
        step = "load"
        try:
            with _memory(job["memory"]):
                model = self._load(job)
                step = "convert" if job["kind"] == "convert" else "run"
                np.save(job["output"], self._convert(model, job["shape"]) if step == "convert" else self._run(model, job))
            return {}
        except Exception as error:  # noqa: BLE001  any error that an untrusted file causes is reported to the parent
            return {"step": step, "reason": _bounded(f"{type(error).__name__}: {error}")}
        finally:
            model = None
            self._keras.backend.clear_session()
            gc.collect()

    def _load(self, job: Mapping[str, Any]) -> Any:
        path, safe = Path(job["model"]), not job["allow_code"]
        for package in job["packages"]:
            importlib.import_module(package)
        if not path.is_dir():
            load = partial(self._keras.models.load_model, str(path), compile=False, safe_mode=safe)
            if not safe or job["packages"]:
                return load()
            return self._built.load(path, lambda known: load(custom_objects=known))
        if (path / MARK).exists():
            return GraphModel(self._tf, path)
        model = self._keras.models.model_from_json((path / "definition.json").read_text(encoding="utf-8"))
        if not model.built:
            model.build(job["shape"])
        if (path / "weights.npz").exists():
            with np.load(path / "weights.npz") as stored:
                _give_weights(model, stored, "")
            return model
        status = _by_place(self._tf, model).read(str(path / "variables"))
        status.assert_existing_objects_matched().expect_partial()
        for layer in model._flatten_layers():
            layer.finalize_state()  # as loading does: Normalization takes over what it was adapted to
        return model

    def _convert(self, model: Any, shape: list[int | None]) -> np.ndarray:
        """The bytes of a float ``.tflite``; see ``KerasOriginal.convert``."""
        if isinstance(model, GraphModel):
            return model.convert(shape)
        if len(model.inputs) != 1 or len(model.inputs[0].shape) != len(shape):
            raise ValueError(f"expected one input, pictures; found {[tuple(one.shape) for one in model.inputs]}")
        from tensorflow.python.framework import convert_to_constants  # TensorFlow is imported by the name that is given

        spec = self._tf.TensorSpec([o or s for o, s in zip(model.inputs[0].shape, shape, strict=True)], self._tf.float32)
        function = self._tf.function(lambda pictures: model(pictures, training=False)).get_concrete_function(spec)
        return as_tflite(self._tf, convert_to_constants.convert_variables_to_constants_v2(function))

    def _run(self, model: Any, job: Mapping[str, Any]) -> np.ndarray:
        found = []
        preprocessor = model.preprocessor if job["preprocessor"] else None
        whole = preprocessor is not None or "digest" not in job
        run = (lambda _, batch: model(batch(), training=False)) if whole else self._shared.of(model)
        for key, batch in self._batches(model, job, preprocessor):
            outputs = run(key, batch)
            flat = self._tf.nest.flatten(outputs)  # outputs may be a dict or a list of one
            place = job["of_outputs"]
            if place is None and len(flat) != 1:
                raise ValueError(f"expected one output, found {len(flat)}")
            found.append(np.asarray(flat[place or 0]).astype(np.float32))
        return np.concatenate(found)

    def _batches(self, model: Any, job: Mapping[str, Any], preprocessor: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
        """The digest of each batch, and what makes it as the model takes it. ``preprocessor``: the model's own."""
        if job["kind"] == "strings":
            with np.load(job["inputs"]) as stored:
                ends, whole = stored["ends"].tolist(), stored["bytes"].tobytes()
            texts = [whole[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
            size = 1 if _pads_to_the_longest(model) else _BATCH
            for i in range(0, len(texts), size):
                some = self._tf.constant(texts[i : i + size], self._tf.string)
                yield "", partial(self._tf.reshape, some, (-1, *(1,) * (job["rank"] - 1)))
            return
        values = np.load(job["inputs"], mmap_mode="r")
        size = _SMALL_BATCH if values.ndim > 2 else _BATCH
        for i in range(0, len(values), size):
            yield (
                digest(job.get("digest"), job.get("transform"), i),
                partial(_made, values[i : i + size], job, preprocessor),
            )


def _pads_to_the_longest(model: Any) -> bool:
    """Whether the answer to a text may depend on the others in its batch."""
    layers = model._flatten_layers() if hasattr(model, "_flatten_layers") else ()
    texts = [layer for layer in layers if type(layer).__name__ == "TextVectorization"]
    return any(layer.get_config()["output_sequence_length"] is None for layer in texts)


def _made(values: np.ndarray, job: Mapping[str, Any], preprocessor: Any) -> np.ndarray:
    batch = np.array(values)
    if preprocessor is not None:
        return np.asarray(preprocessor(batch))
    if job["kind"] != "pixels":
        return batch
    scale, offset, order = (job["transform"][key] for key in ("scale", "offset", "order"))
    return batch[..., order].astype(np.float32) * np.asarray(scale, np.float32) + np.asarray(offset, np.float32)


def _give_weights(model: Any, stored: Mapping[str, np.ndarray], prefix: str) -> None:
    """To every layer as many arrays as it takes, by its names from the outermost model inwards."""
    for layer in model.layers:
        name = f"{prefix}{layer.name.replace('/', '_')}"
        if hasattr(layer, "layers"):
            _give_weights(layer, stored, f"{name}/")
        else:
            layer.set_weights([stored[f"{name}:{i}"] for i in range(len(layer.weights))])


def _by_place(tensorflow: Any, model: Any) -> Any:
    """A model of tf_keras for its checkpoint to fill, each layer by its place among all layers.

    A checkpoint also numbers the layers with weights, among which a text layer counted when it was adapted; made from its
    settings it has none.
    """
    places = {name: layer for name, layer in model._layer_checkpoint_dependencies.items() if name.startswith("layer-")}
    parts = {name: _by_place(tensorflow, one) if hasattr(one, "layers") else one for name, one in places.items()}
    return tensorflow.train.Checkpoint(**parts)


def _bounded(said: str) -> str:
    """The beginning and the end, where the reason is: between them may be all values of a weight."""
    return said if len(said) <= _SAID else f"{said[: _SAID // 2]} ... {said[-_SAID // 2 :]}"


@contextlib.contextmanager
def _memory(gigabytes: float) -> Iterator[None]:
    """Limit further memory to ``gigabytes``, where the system supports it."""
    try:
        import resource

        now = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = now + int(gigabytes * _GB)
    resource.setrlimit(resource.RLIMIT_AS, (most if before[1] < 0 else min(most, before[1]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


if __name__ == "__main__":
    main(*sys.argv[1:])
