"""TensorFlow operators that a picture classifier may contain: none accesses files, networks or other code."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from builder.support.errors import ModelFileError

ALLOWED = frozenset(
    " ".join(
        (
            "NoOp Identity IdentityN Placeholder PlaceholderWithDefault Const StopGradient PreventGradient Snapshot",
            "EnsureShape PartitionedCall StatefulPartitionedCall If StatelessIf Switch Merge",
            "Variable VariableV2 VarHandleOp ReadVariableOp DisableCopyOnRead",
            "Cast Shape ShapeN Size Rank Reshape Squeeze ExpandDims Transpose Concat ConcatV2 Pack Unpack Split SplitV",
            "Slice StridedSlice Tile Fill Range Pad PadV2 MirrorPad Gather GatherV2 GatherNd Reverse ReverseV2",
            "BroadcastTo BroadcastArgs ZerosLike OnesLike SpaceToBatchND BatchToSpaceND SpaceToDepth DepthToSpace OneHot",
            "InvertPermutation Cumsum",
            "Add AddV2 AddN Sub Mul Div RealDiv DivNoNan FloorDiv FloorMod Mod Maximum Minimum Neg Abs Sign Square",
            "SquaredDifference Sqrt Rsqrt Exp Expm1 Log Log1p Pow Reciprocal Inv Floor Ceil Round Rint ClipByValue Erf",
            "Sin Cos Sigmoid Tanh Softplus Softsign Relu Relu6 LeakyRelu Elu Selu Softmax LogSoftmax",
            "Equal NotEqual Greater GreaterEqual Less LessEqual LogicalAnd LogicalOr LogicalNot Select SelectV2",
            "Mean Sum Max Min Prod All Any ArgMax ArgMin TopKV2 MatMul BatchMatMul BatchMatMulV2 BatchMatMulV3 Einsum",
            "Conv2D DepthwiseConv2dNative Conv2DBackpropInput BiasAdd BiasAddV1 AvgPool MaxPool MaxPoolV2 LRN",
            "FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3",
            "ResizeBilinear ResizeNearestNeighbor ResizeBicubic ResizeArea",
            "FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel",
        )
    ).split()
)
_NEEDLESS = "no picture classifier needs it"
_REASONS = (
    (r"Decode|Encode|String|Parse|AsString", "it takes text or encoded pictures; export it with pixels as its input"),
    (r"File|Save|Restore|Checkpoint|Dataset|Iterator|Reader|Print|Summary|Table", "it may read or write files"),
    (r"Func|Rpc|Send|Recv|Remote|Launch|Custom|Python|Exec", "it may run other code"),
)


def check_operators(nodes: Iterable[Any], path: Path, where: str = "the graph") -> None:
    """Raises ``ModelFileError`` for the first ``NodeDef`` in ``nodes`` whose operator is not in ``ALLOWED``."""
    for node in nodes:
        if node.op not in ALLOWED:
            reason = next((why for words, why in _REASONS if re.search(words, node.op)), _NEEDLESS)
            raise ModelFileError(f"{path}: operator {node.op!r:.60} in {where} is not among those allowed: {reason}")
