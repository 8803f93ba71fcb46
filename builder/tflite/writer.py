"""Writes parts as one TensorFlow Lite model, without a change to the parts.

Equal buffers are stored once. Subgraphs may share tensor and operator tables by offset: a flatbuffer allows it, and
interpreters read shared tables as if they were copies.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from builder.tflite.flatbuffer import Part, code_key

_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
_ALIGNMENT = 16  # of the first byte of a buffer, as the schema requires (force_align)


@dataclass
class Writer:
    """Builds one model from the end to the front, as flatbuffers require."""

    builder: Any = field(default_factory=lambda: flatbuffers.Builder(1 << 20))
    _subgraphs: list[int] = field(default_factory=list)
    _signatures: list[int] = field(default_factory=list)
    _codes: dict[tuple[Any, ...], tuple[int, Any]] = field(default_factory=dict)
    _buffers: list[np.ndarray] = field(default_factory=list)
    _buffer_index: dict[bytes, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes written so far, including the buffers that ``finish`` writes."""
        return int(self.builder.Offset()) + sum(b.nbytes for b in self._buffers)

    def tensors(self, part: Part) -> list[int]:
        """Write the tensors of a part and their buffers. Returns the offsets of the tensor tables."""
        offsets = []
        for tensor in part.tensors:
            own = copy.copy(tensor)  # other threads may read the part
            own.buffer = self._take(part.buffers[tensor.buffer])
            offsets.append(own.Pack(self.builder))
        return offsets

    def operators(self, part: Part, where: Mapping[int, int] | None = None) -> list[int]:
        """Write the operators of a part. Returns the offsets of their tables.

        ``where``: the index of each tensor of the part in a larger subgraph.
        """
        offsets = []
        for op in part.operators:
            own = copy.copy(op)  # as above
            own.opcodeIndex = self._take_code(part.codes[op.opcodeIndex])
            if where is not None:
                own.inputs, own.outputs = ([where.get(i, i) for i in indices] for indices in (op.inputs, op.outputs))
            offsets.append(own.Pack(self.builder))
        return offsets

    def add_subgraph(
        self,
        name: str,
        tensors: Sequence[int],
        operators: Sequence[int],
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
    ) -> None:
        """Add a subgraph, from the offsets of its tables, and the signature ``name`` for it."""
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
        """Add a signature for the subgraph that was added last."""
        self._signatures.append(self._signature(name, len(self._subgraphs) - 1, inputs, outputs))

    def finish(self, description: str, metadata: Mapping[str, bytes] | None = None) -> bytes:
        """The bytes of the model. ``metadata``: entries that other tools read, by name."""
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
        """The index of a buffer in the file: 0 for no content, and the same index for equal content."""
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


def write_parts(parts: Mapping[str, Part], description: str = "parts of polyhead") -> bytes:
    """Write one model with a subgraph and a signature for each part."""
    writer = Writer()
    for name, part in parts.items():
        writer.add_subgraph(name, writer.tensors(part), writer.operators(part), part.inputs, part.outputs)
    return writer.finish(description)


def _tensor_maps(tensors: Mapping[str, int]) -> list[Any]:
    maps = []
    for name, index in tensors.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        maps.append(entry)
    return maps
