"""The input of a classifier, pictures or texts; both kinds have one interface."""

from __future__ import annotations

from pathlib import Path

from builder.reading.formats.applications import application_of
from builder.reading.formats.stored import StoredModel, is_merged
from builder.reading.graph import Graph
from builder.reading.keras_graph import input_shapes
from builder.reading.picture_input import PictureSourceInput, declared_pixels
from builder.reading.scaling_notes import scales_pixels
from builder.reading.simplify import leading_resize, simplify, without_no_ops
from builder.reading.text_input import TextSourceInput, check_embedding, reads_tokens, split_vectorization
from builder.settings.heads import ResizeConfig
from builder.settings.input_scaling import CHANNELS, GREY, PixelTransform
from builder.support.errors import ModelFileError
from builder.support.naming import advice, setting
from edge_runtime.text import TextInput

SourceInput = PictureSourceInput | TextSourceInput
AS_KERAS_RESIZES = ResizeConfig(method="bilinear", antialias=False, fit="stretch")  # a Resizing layer without settings


def read_source_input(
    stored: StoredModel,
    graph: Graph,
    preprocessing: PixelTransform | None,
    length: int | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[Graph, SourceInput]:
    """The simplified graph, and its input. Raises ``ModelFileError``.

    ``length``: of tokens; ``size``: height and width of pictures; both where the model leaves them open.
    """
    shape = _shape(stored)
    graph, words, any_length = split_vectorization(graph, stored.path, length)
    if words is None and not reads_tokens(graph):
        channels = _channels(shape, stored.path)
        declared = declared_pixels(preprocessing, stored.origin.preprocessing, channels, stored.path)
        simple, pixels = simplify(graph, declared)
        said = preprocessing is not None or stored.origin.preprocessing is not None
        settled = said or is_merged(stored.definition) or scales_pixels(simple, pixels)
        inside = leading_resize(simple) if size is None and shape[1:3] == (None, None) else None
        if inside is None:
            size = _picture_size(shape, stored, size)
            return simple, PictureSourceInput(size, pixels, declared, stored.origin.resize, settled)
        behind, height_and_width = inside
        simple, pixels = simplify(behind, pixels)
        return simple, PictureSourceInput(height_and_width, pixels, declared, AS_KERAS_RESIZES, settled)
    if preprocessing is not None:
        raise ModelFileError(f"{stored.path} takes texts; preprocessing is for pictures: leave it out")
    if words is not None:
        check_embedding(graph, words, stored.path)
    spec = words or TextInput(_token_count(shape, stored, length), ())
    return without_no_ops(graph), TextSourceInput(spec, words is not None, len(shape), any_length)


def source_input_difference(first: SourceInput, other: SourceInput, name: str) -> tuple[str, str] | None:
    """How ``other`` differs from ``first``, the input of the model ``name``: (what, advice); None where it does not."""
    if isinstance(first, PictureSourceInput) and isinstance(other, PictureSourceInput):
        return first.difference(other, name)
    if isinstance(first, TextSourceInput) and isinstance(other, TextSourceInput):
        return first.difference(other, name)
    return f"it takes {other}, {name} takes {first}", "Pictures and texts share nothing; build a file for each"


def size_note(stored: StoredModel, source_input: SourceInput, size: tuple[int, int] | None) -> tuple[str, ...]:
    """A note on the chosen picture size, for a model that takes any."""
    if not isinstance(source_input, PictureSourceInput) or None not in _shape(stored)[1:3]:
        return ()
    height, width = source_input.size
    usual = application_of(stored.definition)
    why = (
        "as its Resizing layer does"
        if source_input.resize == AS_KERAS_RESIZES
        else "as chosen"
        if size or usual is None
        else f"as {usual.name} was trained"
    )
    return (f"it takes pictures of any size; {width} x {height} is used, {why}",)


def check_one_input(stored: StoredModel) -> None:
    """Raises ``ModelFileError`` for a model with several inputs, or none."""
    count = len(input_shapes(stored.definition))
    if count != 1:
        raise ModelFileError(f"{stored.path}: expected a model with one input, a picture or a text; found {count} inputs")


def _shape(stored: StoredModel) -> tuple[int | None, ...]:
    """The shape of the input, batch axis included."""
    return input_shapes(stored.definition)[0]


def _channels(shape: tuple[int | None, ...], path: Path) -> int:
    """3 for colour, 1 for greyscale. Raises ``ModelFileError`` for an input that is not a picture."""
    if len(shape) == 4 and shape[3] in (CHANNELS, GREY):
        return shape[3]
    expected = "expected input (batch, height, width, 3), or (.., 1) for greyscale"
    if len(shape) == 4 and shape[1] in (CHANNELS, GREY):
        raise ModelFileError(
            f"{path}: {expected}, found channels first, {shape}; put a Permute((3, 1, 2)) in front of it and save "
            "that model"
        )
    if len(shape) == 3 and None not in shape[1:]:
        raise ModelFileError(
            f"{path}: {expected}, found no axis of channels, {shape}; put a Reshape({shape[1:]}) in front of it, "
            f"behind an input ({shape[1]}, {shape[2]}, 1), and save that model"
        )
    raise ModelFileError(f"{path}: {expected}, or texts or tokens that an Embedding reads, found {shape}")


def _picture_size(shape: tuple[int | None, ...], stored: StoredModel, size: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width: from the file, else as chosen, else as the architecture was trained."""
    usual = application_of(stored.definition)
    chosen = size or (usual and (usual.size, usual.size))
    height, width = (side or (chosen and chosen[i]) for i, side in enumerate(shape[1:3]))
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        raise ModelFileError(
            f"{stored.path}: it takes pictures of any size, {shape}, and its layers do not tell the size of training; "
            f"add {advice('size', 'PIXELS', number=True)}"
        )
    return height, width


def _token_count(shape: tuple[int | None, ...], stored: StoredModel, length: int | None) -> int:
    count = length if shape[1:] == (None,) and length else shape[-1]
    if len(shape) != 2 or not isinstance(count, int) or count < 1:
        raise ModelFileError(
            f"{stored.path}: expected tokens (batch, length) of a fixed length, found {shape}; say to which length texts "
            f"were padded ({setting('text.maxlen')}), or save the model with a length"
        )
    return count
