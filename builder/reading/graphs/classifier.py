"""A SavedModel without layers as a ``Classifier``: operators from its conversion, answers from its own graph."""

from __future__ import annotations

from dataclasses import replace

from builder.reading.formats.saved_model import GRAPH, SavedModelPlace
from builder.reading.formats.stored import contradictions
from builder.reading.graph import WeightPool
from builder.reading.graphs.file import read_graph_file
from builder.reading.originals.original import KerasOriginal
from builder.reading.tflite.classifier import TfliteClassifier, read_network
from builder.reading.tflite.file import TfliteFile, network
from builder.settings.input_scaling import PixelTransform
from builder.settings.limits import Limits

_CONVERTED = "it was read as operators of its conversion to TensorFlow Lite; the SavedModel does not describe its layers"


def read_graph_alone(
    name: str,
    place: SavedModelPlace,
    preprocessing: PixelTransform | None,
    size: tuple[int, int] | None = None,
    *,
    pool: WeightPool,
    limits: Limits,
) -> TfliteClassifier:
    """Read the SavedModel. ``size``: of pictures, where the model takes any. Raises ``ModelFileError``."""
    path = place.path
    with contradictions(path):
        graph = read_graph_file(place.members, place.prefix, path)
        original = KerasOriginal(path, "keras", graph.write, title="TensorFlow")
        model = original.convert((1, *graph.shape[1:]), max_memory=limits.max_memory)
        file = TfliteFile(path, GRAPH, lambda: model, place.beside)
        found = read_network(name, file, model, network(path, model), preprocessing, size, pool=pool)
    kind = found.kind.replace("TensorFlow Lite, float32", "SavedModel, TensorFlow Lite")
    return replace(found, kind=kind, original=original, limits=limits, notes=(_CONVERTED, *found.notes))
