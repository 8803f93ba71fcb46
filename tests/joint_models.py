"""Tiny files with a joint head, and their expected answers in plain numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from builder import BuildResult
from builder.joint import JointHead
from builder.joint.graph import reference
from builder.settings.config import BuildConfig, JointConfig
from edge_runtime.interpreter import find_interpreter
from tests.tiny_models import save_pictures, tiny_config

PICTURES = 18


def with_joint(folder: Path, heads: Any = None, **options: Any) -> BuildConfig:
    joint = options.pop("joint", JointConfig(everyday=False))
    return tiny_config(folder, heads, pictures=PICTURES, joint=joint, rounding="nearest", **options)


def with_none(config: BuildConfig, count: int = 14) -> BuildConfig:
    save_pictures(config.calibration_data, {"none": count}, seed=77)
    return config


def head_of(result: BuildResult) -> JointHead:
    assert result.report.joint is not None, result.report.chosen.joint_reason
    return result.report.joint


def logits_tensors(path: Path, heads: int) -> tuple[int, list[tuple[int, float, int]]]:
    """The index of the subgraph ``joint``; index, scale and zero point of the input of each head's last operator."""
    from ai_edge_litert import schema_py_generated as schema

    tree = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    subgraph = next(s.subgraphIndex for s in tree.signatureDefs if s.signatureKey == b"joint")
    graph = tree.subgraphs[subgraph]
    dequantize = [i for i, code in enumerate(tree.operatorCodes) if code.builtinCode == schema.BuiltinOperator.DEQUANTIZE]
    sources = [int(op.inputs[0]) for op in graph.operators if op.opcodeIndex in dequantize]
    wanted = [i for i in sources if tree.buffers[graph.tensors[i].buffer].data is None and i != graph.inputs[0]]
    assert len(wanted) == heads
    quantized = [graph.tensors[i].quantization for i in wanted]
    return subgraph, [(i, float(q.scale[0]), int(q.zeroPoint[0])) for i, q in zip(wanted, quantized, strict=True)]


def logits_of(path: Path, heads: int, features: list[np.ndarray], interpreter: str) -> list[np.ndarray]:
    """The logits (pictures, labels) of each head that this interpreter computes inside ``joint``."""
    subgraph, tensors = logits_tensors(path, heads)
    _, factory = find_interpreter(interpreter)
    opened = factory(model_path=str(path), experimental_preserve_all_tensors=True)
    runner, rows = opened.get_signature_runner("joint"), []
    for row in features:
        runner(features=row)
        rows.append([(opened.get_tensor(i, subgraph)[0].astype(float) - zero) * scale for i, scale, zero in tensors])
    return [np.stack(column) for column in zip(*rows, strict=True)]


def expected_joint(
    result: BuildResult, path: Path, features: list[np.ndarray], interpreter: str
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (pictures, labels) and P(head) (pictures, heads and none) by numpy, from int8 ``features`` (1, ...)."""
    head = head_of(result)
    real = result.metadata.seam[0].quantization.dequantize(np.concatenate(features))
    return reference(
        head.fitted.router, head.layout, real, logits_of(path, len(head.layout.heads), features, interpreter)
    )
