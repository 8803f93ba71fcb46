"""Run a polyhead file: one backbone, many classification heads, without TensorFlow."""

from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.errors import (
    BundleError,
    EdgeRuntimeError,
    InterpreterError,
    PictureError,
    TextError,
    UnknownHeadError,
)
from edge_runtime.results import Category, ClassificationResult, Classifications

__version__ = "0.1.0"

__all__ = [
    "BundleError",
    "Category",
    "ClassificationResult",
    "Classifications",
    "EdgeRuntimeError",
    "InterpreterError",
    "MultiHeadClassifier",
    "PictureError",
    "TextError",
    "UnknownHeadError",
    "__version__",
]
