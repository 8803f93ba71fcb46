"""What the user says of one classifier, and of how its input is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, InstanceOf, Strict, ValidationInfo

from builder.settings.input_scaling import PREPROCESSING_KIND, PixelTransform
from builder.settings.kinds import LABELS, SIZE, Flag, Kind, SettingPath, Share, Text, one_of
from builder.settings.model import settings
from builder.support.errors import ConfigError
from edge_runtime.image_input import RESIZE_FITS, RESIZE_METHODS
from edge_runtime.metadata import ACTIVATIONS, check_new_head_name
from edge_runtime.text import MAX_LENGTH, MAX_NGRAM, SIDES, SPLIT, STANDARDIZE

Size = Annotated[tuple[int, int], SIZE]


def _resize(value: Any, _: ValidationInfo) -> Any:
    """Read a table, or its values in any order as an option has them: ``lanczos,crop``."""
    if not isinstance(value, str):
        return value
    keys = {**dict.fromkeys(RESIZE_METHODS, "method"), **dict.fromkeys(RESIZE_FITS, "fit")}
    words: dict[str, Any] = {"antialias": ("antialias", True), "no-antialias": ("antialias", False)}
    pairs = [words.get(word) or (keys.get(word), word) for word in value.split(",")]
    if None in dict(pairs) or len(dict(pairs)) < len(pairs):
        raise ValueError
    return dict(pairs)


def _ngrams(value: Any, _: ValidationInfo) -> Any:
    """Read a list of lengths; a single number stands for all lengths up to it."""
    numbers = list(range(1, value + 1)) if type(value) is int and 0 < value <= MAX_NGRAM else value
    if numbers is None:
        return None
    if not isinstance(numbers, (list, tuple)) or not numbers:
        raise ValueError
    if not all(type(n) is int and 0 < n <= MAX_NGRAM for n in numbers):
        raise ValueError
    return tuple(numbers)


_RESIZE = Kind(f"a table {{method, antialias, fit}}, or any of {', '.join((*RESIZE_METHODS, *RESIZE_FITS))}", _resize)
_NGRAMS = Kind(f"a number or a list of numbers up to {MAX_NGRAM}", _ngrams)
_MethodName = Annotated[str, one_of(RESIZE_METHODS)]
_FitName = Annotated[str, one_of(RESIZE_FITS)]


@settings
class ResizeConfig:
    """How pictures were resized when the model was trained; the same fields as ``edge_runtime.metadata.ImageInput``.

    None means: as the model files say. Where they say nothing: bilinear, antialiased, stretched.
    """

    method: Annotated[_MethodName | None, Field(description="The filter.")] = None
    antialias: Annotated[Flag | None, Field(description="Every pixel of the picture counts.")] = None
    fit: Annotated[_FitName | None, Field(description="How pictures of another aspect ratio are fitted.")] = None

    def __post_init__(self) -> None:
        if self.antialias is False and self.method not in (None, "nearest", "bilinear"):
            raise ValueError(
                f"the device cannot compute {self.method} without antialiasing as TensorFlow does; "
                "expected bilinear or nearest, or antialias = true"
            )

    def over(self, other: ResizeConfig) -> ResizeConfig:
        """These settings; what is None is taken from ``other``."""
        found = {name: getattr(self, name) for name in ("method", "antialias", "fit")}
        return replace(other, **{name: value for name, value in found.items() if value is not None})

    def __str__(self) -> str:
        """The text that an option and a TOML file accept: ``lanczos,crop``."""
        return ",".join(filter(None, (self.method, "no-antialias" if self.antialias is False else "", self.fit)))


Resize = Annotated[ResizeConfig, _RESIZE]
_Activation = Annotated[str, one_of((*ACTIVATIONS, "none"))]


@settings
class HeadConfig:
    """One classifier.

    Attributes:
        name (str): Lower-case letters, digits and _, beginning with a letter.
        model (Path): The model file, archive or folder.
        labels (Path | tuple[str, ...] | None): A file with one label on each line, or the labels themselves; None looks
            beside the model.
        preprocessing (PixelTransform | None): Input scaling of pixels 0..255; None where the model's first layers do it.
        activation (str | None): For a model whose outputs are logits: ``softmax``, or ``sigmoid`` (each label on its
            own). ``none``: its outputs are probabilities already. None decides by the graph and the values.
        size (tuple[int, int] | None): Height and width in pixels, of this head alone; None uses the size of the build.
        resize (ResizeConfig | None): How its training pictures were resized; None uses the setting of the build.
        min_agreement (float | None): Lowest accepted agreement with its original, from 0 to 1; None uses the setting of
            the build.
        title (str | None): Name for people, in any script.
        output_name (str | None): The output to use, where the model has several.
    """

    name: Annotated[str, Strict(), Field(exclude=True)]
    model: Annotated[SettingPath, Field(description="The classifier: a Keras file, a zip archive or a folder.")]
    labels: Annotated[
        Path | tuple[str, ...] | None,
        LABELS,
        Field(description="The labels. Default: those beside the model."),
    ] = None
    preprocessing: Annotated[
        InstanceOf[PixelTransform] | None,
        PREPROCESSING_KIND,
        Field(description="Input scaling of pixels 0..255; not needed if the model's first layers do it."),
    ] = None
    activation: Annotated[
        _Activation | None,
        Field(description="For logits: softmax (one label) or sigmoid (each label on its own); none for probabilities."),
    ] = None
    size: Annotated[Size | None, Field(description="Picture size in pixels, for a model that takes any size.")] = None
    resize: Annotated[Resize | None, Field(description="How the training pictures were resized.")] = None
    min_agreement: Annotated[Share | None, Field(description="Lowest accepted agreement with the original.")] = None
    title: Annotated[Text | None, Field(description="Name for people, in any script.")] = None
    output_name: Annotated[Text | None, Field(description="Output of the model, if it has several.")] = None

    def __post_init__(self) -> None:
        try:
            check_new_head_name(self.name)
        except ValueError as error:
            raise ConfigError(str(error)) from error


MaxLength = Annotated[
    int | None,
    Strict(),
    Field(ge=1, le=MAX_LENGTH, description="Number of tokens of a text. Default: the models' input length."),
]
_Side = Annotated[str, one_of(SIDES)]


@settings
class TextConfig:
    """How texts become tokens, where the models do not say it; the settings of Keras's ``TextVectorization``.

    Attributes:
        vocabulary: A file with one token on each line, or the output of ``Tokenizer.to_json()``, which also says how a
            text is split; None for models with a TextVectorization.
        standardize: One of ``edge_runtime.text.STANDARDIZE``; None does nothing.
        split: One of ``edge_runtime.text.SPLIT``; None takes a text as one token.
        ngrams: Lengths of the n-grams that are added as tokens.
        padding: As in Keras's ``pad_sequences``, like ``truncating``; None is Keras's own default.
        truncating: See ``padding``.
        maxlen: Number of tokens of a text, for models that take texts of any length; None is the length of their input.
    """

    vocabulary: Annotated[
        SettingPath | None,
        Field(
            description="A file with one token on each line, or the tokenizer.json of a Keras Tokenizer, for models that "
            "take token numbers."
        ),
    ] = None
    standardize: Annotated[
        str | None, one_of(STANDARDIZE, none="none"), Field(description="How texts are standardized.")
    ] = STANDARDIZE[0]
    split: Annotated[str | None, one_of(SPLIT, none="none"), Field(description="What a token is.")] = SPLIT[0]
    ngrams: Annotated[
        tuple[int, ...] | None, _NGRAMS, Field(description="Lengths of n-grams that are added as tokens.")
    ] = None
    padding: Annotated[_Side | None, Field(description="Where a short text is padded, as in pad_sequences.")] = None
    truncating: Annotated[_Side | None, Field(description="Where a long text is truncated, as in pad_sequences.")] = None
    maxlen: MaxLength = None
