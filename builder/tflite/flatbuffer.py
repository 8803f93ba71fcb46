"""TensorFlow Lite models as plain data: subgraphs with their tensors, operators and buffers.

A part is one subgraph with everything that it refers to. ``writer.py`` writes parts of several models into one file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge_runtime.quantization import FLOAT, Quantization

FLOAT16, FLOAT32, UINT8 = schema.TensorType.FLOAT16, schema.TensorType.FLOAT32, schema.TensorType.UINT8
INT8, INT16, INT32 = schema.TensorType.INT8, schema.TensorType.INT16, schema.TensorType.INT32
RESOURCE = schema.TensorType.RESOURCE  # a variable
QUANTIZE = "QUANTIZE"
NO_TENSOR = -1  # stands for an omitted input of an operator, such as the bias of a layer without one
VALID, NO_ACTIVATION = schema.Padding.VALID, schema.ActivationFunctionType.NONE
_TYPES: dict[np.dtype, int] = {
    np.dtype(np.float16): FLOAT16,
    np.dtype(np.float32): FLOAT32,
    np.dtype(np.uint8): UINT8,
    np.dtype(np.int8): INT8,
    np.dtype(np.int16): INT16,
    np.dtype(np.int32): INT32,
    np.dtype(np.int64): schema.TensorType.INT64,
}
_DTYPES = {code: dtype for dtype, code in _TYPES.items()}


@dataclass
class Part:
    """One subgraph. Operators refer to tensors and codes by index, tensors to buffers."""

    name: str
    subgraph: int  # its index in the model it was read from
    tensors: list[Any]  # schema.TensorT
    operators: list[Any]  # schema.OperatorT
    inputs: dict[str, int]  # name of each input in the signature -> index of its tensor
    outputs: dict[str, int]
    codes: list[Any]  # schema.OperatorCodeT
    buffers: list[np.ndarray | None]

    def activations(self) -> list[int]:
        """Indices of the float tensors that are not constant and that an operator reads or the part returns."""
        constant = (self.buffers[t.buffer] is not None for t in self.tensors)
        read = {*self.outputs.values(), *(i for op in self.operators for i in op.inputs)}
        return [i for i, c in enumerate(constant) if not c and i in read and self.tensors[i].type == FLOAT32]

    def set_constant(self, tensor: int, values: np.ndarray) -> None:
        """Replace the content of a constant tensor. Other tensors that share its buffer keep their content."""
        self.buffers.append(np.frombuffer(values.tobytes(), np.uint8))
        self.tensors[tensor].buffer = len(self.buffers) - 1

    def operator(
        self,
        kind: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: tuple[str, Mapping[str, Any]] | None = None,
    ) -> Any:
        """Make a builtin operator; the caller adds it to ``operators``.

        Args:
            kind: Name of the builtin, as ``CONV_2D``.
            inputs: Indices of its input tensors; ``NO_TENSOR`` for an omitted one.
            outputs: Indices of its output tensors.
            options: Name of the schema's table of settings, and the settings; None for an operator without settings.
        """
        op = schema.OperatorT()
        op.opcodeIndex = self._code_index(getattr(schema.BuiltinOperator, kind))
        op.inputs, op.outputs = list(inputs), list(outputs)
        if options is not None:
            table, values = options
            op.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            op.builtinOptions = getattr(schema, f"{table}T")()
            for name, value in values.items():
                setattr(op.builtinOptions, name, value)
        return op

    def _code_index(self, code: int) -> int:
        for i, known in enumerate(self.codes):
            if known.builtinCode == code:
                return i
        new = schema.OperatorCodeT()
        new.builtinCode = code
        new.deprecatedBuiltinCode = min(code, 127)
        new.version = 1
        self.codes.append(new)
        return len(self.codes) - 1


def read_parts(model: bytes) -> dict[str, Part]:
    """Each signature of ``model`` as a part, by the name of the signature."""
    tree = schema.ModelT.InitFromPackedBuf(model, 0)
    codes, buffers = _codes(tree), [_content(b, model) for b in tree.buffers]
    parts = {}
    for signature in tree.signatureDefs or ():
        graph, name = tree.subgraphs[signature.subgraphIndex], signature.signatureKey.decode()
        inputs, outputs = (
            {t.name.decode(): int(t.tensorIndex) for t in maps} for maps in (signature.inputs, signature.outputs)
        )
        operators = [_without_numpy(op) for op in graph.operators]
        parts[name] = Part(name, signature.subgraphIndex, list(graph.tensors), operators, inputs, outputs, codes, buffers)
    return parts


def read_subgraphs(model: bytes) -> list[Part]:
    """Each subgraph of ``model`` as a part. Its inputs and outputs have the names of their tensors."""
    tree = schema.ModelT.InitFromPackedBuf(model, 0)
    codes, buffers = _codes(tree), [_content(b, model) for b in tree.buffers]
    found = []
    for number, graph in enumerate(tree.subgraphs):
        tensors, operators = list(graph.tensors), [_without_numpy(op) for op in graph.operators or ()]
        inputs, outputs = (
            {tensor_name(tensors[i]): int(i) for i in indices} for indices in (graph.inputs, graph.outputs)
        )
        found.append(Part(f"subgraph {number}", number, tensors, operators, inputs, outputs, codes, buffers))
    return found


def _codes(tree: Any) -> list[Any]:
    """The operator codes. Converters before TensorFlow 2.4 wrote the builtin's number in a byte alone. The larger of both
    fields counts, as for interpreters (``GetBuiltinCode`` in tensorflow/lite/schema/schema_utils.cc).
    """
    codes = list(tree.operatorCodes)
    for code in codes:
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    return codes


def file_metadata(model: bytes) -> dict[str, bytes]:
    """The metadata entries of the file, by name. Raises ``IndexError`` where an entry refers to a missing buffer."""
    root, found = schema.Model.GetRootAs(model, 0), dict[str, bytes]()  # without the operators, which are slow to read
    for entry in map(root.Metadata, range(root.MetadataLength())):
        if entry.Buffer() >= root.BuffersLength():
            raise IndexError(f"metadata in buffer {entry.Buffer()} of {root.BuffersLength()}")
        content = _content(schema.BufferT.InitFromObj(root.Buffers(entry.Buffer())), model)
        if content is not None:
            found[entry.Name().decode()] = content.tobytes()
    return found


_OPERATOR_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}


def code_key(code: Any) -> tuple[int, Any, int]:
    """The key by which operator codes differ; custom operators differ by name."""
    return code.builtinCode, code.customCode, code.version


def tensor_name(tensor: Any) -> str:
    """The name of a tensor, which is bytes where it was read from a file and text where it was set since."""
    return tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)


def shape_of(tensor: Any) -> tuple[int, ...]:
    """The shape of a tensor; that of a number is missing in some files."""
    return () if tensor.shape is None else tuple(int(n) for n in tensor.shape)


def operator_name(part: Part, operator: Any) -> str:
    """The name of the builtin operator, as ``CONV_2D``."""
    name: str = _OPERATOR_NAMES[part.codes[operator.opcodeIndex].builtinCode]
    return name


def settings_of(operator: Any) -> tuple[str, dict[str, Any]] | None:
    """Name of the schema's table of settings and the settings, as ``Part.operator`` takes them; None without settings."""
    options = operator.builtinOptions
    if options is None:
        return None
    plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(options).items()}
    return type(options).__name__[:-1], plain


def activation_code(name: str) -> int:
    """The number in the schema of a fused activation, by its name, as ``RELU6``."""
    return int(getattr(schema.ActivationFunctionType, name))


def activation_name(code: int) -> str:
    """The name of a fused activation, by its number in the schema."""
    return str(_ACTIVATION_NAMES[code])


_ACTIVATION_NAMES = {c: name for name, c in vars(schema.ActivationFunctionType).items() if not name.startswith("_")}


def fused_activation(operator: Any) -> str:
    """The fused activation of a layer, an addition or a pool, as ``RELU6``; ``NONE`` where it has none."""
    return activation_name(operator.builtinOptions.fusedActivationFunction)


_TYPE_NAMES = {code: name for name, code in vars(schema.TensorType).items() if not name.startswith("_")}


def type_name(tensor: Any) -> str:
    """The name of the tensor's type, as ``float32``."""
    name: str = _TYPE_NAMES[tensor.type]
    return name.lower()


def plain_tensor(name: str, shape: Sequence[int], dtype: Any, *, scale: float | None = None, zero_point: int = 0) -> Any:
    """Make a tensor of a numpy ``dtype``. ``scale``, ``zero_point``: its quantization; ``scale`` None: not quantized."""
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = name, [int(n) for n in shape], _TYPES[np.dtype(dtype)]
    if scale is not None:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero_point]
    return tensor


def scale_and_zero_point(tensor: Any) -> tuple[float, int]:
    """The scale and zero point of a tensor that is quantized per tensor."""
    return float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])


def is_per_channel(tensor: Any) -> bool:
    """Whether the tensor is quantized per channel."""
    scale = None if tensor.quantization is None else tensor.quantization.scale
    return scale is not None and len(scale) > 1


def dtype_of(tensor: Any) -> np.dtype:
    """The numpy dtype of the tensor."""
    return _DTYPES[tensor.type]


def quantization(tensor: Any) -> Quantization:
    """The quantization of a tensor that is quantized per tensor or float."""
    return FLOAT if tensor.type == FLOAT32 else Quantization(*scale_and_zero_point(tensor), dtype_of(tensor))


def is_quantity(tensor: Any) -> bool:
    """Whether the tensor holds real numbers, in float or quantized; tokens and indices are integers of their own."""
    quantized = tensor.quantization is not None and tensor.quantization.scale is not None
    return bool(tensor.type in (FLOAT16, FLOAT32) or (tensor.type in (INT8, UINT8, INT16) and quantized))


def set_quantization(tensor: Any, chosen: Quantization) -> None:
    """Set one scale and zero point for the whole tensor."""
    tensor.quantization.scale, tensor.quantization.zeroPoint = [chosen.scale], [chosen.zero_point]


def set_limits(tensor: Any, low: float, high: float) -> None:
    """Set the range of an activation: its minimum and maximum, as a calibrated file stores them."""
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.min, tensor.quantization.max = [low], [high]


def _content(buffer: Any, model: bytes) -> np.ndarray | None:
    """The content of a buffer, inside the flatbuffer or, in the files of some tools, behind it at ``offset``."""
    if buffer.offset > 1:
        return np.frombuffer(model, np.uint8, buffer.size, buffer.offset)
    return None if buffer.data is None else np.asarray(buffer.data, np.uint8)


def _without_numpy(operator: Any) -> Any:
    operator.inputs, operator.outputs = [int(i) for i in operator.inputs], [int(i) for i in operator.outputs]
    return operator
