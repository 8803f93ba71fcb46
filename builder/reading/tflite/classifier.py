"""A ``.tflite`` file as a ``Classifier``; see the package docstring for the steps."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from builder.reading.checks import check_nodes
from builder.reading.classifier import Classifier
from builder.reading.formats.stored import Origin, contradictions
from builder.reading.graph import INPUT, Graph, Ref, UnreadableModelError, WeightPool, renumber
from builder.reading.originals.original import Shown
from builder.reading.outputs import LOGITS, UNKNOWN, Output, expected_output
from builder.reading.picture_input import PictureSourceInput, declared_pixels
from builder.reading.source_input import AS_KERAS_RESIZES
from builder.reading.tflite.beside import EDGE_IMPULSE, origin_of
from builder.reading.tflite.constants import UnreadableTensorError
from builder.reading.tflite.digests import operator_digests
from builder.reading.tflite.file import TfliteFile, is_open, read_part
from builder.reading.tflite.forms import in_one_form, size
from builder.reading.tflite.operators import read_operators
from builder.reading.tflite.original import run_original
from builder.reading.tflite.pixels import Entry, entered, read_entry, without_front
from builder.reading.tflite.sizes import at_size
from builder.settings.input_scaling import PixelTransform
from builder.support.errors import ModelFileError
from builder.support.naming import advice
from builder.tflite.flatbuffer import FLOAT16, FLOAT32, INT8, UINT8, Part, is_quantity, type_name

FOLDING = 1e-6  # relative to a tensor's largest value: differences from folding a BatchNormalization in two converters
_LOST = (
    "its weights are {} already: their rounding error stays, and the built file is compared with the quantized original"
)
_ENDS = {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid", "RELU": "relu", "RELU6": "relu6", "TANH": "tanh"}
_PASSED = ("CAST", "CONCATENATION", "DEQUANTIZE", "EXPAND_DIMS", "MEAN", "QUANTIZE", "RESHAPE", "SQUEEZE")
_AFFINE = ("ADD", "CONV_2D", "FULLY_CONNECTED", "MUL", "SUB")


@dataclass(frozen=True, eq=False)
class TfliteClassifier(Classifier):
    """``graph``: operators, see ``operators.operator_node``. ``entry``: the file's own input.

    ``precision``: of its weights and, where they are integers, its activations; ``graph`` is float. ``source``: the
    classifier of another kind from which the operators were converted.
    """

    entry: Entry | None = None
    precision: str = "float32"
    source: Classifier | None = None

    @property
    def folding(self) -> float:
        return FOLDING

    @property
    def is_exact(self) -> bool:
        return self.precision.startswith("float")

    @cached_property
    def digests(self) -> list[str]:
        return operator_digests(self.graph, self.source_input.identity)

    @cached_property
    def structure(self) -> list[str]:
        return operator_digests(self.graph, self.source_input.identity, with_weights=False)

    def settings(self, index: int) -> dict[str, Any]:
        return dict(self.graph.nodes[index].config["settings"])

    @property
    def missing(self) -> tuple[str | None, bool]:
        """What has to be appended to the graph: an activation, and whether the complementary probability."""
        if self.source is not None:
            return self.source.applied, False
        return self.output.applied, self.output.negative

    @property
    def end(self) -> tuple[str, int | None]:
        return _ends_in(self.graph), graph_outputs(self.graph)

    def _with_output(self, output: Output) -> TfliteClassifier:
        return replace(self, output=output)  # missing parts are appended when the heads are merged


@dataclass(frozen=True)
class TfliteOriginal:
    """The file, run by the interpreter. ``entry``: its own input."""

    file: TfliteFile
    entry: Entry

    def start(self) -> None:
        return

    def of_output(self, place: int) -> TfliteOriginal:
        raise ModelFileError("a .tflite file with several outputs is refused where it is read")

    def ask(self, shown: Shown, *, max_memory: float) -> TfliteAnswers:
        assert isinstance(shown.values, np.ndarray) and shown.transform is not None
        return TfliteAnswers(self.file, self.entry.take(shown.transform.apply(shown.values)))


@dataclass
class TfliteAnswers:
    """See ``originals.original.Answers``."""

    file: TfliteFile
    inputs: np.ndarray
    note: str | None = None

    def __call__(self) -> np.ndarray:
        return run_original(self.file, self.inputs)

    def abandon(self) -> None:
        return


def _ends_in(graph: Graph) -> str:
    """As ``outputs.ends_in``, for operators."""
    found, pending = set[str](), [graph.output]
    while pending:
        ref = pending.pop()
        node = None if ref.node == INPUT else graph.nodes[ref.node]
        if node is not None and node.kind in _PASSED:
            pending.extend(node.inputs())
        elif node is not None and node.kind in _ENDS:
            found.add(_ENDS[node.kind])
        else:
            found.add(LOGITS if node is not None and node.kind in _AFFINE else UNKNOWN)
    return found.pop() if len(found) == 1 else UNKNOWN


def read_tflite(
    name: str,
    file: TfliteFile,
    preprocessing: PixelTransform | None,
    size: tuple[int, int] | None = None,
    *,
    pool: WeightPool | None = None,
) -> TfliteClassifier:
    """The classifier in ``file``. ``size``: height and width, for a file that takes any.

    Raises ``ModelFileError``.
    """
    with contradictions(file.path):
        return read_network(name, file, *read_part(file), preprocessing, size, pool=pool or WeightPool())


def read_network(
    name: str,
    file: TfliteFile,
    model: bytes,
    part: Part,
    preprocessing: PixelTransform | None,
    size: tuple[int, int] | None,
    *,
    pool: WeightPool,
) -> TfliteClassifier:
    """As ``read_tflite``, for a file with content ``model`` and network ``part``."""
    try:
        if not is_open(part):
            return _classifier(name, file, model, part, preprocessing, pool)
        part, resized = at_size(file, part, size)
        found = _classifier(name, file, model, part, preprocessing, pool)
    except (UnreadableModelError, UnreadableTensorError) as error:
        raise ModelFileError(f"{file.path}: {error}") from error
    source_input = found.source_input
    assert isinstance(source_input, PictureSourceInput)
    if resized:
        source_input = replace(source_input, resize=AS_KERAS_RESIZES)
    height, width = source_input.size
    note = (
        f"it takes pictures of any size; {width} x {height} is used, {'as it resizes them' if resized else 'as chosen'}"
    )
    return replace(found, source_input=source_input, notes=(*found.notes, note))


def converted(source: Classifier, part: Part, pool: WeightPool) -> TfliteClassifier:
    """A classifier of another kind as operators of its conversion, which have the input of its graph.

    Raises ``ModelFileError``.
    """
    try:
        graph = one_form(part, pool)
    except (UnreadableModelError, UnreadableTensorError) as error:
        raise ModelFileError(f"{source.path}: {error}") from error
    own = {f.name: getattr(source, f.name) for f in fields(Classifier)}
    return TfliteClassifier(**{**own, "graph": graph, "source": source})


def _classifier(
    name: str, file: TfliteFile, model: bytes, part: Part, preprocessing: PixelTransform | None, pool: WeightPool
) -> TfliteClassifier:
    entry, inside = read_entry(part)
    precision = _precision(part)
    graph = in_one_form(read_operators(part, pool), pool)
    _check_output(graph)
    known = origin_of(file.name, file.beside, model, graph, entry.size, graph_outputs(graph))
    origin = (
        known.origin
        if file.origin == Origin()
        else replace(file.origin, labels=known.origin.labels, labels_file=known.origin.labels_file)
    )
    declared = declared_pixels(preprocessing, origin.preprocessing, entry.channels, file.path)
    settled = preprocessing is not None or origin.preprocessing is not None
    if entry.low is not None:
        said = preprocessing is not None or known.tool == EDGE_IMPULSE  # other tools give it the pixels as they are
        how = declared if said else None if origin.preprocessing is None else inside
        found_entry = entered(entry, inside, how, part)
        if found_entry is None:
            raise ModelFileError(_unusual(file.path, inside))
        (entry, declared, inside), settled = found_entry, True
    graph, pixels = without_front(graph, entry, declared.then(inside.scale, inside.offset))
    check_nodes(graph, file.path)
    source_input = PictureSourceInput(entry.size, pixels, declared, origin.resize, settled=settled)
    graph = _once_each(graph)
    found = TfliteClassifier(
        name=name,
        path=file.path,
        kind=f"{known.tool}, TensorFlow Lite, {precision}" if known.tool else f"TensorFlow Lite, {precision}",
        graph=graph,
        source_input=source_input,
        original=TfliteOriginal(file, entry),
        output=Output(LOGITS, "softmax"),
        entry=entry,
        precision=precision,
        notes=(*known.notes, *(() if precision.startswith("float") else (_LOST.format(precision),))),
    )
    output = expected_output(*found.end, None, 0, str(file.path))
    return replace(found, output=output, labels=origin.labels or (), labels_file=origin.labels_file)


def _unusual(path: Path, inside: PixelTransform) -> str:
    low, high = inside.offset[0], 255 * inside.scale[0] + inside.offset[0]
    return (
        f"{path}: its input is quantized for values from {low:.4g} to {high:.4g}, which is no usual scaling of pixels; "
        f"add {advice('preprocessing', 'torch')} or another, as pixels were scaled before they were quantized, or raw "
        "if its integers are the pixels themselves"
    )


def _precision(part: Part) -> str:
    """The precision: ``float32``; ``float16`` or ``int8 weights``, of weights only; ``int8``, ``uint8`` or ``int16``, of
    weights and activations.
    """
    made = {i for op in part.operators for i in op.outputs} - set(part.outputs.values())
    integers = {part.tensors[i].type for i in made if is_quantity(part.tensors[i])} - {FLOAT32, FLOAT16}
    if integers:
        return type_name(part.tensors[next(i for i in made if part.tensors[i].type in integers)])
    held = {t.type for t in part.tensors if part.buffers[t.buffer] is not None and is_quantity(t)}
    return "int8 weights" if held & {INT8, UINT8} else "float16" if FLOAT16 in held else "float32"


def graph_outputs(graph: Graph) -> int:
    """The number of scores."""
    return size(graph.nodes[graph.output.node].config["outputs"][graph.output.output])


def _check_output(graph: Graph) -> None:
    if graph.output.node == INPUT:
        raise UnreadableModelError("the model returns its input; not a classifier")
    node = graph.nodes[graph.output.node]
    shape = node.config["outputs"][graph.output.output]
    if [n for n in shape if n != 1] != list(shape[-1:]) and shape[-1] != 1:
        raise UnreadableModelError(f"expected scores (1, labels) at the end, found {shape}; not a classifier")


def one_form(part: Part, pool: WeightPool) -> Graph:
    """The operators of ``part`` as they are compared. Raises ``UnreadableModelError`` and ``UnreadableTensorError``."""
    return _once_each(in_one_form(read_operators(part, pool), pool))


def _once_each(graph: Graph) -> Graph:
    """Merge duplicate nodes."""
    first: dict[str, int] = {}
    place = {i: first.setdefault(found, i) for i, found in enumerate(operator_digests(graph, "input"))}
    alias = {
        Ref(i, output): Ref(kept, output)
        for i, kept in place.items()
        if kept != i
        for output in range(len(graph.nodes[i].config["outputs"]))
    }
    return renumber(graph, [i for i in place if place[i] == i], alias) if alias else graph
