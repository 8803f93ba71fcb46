"""The one place that knows the TensorFlow Lite schema: read a model into parts, write parts as one model.

A part is one subgraph with what it needs. Parts of several models can be written into one file; equal buffers are stored
once, and subgraphs may share the very tables of their tensors and operators by offset, which a flatbuffer allows and
every interpreter reads as if they were copies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge_runtime.quantization import FLOAT, Quantization

_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
_ALIGNMENT = 16  # of a buffer's first byte, as the schema demands (force_align)
FLOAT16, FLOAT32, UINT8 = schema.TensorType.FLOAT16, schema.TensorType.FLOAT32, schema.TensorType.UINT8
INT8, INT16, INT32 = schema.TensorType.INT8, schema.TensorType.INT16, schema.TensorType.INT32
QUANTIZE = "QUANTIZE"
NO_TENSOR = -1  # among an operator's inputs: one that is left out, as the bias of a layer without
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
    """One subgraph. ``operators`` refer to ``tensors`` by index, tensors to ``buffers``, operators to ``codes``."""

    name: str
    subgraph: int  # its index in the model it was read from
    tensors: list[Any]  # schema.TensorT
    operators: list[Any]  # schema.OperatorT
    inputs: dict[str, int]  # the signature's name of each input -> tensor
    outputs: dict[str, int]
    codes: list[Any]  # schema.OperatorCodeT
    buffers: list[np.ndarray | None]

    def activations(self) -> list[int]:
        """Indices of the float tensors that hold no constant and that are read, by an operator or from outside."""
        constant = (self.buffers[t.buffer] is not None for t in self.tensors)
        read = {*self.outputs.values(), *(i for op in self.operators for i in op.inputs)}
        return [i for i, c in enumerate(constant) if not c and i in read and self.tensors[i].type == FLOAT32]

    def set_constant(self, tensor: int, values: np.ndarray) -> None:
        """New content for a constant tensor; others that shared its buffer keep theirs."""
        self.buffers.append(np.frombuffer(values.tobytes(), np.uint8))
        self.tensors[tensor].buffer = len(self.buffers) - 1

    def operator(
        self,
        kind: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: tuple[str, Mapping[str, Any]] | None = None,
    ) -> Any:
        """A new operator of the builtin ``kind``. ``options``: the schema's table of its settings, and the settings."""
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
    """Every signature of ``model`` as a part, by the signature's name."""
    tree = schema.ModelT.InitFromPackedBuf(model, 0)
    codes, buffers = list(tree.operatorCodes), [_content(b, model) for b in tree.buffers]
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
    """Every subgraph of ``model`` as a part; its inputs and outputs are called as their tensors."""
    tree = schema.ModelT.InitFromPackedBuf(model, 0)
    codes, buffers = list(tree.operatorCodes), [_content(b, model) for b in tree.buffers]
    found = []
    for number, graph in enumerate(tree.subgraphs):
        tensors, operators = list(graph.tensors), [_without_numpy(op) for op in graph.operators or ()]
        inputs, outputs = (
            {tensor_name(tensors[i]): int(i) for i in indices} for indices in (graph.inputs, graph.outputs)
        )
        found.append(Part(f"subgraph {number}", number, tensors, operators, inputs, outputs, codes, buffers))
    return found


def file_metadata(model: bytes) -> dict[str, bytes]:
    """What other tools left in the file, by name."""
    tree = schema.ModelT.InitFromPackedBuf(model, 0)
    entries = {entry.name.decode(): _content(tree.buffers[entry.buffer], model) for entry in tree.metadata or ()}
    return {name: content.tobytes() for name, content in entries.items() if content is not None}


def write_parts(parts: Mapping[str, Part], description: str = "parts of polyhead") -> bytes:
    """One model with a subgraph and a signature for each part."""
    writer = Writer()
    for name, part in parts.items():
        writer.add_subgraph(name, writer.tensors(part), writer.operators(part), part.inputs, part.outputs)
    return writer.finish(description)


_OPERATOR_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}


def code_key(code: Any) -> tuple[int, Any, int]:
    """What tells operator codes apart: custom operators by their names."""
    return code.builtinCode, code.customCode, code.version


def tensor_name(tensor: Any) -> str:
    """Bytes where the tensor was read from a file, text where its name was given since."""
    return tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)


def operator_name(part: Part, operator: Any) -> str:
    """The builtin's name, as ``CONV_2D``."""
    name: str = _OPERATOR_NAMES[part.codes[operator.opcodeIndex].builtinCode]
    return name


def settings_of(operator: Any) -> tuple[str, dict[str, Any]] | None:
    """The schema's table of an operator's settings and the settings, as ``Part.operator`` takes them."""
    options = operator.builtinOptions
    if options is None:
        return None
    plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(options).items()}
    return type(options).__name__[:-1], plain


def activation_code(name: str) -> int:
    """The schema's number of a fused activation called as ``RELU6``."""
    return int(getattr(schema.ActivationFunctionType, name))


def activation_name(code: int) -> str:
    """The reverse of ``activation_code``."""
    return str(_ACTIVATION_NAMES[code])


_ACTIVATION_NAMES = {c: name for name, c in vars(schema.ActivationFunctionType).items() if not name.startswith("_")}


def fused_activation(operator: Any) -> str:
    """What a layer, an addition or a pool does to its result, as ``RELU6``; ``NONE`` is nothing."""
    return activation_name(operator.builtinOptions.fusedActivationFunction)


_TYPE_NAMES = {code: name for name, code in vars(schema.TensorType).items() if not name.startswith("_")}


def type_name(tensor: Any) -> str:
    """As ``float32``."""
    name: str = _TYPE_NAMES[tensor.type]
    return name.lower()


def plain_tensor(name: str, shape: Sequence[int], dtype: Any, *, scale: float | None = None, zero_point: int = 0) -> Any:
    """A tensor of numpy's ``dtype``; ``scale``, ``zero_point``: of integers that stand for real numbers."""
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = name, [int(n) for n in shape], _TYPES[np.dtype(dtype)]
    if scale is not None:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero_point]
    return tensor


def scale_and_zero_point(tensor: Any) -> tuple[float, int]:
    """Of a tensor that is quantized as a whole."""
    return float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])


def is_per_channel(tensor: Any) -> bool:
    """Has each channel of the tensor a scale of its own?"""
    scale = None if tensor.quantization is None else tensor.quantization.scale
    return scale is not None and len(scale) > 1


def dtype_of(tensor: Any) -> np.dtype:
    """numpy's dtype of the tensor's elements."""
    return _DTYPES[tensor.type]


def quantization(tensor: Any) -> Quantization:
    """Of a tensor that is quantized as a whole, or float."""
    return FLOAT if tensor.type == FLOAT32 else Quantization(*scale_and_zero_point(tensor), dtype_of(tensor))


def is_quantity(tensor: Any) -> bool:
    """Does the tensor hold real numbers, or integers that stand for such? Tokens and indices are none."""
    quantized = tensor.quantization is not None and tensor.quantization.scale is not None
    return bool(tensor.type in (FLOAT16, FLOAT32) or (tensor.type in (INT8, UINT8, INT16) and quantized))


def set_quantization(tensor: Any, chosen: Quantization) -> None:
    """One scale and zero point for the whole tensor."""
    tensor.quantization.scale, tensor.quantization.zeroPoint = [chosen.scale], [chosen.zero_point]


def set_limits(tensor: Any, low: float, high: float) -> None:
    """The least and the greatest value of an activation, as a calibrated file has them."""
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.min, tensor.quantization.max = [low], [high]


@dataclass
class Writer:
    """Builds one model from the end to the front, as flatbuffers do."""

    builder: Any = field(default_factory=lambda: flatbuffers.Builder(1 << 20))
    _subgraphs: list[int] = field(default_factory=list)
    _signatures: list[int] = field(default_factory=list)
    _codes: dict[tuple[Any, ...], tuple[int, Any]] = field(default_factory=dict)
    _buffers: list[np.ndarray] = field(default_factory=list)
    _buffer_index: dict[bytes, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes written so far, buffers that wait for ``finish`` included."""
        return int(self.builder.Offset()) + sum(b.nbytes for b in self._buffers)

    def tensors(self, part: Part) -> list[int]:
        """Offsets of the part's tensor tables, its buffers taken over."""
        offsets = []
        for tensor in part.tensors:
            original, content = tensor.buffer, part.buffers[tensor.buffer]
            tensor.buffer = self._take(content)
            offsets.append(tensor.Pack(self.builder))
            tensor.buffer = original
        return offsets

    def operators(self, part: Part, where: Mapping[int, int] | None = None) -> list[int]:
        """Offsets of the part's operator tables; ``where`` says where its tensors are in a subgraph that holds more."""
        offsets = []
        for op in part.operators:
            original = op.opcodeIndex, op.inputs, op.outputs
            op.opcodeIndex = self._take_code(part.codes[op.opcodeIndex])
            if where is not None:
                op.inputs, op.outputs = ([where.get(i, i) for i in indices] for indices in original[1:])
            offsets.append(op.Pack(self.builder))
            op.opcodeIndex, op.inputs, op.outputs = original
        return offsets

    def add_subgraph(
        self,
        name: str,
        tensors: Sequence[int],
        operators: Sequence[int],
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
    ) -> None:
        """A subgraph and the signature ``name`` for it, from the offsets of its tables."""
        b = self.builder
        parts = (
            self._vector(tensors, schema.SubGraphStartTensorsVector),
            self._vector(operators, schema.SubGraphStartOperatorsVector),
            self._integers(inputs.values()),
            self._integers(outputs.values()),
            b.CreateString(name),
        )
        schema.SubGraphStart(b)
        schema.SubGraphAddTensors(b, parts[0])
        schema.SubGraphAddOperators(b, parts[1])
        schema.SubGraphAddInputs(b, parts[2])
        schema.SubGraphAddOutputs(b, parts[3])
        schema.SubGraphAddName(b, parts[4])
        self._subgraphs.append(schema.SubGraphEnd(b))
        self.add_signature(name, inputs, outputs)

    def add_signature(self, name: str, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> None:
        """A name for the subgraph that was added last."""
        self._signatures.append(self._signature(name, len(self._subgraphs) - 1, inputs, outputs))

    def finish(self, description: str, metadata: Mapping[str, bytes] | None = None) -> bytes:
        """``metadata``: what other tools look for in the file, by name."""
        b = self.builder
        entries = [self._metadata(name, content) for name, content in (metadata or {}).items()]
        buffers = [self._buffer(None), *(self._buffer(content) for content in self._buffers)]
        codes = [code.Pack(b) for _, code in self._codes.values()]
        vectors = (
            self._vector(codes, schema.ModelStartOperatorCodesVector),
            self._vector(self._subgraphs, schema.ModelStartSubgraphsVector),
            self._vector(buffers, schema.ModelStartBuffersVector),
            self._vector(self._signatures, schema.ModelStartSignatureDefsVector),
            b.CreateString(description),
            self._vector(entries, schema.ModelStartMetadataVector) if entries else None,
        )
        schema.ModelStart(b)
        schema.ModelAddVersion(b, _SCHEMA_VERSION)
        schema.ModelAddOperatorCodes(b, vectors[0])
        schema.ModelAddSubgraphs(b, vectors[1])
        schema.ModelAddBuffers(b, vectors[2])
        schema.ModelAddSignatureDefs(b, vectors[3])
        schema.ModelAddDescription(b, vectors[4])
        if entries:
            schema.ModelAddMetadata(b, vectors[5])
        b.Finish(schema.ModelEnd(b), _IDENTIFIER)
        return bytes(b.Output())

    def _take(self, content: np.ndarray | None) -> int:
        """The buffer's index in the file; every tensor without content has buffer 0, and equal contents are one."""
        if content is None or not content.size:
            return 0
        key = hashlib.sha256(content.tobytes()).digest()
        if key not in self._buffer_index:
            self._buffers.append(content)
            self._buffer_index[key] = len(self._buffers)
        return self._buffer_index[key]

    def _take_code(self, code: Any) -> int:
        return self._codes.setdefault(code_key(code), (len(self._codes), code))[0]

    def _signature(self, name: str, subgraph: int, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> int:
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = name, subgraph
        signature.inputs, signature.outputs = _tensor_maps(inputs), _tensor_maps(outputs)
        return int(signature.Pack(self.builder))

    def _metadata(self, name: str, content: bytes) -> int:
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, self._take(np.frombuffer(content, np.uint8))
        return int(entry.Pack(self.builder))

    def _buffer(self, content: np.ndarray | None) -> int:
        b = self.builder
        if content is not None:
            b.StartVector(1, content.nbytes, _ALIGNMENT)
            b.head -= content.nbytes
            b.Bytes[b.head : b.head + content.nbytes] = content.tobytes()
            data = b.EndVector()
        schema.BufferStart(b)
        if content is not None:
            schema.BufferAddData(b, data)
        return int(schema.BufferEnd(b))

    def _vector(self, offsets: Sequence[int], start: Any) -> int:
        start(self.builder, len(offsets))
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def _integers(self, values: Any) -> int:
        return int(self.builder.CreateNumpyVector(np.asarray(list(values), np.int32)))


def _tensor_maps(tensors: Mapping[str, int]) -> list[Any]:
    maps = []
    for name, index in tensors.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        maps.append(entry)
    return maps


def _content(buffer: Any, model: bytes) -> np.ndarray | None:
    """A buffer's bytes, which lie inside the flatbuffer or, in files of some tools, behind it at ``offset``."""
    if buffer.offset > 1:
        return np.frombuffer(model, np.uint8, buffer.size, buffer.offset)
    return None if buffer.data is None else np.asarray(buffer.data, np.uint8)


def _without_numpy(operator: Any) -> Any:
    operator.inputs, operator.outputs = [int(i) for i in operator.inputs], [int(i) for i in operator.outputs]
    return operator
