"""``MultiHeadClassifier``: the backbone runs once for a picture or a text, then only the heads that are asked for."""

from __future__ import annotations

import os
import time
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from edge_runtime.bundle import REBUILD, check_signatures, packs_beside, read_model
from edge_runtime.errors import BundleError, EdgeRuntimeError, TextError, UnknownHeadError
from edge_runtime.heads import Path, all_heads, own_heads, packed_heads
from edge_runtime.identity import file_digest
from edge_runtime.inputs import Sample, picture_input, tensor_maker, text_input
from edge_runtime.joint import JointClassification, JointInfo, Thresholds, judge
from edge_runtime.metadata import BACKBONE, FEATURES, JOINT, HeadInfo, Metadata
from edge_runtime.preprocess import Picture
from edge_runtime.results import Answers, ClassificationResult, Classifications, check_top_k, top_categories
from edge_runtime.signatures import Signatures
from edge_runtime.text import Text, TextInput

Head = Union[str, int]
_FEW = 8  # of so many heads what they answer is sorted at once
Features = Union[np.ndarray, Dict[str, np.ndarray]]


def _try_in_child(path: str, interpreter: Optional[str], packs: Sequence[str]) -> None:
    from edge_runtime.isolate import try_in_child  # imports subprocess, which most have no use for

    try_in_child(path, interpreter, packs)


def by_name(features: Features) -> Dict[str, np.ndarray]:
    """The tensors of the seam by their names, also where there is only one."""
    return features if isinstance(features, dict) else {FEATURES: features}


class MultiHeadClassifier:
    """An open polyhead file.

    Safe to share between threads: calls wait for each other, since signatures of one interpreter cannot run side by
    side. For more throughput open one classifier in each thread.

    Args:
        model_path: The ``.tflite`` file.
        interpreter: ``ai_edge_litert``, ``tflite_runtime`` or ``tensorflow``; None takes the first that is installed.
        num_threads: Threads of the interpreter; None takes the interpreter's default.
        head_packs: Files of further heads, which come after the file's own; None takes those in the folder beside it
            (``main.heads/`` for ``main.tflite``), by their names. The joint list knows the file's own heads alone. A file
            with a backbone alone opens with packs, or with ``()`` for its features.
        isolate: Try the file in a process of its own first, which may crash on it in place of this one.
        trusted_key: A file with an Ed25519 public key, PEM; only what was signed with it opens, packs too.

    Raises:
        BundleError: It is no polyhead file, is damaged, contradicts itself, is not safe to run, or is not signed.
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
        path, key = os.fspath(model_path), None if trusted_key is None else os.fspath(trusted_key)
        self._metadata, model = read_model(path, key)
        packs = packs_beside(path) if head_packs is None else [os.fspath(pack) for pack in head_packs]
        packed = packed_heads(packs, self._metadata, path, interpreter=interpreter, trusted_key=key)
        if isolate:
            _try_in_child(path, interpreter, packs)
        # What was signed is run, also where another file has taken its place since; others are mapped into memory.
        self._model = Signatures(
            path,
            self._metadata.min_runtime,
            interpreter=interpreter,
            num_threads=num_threads,
            content=None if key is None else model,
        )
        self._interpreter_name, opened = self._model.open()
        signatures = opened.get_signature_list()
        check_signatures(path, self._metadata, signatures)
        own = own_heads(self._metadata, self._model, signatures)
        self._all = all_heads(self._metadata, self._model, signatures)
        self._heads = (*own, *packed)
        if not self._heads and head_packs is None:
            raise BundleError(f"{path}: a backbone without heads; give head packs, or put them into its folder .heads")
        self._index = {head.info.head_name: i for i, head in enumerate(self._heads)}
        joint = self._metadata.joint
        self._joint = None if joint is None else JointInfo.from_json(joint, [head.info.head_name for head in own])
        self._path = path
        self._digest: Optional[str] = None
        self._spec = self._metadata.input
        self._make_tensor = tensor_maker(self._spec)
        self._seam = {t.name: ((1, *t.shape), np.dtype(t.quantization.dtype)) for t in self._metadata.seam}
        self._check_input(opened.get_input_details())

    def __enter__(self) -> MultiHeadClassifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the memory back. The classifier cannot be used afterwards."""
        for model in {self._model, *(head.model for head in self._heads)}:
            model.close()

    @property
    def metadata(self) -> Metadata:
        """Of the file; head packs are not in it."""
        return self._metadata

    @property
    def file_digest(self) -> str:
        """``sha256:...`` of the file, head packs left out, as it is when it is first asked for."""
        if self._digest is None:
            self._digest = file_digest(self._path)
        return self._digest

    @property
    def heads(self) -> Tuple[HeadInfo, ...]:
        """The file's own and those of its packs, in the order of their indices."""
        return tuple(head.info for head in self._heads)

    @property
    def interpreter_name(self) -> str:
        return self._interpreter_name

    @property
    def head_names(self) -> Tuple[str, ...]:
        return tuple(self._index)

    @property
    def joint(self) -> Optional[JointInfo]:
        """The list of the labels of all heads; None where the file has no joint head."""
        return self._joint

    def prepare(self, sample: Sample) -> np.ndarray:
        """Make the backbone's input of a picture or a text.

        Args:
            sample: A picture (see ``preprocess.image_tensor``) or a text.

        Returns:
            Of a picture uint8 (1, height, width, 3), RGB, 0 to 255, or (1, height, width, 1), greyscale, as
            ``metadata.input`` says; of a text int32 (1, length), numbers of tokens.

        Raises:
            PictureError: The picture cannot be read.
            TextError: What was given is no text.
        """
        return self._make_tensor(sample)

    def features(self, sample: Sample) -> Features:
        """Run the backbone alone.

        Args:
            sample: As ``prepare`` takes it.

        Returns:
            The features, (1, *shape) in the integers of the seam (int8, or as the file's precision is). Where heads
            read several tensors of the backbone, an array by the name of each.
        """
        return self.features_of(self.prepare(sample))

    def features_of(self, tensor: np.ndarray) -> Features:
        """Run the backbone on a tensor that ``prepare`` made.

        Raises:
            EdgeRuntimeError: The tensor has another shape or dtype than this file's input.
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
            self._model.check_result(BACKBONE, result, *self._seam[name])
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
        source = self._heads[self._find(head)]
        return source.scores({name: self._seam_tensor(features, name) for name in source.reads})

    def scores(self, features: Features, heads: Optional[Iterable[Head]] = None) -> Tuple[np.ndarray, ...]:
        """Run several heads.

        Args:
            features: As ``features`` returned them.
            heads: Names or indices, in the order that the answers shall have; None takes all.

        Returns:
            The probabilities of each, float32 (labels,).

        Raises:
            UnknownHeadError: The file has no such head.
        """
        chosen = self._select(heads)
        return tuple(map(self._scores(features, chosen), range(len(chosen))))

    def joint_scores(self, features: Features) -> Tuple[np.ndarray, np.ndarray]:
        """Run the joint head.

        Returns:
            The probabilities of the joint list, float32 (labels,), and of the heads and none, float32 (heads and none,).

        Raises:
            UnknownHeadError: The file has no joint head.
        """
        info = self._joint_info()
        inputs = {name: self._seam_tensor(features, name) for name in self._seam}
        raw = self._model.run(JOINT, inputs)
        for name, length in (("scores", len(info.labels)), ("heads", info.classes)):
            self._model.check_result(f"{JOINT}, {name}", raw[name], (1, length), np.dtype("float32"))
        return raw["scores"][0], raw["heads"][0]

    def classify_joint(
        self, features: Features, *, top_k: Optional[int] = None, threshold: Optional[Thresholds] = None
    ) -> JointClassification:
        """Give the joint list for features that were computed before.

        Args:
            features: As ``features`` returned them.
            top_k: At most so many labels.
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
            heads: Names or indices, in the order that the answers shall have; None takes all.
            top_k: At most so many categories a head.

        Raises:
            UnknownHeadError: The file has no such head.
        """
        return self._classify_heads(features, self._select(heads), top_k)

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
            heads: Names or indices, in the order that the answers shall have; None takes all.
            top_k: At most so many categories a head.
            joint: The joint list too.
            threshold: In place of the file's: a number for the joint list, or numbers by the names of heads and
                ``joint``, each a probability from 0 to 1.

        Returns:
            The categories of each head in falling order of score, the joint list, and milliseconds for each part.

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
            TextError: What was given is no text.
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
        """Classify texts, in their order. A file takes one at a time; a text that comes again is not computed again.

        Args:
            texts: Strings, or bytes in UTF-8.
            heads: As in ``classify``.
            top_k: As in ``classify``.
            joint: As in ``classify``.
            threshold: As in ``classify``.

        Raises:
            TextError: One of them is no text; the message says which. Or ``texts`` is one text.
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
        chosen = self._select(heads)  # a wrong head is refused before any work is done
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
        scores = self._scores(features, chosen)

        def make(place: int) -> Classifications:
            index = chosen[place]
            info = self._heads[index].info
            return Classifications(index, info.head_name, top_categories(scores(place), info.labels, top_k=top_k))

        return Answers(len(chosen), make) if len(chosen) > _FEW else tuple(map(make, range(len(chosen))))

    def _scores(self, features: Features, chosen: Sequence[int]) -> Callable[[int], np.ndarray]:
        """Run the heads at these indices, the file's own all at once where that is cheaper.

        Returns what gives the scores of the first, the second and so on.
        """
        everything, own = self._all, len(self._metadata.heads)
        if everything is None or not everything.worth(len({index for index in chosen if index < own})):
            return [self.head_scores(features, index) for index in chosen].__getitem__
        found = everything.scores({name: self._seam_tensor(features, name) for name in everything.reads})
        starts = everything.starts
        packed = {index: self.head_scores(features, index) for index in chosen if index >= own}

        def scores(place: int) -> np.ndarray:
            index = chosen[place]
            return packed[index] if index >= own else found[starts[index] : starts[index + 1]]

        return scores

    def _joint_info(self) -> JointInfo:
        if self._joint is None:
            raise UnknownHeadError(f"{self._path} has no joint head; its builder's report says why")
        return self._joint

    def _seam_tensor(self, features: Features, name: str) -> np.ndarray:
        shape, dtype = self._seam[name]
        found = by_name(features).get(name)
        if found is None or found.shape != shape or found.dtype != dtype:
            what = "nothing" if found is None else f"{found.dtype} {found.shape}"
            raise EdgeRuntimeError(f"expected {name} of this file, {dtype} {shape}; found {what}")
        return found

    def _select(self, heads: Optional[Iterable[Head]]) -> List[int]:
        if heads is None:
            return list(range(len(self._index)))
        if isinstance(heads, (str, int)):
            heads = [heads]
        return [self._find(head) for head in heads]

    def _find(self, head: Head) -> int:
        if isinstance(head, str) and head in self._index:
            return self._index[head]
        if isinstance(head, int) and 0 <= head < len(self._index):
            return head
        names = list(self._index)
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        raise UnknownHeadError(f"no head {head!r}; this file has {len(names)}: {shown}")

    def _check_input(self, inputs: Sequence[Mapping[str, Any]]) -> None:
        """``inputs``: of subgraph 0, the only one that interpreters before 2.12 describe correctly."""
        spec = self._spec
        found = [(np.dtype(i["dtype"]).name, tuple(int(n) for n in i["shape"])) for i in inputs]
        if found != [(spec.dtype.name, spec.shape)]:
            raise BundleError(
                f"{self._path}: members promise {spec.name} as {spec.dtype} {spec.shape}, the model takes {found}; "
                f"{REBUILD}"
            )
