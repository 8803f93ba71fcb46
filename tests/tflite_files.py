"""``.tflite`` files of tiny classifiers as other tools write them, and copies with one change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from builder.tflite.flatbuffer import Part, read_subgraphs
from builder.tflite.writer import write_parts

CONSTANT_BYTES = 64  # smaller constants are axes and paddings


def convert(model: Any, **settings: Any) -> bytes:
    """Convert a Keras model with TensorFlow's converter. ``settings``: attributes of the converter."""
    import tensorflow as tf

    from builder.support.quiet import quiet

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    for name, value in settings.items():
        setattr(converter, name, value)
    with quiet():
        return bytes(converter.convert())


def changed(model: bytes, change: Callable[[Part], None]) -> bytes:
    """The file with a change of its network. It then has one signature, ``network``."""
    (part,) = read_subgraphs(model)
    change(part)
    return write_parts({"network": part})


def with_kinds_in_bytes(model: bytes) -> bytes:
    """The file as converters before TensorFlow 2.4 wrote it."""
    tables = schema.ModelT.InitFromPackedBuf(model, 0)
    for code in tables.operatorCodes:
        code.builtinCode = 0
    packer = flatbuffers.Builder(len(model))
    packer.Finish(tables.Pack(packer), b"TFL3")
    return bytes(packer.Output())


def kernels(part: Part) -> list[int]:
    """The constant tensors of four axes, in the order in which operators read them."""
    found = [i for op in part.operators for i in op.inputs if i >= 0 and part.buffers[part.tensors[i].buffer] is not None]
    return [i for i in dict.fromkeys(found) if len(part.tensors[i].shape) == 4]


def move_weight(share: float, kernel: int = 0) -> Callable[[Part], None]:
    """A change of the largest number of a kernel by a share of itself."""

    def move(part: Part) -> None:
        tensor = kernels(part)[kernel]
        values = part.buffers[part.tensors[tensor].buffer]
        assert values is not None
        own = values.view(np.float32).copy()
        own[np.argmax(np.abs(own))] *= np.float32(1 + share)
        part.set_constant(tensor, own)

    return move


def save(folder: Path, files: Mapping[str, bytes]) -> dict[str, Path]:
    """Write each file as ``NAME.tflite`` into ``folder``."""
    paths = {name: folder / f"{name}.tflite" for name in files}
    for name, content in files.items():
        paths[name].write_bytes(content)
    return paths
