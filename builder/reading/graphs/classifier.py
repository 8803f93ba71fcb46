"""A model that does not describe its layers as a ``Classifier``: operators from its conversion, answers from itself."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from builder.reading.formats.library_model import LibraryModel
from builder.reading.formats.members import file_beside
from builder.reading.formats.saved_model import GRAPH, SavedModelPlace
from builder.reading.formats.stored import contradictions
from builder.reading.graph import WeightPool
from builder.reading.graphs.file import read_graph_file
from builder.reading.originals.original import KerasOriginal
from builder.reading.tflite.classifier import TfliteClassifier, read_network
from builder.reading.tflite.file import TfliteFile, network
from builder.settings.input_scaling import PixelTransform
from builder.settings.limits import Limits

_CONVERTED = "it was read as operators of its conversion to TensorFlow Lite; {}"
_GRAPH = "the SavedModel does not describe its layers"
_LIBRARY = "its layers are in {} and not in the file"


def read_graph_alone(
    name: str,
    place: SavedModelPlace | LibraryModel,
    preprocessing: PixelTransform | None,
    size: tuple[int, int] | None = None,
    *,
    pool: WeightPool,
    limits: Limits,
) -> TfliteClassifier:
    """Read the model. ``size``: of pictures, where the model takes any. Raises ``ModelFileError``."""
    path = place.path
    with contradictions(path):
        if isinstance(place, SavedModelPlace):
            graph = read_graph_file(place.members, place.prefix, path)
            original = KerasOriginal(path, "keras", graph.write, title="TensorFlow")
            kind, why, shape = "SavedModel", _GRAPH, graph.shape
            file = partial(TfliteFile, path, GRAPH, beside=place.beside)
        else:
            size = size or place.size
            original = replace(place.original, preprocessor=place.original.preprocessor and preprocessing is None)
            kind, why, shape = place.title, _LIBRARY.format(place.title), (None, *(size or (None, None)), None)
            file = partial(TfliteFile, path, path.name, beside=partial(file_beside, path.parent), origin=place.origin)
        model = original.convert((1, *shape[1:]), max_memory=limits.max_memory)
        found = read_network(
            name, file(content=lambda: model), model, network(path, model), preprocessing, size, pool=pool
        )
    kind = found.kind.replace("TensorFlow Lite, float32", f"{kind}, TensorFlow Lite")
    notes = (_CONVERTED.format(why), *(() if isinstance(place, SavedModelPlace) else place.notes), *found.notes)
    return replace(found, kind=kind, original=original, limits=limits, notes=notes)
