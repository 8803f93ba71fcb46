"""No flatbuffer that would end the process reaches an interpreter; every one that a builder writes does."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.bundle import append_members, read_metadata, read_model
from edge_runtime.camera import reload
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.errors import BundleError
from edge_runtime.flatbuffer import ModelLimits, check_model
from edge_runtime.flatbuffer.kinds import KINDS, NAMES
from edge_runtime.flatbuffer.model import TYPES
from edge_runtime.flatbuffer.operands import Operand, Operator
from tests.fuzz_readers import damaged_tables

Edit = Callable[[Any], None]
BACKBONE = 1  # subgraphs of the tiny file: end to end, the backbone, the heads


@pytest.fixture(scope="module")
def model(tiny_file: Path) -> bytes:
    return read_model(str(tiny_file))[1]


def edited(model: bytes, edit: Edit) -> bytes:
    tables = schema.ModelT.InitFromPackedBuf(model, 0)
    edit(tables)
    packer = flatbuffers.Builder(len(model))
    packer.Finish(tables.Pack(packer), b"TFL3")
    return bytes(packer.Output())


def operators(tables: Any, kind: str, graph: int = BACKBONE) -> list[Any]:
    number = getattr(schema.BuiltinOperator, kind)
    codes = tables.operatorCodes
    found = tables.subgraphs[graph].operators
    return [
        o for o in found if max(codes[o.opcodeIndex].builtinCode, codes[o.opcodeIndex].deprecatedBuiltinCode) == number
    ]


def tensor(tables: Any, index: int = 0, graph: int = BACKBONE) -> Any:
    return tables.subgraphs[graph].tensors[index]


def activation(tables: Any) -> Any:
    """The features of the backbone."""
    return tensor(tables, int(tables.subgraphs[BACKBONE].outputs[0]))


def weights(tables: Any) -> Any:
    return tensor(tables, int(operators(tables, "CONV_2D")[0].inputs[1]))


def put(holder: Any, name: str, value: Any) -> None:
    """Set a field, or an item of one: ``inputs.1``."""
    name, _, place = name.partition(".")
    if place:
        items = np.array(getattr(holder, name))
        items[int(place)] = value
        value = items
    setattr(holder, name, value)


def field(find: Callable[[Any], Any], name: str, value: Any) -> Edit:
    return lambda tables: put(find(tables), name, value)


def operator(kind: str, name: str, value: Any, graph: int = BACKBONE) -> Edit:
    return lambda tables: put(operators(tables, kind, graph)[0], name, value)


def option(kind: str, name: str, value: Any, graph: int = BACKBONE) -> Edit:
    return lambda tables: put(operators(tables, kind, graph)[0].builtinOptions, name, value)


def graph(tables: Any) -> Any:
    return tables.subgraphs[BACKBONE]


def scale(find: Callable[[Any], Any], name: str, value: Any) -> Edit:
    return lambda tables: put(find(tables).quantization, name, value)


def code(tables: Any) -> Any:
    return tables.operatorCodes[operators(tables, "ADD")[0].opcodeIndex]


def other_kind(kind: str, custom: bytes | None = None) -> Edit:
    def edit(tables: Any) -> None:
        number, own = getattr(schema.BuiltinOperator, kind), code(tables)
        own.builtinCode, own.deprecatedBuiltinCode, own.customCode = number, min(number, 127), custom

    return edit


def last_first(tables: Any) -> None:
    graph(tables).operators = graph(tables).operators[::-1]


def without_last_input(kind: str) -> Edit:
    def edit(tables: Any) -> None:
        own = operators(tables, kind)[0]
        own.inputs = own.inputs[:1]

    return edit


def write_over(find: Callable[[Any], int]) -> Edit:
    def edit(tables: Any) -> None:
        operators(tables, "ADD")[0].outputs = np.array([find(tables)], np.int32)

    return edit


def twice(name: str) -> Edit:
    def edit(tables: Any) -> None:
        tables.signatureDefs[0].signatureKey = tables.signatureDefs[1].signatureKey = name

    return edit


def same_names(tables: Any) -> None:
    heads = next(s for s in tables.signatureDefs if len(s.outputs) > 1).outputs
    heads[0].name = heads[1].name


def shorter(find: Callable[[Any], Any]) -> Edit:
    def edit(tables: Any) -> None:
        buffer = tables.buffers[find(tables).buffer]
        buffer.data = buffer.data[:-1]

    return edit


def add_scale_far_off(tables: Any) -> None:
    out = tensor(tables, int(operators(tables, "ADD")[0].outputs[0]))
    out.quantization.scale = np.array([1e-12], np.float32)


def constant_input(tables: Any) -> None:
    signature = next(s for s in tables.signatureDefs if s.subgraphIndex == BACKBONE)
    signature.inputs[0].tensorIndex = int(operators(tables, "CONV_2D")[0].inputs[1])


def sparse(tables: Any) -> None:
    weights(tables).sparsity = schema.SparsityParametersT()


NAN, INF = float("nan"), float("inf")
ODD: dict[str, tuple[Edit, str]] = {
    "input of an operator": (operator("CONV_2D", "inputs.0", 1000), "names tensor 1000"),
    "negative input": (operator("CONV_2D", "inputs.0", -2), "names tensor -2"),
    "output of an operator": (operator("ADD", "outputs.0", 1000), "names tensor 1000"),
    "negative output": (operator("ADD", "outputs.0", -1), "names tensor -1"),
    "input that must be": (operator("CONV_2D", "inputs.0", -1), "CONV_2D: an input that is left out"),
    "weights that must be": (operator("CONV_2D", "inputs.1", -1), "CONV_2D: an input that is left out"),
    "input of a subgraph": (field(graph, "inputs.0", 255), "names tensor 255"),
    "output of a subgraph": (field(graph, "outputs.0", 255), "names tensor 255"),
    "output that nothing makes": (lambda t: put(graph(t), "operators", graph(t).operators[:-1]), "that nothing makes"),
    "kind of an operator": (operator("ADD", "opcodeIndex", 200), "operator of kind 200"),
    "buffer": (field(weights, "buffer", 5000), "tensor of buffer 5000"),
    "subgraph of a signature": (lambda t: put(t.signatureDefs[0], "subgraphIndex", 77), "signature of subgraph 77"),
    "tensor of a signature": (lambda t: put(t.signatureDefs[0].inputs[0], "tensorIndex", 999), "signature of tensor 999"),
    "constant as a signature's input": (constant_input, "whose input is constant"),
    "two signatures": (twice("a"), "two signatures of one name"),
    "two outputs": (same_names, "two inputs or outputs of one name"),
    "name of a signature": (twice(b"\xff\xfe"), "no UTF-8"),
    "name of a tensor": (field(activation, "name", b"\xff"), "a tensor with a name that is no UTF-8"),
    "scale of NaN": (scale(activation, "scale", np.array([NAN], np.float32)), "a scale of nan"),
    "endless scale": (scale(activation, "scale", np.array([INF], np.float32)), "a scale of inf"),
    "negative scale": (scale(activation, "scale", np.array([-1.0], np.float32)), "a scale of -1"),
    "scale of 0": (scale(activation, "scale", np.array([0.0], np.float32)), "a scale of 0, with which"),
    "denormal scale": (scale(activation, "scale", np.array([1e-40], np.float32)), "a scale of 1e-40"),
    "huge scale": (scale(activation, "scale", np.array([1e38], np.float32)), "a scale of 1e"),
    "no scale": (field(activation, "quantization", None), "a tensor without a scale"),
    "zero point": (scale(activation, "zeroPoint", np.array([300], np.int64)), "zero point 300 of int8"),
    "low zero point": (scale(activation, "zeroPoint", np.array([-129], np.int64)), "zero point -129 of int8"),
    "two zero points": (scale(activation, "zeroPoint", np.array([0, 0], np.int64)), "more scales than zero points"),
    "no zero point": (scale(activation, "zeroPoint", None), "more scales than zero points"),
    "axis of the scales": (scale(weights, "quantizedDimension", 4), "scales along axis 4 of 4"),
    "negative axis": (scale(weights, "quantizedDimension", -1), "scales along axis -1"),
    "another axis": (scale(weights, "quantizedDimension", 1), "scales for"),
    "shape of a constant": (field(weights, "shape.0", 7), "a constant of"),
    "negative shape": (field(activation, "shape.0", -1), "a tensor of shape"),
    "huge shape": (field(activation, "shape.1", 2**31 - 1), "more than the"),
    "endless shape": (field(activation, "shape", np.full(8, 2**31 - 1, np.int32)), "items"),
    "nine dimensions": (field(activation, "shape", np.ones(9, np.int32)), "9 dimensions"),
    "two ranks": (field(activation, "shapeSignature", np.ones(7, np.int32)), "two different ranks"),
    "another shape": (field(activation, "shape.1", 3), "where its inputs make"),
    "another type": (field(activation, "type", schema.TensorType.INT16), "zero point -128 of int16"),
    "strings": (field(activation, "type", schema.TensorType.STRING), "a tensor of type 5"),
    "no type": (field(activation, "type", 99), "a tensor of type 99"),
    "variable": (field(activation, "isVariable", True), "a tensor that is variable"),
    "sparse": (sparse, "a tensor that is sparse"),
    "cut constant": (shorter(weights), "a constant of"),
    "order": (last_first, "reads what is not there yet"),
    "itself": (lambda t: operator("ADD", "inputs.0", operators(t, "ADD")[0].outputs[0])(t), "not there yet"),
    "over the input": (write_over(lambda t: graph(t).inputs[0]), "writes over what was given"),
    "over a constant": (write_over(lambda t: operators(t, "CONV_2D")[0].inputs[1]), "writes over what was given"),
    "over another": (write_over(lambda t: operators(t, "CONV_2D")[0].outputs[0]), "two operators write one tensor"),
    "custom": (other_kind("CUSTOM", b"Evil"), "the custom operator 'Evil'"),
    "while": (other_kind("WHILE"), "operator WHILE, which no classifier needs"),
    "unheard-of": (other_kind("STABLEHLO_COMPOSITE"), "operator 206, which no classifier needs"),
    "other kind": (other_kind("CONV_2D"), "CONV_2D: "),
    "no bias": (lambda t: put(operators(t, "DEPTHWISE_CONV_2D")[0], "inputs",
                              operators(t, "DEPTHWISE_CONV_2D")[0].inputs[:2]), "2 inputs, where it has 3"),
    "bias left out": (operator("CONV_2D", "inputs.2", -1), "CONV_2D: an input that is left out"),
    "one summand": (without_last_input("ADD"), "ADD: 1 inputs, where it has 2"),
    "no axis": (without_last_input("MEAN"), "MEAN: 1 inputs, where it has 2"),
    "stride of 0": (option("CONV_2D", "strideW", 0), "CONV_2D: a window of"),
    "negative stride": (option("DEPTHWISE_CONV_2D", "strideH", -1), "DEPTHWISE_CONV_2D: a window of"),
    "dilation of 0": (option("CONV_2D", "dilationHFactor", 0), "CONV_2D: a window of"),
    "another stride": (option("CONV_2D", "strideW", 7), "where its inputs make"),
    "padding": (option("CONV_2D", "padding", 2), "CONV_2D: a window of"),
    "activation": (option("CONV_2D", "fusedActivationFunction", 100), "activation 100"),
    "multiplier": (option("DEPTHWISE_CONV_2D", "depthMultiplier", 5), "multiplier 5"),
    "no options": (lambda t: (operator("CONV_2D", "builtinOptions", None)(t),
                              operator("CONV_2D", "builtinOptionsType", 0)(t)), "CONV_2D: no settings"),
    "options of another": (lambda t: put(operators(t, "CONV_2D")[0], "builtinOptionsType", 9),
                           "CONV_2D: the settings of another operator"),
    "format of the weights": (option("FULLY_CONNECTED", "weightsFormat", 1, 2), "FULLY_CONNECTED: weights"),
    "beta": (option("SOFTMAX", "beta", NAN, 2), "SOFTMAX: beta nan"),
    "scales too far apart": (add_scale_far_off, "ADD: scales too far apart"),
}  # fmt: skip


def test_what_a_builder_wrote_is_safe(model: bytes) -> None:
    check_model(model)
    check_model(memoryview(bytearray(model)))
    check_model(edited(model, lambda tables: None))


@pytest.mark.parametrize("kind", ODD)
def test_what_an_interpreter_would_trust_is_refused_in_a_line(model: bytes, kind: str) -> None:
    edit, words = ODD[kind]
    with pytest.raises(BundleError, match=re.escape(words)) as caught:
        check_model(edited(model, edit))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("limits", [ModelLimits(items=100), ModelLimits(tensor_bytes=100), ModelLimits(arena_bytes=1000)])
def test_what_is_larger_than_the_limits_is_refused(model: bytes, limits: ModelLimits) -> None:
    with pytest.raises(BundleError, match="more than the"):
        check_model(model, limits=limits)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\0" * 8, b"\x1c\0\0\0TFL3", b"\x1c\0\0\0TFL3" + b"\0" * 200])
def test_what_is_no_flatbuffer_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError):
        check_model(content)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_no_damage_raises_anything_else(tiny_file: Path, seed: int) -> None:
    rng = random.Random(seed)
    damaged = damaged_tables(read_model(str(tiny_file))[1], rng)
    words = np.frombuffer(damaged[: len(damaged) // 4 * 4], np.int32).copy()
    if len(words) and rng.random() < 0.5:
        new = [0, 1, -1, 4, 2**31 - 1, -(2**31), len(damaged), rng.randrange(1 << 20)]
        words[rng.randrange(len(words))] = rng.choice(new)
        damaged = words.tobytes()
    try:
        check_model(damaged[: rng.choice([len(damaged), rng.randrange(len(damaged) + 1)])])
    except BundleError as error:
        assert "\n" not in str(error)


def test_every_way_to_an_interpreter_leads_past_the_check(tiny_file: Path, model: bytes, tmp_path: Path) -> None:
    """Members and checksum are right; no interpreter is asked."""
    from edge_runtime import versions

    bad = tmp_path / "bad.tflite"
    damaged = edited(model, ODD["scale of NaN"][0])
    metadata = read_metadata(str(tiny_file))
    bad.write_bytes(append_members(damaged, metadata.__class__(**{**vars(metadata), "model_bytes": len(damaged)})))
    for opening in (
        lambda: MultiHeadClassifier(bad),
        lambda: reload.open_copy(str(bad)),
        lambda: versions.install(str(bad), str(tmp_path / "there.tflite")),
    ):
        with pytest.raises(BundleError, match="not safe to run: a scale of nan") as caught:
            opening()
        assert str(bad) in str(caught.value)
    assert not (tmp_path / "there.tflite").exists()


# What is known of the format is what the schema says.


def test_the_numbers_are_those_of_the_schema() -> None:
    operators = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
    assert {number: operators[number] for number in NAMES} == NAMES
    types = {v: k.lower() for k, v in vars(schema.TensorType).items() if not k.startswith("_")}
    assert {number: types[number] for number in TYPES} == {number: name for number, (name, _) in TYPES.items()}


OPTIONS = {
    "AVERAGE_POOL_2D": "Pool2D", "MAX_POOL_2D": "Pool2D", "CONV_2D": "Conv2D", "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "MAXIMUM": "MaximumMinimum", "MINIMUM": "MaximumMinimum", "L2_NORMALIZATION": "L2Norm", "BATCH_MATMUL": "BatchMatMul",
    **dict.fromkeys(["MEAN", "SUM", "REDUCE_PROD", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_ANY", "REDUCE_ALL"], "Reducer"),
    "PADV2": "PadV2", "SPLIT_V": "SplitV", "SELECT_V2": "SelectV2", "REVERSE_V2": "ReverseV2", "ADD_N": "AddN",
    "BATCH_TO_SPACE_ND": "BatchToSpaceND", "SPACE_TO_BATCH_ND": "SpaceToBatchND",
}  # fmt: skip
WITHOUT_OPTIONS = {
    *("EMBEDDING_LOOKUP", "FLOOR", "LOGISTIC", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "PRELU", "SIN", "LOG", "SQRT"),
    *("RSQRT", "CEIL", "ELU", "ROUND", "RELU_0_TO_1"),
}


@pytest.mark.parametrize("number", KINDS)
def test_each_operator_has_the_options_of_the_schema(number: int) -> None:
    kind = KINDS[number]
    if kind.name in WITHOUT_OPTIONS:
        assert kind.settings == 0
        return
    name = OPTIONS.get(kind.name, "".join(part.capitalize() for part in kind.name.split("_")))
    assert kind.settings == getattr(schema.BuiltinOptions, f"{name}Options")


# Rules of operators that the tiny file has none of: shapes as the kernels make them, and shapes beside them.


def operand(*shape: int, type: str = "float32", values: Any = None) -> Operand:
    return Operand(type, shape, values is not None, None if values is None else tuple(values), False, False)


def numbers(*values: int) -> Operand:
    return operand(len(values), type="int32", values=values)


def problem(kind: str, inputs: list[Operand], *outputs: Operand, **options: float) -> str | None:
    number = next(n for n, k in KINDS.items() if k.name == kind)
    fields = {int(key[1:]): value for key, value in options.items()}
    own = Operator(
        number, tuple(inputs), outputs, KINDS[number].settings, lambda n, kind, default=0: fields.get(n, default)
    )
    return KINDS[number].problem(own)


x = operand(1, 8, 6, 4)
FITS: dict[str, tuple[list[Operand], Operand, dict[str, float]]] = {
    "AVERAGE_POOL_2D": ([x], operand(1, 4, 3, 4), {"_1": 2, "_2": 2, "_3": 2, "_4": 2, "_0": 1}),
    "BATCH_MATMUL": ([operand(2, 3, 4), operand(2, 4, 5)], operand(2, 3, 5), {}),
    "CONCATENATION": ([x, operand(1, 8, 6, 3)], operand(1, 8, 6, 7), {"_0": -1}),
    "GATHER": ([operand(9, 4), numbers(0, 8, 3)], operand(3, 4), {}),
    "EMBEDDING_LOOKUP": ([numbers(0, 8, 3), operand(9, 4)], operand(3, 4), {}),
    "TRANSPOSE": ([x, numbers(0, 3, 1, 2)], operand(1, 4, 8, 6), {}),
    "RESHAPE": ([x, numbers(-1, 4)], operand(48, 4), {}),
    "SQUEEZE": ([x], operand(8, 6, 4), {}),
    "EXPAND_DIMS": ([x, numbers(-1)], operand(1, 8, 6, 4, 1), {}),
    "MEAN": ([x, numbers(1, -2)], operand(1, 4), {}),
    "SUM": ([x, numbers(1, 2)], operand(1, 1, 1, 4), {"_0": 1}),
    "STRIDED_SLICE": ([x, numbers(0, 1, 0, 0), numbers(1, 7, 6, 4), numbers(1, 2, 1, 1)], operand(1, 3, 6, 4), {}),
    "SLICE": ([x, numbers(0, 2, 0, 0), numbers(1, 3, -1, 4)], operand(1, 3, 6, 4), {}),
    "PACK": ([x, x], operand(1, 2, 8, 6, 4), {"_0": 2, "_1": 1}),
    "ARG_MAX": ([operand(1, 9), numbers(1)], operand(1, type="int64"), {}),
    "RESIZE_BILINEAR": ([x, numbers(5, 7)], operand(1, 5, 7, 4), {}),
    "SPACE_TO_DEPTH": ([x], operand(1, 4, 3, 16), {"_0": 2}),
    "DEPTH_TO_SPACE": ([x], operand(1, 16, 12, 1), {"_0": 2}),
    "SPACE_TO_BATCH_ND": ([x, numbers(2, 3), operand(2, 2, type="int32", values=(0, 0, 0, 0))], operand(6, 4, 2, 4), {}),
    "BATCH_TO_SPACE_ND": ([operand(6, 4, 2, 4), numbers(2, 3), operand(2, 2, type="int32", values=(0, 1, 0, 0))],
                          operand(1, 7, 6, 4), {}),
    "TILE": ([x, numbers(1, 2, 1, 3)], operand(1, 16, 6, 12), {}),
    "BROADCAST_TO": ([operand(1, 4), numbers(3, 4)], operand(3, 4), {}),
    "PAD": ([operand(2, 3), operand(2, 2, type="int32", values=(1, 0, 2, 2))], operand(3, 7), {}),
    "MIRROR_PAD": ([operand(2, 3), operand(2, 2, type="int32", values=(1, 0, 2, 2))], operand(3, 7), {}),
    "SELECT_V2": ([operand(3, 1, type="bool"), operand(1, 4), operand()], operand(3, 4), {}),
    "LESS": ([operand(3, 1), operand(4)], operand(3, 4, type="bool"), {}),
    "TRANSPOSE_CONV": ([numbers(1, 16, 12, 3), operand(3, 3, 3, 4), x], operand(1, 16, 12, 3), {"_1": 2, "_2": 2}),
    "CUMSUM": ([x, numbers(1)], x, {}),
    "SHAPE": ([x], operand(4, type="int32"), {}),
}  # fmt: skip


@pytest.mark.parametrize("kind", FITS)
def test_an_operator_gives_what_its_kernel_makes_and_nothing_else(kind: str) -> None:
    inputs, output, options = FITS[kind]
    assert problem(kind, inputs, output, **options) is None
    for axis in range(len(output.shape)):
        larger = tuple(n + (i == axis) for i, n in enumerate(output.shape))
        assert problem(kind, inputs, output._replace(shape=larger), **options) is not None
    assert problem(kind, inputs, output._replace(type="int16"), **options) is not None
    assert problem(kind, inputs[:-1], output, **options) is not None or kind in ("CONCATENATION", "RESHAPE")


@pytest.mark.parametrize("kind", [kind for kind, (inputs, *_) in FITS.items() if any(o.values for o in inputs)])
@pytest.mark.parametrize("value", [-100, 100, 2**31 - 1, -(2**31)])
def test_numbers_that_say_where_lie_within(kind: str, value: int) -> None:
    """An axis, an index, a size or a padding of a constant; also where nobody knows it before it runs."""
    inputs, output, options = FITS[kind]
    for i, one in enumerate(inputs):
        for place in range(len(one.values or ())):
            values = (*one.values[:place], value, *one.values[place + 1 :])
            changed = [*inputs[:i], one._replace(values=values), *inputs[i + 1 :]]
            wrong = problem(kind, changed, output, **options)
            assert wrong is not None or kind == "STRIDED_SLICE", (i, place)  # whose ends are cut as Python cuts them
