"""A TensorFlow Lite flatbuffer is checked here before an interpreter sees it.

Interpreters trust a file: an index beyond a list, a scale that is no number or an operator with too few inputs ends the
process. ``check_model`` knows the format without a schema module, and reads all tables of a kind at once.
"""

from edge_runtime.flatbuffer.check import DEFAULT_LIMITS, IDENTIFIER, ModelLimits, check_model, check_structure
from edge_runtime.flatbuffer.model import Model
from edge_runtime.flatbuffer.views import Signature, Views

__all__ = [
    "DEFAULT_LIMITS", "IDENTIFIER", "Model", "ModelLimits", "Signature", "Views", "check_model", "check_structure"
]  # fmt: skip
