"""The version that each operator of a file needs, and the oldest interpreter that has it.

An interpreter refuses an operator of an unknown version. Quantizers leave the version at 1, so an old interpreter would
take an int8 operator for a float one and compute wrong results. The versions are therefore set here.

Source: TensorFlow's ``lite/tools/versioning``, ``op_version.cc`` (the version of an operator) and ``runtime_version.cc``
(the first release with it), for the operators that occur in files of this project.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from builder.tflite.flatbuffer import FLOAT32, INT8, INT16, Part, code_key, is_per_channel, operator_name
from edge_runtime.metadata import OLDEST_RUNTIME

Version = tuple[int, int]

# Operators whose version depends on the type of the input only: the version for int8 and for int16.
_BY_INPUT: dict[str, tuple[int, int]] = {
    "ABS": (2, 3), "ADD": (2, 3), "ARG_MAX": (2, 2), "AVERAGE_POOL_2D": (2, 3), "BATCH_MATMUL": (2, 3),
    "BATCH_TO_SPACE_ND": (2, 4), "CONCATENATION": (2, 3), "DEPTH_TO_SPACE": (1, 1), "EXP": (2, 2), "GATHER": (2, 4),
    "GELU": (2, 2), "HARD_SWISH": (1, 1), "LEAKY_RELU": (1, 2), "LOGISTIC": (2, 3), "MAX_POOL_2D": (2, 3),
    "MAXIMUM": (2, 4), "MEAN": (2, 3), "MINIMUM": (2, 4), "PACK": (2, 3), "PAD": (2, 3), "PADV2": (2, 3),
    "REDUCE_MAX": (2, 3), "REDUCE_MIN": (2, 3), "RELU": (2, 3), "RELU6": (2, 3), "RSQRT": (2, 3), "SLICE": (3, 4),
    "SOFTMAX": (2, 3), "SPACE_TO_BATCH_ND": (2, 4), "SPACE_TO_DEPTH": (2, 2), "SQUARED_DIFFERENCE": (2, 2),
    "STRIDED_SLICE": (2, 2), "SUB": (2, 5), "SUM": (2, 2), "TANH": (2, 3), "TILE": (3, 3), "TRANSPOSE": (2, 5),
    "UNPACK": (2, 4),
}  # fmt: skip
# The first TensorFlow Lite with each version; those not listed are in ``OLDEST_RUNTIME``.
_SINCE: dict[tuple[str, int], Version] = {
    ("CONV_2D", 5): (2, 4), ("CONV_2D", 6): (2, 9), ("CONV_2D", 8): (2, 15), ("FULLY_CONNECTED", 11): (2, 15),
    ("FULLY_CONNECTED", 12): (2, 17), ("ADD", 3): (2, 4), ("SUB", 5): (2, 4), ("PAD", 3): (2, 4), ("PADV2", 3): (2, 4),
    ("MEAN", 3): (2, 4), ("REDUCE_MAX", 3): (2, 5), ("REDUCE_MIN", 3): (2, 5), ("RELU", 3): (2, 5), ("RELU6", 3): (2, 5),
    ("RSQRT", 2): (2, 5), ("RSQRT", 3): (2, 10), ("SQUARED_DIFFERENCE", 2): (2, 5), ("GATHER", 4): (2, 4),
    ("TRANSPOSE", 5): (2, 4), ("SLICE", 4): (2, 4), ("BATCH_MATMUL", 3): (2, 4), ("BATCH_MATMUL", 4): (2, 5),
    ("EXP", 2): (2, 12), ("ABS", 3): (2, 5), ("GELU", 1): (2, 9), ("GELU", 2): (2, 9), ("TILE", 3): (2, 8),
    ("STRIDED_SLICE", 6): (2, 6), ("DEQUANTIZE", 5): (2, 7), ("DEQUANTIZE", 6): (2, 16), ("QUANTIZE", 3): (2, 7),
    ("RESIZE_BILINEAR", 4): (2, 5), ("RESIZE_NEAREST_NEIGHBOR", 4): (2, 4), ("RELU_0_TO_1", 1): (2, 10),
    ("CUMSUM", 1): (2, 4), ("BROADCAST_TO", 2): (2, 5), ("BROADCAST_TO", 3): (2, 5),
}  # fmt: skip


def operator_version(part: Part, op: Any) -> int:
    """The version that ``op`` needs by its types and settings; the version in the file for other operators."""
    kind, told = operator_name(part, op), int(part.codes[op.opcodeIndex].version)
    types = [part.tensors[i].type if i >= 0 else None for i in op.inputs]
    if kind in _BY_INPUT:
        source = types[1] if kind == "SPLIT" else types[0]
        found = {INT8: _BY_INPUT[kind][0], INT16: _BY_INPUT[kind][1]}.get(source, told)
        return max(found, 6 if kind == "STRIDED_SLICE" and _masks(op) else 1)
    rule = _RULES.get(kind)
    return told if rule is None else rule(part, op, types)


def with_versions(part: Part) -> Part:
    """``part`` with every operator at the version that it needs."""
    codes, operators = list[Any](), list[Any]()
    known: dict[tuple[int, Any, int], int] = {}
    for op in part.operators:
        own, code = copy.copy(op), copy.copy(part.codes[op.opcodeIndex])
        code.version = operator_version(part, op)
        key = code_key(code)
        if key not in known:
            known[key] = len(codes)
            codes.append(code)
        own.opcodeIndex = known[key]
        operators.append(own)
    return replace(part, operators=operators, codes=codes)


def min_runtime(parts: Iterable[Part]) -> tuple[Version, str]:
    """The oldest TensorFlow Lite that runs ``parts``, (major, minor), and the operator that needs it."""
    needed, what = OLDEST_RUNTIME, "signatures with subgraphs of their own"
    for part in parts:
        for op in part.operators:
            kind, version = operator_name(part, op), operator_version(part, op)
            since = _SINCE.get((kind, version), OLDEST_RUNTIME)
            if since > needed:
                needed, what = since, f"{kind} version {version} in {part.name}"
    return needed, what


def _convolution(part: Part, op: Any, types: list[Any]) -> int:
    image, kernel = (part.tensors[i] for i in op.inputs[:2])
    depthwise = operator_name(part, op) == "DEPTHWISE_CONV_2D"
    if not depthwise and len(image.shape) == 4 and kernel.shape[3] != image.shape[3]:
        return 6  # grouped
    if types[0] == INT8:
        return 3
    if types[0] == INT16:
        return 5 if depthwise else 4
    if types[0] == FLOAT32 and types[1] == INT8:
        return (6 if depthwise else 5) if is_per_channel(kernel) else (4 if depthwise else 2)
    dilated = depthwise and (op.builtinOptions.dilationWFactor, op.builtinOptions.dilationHFactor) != (1, 1)
    return 2 if dilated else 1


def _fully_connected(part: Part, op: Any, types: list[Any]) -> int:
    options = op.builtinOptions
    if types[0] == FLOAT32 and types[1] == INT8 and is_per_channel(part.tensors[op.inputs[1]]):
        return 12
    if types[0] == INT16:
        return 7
    if len(types) == 2:
        return 6
    if options is not None and options.keepNumDims:
        return 5
    if types[0] == INT8:
        return 4
    if types[0] == FLOAT32 and types[1] == INT8:
        return 9 if options is not None and options.asymmetricQuantizeInputs else 3
    return 1


def _multiplication(part: Part, op: Any, types: list[Any]) -> int:
    if types[0] == INT16:
        return 4
    if types[0] != INT8:
        return 1
    scales = [float(part.tensors[i].quantization.scale[0]) for i in (*op.inputs[:2], op.outputs[0])]
    return 3 if scales[0] * scales[1] / scales[2] >= 1 else 2


def _split(part: Part, op: Any, types: list[Any]) -> int:
    """The second input has the data; the first is the axis."""
    return {INT8: 2, INT16: 4}.get(types[1], 1)


def _dequantization(part: Part, op: Any, types: list[Any]) -> int:
    if types[0] == INT8:
        return 5 if is_per_channel(part.tensors[op.inputs[0]]) else 2
    return 3 if types[0] != FLOAT32 else 1


def _quantization(part: Part, op: Any, types: list[Any]) -> int:
    return 2 if part.tensors[op.outputs[0]].type == INT16 else 1


def _resize(part: Part, op: Any, types: list[Any]) -> int:
    if types[0] == INT16:
        return 4
    options = op.builtinOptions
    nearest = operator_name(part, op) == "RESIZE_NEAREST_NEIGHBOR"
    if options.halfPixelCenters or (nearest and options.alignCorners):
        return 3
    return 2 if types[0] == INT8 else 1


def _masks(op: Any) -> bool:
    return bool(op.builtinOptions.ellipsisMask or op.builtinOptions.newAxisMask)


_RULES = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "FULLY_CONNECTED": _fully_connected,
    "MUL": _multiplication,
    "SPLIT": _split,
    "DEQUANTIZE": _dequantization,
    "QUANTIZE": _quantization,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
}
