"""``MultiHeadClassifier``: runs the backbone once for a picture or a text, and then only the requested heads."""

from __future__ import annotations

import os
import time
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

import numpy as np

from edge_runtime.errors import EdgeRuntimeError, TextError, UnknownHeadError
from edge_runtime.heads import Head
from edge_runtime.identity import file_digest
from edge_runtime.inputs import Sample, picture_input, tensor_maker, text_input
from edge_runtime.joint import JointClassification, JointInfo, Thresholds, judge
from edge_runtime.metadata import BACKBONE, FEATURES, JOINT, HeadInfo, Metadata
from edge_runtime.opening import open_file
from edge_runtime.packs import Path
from edge_runtime.preprocess import Picture
from edge_runtime.results import Answers, ClassificationResult, Classifications, check_top_k, top_categories
from edge_runtime.seam import Features
from edge_runtime.text import Text, TextInput

_FEW = 8  # of so many heads what they answer is sorted at once


class MultiHeadClassifier:
    """An open polyhead file.

    It may be shared between threads: calls wait for each other, because an interpreter runs one signature at a time. For
    more throughput, open one classifier in each thread.

    Args:
        model_path: The ``.tflite`` file.
        interpreter: ``ai_edge_litert``, ``tflite_runtime`` or ``tensorflow``; None uses the first that is installed.
        num_threads: Threads of the interpreter; None uses the default of the interpreter.
        head_packs: Files of further heads, which come after the file's own heads. None uses the packs in the folder
            beside the file (``main.heads/`` for ``main.tflite``), in the order of their names. The joint list has the
            file's own heads only. A file without heads opens with packs, or with ``()`` for its features.
        isolate: Whether to try the file in a separate process first, so that a crash does not end this one.
        trusted_key: A file with an Ed25519 public key, PEM. Only a file, and packs, signed with it are opened.

    Raises:
        BundleError: It is not a polyhead file, is damaged, inconsistent, not safe to run, or not signed.
        InterpreterError: No interpreter is installed, or it refuses the file.
        OSError: It cannot be read.
    """

    def __init__(
        self,
        model_path: Path,
        *,
        interpreter: Optional[str] = None,
        num_threads: Optional[int] = None,
        head_packs: Optional[Sequence[Path]] = None,
        isolate: bool = False,
        trusted_key: Optional[Path] = None,
    ) -> None:
        self._path = os.fspath(model_path)
        opened = open_file(
            self._path,
            interpreter=interpreter,
            num_threads=num_threads,
            head_packs=head_packs,
            isolate=isolate,
            trusted_key=None if trusted_key is None else os.fspath(trusted_key),
        )
        self._metadata, self._model, self._seam, self._heads, self._joint, self._interpreter_name = opened
        self._digest: Optional[str] = None
        self._spec = self._metadata.input
        self._make_tensor = tensor_maker(self._spec)

    def __enter__(self) -> MultiHeadClassifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the memory. The classifier cannot be used afterwards."""
        for model in {self._model, *self._heads.models}:
            model.close()

    @property
    def metadata(self) -> Metadata:
        """The metadata of the file, without head packs."""
        return self._metadata

    @property
    def file_digest(self) -> str:
        """``sha256:...`` of the file, without head packs, computed on first use."""
        if self._digest is None:
            self._digest = file_digest(self._path)
        return self._digest

    @property
    def heads(self) -> Tuple[HeadInfo, ...]:
        """The heads of the file, then those of its packs, in the order of their indices."""
        return self._heads.infos

    @property
    def interpreter_name(self) -> str:
        return self._interpreter_name

    @property
    def head_names(self) -> Tuple[str, ...]:
        return tuple(self._heads.index)

    @property
    def joint(self) -> Optional[JointInfo]:
        """The list of the labels of all heads; None where the file has no joint head."""
        return self._joint

    def prepare(self, sample: Sample) -> np.ndarray:
        """Make the input of the backbone from a picture or a text.

        Args:
            sample: A picture (see ``preprocess.image_tensor``) or a text.

        Returns:
            For a picture, uint8 (1, height, width, 3), RGB, 0 to 255, or (1, height, width, 1), greyscale, as
            ``metadata.input`` says. For a text, int32 (1, length), token numbers.

        Raises:
            PictureError: The picture cannot be read.
            TextError: The sample is not a text.
        """
        return self._make_tensor(sample)

    def features(self, sample: Sample) -> Features:
        """Run the backbone alone.

        Args:
            sample: As ``prepare`` takes it.

        Returns:
            The features, (1, *shape), in the dtype of the seam (int8 unless the file has another precision). Where heads
            read several tensors of the backbone, a dict of arrays by the name of each.
        """
        return self.features_of(self.prepare(sample))

    def features_of(self, tensor: np.ndarray) -> Features:
        """Run the backbone on a tensor that ``prepare`` made.

        Raises:
            EdgeRuntimeError: Shape or dtype of the tensor differ from the input of this file.
        """
        spec = self._spec
        # The interpreter would resize the model to a tensor of another shape, and answer.
        if tensor.shape != spec.shape or tensor.dtype != spec.dtype:
            raise EdgeRuntimeError(
                f"expected {spec.name} of this file, {spec.dtype} {spec.shape}; found {tensor.dtype} {tensor.shape}"
            )
        if isinstance(spec, TextInput):
            spec.check_numbers(tensor)
        results = self._model.run(BACKBONE, {spec.name: tensor})
        for name, result in results.items():
            self._model.check_result(BACKBONE, result, *self._seam.expected[name])
        return results if len(results) > 1 else results[FEATURES]

    def head_scores(self, features: Features, head: Head) -> np.ndarray:
        """Run one head.

        Args:
            features: As ``features`` returned them.
            head: Its name or index.

        Returns:
            The probabilities, float32 (labels,), in the order of the head's labels.

        Raises:
            UnknownHeadError: The file has no such head.
            EdgeRuntimeError: The features are of another shape or dtype.
        """
        return self._heads.one(features, self._heads.find(head))

    def scores(self, features: Features, heads: Optional[Iterable[Head]] = None) -> Tuple[np.ndarray, ...]:
        """Run several heads.

        Args:
            features: As ``features`` returned them.
            heads: Names or indices, in the order of the answers; None runs all.

        Returns:
            The probabilities of each, float32 (labels,).

        Raises:
            UnknownHeadError: The file has no such head.
        """
        chosen = self._heads.select(heads)
        return tuple(map(self._heads.several(features, chosen), range(len(chosen))))

    def joint_scores(self, features: Features) -> Tuple[np.ndarray, np.ndarray]:
        """Run the joint head.

        Returns:
            The probabilities of the joint list, float32 (labels,), and P(head) of each head and of none, float32
            (heads + none,).

        Raises:
            UnknownHeadError: The file has no joint head.
        """
        info = self._joint_info()
        raw = self._model.run(JOINT, self._seam.tensors(features, self._seam.expected))
        for name, length in (("scores", len(info.labels)), ("heads", info.classes)):
            self._model.check_result(f"{JOINT}, {name}", raw[name], (1, length), np.dtype("float32"))
        return raw["scores"][0], raw["heads"][0]

    def classify_joint(
        self, features: Features, *, top_k: Optional[int] = None, threshold: Optional[Thresholds] = None
    ) -> JointClassification:
        """Run the joint list on features that were computed before.

        Args:
            features: As ``features`` returned them.
            top_k: Largest number of labels; None gives all.
            threshold: As in ``classify``.

        Raises:
            UnknownHeadError: The file has no joint head.
        """
        info = self._joint_info().with_thresholds(threshold)
        return judge(info, *self.joint_scores(features), top_k=top_k)

    def classify_features(
        self, features: Features, *, heads: Optional[Iterable[Head]] = None, top_k: Optional[int] = None
    ) -> Tuple[Classifications, ...]:
        """Run heads on features that were computed before; the backbone does not run.

        Args:
            features: As ``features`` returned them.
            heads: Names or indices, in the order of the answers; None runs all.
            top_k: Largest number of categories for each head; None gives all.

        Raises:
            UnknownHeadError: The file has no such head.
        """
        return self._classify_heads(features, self._heads.select(heads), top_k)

    def classify(
        self,
        picture: Picture,
        *,
        heads: Optional[Iterable[Head]] = None,
        top_k: Optional[int] = None,
        joint: bool = False,
        threshold: Optional[Thresholds] = None,
    ) -> ClassificationResult:
        """Classify one picture.

        Args:
            picture: A path, a PIL image, or uint8 RGB of shape (height, width, 3), 0 to 255.
            heads: Names or indices, in the order of the answers; None runs all.
            top_k: Largest number of categories for each head; None gives all.
            joint: Whether to add the joint list.
            threshold: Replaces the threshold of the file: a number for the joint list, or numbers by the names of heads
                and ``joint``. Each is a probability from 0 to 1.

        Returns:
            The categories of each head in descending order of score, the joint list, and milliseconds for each part.

        Raises:
            PictureError: The picture cannot be read.
            UnknownHeadError: The file has no such head, or no joint head.
        """
        picture_input(self._spec)
        return self._classify(picture, heads, top_k, joint, threshold)

    def classify_text(
        self,
        text: Text,
        *,
        heads: Optional[Iterable[Head]] = None,
        top_k: Optional[int] = None,
        joint: bool = False,
        threshold: Optional[Thresholds] = None,
    ) -> ClassificationResult:
        """Classify one text.

        Args:
            text: A string, or bytes in UTF-8.
            heads: As in ``classify``.
            top_k: As in ``classify``.
            joint: As in ``classify``.
            threshold: As in ``classify``.

        Raises:
            TextError: The sample is not a text.
            UnknownHeadError: The file has no such head, or no joint head.
        """
        text_input(self._spec)
        return self._classify(text, heads, top_k, joint, threshold)

    def classify_texts(
        self,
        texts: Iterable[Text],
        *,
        heads: Optional[Iterable[Head]] = None,
        top_k: Optional[int] = None,
        joint: bool = False,
        threshold: Optional[Thresholds] = None,
    ) -> List[ClassificationResult]:
        """Classify texts, in order. They run one at a time; an equal text is computed only once.

        Args:
            texts: Strings, or bytes in UTF-8.
            heads: As in ``classify``.
            top_k: As in ``classify``.
            joint: As in ``classify``.
            threshold: As in ``classify``.

        Raises:
            TextError: One of them is not a text (the message says which), or ``texts`` is a single text.
            UnknownHeadError: The file has no such head, or no joint head.
        """
        text_input(self._spec)
        if isinstance(texts, (str, bytes)):
            raise TextError("expected a list of texts, found one text; classify_text takes one")
        chosen = None if heads is None else list(heads)
        known: Dict[Text, ClassificationResult] = {}
        found = []
        for index, text in enumerate(texts):
            try:
                if text not in known:
                    known[text] = self._classify(text, chosen, top_k, joint, threshold)
            except (TextError, TypeError) as error:
                raise TextError(f"text {index}: {error}") from error
            found.append(known[text])
        return found

    def _classify(
        self,
        sample: Sample,
        heads: Optional[Iterable[Head]],
        top_k: Optional[int],
        joint: bool,
        threshold: Optional[Thresholds],
    ) -> ClassificationResult:
        chosen = self._heads.select(heads)  # a wrong head is refused before any work is done
        info = self._joint_info().with_thresholds(threshold) if joint else None
        start = time.perf_counter()
        tensor = self.prepare(sample)
        prepared = time.perf_counter()
        features = self.features_of(tensor)
        computed = time.perf_counter()
        found = self._classify_heads(features, chosen, top_k)
        everything = None if info is None else judge(info, *self.joint_scores(features), top_k=top_k)
        end = time.perf_counter()
        seconds = {"preprocess": prepared - start, "backbone": computed - prepared, "heads": end - computed}
        return ClassificationResult(found, {part: s * 1000 for part, s in seconds.items()}, everything)

    def _classify_heads(
        self, features: Features, chosen: Sequence[int], top_k: Optional[int]
    ) -> Tuple[Classifications, ...]:
        check_top_k(top_k)
        scores = self._heads.several(features, chosen)

        def make(place: int) -> Classifications:
            index = chosen[place]
            info = self._heads.infos[index]
            return Classifications(index, info.head_name, top_categories(scores(place), info.labels, top_k=top_k))

        return Answers(len(chosen), make) if len(chosen) > _FEW else tuple(map(make, range(len(chosen))))

    def _joint_info(self) -> JointInfo:
        if self._joint is None:
            raise UnknownHeadError(f"{self._path} has no joint head; its builder's report says why")
        return self._joint
