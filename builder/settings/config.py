"""What the user chose, from a TOML file or from the command line: one frozen object."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, InstanceOf, Strict, ValidationInfo

from builder.settings.input_scaling import PREPROCESSING_KIND, PixelTransform
from builder.settings.kinds import LABELS, PATH, SIZE, Flag, Kind, Share, Text, one_of
from builder.settings.limits import Gigabytes, Limits, Steps
from builder.settings.model import read_settings, settings
from builder.settings.targets import TARGETS
from builder.support.errors import ConfigError
from builder.support.places import report_folder
from edge_runtime.files import read_file
from edge_runtime.metadata import ACTIVATIONS, RESIZE_FITS, RESIZE_METHODS, check_new_head_name
from edge_runtime.text import MAX_LENGTH, MAX_NGRAM, SIDES, SPLIT, STANDARDIZE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_MIN_AGREEMENT = 0.97
OWN = "polyhead"
ALGORITHMS = (OWN, "tensorflow", "litert_minmax", "litert_mse", "litert_octav")
ROUNDINGS = ("learnt", "bias", "nearest")
ESTIMATES = ("minmax", "percentile", "mse")
AUTO = "auto"
MIXED = "mixed"
FORMER_PRECISIONS = {"islands": MIXED}  # what versions before wrote, still read
DYNAMIC = "dynamic"
PRECISIONS = ("int8", MIXED, "int16", DYNAMIC, "weights", "float16", "float")
SAMPLE_FREE = PRECISIONS[3:]  # what can be made without calibration samples
MAX_CONFIG_FILE = 16 << 20  # bytes
MAX_TOLERANCE = 0.01  # beyond it weights are not the same rounded otherwise, but others

SettingPath = Annotated[Path, PATH]
Size = Annotated[tuple[int, int], SIZE]


def _resize(value: Any, _: ValidationInfo) -> Any:
    """A table, or its values in any order as an option has them: ``lanczos,crop``."""
    if not isinstance(value, str):
        return value
    keys = {**dict.fromkeys(RESIZE_METHODS, "method"), **dict.fromkeys(RESIZE_FITS, "fit")}
    words: dict[str, Any] = {"antialias": ("antialias", True), "no-antialias": ("antialias", False)}
    pairs = [words.get(word) or (keys.get(word), word) for word in value.split(",")]
    if None in dict(pairs) or len(dict(pairs)) < len(pairs):
        raise ValueError
    return dict(pairs)


def _ngrams(value: Any, _: ValidationInfo) -> Any:
    """A number stands for all up to it."""
    numbers = list(range(1, value + 1)) if type(value) is int and 0 < value <= MAX_NGRAM else value
    if numbers is None:
        return None
    if not isinstance(numbers, (list, tuple)) or not numbers:
        raise ValueError
    if not all(type(n) is int and 0 < n <= MAX_NGRAM for n in numbers):
        raise ValueError
    return tuple(numbers)


def _head_tables(value: Any, _: ValidationInfo) -> Any:
    """The tables [heads.NAME] become heads with a name."""
    if not isinstance(value, Mapping):
        return value
    named = [isinstance(table, Mapping) and "name" in table for table in value.values()]
    if any(named):
        name = list(value)[named.index(True)]
        raise ConfigError(f"unknown key 'heads.{name}.name'; the name of a head is that of its table")
    return [{"name": name, **table} if isinstance(table, Mapping) else table for name, table in value.items()]


def _version(value: Any, _: ValidationInfo) -> Any:
    return str(value) if isinstance(value, (int, float, date)) and not isinstance(value, bool) else value


_RESIZE = Kind(f"a table {{method, antialias, fit}}, or some of {', '.join((*RESIZE_METHODS, *RESIZE_FITS))}", _resize)
_JOINT = Kind(
    "true, false or a table {enabled, merge_labels, false_alarm, everyday}",
    lambda value, _: {"enabled": value} if isinstance(value, bool) else value,
)
_NGRAMS = Kind(f"a number or a list of numbers up to {MAX_NGRAM}", _ngrams)
_HEADS = Kind("a table [heads.NAME] for each classifier", _head_tables)
_VERSION = Kind("a text, a number or a date", _version)
_MethodName = Annotated[str, one_of(RESIZE_METHODS)]
_FitName = Annotated[str, one_of(RESIZE_FITS)]


@settings
class ResizeConfig:
    """How pictures were brought to the model's size when it was trained; as in ``edge_runtime.metadata.ImageInput``.

    None takes what the model files say; where they say nothing, bilinear, antialiased, stretched.
    """

    method: Annotated[_MethodName | None, Field(description="The filter.")] = None
    antialias: Annotated[Flag | None, Field(description="Every pixel of the picture counts.")] = None
    fit: Annotated[_FitName | None, Field(description="What becomes of another aspect ratio.")] = None

    def __post_init__(self) -> None:
        if self.antialias is False and self.method not in (None, "nearest", "bilinear"):
            raise ValueError(
                f"{self.method} without antialiasing is not what the device can do as TensorFlow does it; "
                "expected bilinear or nearest, or antialias = true"
            )

    def over(self, other: ResizeConfig) -> ResizeConfig:
        """This, and ``other`` where it says nothing."""
        found = {name: getattr(self, name) for name in ("method", "antialias", "fit")}
        return replace(other, **{name: value for name, value in found.items() if value is not None})

    def __str__(self) -> str:
        """As an option and a TOML file take it: ``lanczos,crop``."""
        return ",".join(filter(None, (self.method, "no-antialias" if self.antialias is False else "", self.fit)))


_Resize = Annotated[ResizeConfig, _RESIZE]
_Activation = Annotated[str, one_of((*ACTIVATIONS, "none"))]


@settings
class HeadConfig:
    """One classifier.

    Attributes:
        name: Small letters, digits and _, beginning with a letter.
        model: The model file, archive or folder.
        labels: A file with one label a line, or the labels themselves; None looks beside the model.
        preprocessing: How pixels enter the model; None where its own first layers settle it.
        activation: Of a model that gives bare logits ``softmax`` or ``sigmoid`` (each label for itself), or ``none``
            where its values are probabilities already; None takes what the graph and the values say.
        size: Height and width in pixels, of this head alone; None takes the build's.
        resize: How its training pictures were resized; None takes the build's.
        min_agreement: Least agreement with its original, from 0 to 1; None takes the build's.
    """

    name: Annotated[str, Strict(), Field(exclude=True)]
    model: Annotated[SettingPath, Field(description="The classifier: a Keras file, a zip archive or a folder.")]
    labels: Annotated[
        Path | tuple[str, ...] | None,
        LABELS,
        Field(description="Its labels; without it those that lie beside the model."),
    ] = None
    preprocessing: Annotated[
        InstanceOf[PixelTransform] | None,
        PREPROCESSING_KIND,
        Field(description="How pixels 0..255 enter the model; may be left out where its own first layers say it."),
    ] = None
    activation: Annotated[
        _Activation | None,
        Field(description="Of bare logits: one label holds, or each for itself; none: they are probabilities."),
    ] = None
    size: Annotated[Size | None, Field(description="Pixels, of a model that takes pictures of any size.")] = None
    resize: Annotated[_Resize | None, Field(description="How its pictures were resized when it was trained.")] = None
    min_agreement: Annotated[Share | None, Field(description="Least agreement with its original.")] = None
    title: Annotated[Text | None, Field(description="What people call it, in any script.")] = None
    output_name: Annotated[Text | None, Field(description="Which output it is, of a model with several.")] = None

    def __post_init__(self) -> None:
        try:
            check_new_head_name(self.name)
        except ValueError as error:
            raise ConfigError(str(error)) from error


_Side = Annotated[str, one_of(SIDES)]


@settings
class TextConfig:
    """How texts become tokens where the models take the numbers of tokens; the settings are those of TextVectorization.

    ``vocabulary``: a file with one token a line, or what ``Tokenizer.to_json()`` gives, which says how a text is split.
    ``padding``, ``truncating``, ``maxlen``: as in ``pad_sequences``; None: as Keras does unless told, and the length of
    the models' input.
    """

    vocabulary: Annotated[
        SettingPath, Field(description="A file with one token a line, or tokenizer.json of a Keras Tokenizer.")
    ]
    standardize: Annotated[str | None, one_of(STANDARDIZE, none="none"), Field(description="What is evened out.")] = (
        STANDARDIZE[0]
    )
    split: Annotated[str | None, one_of(SPLIT, none="none"), Field(description="What a token is.")] = SPLIT[0]
    ngrams: Annotated[
        tuple[int, ...] | None, _NGRAMS, Field(description="Lengths of runs of tokens that count as tokens too.")
    ] = None
    padding: Annotated[_Side | None, Field(description="Where a short text gets zeros, as in pad_sequences.")] = None
    truncating: Annotated[_Side | None, Field(description="Where a long text is cut, as in pad_sequences.")] = None
    maxlen: Annotated[
        int | None, Strict(), Field(ge=1, le=MAX_LENGTH, description="Tokens of a text; else the models' input length.")
    ] = None


@settings
class JointConfig:
    """The joint list of all labels. ``merge_labels``: labels that heads share stand once, their probabilities added up.

    ``false_alarm``: share of the pictures of the heads that may be taken for none's. ``enabled``: None: of pictures.
    """

    enabled: Annotated[
        Flag | None,
        Field(description="Make one list of the labels of all heads; unsaid: of pictures, not of texts."),
    ] = None
    merge_labels: Annotated[Flag, Field(description="Labels that heads share stand once.")] = False
    false_alarm: Annotated[
        float, Strict(), Field(gt=0, lt=0.5, description="Share of the heads' own samples that may be taken for none's.")
    ] = 0.05
    everyday: Annotated[
        Flag, Field(description="The builder's own everyday pictures stand for none where calibration_data has no none/.")
    ] = True

    def wanted(self, noun: str) -> bool:
        """Of ``noun``, pictures or texts."""
        return noun == "pictures" if self.enabled is None else self.enabled


MinAgreement = Annotated[Share, Field(description="Least agreement of each head with its original.")]
Samples = Annotated[
    SettingPath,
    Field(description="Folder of pictures or texts; those in a sub-folder named as a head are that head's own."),
]
HeldOut = Annotated[SettingPath, Field(description="Held-out samples to verify with; else a fifth is held out.")]
Report = Annotated[SettingPath, Field(description="Folder of the report; else NAME.report beside the output.")]
Rounding = Annotated[
    str, one_of(ROUNDINGS), Field(description="Weights: learnt from the samples, or to the nearest integer.")
]
Tolerance = Annotated[
    float,
    Strict(),
    Field(
        ge=0,
        le=MAX_TOLERANCE,
        description="Take weights for equal that differ by no more than this share; float16 needs 0.0005.",
    ),
]
AllowCode = Annotated[Flag, Field(description="Run code that a model file brings. Only for files you trust.")]
InferenceMode = Annotated[Flag, Field(description="Layers that a file calls with training=True run as at inference.")]
MaxMemory = Annotated[Gigabytes, Field(description="GB that one model's activations may take.")]
MaxSteps = Annotated[Steps, Field(description="Steps of recurrent layers that one model may have.")]


class WithLimits:
    """A class of settings that has the two of ``Limits``."""

    max_memory: float
    max_steps: int

    @property
    def limits(self) -> Limits:
        return Limits(self.max_memory, self.max_steps)


@settings
class ReadConfig(WithLimits):
    """How model files are read where nothing is built."""

    tolerance: Tolerance = 0.0
    max_memory: MaxMemory = Limits.max_memory
    max_steps: MaxSteps = Limits.max_steps
    allow_code: AllowCode = False
    inference_mode: InferenceMode = False


@settings
class BuildConfig(WithLimits):
    """Everything that a build depends on.

    Heads keep their order everywhere: in the file, its outputs and its reports. Each field is a key of the TOML file.

    Attributes:
        precision: One of ``PRECISIONS``, or ``auto``: the first of them that agrees with the originals.
        algorithm: One of ``ALGORITHMS``; the others are baselines, which make int8 alone, in their own way.
        equalize: Even out the channels of linear tensors (``quantizing.equalize``).
        ranges: How the ranges of activations are estimated (``quantizing.ranges``).
        rounding: ``learnt`` from the calibration samples, to the ``nearest`` integer, or that and the mean error taken up
            by the ``bias``.
        refit: Learnt rounding makes up for the losses of earlier layers (``quantizing.refit``).
        tolerance: How far apart weights may be that count as equal, relative to the largest of a tensor.
        allow_code: Run code that a model file brings (Lambda layers, classes of its own).
        inference_mode: Run what a file calls with ``training=True`` as at inference.
        target: A device that the file must run on, one of ``targets.TARGETS``.
        device: What ``edge-runtime benchmark --operators --json`` wrote on the board that mixed precision is planned for.
    """

    output: Annotated[SettingPath, Field(description="The .tflite file to write.")]
    calibration_data: Samples | None = None
    heads: Annotated[
        tuple[HeadConfig, ...], _HEADS, Field(description="The classifiers, in the order that they have everywhere.")
    ] = ()
    verification_data: HeldOut | None = None
    min_agreement: MinAgreement = DEFAULT_MIN_AGREEMENT
    keras_output: Annotated[SettingPath | None, Field(description="Also save the merged model as .keras.")] = None
    report: Report | None = None
    resize: Annotated[_Resize, Field(description="How pictures were resized when the models were trained.")] = field(
        default_factory=ResizeConfig
    )
    precision: Annotated[
        str,
        one_of((AUTO, *PRECISIONS), former=FORMER_PRECISIONS),
        Field(description="How exact; auto is the first that agrees with the originals."),
    ] = AUTO
    algorithm: Annotated[
        str, one_of(ALGORITHMS), Field(description="Who makes int8; all but the first are baselines.")
    ] = OWN
    equalize: Annotated[Flag, Field(description="Even out the channels of linear tensors.")] = True
    ranges: Annotated[str, one_of(ESTIMATES), Field(description="How the ranges of activations are estimated.")] = "mse"
    rounding: Rounding = "learnt"
    refit: Annotated[Flag, Field(description="Learnt rounding makes up for the losses of earlier layers.")] = True
    tolerance: Tolerance = 0.0
    allow_code: AllowCode = False
    inference_mode: InferenceMode = False
    target: Annotated[str | None, one_of(tuple(TARGETS)), Field(description="A device that the file must run on.")] = None
    device: Annotated[
        SettingPath | None,
        Field(description="Times of the board that the plan is for: edge-runtime benchmark PROBE --operators --json."),
    ] = None
    joint: Annotated[JointConfig, _JOINT, Field(description="The joint list of all labels.")] = field(
        default_factory=JointConfig
    )
    text: Annotated[TextConfig | None, Field(description="How texts become tokens, of models without words.")] = None
    saved_model: Annotated[SettingPath | None, Field(description="Also a SavedModel for servers, in this folder.")] = None
    max_memory: MaxMemory = Limits.max_memory
    max_steps: MaxSteps = Limits.max_steps
    size: Annotated[Size | None, Field(description="Pixels, of models that take pictures of any size.")] = None
    name: Annotated[Text | None, Field(description="What the file is called; else by its own name.")] = None
    version: Annotated[Text | None, _VERSION, Field(description="Of the file, as you count: 3, or a date.")] = None
    author: Annotated[Text | None, Field(description="Who made it.")] = None
    licence: Annotated[Text | None, Field(description="What others may do with it.")] = None

    def __post_init__(self) -> None:
        if not self.heads:
            raise ConfigError("no heads: name at least one classifier, [heads.NAME] in the TOML or --head NAME=MODEL")
        names = [head.name for head in self.heads]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"two heads are called {name!r}; every head needs a name of its own")
        if self.algorithm != OWN and self.precision not in (AUTO, "int8"):
            raise ConfigError(
                f"algorithm {self.algorithm} makes int8 alone, found precision {self.precision!r}; leave one of them out"
            )
        if self.calibration_data is None:
            self._check_without_samples()

    def _check_without_samples(self) -> None:
        kind = self.precision if self.algorithm == OWN else f"int8 by {self.algorithm}"
        if kind not in (AUTO, *SAMPLE_FREE):
            needs = f"precision {kind}"
        elif self.joint.enabled:
            needs = "the joint list"
        elif self.verification_data is not None:
            needs = "verification_data"
        else:
            return
        free = f"; {', '.join(SAMPLE_FREE)} need none" if needs.startswith("precision") else ""
        raise ConfigError(f"{needs} needs calibration_data, a folder of pictures like those to come{free}")

    def as_possible(self) -> BuildConfig:
        """Without calibration samples nothing is learnt from samples."""
        if self.calibration_data is not None:
            return self
        joint = replace(self.joint, enabled=False)
        return replace(self, rounding="nearest", refit=False, equalize=False, joint=joint)

    @property
    def report_folder(self) -> Path:
        return self.report or report_folder(self.output)

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions to try, in this order."""
        if self.algorithm != OWN:
            return PRECISIONS[:1]
        if self.precision != AUTO:
            return (self.precision,)
        return SAMPLE_FREE if self.calibration_data is None else PRECISIONS

    def least_agreement(self, head: str) -> float:
        """The agreement with its original that the head of this name must reach."""
        own = next(h.min_agreement for h in self.heads if h.name == head)
        return self.min_agreement if own is None else own

    @classmethod
    def from_toml(cls, path: str | Path) -> BuildConfig:
        """Read ``path``; paths inside are relative to its folder. Raises ``ConfigError`` that names the keys."""
        return cls.from_document(read_document(Path(path)), Path(path))

    @classmethod
    def from_document(
        cls, document: Mapping[str, Any], path: Path | None = None, named: Callable[[str], str] = str
    ) -> BuildConfig:
        """``document``: as a TOML file has it. ``path``: of that file. ``named``: how the user wrote a key."""
        try:
            return read_settings(cls, document, folder=path and path.parent, named=named)
        except ConfigError as error:
            if path is None:
                raise
            lines = (line[:1000] for line in str(error).split("\n"))
            raise ConfigError("\n".join(line if line.startswith("--") else f"{path}: {line}" for line in lines)) from None


def read_document(path: Path) -> dict[str, Any]:
    """The TOML file at ``path``. Raises ``ConfigError``."""
    try:
        return tomllib.loads(read_file(path, MAX_CONFIG_FILE).decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error!s:.200}") from error
