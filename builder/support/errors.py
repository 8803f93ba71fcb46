"""The family of errors. Each has the exit code of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class BuilderError(Exception):
    """The user's input cannot be used. The message says what was expected, what was found, and what to do."""

    exit_code = 2


class ConfigError(BuilderError, ValueError):
    """Settings contradict each other, or one is invalid."""


class ModelFileError(BuilderError, ValueError):
    """A model file cannot be read, or is not a classifier."""


class SamplesError(BuilderError, ValueError):
    """Calibration or verification pictures or texts are missing, or too many of them are broken."""


class NoSharedBackboneError(BuilderError):
    """The models have no backbone in common; the message names the first layer that differs."""

    exit_code = 3


class QualityError(BuilderError):
    """A head failed verification: it does not agree with its original. ``document``: the report of a build, as JSON."""

    exit_code = 3

    def __init__(self, message: str, document: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.document = document


class TargetError(BuilderError):
    """The file needs a newer interpreter than its target device has."""

    exit_code = 3


class ConversionError(BuilderError, RuntimeError):
    """A layer cannot be converted or quantized."""


class ClusterError(BuilderError, RuntimeError):
    """Ray does not start, or cannot be reached."""
