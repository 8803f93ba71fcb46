"""The settings of a build, read from a TOML file or the command line: one frozen object."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, Strict, ValidationInfo

from builder.settings.heads import HeadConfig, MaxLength, Resize, ResizeConfig, Size, TextConfig
from builder.settings.kinds import Flag, Kind, SettingPath, Text, one_of
from builder.settings.limits import Limits
from builder.settings.model import read_settings, settings
from builder.settings.options import (
    DEFAULT_MIN_AGREEMENT,
    AllowCode,
    HeldOut,
    InferenceMode,
    MaxMemory,
    MaxSteps,
    MinAgreement,
    Report,
    Rounding,
    Samples,
    Tolerance,
    WithLimits,
)
from builder.settings.targets import TARGETS
from builder.support.errors import ConfigError
from builder.support.places import report_folder
from edge_runtime.files import read_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OWN = "polyhead"
ALGORITHMS = (OWN, "tensorflow", "litert_minmax", "litert_mse", "litert_octav")
ESTIMATES = ("minmax", "percentile", "mse")
AUTO = "auto"
MIXED = "mixed"
FORMER_PRECISIONS = {"islands": MIXED}  # names of earlier versions, still read
DYNAMIC = "dynamic"
PRECISIONS = ("int8", MIXED, "int16", DYNAMIC, "weights", "float16", "float")
SAMPLE_FREE = PRECISIONS[3:]  # those that need no calibration samples
MAX_CONFIG_FILE = 16 << 20  # bytes


def _head_tables(value: Any, _: ValidationInfo) -> Any:
    """Turn the tables [heads.NAME] into a list of heads with a name each."""
    if not isinstance(value, Mapping):
        return value
    named = [isinstance(table, Mapping) and "name" in table for table in value.values()]
    if any(named):
        name = list(value)[named.index(True)]
        raise ConfigError(f"unknown key 'heads.{name}.name'; a head has the name of its table")
    return [{"name": name, **table} if isinstance(table, Mapping) else table for name, table in value.items()]


def _version(value: Any, _: ValidationInfo) -> Any:
    return str(value) if isinstance(value, (int, float, date)) and not isinstance(value, bool) else value


_JOINT = Kind(
    "true, false or a table {enabled, merge_labels, false_alarm, everyday}",
    lambda value, _: {"enabled": value} if isinstance(value, bool) else value,
)
_HEADS = Kind("a table [heads.NAME] for each classifier", _head_tables)
_VERSION = Kind("a text, a number or a date", _version)


@settings
class JointConfig:
    """The joint list: one list of the labels of all heads.

    Attributes:
        enabled: Whether the list is made; None makes it for pictures and not for texts.
        merge_labels: Whether a label that several heads have appears once, with their probabilities added up.
        false_alarm: Share of the heads' own samples that may be rejected as none, above 0 and below 0.5.
        everyday: Whether the builder's own everyday pictures are used where ``calibration_data`` has no ``none/``.
    """

    enabled: Annotated[
        Flag | None,
        Field(description="Make one list of the labels of all heads. Default: for pictures, not for texts."),
    ] = None
    merge_labels: Annotated[Flag, Field(description="A label that several heads have appears once.")] = False
    false_alarm: Annotated[
        float, Strict(), Field(gt=0, lt=0.5, description="Share of the heads' own samples that may be rejected as none.")
    ] = 0.05
    everyday: Annotated[
        Flag, Field(description="Use the builder's own everyday pictures if calibration_data has no none/.")
    ] = True

    def wanted(self, noun: str) -> bool:
        """Whether the list is made for ``noun``, "pictures" or "texts"."""
        return noun == "pictures" if self.enabled is None else self.enabled


@settings
class ReadConfig(WithLimits):
    """How model files are read when nothing is built."""

    tolerance: Tolerance = 0.0
    max_memory: MaxMemory = Limits.max_memory
    max_steps: MaxSteps = Limits.max_steps
    allow_code: AllowCode = False
    inference_mode: InferenceMode = False
    text_maxlen: MaxLength = None


@settings
class BuildConfig(WithLimits):
    """Everything that a build depends on.

    The order of the heads is kept everywhere: in the file, its outputs and its reports. Each field is a key of the TOML
    file; the reference of the settings lists all of them.

    Attributes:
        precision (str): One of ``PRECISIONS``, or ``auto``: the first of them that agrees with the originals.
        algorithm (str): One of ``ALGORITHMS``. All but the first are baselines and make int8 only.
        equalize (bool): Whether the float network is prepared for int8 (``quantizing.prepare``).
        ranges (str): How the ranges of activations are estimated, one of ``ESTIMATES`` (``quantizing.ranges``).
        rounding (str): How weights are rounded: ``learnt`` from the calibration samples, to the ``nearest`` integer, or
            ``bias``: to the nearest integer, with the mean error added to the bias.
        refit (bool): Whether learnt rounding corrects the errors of earlier layers (``quantizing.refit``).
        tolerance (float): Largest difference at which two weights count as equal, relative to the largest value of the
            tensor.
        allow_code (bool): Whether code in a model file may run (Lambda layers, custom classes).
        inference_mode (bool): Whether layers that a file calls with ``training=True`` run in inference mode.
        target (str | None): The device that the file must run on, one of ``targets.TARGETS``.
        device (Path | None): The output of ``edge-runtime benchmark --operators --json`` on the board that mixed
            precision is planned for.
    """

    output: Annotated[SettingPath, Field(description="The .tflite file to write.")]
    calibration_data: Samples | None = None
    heads: Annotated[
        tuple[HeadConfig, ...], _HEADS, Field(description="The classifiers; their order here is used everywhere.")
    ] = ()
    verification_data: HeldOut | None = None
    min_agreement: MinAgreement = DEFAULT_MIN_AGREEMENT
    keras_output: Annotated[SettingPath | None, Field(description="Also save the merged model as .keras.")] = None
    report: Report | None = None
    resize: Annotated[Resize, Field(description="How pictures were resized when the models were trained.")] = field(
        default_factory=ResizeConfig
    )
    precision: Annotated[
        str,
        one_of((AUTO, *PRECISIONS), former=FORMER_PRECISIONS),
        Field(description="Precision; auto uses the first that agrees with the originals."),
    ] = AUTO
    algorithm: Annotated[
        str, one_of(ALGORITHMS), Field(description="Algorithm that makes int8; all but the first are baselines.")
    ] = OWN
    equalize: Annotated[
        Flag, Field(description="Prepare the float network for int8: equal channel scales, and spare channels in use.")
    ] = True
    ranges: Annotated[str, one_of(ESTIMATES), Field(description="How the ranges of activations are estimated.")] = "mse"
    rounding: Rounding = "learnt"
    refit: Annotated[Flag, Field(description="Learnt rounding corrects the errors of earlier layers.")] = True
    tolerance: Tolerance = 0.0
    allow_code: AllowCode = False
    inference_mode: InferenceMode = False
    target: Annotated[str | None, one_of(tuple(TARGETS)), Field(description="A device that the file must run on.")] = None
    device: Annotated[
        SettingPath | None,
        Field(description="Operator times of the board to plan for: edge-runtime benchmark PROBE --operators --json."),
    ] = None
    joint: Annotated[JointConfig, _JOINT, Field(description="The joint list of all labels.")] = field(
        default_factory=JointConfig
    )
    text: Annotated[TextConfig | None, Field(description="How texts become tokens, where the models do not say it.")] = (
        None
    )
    saved_model: Annotated[
        SettingPath | None, Field(description="Also write a SavedModel for servers to this folder.")
    ] = None
    max_memory: MaxMemory = Limits.max_memory
    max_steps: MaxSteps = Limits.max_steps
    size: Annotated[Size | None, Field(description="Picture size in pixels, for models that take any size.")] = None
    name: Annotated[Text | None, Field(description="Name of the model. Default: the name of the file.")] = None
    version: Annotated[Text | None, _VERSION, Field(description="Version of the model: 3, or a date.")] = None
    author: Annotated[Text | None, Field(description="Author of the model.")] = None
    licence: Annotated[Text | None, Field(description="Licence of the model.")] = None

    def __post_init__(self) -> None:
        if not self.heads:
            raise ConfigError(
                "no heads; name at least one classifier: [heads.NAME] in the TOML file or --head NAME=MODEL"
            )
        names = [head.name for head in self.heads]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"two heads are called {name!r}; expected a different name for each head")
        if self.algorithm != OWN and self.precision not in (AUTO, "int8"):
            raise ConfigError(
                f"algorithm {self.algorithm} makes int8 only, found precision {self.precision!r}; leave one of them out"
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
        raise ConfigError(f"{needs} needs calibration_data, a folder of pictures like those of the device{free}")

    def as_possible(self) -> BuildConfig:
        """The same settings, with everything off that needs calibration samples where there are none."""
        if self.calibration_data is not None:
            return self
        joint = replace(self.joint, enabled=False)
        return replace(self, rounding="nearest", refit=False, equalize=False, joint=joint)

    @property
    def report_folder(self) -> Path:
        return self.report or report_folder(self.output)

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions to try, in order."""
        if self.algorithm != OWN:
            return PRECISIONS[:1]
        if self.precision != AUTO:
            return (self.precision,)
        return SAMPLE_FREE if self.calibration_data is None else PRECISIONS

    def least_agreement(self, head: str) -> float:
        """The agreement with its original, from 0 to 1, that this head must reach."""
        own = next(h.min_agreement for h in self.heads if h.name == head)
        return self.min_agreement if own is None else own

    @classmethod
    def from_toml(cls, path: str | Path) -> BuildConfig:
        """Read the settings from a TOML file; paths in it are relative to its folder.

        Raises:
            ConfigError: The file cannot be read, or a setting is wrong. The message names every wrong key, one a line.
        """
        return cls.from_document(read_document(Path(path)), Path(path))

    @classmethod
    def from_document(
        cls, document: Mapping[str, Any], path: Path | None = None, named: Callable[[str], str] = str
    ) -> BuildConfig:
        """Read the settings from a document as a TOML file has it.

        Args:
            document: Keys and values; tables are mappings.
            path: The TOML file that the document comes from; None where it comes from options alone.
            named: Gives a key as the user wrote it, for messages.

        Raises:
            ConfigError: A setting is wrong.
        """
        try:
            return read_settings(cls, document, folder=path and path.parent, named=named)
        except ConfigError as error:
            if path is None:
                raise
            lines = (line[:1000] for line in str(error).split("\n"))
            raise ConfigError("\n".join(line if line.startswith("--") else f"{path}: {line}" for line in lines)) from None


def read_document(path: Path) -> dict[str, Any]:
    """Read the TOML file at ``path``.

    Raises:
        ConfigError: The file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(read_file(path, MAX_CONFIG_FILE).decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error!s:.200}") from error
