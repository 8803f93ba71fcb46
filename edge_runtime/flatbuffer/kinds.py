"""What each kind of operator needs, by its number in TensorFlow Lite's schema.

Shapes as the kernels of TensorFlow Lite compute them (``tensorflow/lite/kernels``, ``Prepare`` of each). A rule returns
what is wrong, or None.
"""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Tuple

from edge_runtime.flatbuffer.elementwise import (
    ANY,
    alike,
    along,
    arg,
    binary,
    comparison,
    conversion,
    logical,
    plain_binary,
    reduction,
    select,
    softmax,
    unary,
)
from edge_runtime.flatbuffer.operands import STORED, Operator, Rule, Wrong
from edge_runtime.flatbuffer.parts import (
    concatenation,
    gather,
    lookup,
    pack,
    part,
    split,
    split_by_sizes,
    strided,
    unpack,
)
from edge_runtime.flatbuffer.shapes import (
    batches,
    broadcast_to,
    depth_to_space,
    expand,
    mirror,
    padding,
    reshape,
    resizing,
    shape_of,
    space_to_depth,
    squeeze,
    tile,
    transpose,
)
from edge_runtime.flatbuffer.windows import convolution, dense, depthwise, matrices, pool, transposed_convolution


class Kind(NamedTuple):
    """``inputs``, ``outputs``: how many at least and at most. ``settings``: the number of its options' table.

    ``needed``: without its options it would divide by zero.
    """

    name: str
    inputs: Tuple[int, int]
    outputs: Tuple[int, int]
    settings: int
    rule: Rule
    needed: bool = False
    optional: int = 99  # from this input on one may be left out
    arithmetic: bool = False  # stored integers mean numbers by their scale

    def problem(self, op: Operator) -> Wrong:
        given = len(op.inputs), len(op.outputs)
        for count, (least, most), what in ((given[0], self.inputs, "inputs"), (given[1], self.outputs, "outputs")):
            if not least <= count <= most:
                return f"{count} {what}, where it has {least if least == most else f'{least} to {most}'}"
        if any(operand is None for operand in op.inputs[: self.optional]):
            return "an input that is left out"
        if op.settings not in (0, self.settings) or (self.needed and not op.settings):
            return "the settings of another operator" if op.settings else "no settings"
        operands = [operand for operand in (*op.inputs, *op.outputs) if operand is not None]
        if self.arithmetic and any(o.type in STORED and not o.quantized for o in operands):
            return "a tensor without a scale"
        return self.rule(op)


_TABLE = {
    # number: name, inputs, outputs, the number of its options' table, rule
    0: ("ADD", 2, 1, 11, binary), 1: ("AVERAGE_POOL_2D", 1, 1, 5, pool),
    2: ("CONCATENATION", (1, 1 << 14), 1, 10, concatenation), 3: ("CONV_2D", 3, 1, 1, convolution),
    4: ("DEPTHWISE_CONV_2D", 3, 1, 2, depthwise), 5: ("DEPTH_TO_SPACE", 1, 1, 94, depth_to_space),
    6: ("DEQUANTIZE", 1, 1, 38, conversion(("int8", "uint8", "int16", "float16", "int4"), ("float32",))),
    7: ("EMBEDDING_LOOKUP", 2, 1, 0, lookup), 8: ("FLOOR", 1, 1, 0, unary), 9: ("FULLY_CONNECTED", (2, 3), 1, 8, dense),
    11: ("L2_NORMALIZATION", 1, 1, 12, unary), 14: ("LOGISTIC", 1, 1, 0, unary), 17: ("MAX_POOL_2D", 1, 1, 5, pool),
    18: ("MUL", 2, 1, 21, binary), 19: ("RELU", 1, 1, 0, unary), 20: ("RELU_N1_TO_1", 1, 1, 0, unary),
    21: ("RELU6", 1, 1, 0, unary), 22: ("RESHAPE", (1, 2), 1, 17, reshape), 23: ("RESIZE_BILINEAR", 2, 1, 15, resizing),
    25: ("SOFTMAX", 1, 1, 9, softmax), 26: ("SPACE_TO_DEPTH", 1, 1, 19, space_to_depth), 28: ("TANH", 1, 1, 0, unary),
    34: ("PAD", 2, 1, 22, padding), 36: ("GATHER", 2, 1, 23, gather), 37: ("BATCH_TO_SPACE_ND", 3, 1, 24, batches),
    38: ("SPACE_TO_BATCH_ND", 3, 1, 25, batches), 39: ("TRANSPOSE", 2, 1, 26, transpose),
    40: ("MEAN", 2, 1, 27, reduction), 41: ("SUB", 2, 1, 28, binary), 42: ("DIV", 2, 1, 29, binary),
    43: ("SQUEEZE", 1, 1, 30, squeeze), 45: ("STRIDED_SLICE", 4, 1, 32, strided), 47: ("EXP", 1, 1, 33, unary),
    49: ("SPLIT", 2, (1, 1 << 14), 35, split), 50: ("LOG_SOFTMAX", 1, 1, 36, unary),
    53: ("CAST", 1, 1, 37, conversion(ANY, ANY)), 54: ("PRELU", 2, 1, 0, plain_binary),
    55: ("MAXIMUM", 2, 1, 39, plain_binary), 56: ("ARG_MAX", 2, 1, 40, arg), 57: ("MINIMUM", 2, 1, 39, plain_binary),
    58: ("LESS", 2, 1, 41, comparison), 59: ("NEG", 1, 1, 42, unary), 60: ("PADV2", 3, 1, 43, padding),
    61: ("GREATER", 2, 1, 44, comparison), 62: ("GREATER_EQUAL", 2, 1, 45, comparison),
    63: ("LESS_EQUAL", 2, 1, 46, comparison), 64: ("SELECT", 3, 1, 47, select), 65: ("SLICE", 3, 1, 48, part),
    66: ("SIN", 1, 1, 0, unary), 67: ("TRANSPOSE_CONV", (3, 4), 1, 49, transposed_convolution),
    69: ("TILE", 2, 1, 51, tile), 70: ("EXPAND_DIMS", 2, 1, 52, expand), 71: ("EQUAL", 2, 1, 53, comparison),
    72: ("NOT_EQUAL", 2, 1, 54, comparison), 73: ("LOG", 1, 1, 0, unary), 74: ("SUM", 2, 1, 27, reduction),
    75: ("SQRT", 1, 1, 0, unary), 76: ("RSQRT", 1, 1, 0, unary), 77: ("SHAPE", 1, 1, 55, shape_of),
    78: ("POW", 2, 1, 56, plain_binary), 79: ("ARG_MIN", 2, 1, 57, arg), 81: ("REDUCE_PROD", 2, 1, 27, reduction),
    82: ("REDUCE_MAX", 2, 1, 27, reduction), 83: ("PACK", (1, 1 << 14), 1, 59, pack),
    84: ("LOGICAL_OR", 2, 1, 60, logical), 86: ("LOGICAL_AND", 2, 1, 62, logical),
    87: ("LOGICAL_NOT", 1, 1, 63, logical), 88: ("UNPACK", 1, (1, 1 << 14), 64, unpack),
    89: ("REDUCE_MIN", 2, 1, 27, reduction), 90: ("FLOOR_DIV", 2, 1, 65, plain_binary),
    91: ("REDUCE_ANY", 2, 1, 27, reduction), 92: ("SQUARE", 1, 1, 66, unary), 93: ("ZEROS_LIKE", 1, 1, 67, unary),
    95: ("FLOOR_MOD", 2, 1, 72, plain_binary), 97: ("RESIZE_NEAREST_NEIGHBOR", 2, 1, 74, resizing),
    98: ("LEAKY_RELU", 1, 1, 75, unary), 99: ("SQUARED_DIFFERENCE", 2, 1, 76, plain_binary),
    100: ("MIRROR_PAD", 2, 1, 77, mirror), 101: ("ABS", 1, 1, 78, unary),
    102: ("SPLIT_V", 3, (1, 1 << 14), 79, split_by_sizes), 104: ("CEIL", 1, 1, 0, unary),
    105: ("REVERSE_V2", 2, 1, 81, along), 106: ("ADD_N", (1, 1 << 14), 1, 82, alike), 108: ("COS", 1, 1, 84, unary),
    111: ("ELU", 1, 1, 0, unary),
    114: ("QUANTIZE", 1, 1, 89, conversion(("float32", "int8", "uint8", "int16"), ("int8", "uint8", "int16"))),
    116: ("ROUND", 1, 1, 0, unary), 117: ("HARD_SWISH", 1, 1, 91, unary), 123: ("SELECT_V2", 3, 1, 98, select),
    126: ("BATCH_MATMUL", 2, 1, 101, matrices), 128: ("CUMSUM", 2, 1, 102, along),
    130: ("BROADCAST_TO", 2, 1, 104, broadcast_to), 140: ("REDUCE_ALL", 2, 1, 27, reduction),
    150: ("GELU", 1, 1, 116, unary), 152: ("RELU_0_TO_1", 1, 1, 0, unary), 158: ("SIGN", 1, 1, 123, unary),
}  # fmt: skip


# Names of what is refused: others than these show their number.
_REFUSED = {
    10: "HASHTABLE_LOOKUP", 16: "LSTM", 24: "RNN", 27: "SVDF", 31: "CALL", 35: "UNIDIRECTIONAL_SEQUENCE_RNN",
    44: "UNIDIRECTIONAL_SEQUENCE_LSTM", 46: "BIDIRECTIONAL_SEQUENCE_RNN", 48: "TOPK_V2", 51: "DELEGATE",
    52: "BIDIRECTIONAL_SEQUENCE_LSTM", 85: "ONE_HOT", 94: "FILL", 96: "RANGE", 109: "WHERE", 110: "RANK", 118: "IF",
    119: "WHILE", 120: "NON_MAX_SUPPRESSION_V4", 121: "NON_MAX_SUPPRESSION_V5", 129: "CALL_ONCE", 136: "HASHTABLE",
    142: "VAR_HANDLE", 143: "READ_VARIABLE", 144: "ASSIGN_VARIABLE",
}  # fmt: skip


# Kinds whose kernels would divide by a setting of 0.
_NEEDED = (1, 2, 3, 4, 9, 17, 25, 67, 83, 88, 49, 102, 26, 5)


# Kinds that compute with what stored integers mean, and so need a scale.
_ARITHMETIC = (
    *(0, 1, 3, 4, 9, 11, 14, 17, 18, 19, 20, 21, 25, 28, 40, 41, 42, 47, 50, 54, 55, 57, 58, 59, 61, 62, 63, 67, 71, 72),
    *(73, 74, 75, 76, 78, 81, 82, 89, 98, 99, 101, 111, 117, 126, 150, 152),
)  # fmt: skip


def _range(count: Any) -> Tuple[int, int]:
    return (count, count) if isinstance(count, int) else count


KINDS: Dict[int, Kind] = {
    number: Kind(
        name,
        _range(inputs),
        _range(outputs),
        settings,
        rule,
        needed=number in _NEEDED,
        optional={9: 2, 67: 3}.get(number, 99),  # the kernels of others need their bias
        arithmetic=number in _ARITHMETIC,
    )
    for number, (name, inputs, outputs, settings, rule) in _TABLE.items()
}


NAMES: Dict[int, str] = {**_REFUSED, **{number: kind.name for number, kind in KINDS.items()}}
