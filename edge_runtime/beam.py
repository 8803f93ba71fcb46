"""A polyhead file in an Apache Beam pipeline: ``RunInference(PolyheadModelHandler("main.tflite"))``. Extra ``beam``."""

from __future__ import annotations

import contextlib
import os
import shutil
import weakref
from typing import Any, Dict, Iterable, Optional, Sequence

import numpy as np
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, PredictionResult

from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.errors import EdgeRuntimeError, PictureError, TextError, said
from edge_runtime.heads import Head
from edge_runtime.inputs import Sample
from edge_runtime.temporary import TemporaryFolder
from edge_runtime.text import TextInput

NAMESPACE = "polyhead"


class PolyheadModelHandler(ModelHandler[Sample, PredictionResult, MultiHeadClassifier]):  # type: ignore[misc]
    """Runs the backbone once for each element, and then the requested heads.

    An element is a picture: the bytes of its file, a path that workers can read, or pixels uint8 (height, width, 3) in
    RGB; or, where the file takes texts, a ``str`` or UTF-8 bytes. A ``PredictionResult`` has the element, a dict as
    ``inference``, and the path of the file as ``model_id``. The dict is that of ``ClassificationResult.to_dict``. For an
    element that cannot be read it is ``{"error": reason}``, and the other elements are answered.

    Args:
        model_path: The ``.tflite`` file: a path, or an address that Beam's file systems know (``gs://``, ``s3://``).
        heads: Names or indices; None runs all.
        top_k: Labels of each head; None keeps all.
        joint: Whether to add the joint list.
        threshold: Threshold of the joint list, from 0 to 1; None uses the file's.
        num_threads: Threads of the interpreter; a worker runs one element at a time in each process.
        trusted_key: See ``MultiHeadClassifier``.
        options: Options of Beam: ``min_batch_size``, ``max_batch_size``, ``max_batch_duration_secs``, ``env_vars``, ...
    """

    def __init__(
        self,
        model_path: str,
        *,
        heads: Optional[Sequence[Head]] = None,
        top_k: Optional[int] = 1,
        joint: bool = False,
        threshold: Optional[float] = None,
        num_threads: int = 1,
        trusted_key: Optional[str] = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._path, self._threads, self._key = os.fspath(model_path), num_threads, trusted_key
        self._wanted: Dict[str, Any] = {"heads": heads, "top_k": top_k, "joint": joint, "threshold": threshold}
        self._unreadable = Metrics.counter(NAMESPACE, "unreadable")

    def load_model(self) -> MultiHeadClassifier:
        """Open the file. Raises ``BundleError`` and ``InterpreterError``, and an error of Beam if the file is missing."""
        if "://" not in self._path:
            return self._opened(self._path)
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(TemporaryFolder())
            path = os.path.join(folder, "model.tflite")
            with FileSystems.open(self._path) as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target)
            model = self._opened(path)
            weakref.finalize(model, stack.pop_all().close)  # its interpreter maps the file as long as it lives
        return model

    def _opened(self, path: str) -> MultiHeadClassifier:
        return MultiHeadClassifier(path, num_threads=self._threads, head_packs=(), trusted_key=self._key)

    def run_inference(
        self,
        batch: Sequence[Sample],
        model: MultiHeadClassifier,
        inference_args: Optional[Dict[str, Any]] = None,
    ) -> Iterable[PredictionResult]:
        """One result for each element, in the same order."""
        return [PredictionResult(sample, self._one(sample, model), self._path) for sample in batch]

    def _one(self, sample: Sample, model: MultiHeadClassifier) -> Dict[str, Any]:
        try:
            if isinstance(model.metadata.input, TextInput):
                return model.classify_text(sample, **self._wanted).to_dict()
            return model.classify(sample, **self._wanted).to_dict()
        except (PictureError, TextError, OSError) as error:
            self._unreadable.inc()
            return {"error": said(error)}

    def get_num_bytes(self, batch: Sequence[Sample]) -> int:
        """The size of the elements, in bytes."""
        return sum(_bytes_of(sample) for sample in batch)

    def get_metrics_namespace(self) -> str:
        """The namespace of Beam's metrics and of the counter ``unreadable``."""
        return NAMESPACE

    def update_model_path(self, model_path: Optional[str] = None) -> None:
        """Use another file while the pipeline runs, as ``model_metadata_pcoll`` says; Beam then calls ``load_model``."""
        self._path = model_path or self._path

    def validate_inference_args(self, inference_args: Optional[Dict[str, Any]]) -> None:
        """Raises ``EdgeRuntimeError`` for any argument: options are given to the handler instead."""
        if inference_args:
            raise EdgeRuntimeError(f"inference_args: expected none, found {', '.join(inference_args)}")


def _bytes_of(sample: Sample) -> int:
    if isinstance(sample, np.ndarray):
        return int(sample.nbytes)
    return len(sample if isinstance(sample, bytes) else os.fspath(sample).encode("utf-8", "surrogateescape"))
