"""The input of a backbone, a picture or a text, and the function that makes its input tensor."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Union

import numpy as np

from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.image_input import ImageInput
from edge_runtime.preprocess import image_tensor
from edge_runtime.text import TextInput, Tokenizer

Sample = Any  # a picture, see ``preprocess.Picture``, or a text, see ``text.Text``
InputSpec = Union[ImageInput, TextInput]


def tensor_maker(spec: InputSpec) -> Callable[[Sample], np.ndarray]:
    """From a picture (see ``preprocess.image_tensor``) or a text to the tensor ``spec.name``, of ``spec.shape``.

    The function raises ``PictureError`` or ``TextError``.
    """
    return Tokenizer(spec) if isinstance(spec, TextInput) else partial(image_tensor, spec=spec)


def picture_input(spec: InputSpec) -> ImageInput:
    """``spec``, known to be a picture. Raises ``EdgeRuntimeError`` for a file that takes texts."""
    if isinstance(spec, TextInput):
        raise EdgeRuntimeError("this file takes texts, not pictures; use classify-text, or classify_text in Python")
    return spec


def text_input(spec: InputSpec) -> TextInput:
    """``spec``, known to be a text. Raises ``EdgeRuntimeError`` for a file that takes pictures."""
    if not isinstance(spec, TextInput):
        raise EdgeRuntimeError("this file takes pictures, not texts; use classify")
    return spec
