"""Versions of operators, held against those that TensorFlow's own converter writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import keras  # noqa: E402
from ai_edge_litert import schema_py_generated as schema  # noqa: E402
from keras import layers  # noqa: E402

from builder.settings.targets import TARGETS, check_target  # noqa: E402
from builder.support.errors import TargetError  # noqa: E402
from builder.tflite import versions  # noqa: E402
from builder.tflite.flatbuffer import Part, operator_name, read_parts  # noqa: E402
from builder.tflite.versions import min_runtime, operator_version, with_versions  # noqa: E402
from edge_runtime.metadata import OLDEST_RUNTIME  # noqa: E402

SHAPE = (8, 8, 4)


def many_operators() -> Any:
    """A network of most operators that occur in classifiers."""
    keras.utils.set_random_seed(1)
    image = keras.Input(SHAPE, batch_size=1)
    x = layers.Conv2D(8, 3, padding="same", activation="relu6")(image)
    x = layers.Conv2D(8, 3, padding="same", groups=2)(x)
    x = layers.LeakyReLU()(layers.DepthwiseConv2D(3, padding="same", dilation_rate=2)(x))
    x = layers.Add()([x, layers.DepthwiseConv2D(3, padding="same")(x)])
    x = layers.Multiply()([x, layers.Activation("sigmoid")(layers.Conv2D(8, 1)(x))])
    x = layers.Subtract()([x, layers.Activation("tanh")(x)])
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Concatenate()([layers.MaxPooling2D(2)(x), layers.AveragePooling2D(2)(x)])
    x = layers.Activation("hard_swish")(x)
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    x = layers.UpSampling2D(2)(x)
    left, right = keras.ops.split(x, 2, axis=-1)
    x = keras.ops.maximum(left, right)[:, 1:, :, :]
    x = keras.ops.transpose(x, (0, 2, 1, 3))
    x = layers.ReLU()(layers.GlobalAveragePooling2D()(x))
    x = layers.Dense(6, activation="relu")(x)
    return keras.Model(image, layers.Dense(3, activation="softmax")(layers.Dense(5, use_bias=False)(x)))


def converted(kind: str) -> Part:
    model = many_operators()
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    rng = np.random.default_rng(0)

    def samples() -> Iterator[list[np.ndarray]]:
        return ([rng.normal(0, 1, (1, *SHAPE)).astype(np.float32)] for _ in range(4))

    if kind != "float":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind == "int8":
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    if kind == "int16":
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
            tf.lite.OpsSet.TFLITE_BUILTINS,
        ]
    (part,) = read_parts(bytes(converter.convert())).values()
    return part


@pytest.fixture(scope="module")
def int8_part() -> Part:
    return converted("int8")


@pytest.mark.parametrize("kind", ["float", "float16", "dynamic range", "int8", "int16"])
def test_versions_are_those_of_tensorflows_converter(kind: str) -> None:
    """The converter gives all operators of a kind the highest version that one of them needs."""
    part, told, found = converted(kind), dict[str, int](), dict[str, int]()
    for op in part.operators:
        name = operator_name(part, op)
        told[name] = int(part.codes[op.opcodeIndex].version)
        found[name] = max(found.get(name, 0), operator_version(part, op))
    if kind == "int16":  # its quantizer leaves some at what int8 needs
        assert all(found[name] >= version for name, version in told.items())
        assert (found["ADD"], found["CONV_2D"], found["MEAN"]) == (3, 6, 3)
    else:
        assert found == told
    assert len(told) > 15


def test_what_a_quantizer_left_at_1_is_set_right(int8_part: Part) -> None:
    right = [operator_version(int8_part, op) for op in int8_part.operators]
    forgotten = with_versions(int8_part)
    for code in forgotten.codes:
        code.version = 1
    mended = with_versions(forgotten)
    assert [mended.codes[op.opcodeIndex].version for op in mended.operators] == right
    assert [operator_name(mended, op) for op in mended.operators] == [
        operator_name(int8_part, op) for op in int8_part.operators
    ]
    assert max(right) > 2


def test_the_newest_operator_decides(int8_part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    assert min_runtime([int8_part]) == (OLDEST_RUNTIME, "signatures with subgraphs of their own")
    monkeypatch.setitem(versions._SINCE, ("SOFTMAX", 2), (2, 13))
    monkeypatch.setitem(versions._SINCE, ("TANH", 2), (2, 12))
    assert min_runtime([replace(int8_part, name="cats")]) == ((2, 13), "SOFTMAX version 2 in cats")


def test_a_device_with_an_older_interpreter_is_refused() -> None:
    for name, target in TARGETS.items():
        check_target(name, target.runtime, "X")
        major, minor = target.runtime
        with pytest.raises(TargetError, match=rf"target {name}: .* X needs TensorFlow Lite {major}\.{minor + 1}"):
            check_target(name, (major, minor + 1), "X")
        assert target.runtime >= OLDEST_RUNTIME


def test_dense_layers_with_a_scale_for_each_channel_need_a_new_interpreter() -> None:
    """What dynamic-range quantization makes today, and what old boards do not run."""
    image = keras.Input((64,), batch_size=1)
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, layers.Dense(64)(image)))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    (part,) = read_parts(bytes(converter.convert())).values()
    kinds = {operator_name(part, op): operator_version(part, op) for op in part.operators}
    assert kinds["FULLY_CONNECTED"] == 12
    with pytest.raises(TargetError, match="FULLY_CONNECTED version 12"):
        check_target("coral", *min_runtime([part]))


def test_two_custom_operators_stay_two() -> None:
    part = Part("p", 0, [], [], {}, {}, [], [None])
    for name in (b"One", b"Two", b"One"):
        code, op = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode, code.customCode, code.version = schema.BuiltinOperator.CUSTOM, name, 1
        op.opcodeIndex, op.inputs, op.outputs = len(part.codes), [], []
        part.codes.append(code)
        part.operators.append(op)
    made = with_versions(part)
    assert [made.codes[op.opcodeIndex].customCode for op in made.operators] == [b"One", b"Two", b"One"]
    assert len(made.codes) == 2
