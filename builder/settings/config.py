"""What the user chose, from a TOML file or from the command line: one frozen object."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.settings.input_scaling import PixelTransform, parse_preprocessing
from builder.settings.limits import Limits
from builder.settings.targets import TARGETS
from builder.support.errors import ConfigError
from builder.support.places import report_folder
from edge_runtime.files import read_file
from edge_runtime.metadata import ACTIVATIONS, RESIZE_FITS, RESIZE_METHODS, check_head_name
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
PRECISIONS = ("int8", MIXED, "int16", "weights", "float16", "float")
MAX_CONFIG_FILE = 16 << 20  # bytes
MAX_TOLERANCE = 0.01  # beyond it weights are not the same rounded otherwise, but others


@dataclass(frozen=True)
class HeadConfig:
    """One classifier. ``labels``: a file with one label a line, or the labels themselves; None looks beside the model.

    ``activation``: of a model that gives bare logits, ``softmax`` or ``sigmoid`` (each label for itself); None: softmax.
    """

    name: str
    model: Path
    labels: Path | tuple[str, ...] | None = None
    preprocessing: PixelTransform | None = None
    activation: str | None = None


@dataclass(frozen=True)
class ResizeConfig:
    """How pictures were brought to the model's size when it was trained; as in ``edge_runtime.metadata.ImageInput``.

    ``fit``: None takes what the model files say, and ``stretch`` where they say nothing.
    """

    method: str = "bilinear"
    antialias: bool = True
    fit: str | None = None


@dataclass(frozen=True)
class TextConfig:
    """How texts become tokens where the models take the numbers of tokens; the settings are those of TextVectorization.

    ``vocabulary``: a file with one token a line, or what ``Tokenizer.to_json()`` gives, which says how a text is split.
    ``padding``, ``truncating``, ``maxlen``: as in ``pad_sequences``; None: as Keras does unless told, and the length of
    the models' input.
    """

    vocabulary: Path
    standardize: str | None = STANDARDIZE[0]
    split: str | None = SPLIT[0]
    ngrams: tuple[int, ...] | None = None
    padding: str | None = None
    truncating: str | None = None
    maxlen: int | None = None


@dataclass(frozen=True)
class JointConfig:
    """The joint list of all labels. ``merge_labels``: labels that heads share stand once, their probabilities added up.

    ``false_alarm``: share of the pictures of the heads that may be taken for none's.
    """

    enabled: bool = True
    merge_labels: bool = False
    false_alarm: float = 0.05


@dataclass(frozen=True)
class BuildConfig:
    """Everything a build depends on. Heads keep their order everywhere: in the file, its outputs and its reports.

    ``precision``: one of ``PRECISIONS``, or ``auto``: the first of them that agrees with the originals. ``equalize``:
    channels of linear tensors, see ``quantizing.equalize``. ``ranges``: of activations, see ``quantizing.ranges``.
    ``rounding``: ``learnt`` from the calibration pictures, or to the ``nearest`` integer, or that and the mean error
    taken up by the ``bias``. ``refit``: learnt rounding makes up for earlier losses, see ``quantizing.refit``.
    ``algorithm``: one of ``ALGORITHMS``; the others are there to compare with and make int8 alone, in their own way.
    ``tolerance``: how far apart weights may be that count as the same, relative to the largest of a tensor; float16
    needs 0.0005. ``allow_code``: run what a model file brings (Lambda layers, classes of its own). ``target``: a device
    that the file must run on, see ``targets.TARGETS``. ``limits``: how much a model file may ask of this machine.
    """

    output: Path
    calibration_data: Path
    heads: tuple[HeadConfig, ...]
    verification_data: Path | None = None
    min_agreement: float = DEFAULT_MIN_AGREEMENT
    keras_output: Path | None = None
    report: Path | None = None
    resize: ResizeConfig = field(default_factory=ResizeConfig)
    precision: str = AUTO
    algorithm: str = OWN
    equalize: bool = True
    ranges: str = "mse"
    rounding: str = "learnt"
    refit: bool = True
    tolerance: float = 0.0
    allow_code: bool = False
    target: str | None = None
    joint: JointConfig = field(default_factory=JointConfig)
    text: TextConfig | None = None
    saved_model: Path | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.heads:
            raise ConfigError("no heads: name at least one classifier, [heads.NAME] in the TOML or --head NAME=MODEL")
        names = [head.name for head in self.heads]
        for name in names:
            try:
                check_head_name(name)
            except ValueError as error:
                raise ConfigError(str(error)) from error
            if names.count(name) > 1:
                raise ConfigError(f"two heads are called {name!r}; every head needs a name of its own")
        if self.precision not in (AUTO, *PRECISIONS):
            raise ConfigError(f"precision: expected one of {', '.join((AUTO, *PRECISIONS))}, found {self.precision!r}")
        if self.algorithm not in ALGORITHMS:
            raise ConfigError(f"algorithm: expected one of {', '.join(ALGORITHMS)}, found {self.algorithm!r}")
        if self.algorithm != OWN and self.precision not in (AUTO, "int8"):
            raise ConfigError(
                f"algorithm {self.algorithm} makes int8 alone, found precision {self.precision!r}; leave one of them out"
            )
        if self.ranges not in ESTIMATES:
            raise ConfigError(f"ranges: expected one of {', '.join(ESTIMATES)}, found {self.ranges!r}")
        if self.rounding not in ROUNDINGS:
            raise ConfigError(f"rounding: expected one of {', '.join(ROUNDINGS)}, found {self.rounding!r}")
        if not 0 <= self.min_agreement <= 1:
            raise ConfigError(f"min_agreement: expected a number from 0 to 1, found {self.min_agreement}")
        if self.target is not None and self.target not in list(TARGETS):
            raise ConfigError(f"target: expected one of {', '.join(TARGETS)}, found {self.target!r}")
        if not 0 <= self.tolerance <= MAX_TOLERANCE:
            raise ConfigError(f"tolerance: expected a number from 0 to {MAX_TOLERANCE}, found {self.tolerance}")

    @property
    def report_folder(self) -> Path:
        return self.report or report_folder(self.output)

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions to try, in this order."""
        if self.algorithm != OWN:
            return PRECISIONS[:1]
        return PRECISIONS if self.precision == AUTO else (self.precision,)

    @classmethod
    def from_toml(cls, path: str | Path) -> BuildConfig:
        """Read ``path``; paths inside are relative to its folder. Raises ``ConfigError`` naming the key that is wrong."""
        path = Path(path)
        try:
            document = tomllib.loads(read_file(path, MAX_CONFIG_FILE).decode("utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not a TOML file: {error}") from error
        try:
            return _build_config(document, path.parent)
        except ConfigError as error:
            raise ConfigError(f"{path}: {str(error)[:1000]}") from error


def _precision(name: Any) -> Any:
    return FORMER_PRECISIONS.get(name, name) if isinstance(name, str) else name


_KEYS = (
    "output",
    "calibration_data",
    "verification_data",
    "min_agreement",
    "keras_output",
    "saved_model",
    "max_memory",
    "max_steps",
    "report",
    "resize",
    "precision",
    "algorithm",
    "equalize",
    "ranges",
    "rounding",
    "refit",
    "tolerance",
    "allow_code",
    "target",
    "joint",
    "text",
    "heads",
)
_HEAD_KEYS = ("model", "labels", "preprocessing", "activation")
_RESIZE_KEYS = ("method", "antialias", "fit")
_JOINT_KEYS = ("enabled", "merge_labels", "false_alarm")
_TEXT_KEYS = ("vocabulary", "standardize", "split", "ngrams", "padding", "truncating", "maxlen")


def _build_config(document: Mapping[str, Any], folder: Path) -> BuildConfig:
    _check_keys(document, _KEYS, "")
    heads = _get(document, "heads", dict, "a table [heads.NAME] for each classifier")
    return BuildConfig(
        output=_path(document, "output", folder, required=True),
        calibration_data=_path(document, "calibration_data", folder, required=True),
        verification_data=_path(document, "verification_data", folder),
        min_agreement=_number(document, "min_agreement", DEFAULT_MIN_AGREEMENT),
        tolerance=_number(document, "tolerance", 0.0),
        allow_code=_flag(document, "allow_code"),
        target=document.get("target"),
        keras_output=_path(document, "keras_output", folder),
        saved_model=_path(document, "saved_model", folder),
        report=_path(document, "report", folder),
        limits=_limits(document),
        resize=_resize(document.get("resize", {})),
        precision=_precision(document.get("precision", AUTO)),
        algorithm=document.get("algorithm", OWN),
        equalize=_flag(document, "equalize", default=True),
        ranges=document.get("ranges", "mse"),
        rounding=document.get("rounding", "learnt"),
        refit=_flag(document, "refit", default=True),
        joint=_joint(document.get("joint", {})),
        text=_text(document.get("text"), folder),
        heads=tuple(_head(name, table, folder) for name, table in heads.items()),
    )


def _limits(document: Mapping[str, Any]) -> Limits:
    steps = _number(document, "max_steps", Limits.max_steps)
    return Limits(_number(document, "max_memory", Limits.max_memory), int(steps) if steps.is_integer() else 0)


def _head(name: str, table: Any, folder: Path) -> HeadConfig:
    where = f"heads.{name}"
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: expected a table, found {table!r}")
    _check_keys(table, _HEAD_KEYS, f"{where}.")
    labels = table.get("labels")
    if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
        labels = tuple(labels)
    elif labels is not None and not isinstance(labels, str):
        raise ConfigError(f"{where}.labels: expected a file's name or a list of strings, found {labels!r}")
    preprocessing, activation = table.get("preprocessing"), table.get("activation")
    if activation not in (None, *ACTIVATIONS):
        raise ConfigError(f"{where}.activation: expected one of {', '.join(ACTIVATIONS)}, found {activation!r}")
    return HeadConfig(
        name=name,
        model=_path(table, "model", folder, required=True, where=f"{where}."),
        labels=Path(os.path.normpath(folder / labels)) if isinstance(labels, str) else labels,
        preprocessing=None if preprocessing is None else parse_preprocessing(preprocessing, where),
        activation=activation,
    )


def _resize(table: Any) -> ResizeConfig:
    if not isinstance(table, dict):
        raise ConfigError(f"resize: expected a table {{method, antialias, fit}}, found {table!r}")
    _check_keys(table, _RESIZE_KEYS, "resize.")
    choices: tuple[tuple[str, tuple[Any, ...]], ...] = (
        ("method", RESIZE_METHODS),
        ("fit", RESIZE_FITS),
        ("antialias", (True, False)),
    )
    for key, valid in choices:
        if key in table and table[key] not in valid:
            raise ConfigError(f"resize.{key}: expected one of {', '.join(map(str, valid))}, found {table[key]!r}")
    chosen = ResizeConfig(**table)
    if not chosen.antialias and chosen.method not in ("nearest", "bilinear"):
        raise ConfigError(
            f"resize: {chosen.method} without antialiasing is not what the device can do as TensorFlow does it; "
            "expected bilinear or nearest, or antialias = true"
        )
    return chosen


def _text(table: Any, folder: Path) -> TextConfig | None:
    """TOML has no null: "none" stands for it."""
    if table is None:
        return None
    if not isinstance(table, dict):
        raise ConfigError(f"text: expected a table {{{', '.join(_TEXT_KEYS)}}}, found {table!r}")
    _check_keys(table, _TEXT_KEYS, "text.")
    chosen = {}
    for key, valid in (("standardize", STANDARDIZE), ("split", SPLIT)):
        value = table.get(key, valid[0])
        if value not in ("none", *valid):
            raise ConfigError(f"text.{key}: expected one of none, {', '.join(valid)}, found {value!r}")
        chosen[key] = None if value == "none" else value
    ngrams = table.get("ngrams")
    ngrams = list(range(1, ngrams + 1)) if type(ngrams) is int and ngrams <= MAX_NGRAM else ngrams
    if ngrams is not None and not (
        isinstance(ngrams, list) and ngrams and all(type(n) is int and 0 < n <= MAX_NGRAM for n in ngrams)
    ):
        raise ConfigError(
            f"text.ngrams: expected a number or a list of numbers up to {MAX_NGRAM}, found {table['ngrams']!r}"
        )
    for key in ("padding", "truncating"):
        if table.get(key) not in (None, *SIDES):
            raise ConfigError(f"text.{key}: expected one of {', '.join(SIDES)}, found {table[key]!r}")
        chosen[key] = table.get(key)
    length = table.get("maxlen")
    if length is not None and (type(length) is not int or not 0 < length <= MAX_LENGTH):
        raise ConfigError(f"text.maxlen: expected a number from 1 to {MAX_LENGTH}, found {length!r}")
    path = _path(table, "vocabulary", folder, required=True, where="text.")
    return TextConfig(path, ngrams=ngrams and tuple(ngrams), maxlen=length, **chosen)


def _joint(table: Any) -> JointConfig:
    if isinstance(table, bool):
        return JointConfig(enabled=table)
    if not isinstance(table, dict):
        raise ConfigError(f"joint: expected true, false or a table {{{', '.join(_JOINT_KEYS)}}}, found {table!r}")
    _check_keys(table, _JOINT_KEYS, "joint.")
    for key in ("enabled", "merge_labels"):
        if not isinstance(table.get(key, True), bool):
            raise ConfigError(f"joint.{key}: expected true or false, found {table[key]!r}")
    rate = table.get("false_alarm", 0.05)
    if not isinstance(rate, float) or not 0 < rate < 0.5:
        raise ConfigError(f"joint.false_alarm: expected a number above 0 and below 0.5, found {rate!r}")
    return JointConfig(**table)


def _check_keys(table: Mapping[str, Any], known: Iterable[str], prefix: str) -> None:
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, list(known), 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(f"unknown key {prefix + key!r}; {hint}known here: {', '.join(known)}")


def _get(table: Mapping[str, Any], key: str, kind: type, expected: str, where: str = "") -> Any:
    if not isinstance(table.get(key), kind):
        raise ConfigError(f"{where}{key}: expected {expected}, found {table.get(key, 'nothing')!r}")
    return table[key]


def _path(table: Mapping[str, Any], key: str, folder: Path, *, required: bool = False, where: str = "") -> Any:
    if key not in table and not required:
        return None
    return Path(os.path.normpath(folder / _get(table, key, str, "a path", where)))


def _number(table: Mapping[str, Any], key: str, default: float) -> float:
    value = table.get(key, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ConfigError(f"{key}: expected a number, found {value!r}")
    return float(value)


def _flag(table: Mapping[str, Any], key: str, *, default: bool = False) -> bool:
    value = table.get(key, default)
    if not isinstance(value, bool):
        raise ConfigError(f"{key}: expected true or false, found {value!r}")
    return value
