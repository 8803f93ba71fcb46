"""Models in the wrappers of TensorFlow's optimization toolkit, without the toolkit: the classes here have its names,
settings and variables (tfmot 0.8.1: ``pruning_wrapper.py``, ``quantize_wrapper.py``, ``quantize_layer.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 32
KINDS = (".h5", ".keras", "_saved")


def write_toolkit_models(keras: Any, folder: Path, seeded: Callable[[Any, np.ndarray], np.ndarray]) -> None:
    """Write ``pruned``, ``quantized`` and ``plain`` with the same weights, and ``toolkit.npz`` with pictures and answers.

    ``seeded``: gives a model weights and returns its answers.
    """
    rng = np.random.default_rng(5)
    pictures = np.kron(rng.integers(0, 256, (5, 4, 4, 3)), np.ones((1, SIZE // 4, SIZE // 4, 1))).astype(np.uint8)
    model = network(keras)
    answers = seeded(model, pictures / np.float32(255))
    np.savez(folder / "toolkit.npz", pictures=pictures, answers=answers)
    model.save(folder / "plain.h5")
    flat = network(keras, nested=False)
    for layer in filter(lambda one: one.weights, _leaves(flat)):
        layer.set_weights(next(one for one in _leaves(model) if one.name == layer.name).get_weights())
    wrappers = _wrappers(keras)
    for name, source in (("pruned", model), ("quantized", flat)):
        again = wrappers[name](source)
        again(pictures / np.float32(255), training=False)
        for suffix in KINDS:
            again.save(folder / f"{name}{suffix}", **({"save_format": "tf"} if suffix == "_saved" else {}))


def network(keras: Any, *, nested: bool = True) -> Any:
    layers = keras.layers
    inputs = image = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(6, 3, 2, use_bias=False, name="stem/conv")(image)
    x = layers.ReLU(6.0, name="cut")(layers.BatchNormalization(name="bn_a")(x))
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
    y = layers.Conv2D(6, 1, name="point")(x)
    y = layers.BatchNormalization(name="bn_b")(y)
    x = layers.Add(name="sum")([x, y])
    if nested:
        inputs = keras.Input((SIZE, SIZE, 3))
        x = keras.Model(image, x, name="base")(inputs)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(5, activation="relu", name="hidden")(layers.Dropout(0.2, name="dropout")(x))
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="scores")(x))


def _leaves(model: Any) -> list[Any]:
    return [leaf for layer in model.layers for leaf in (_leaves(layer) if hasattr(layer, "layers") else [layer])]


def _wrappers(keras: Any) -> dict[str, Any]:
    class PruneLowMagnitude(keras.layers.Wrapper):
        def __init__(self, layer: Any, **kwargs: Any) -> None:
            super().__init__(layer, name=f"prune_low_magnitude_{layer.name}")
            self._track_trackable(layer, name="layer")

        def build(self, input_shape: Any) -> None:
            super().build(input_shape)
            for weight in [w for w in self.layer.weights if "kernel" in w.name and "depthwise" not in w.name]:
                self.mask = self.add_weight("mask", weight.shape, initializer="ones", trainable=False)
                self.threshold = self.add_weight("threshold", (), initializer="zeros", trainable=False)
            self.pruning_step = self.add_weight("pruning_step", (), dtype="int64", trainable=False)

        def call(self, inputs: Any) -> Any:
            return self.layer(inputs)

        def get_config(self) -> dict[str, Any]:
            schedule = {"class_name": "ConstantSparsity", "config": {"target_sparsity": 0.5, "begin_step": 0}}
            own = {"pruning_schedule": schedule, "block_size": (1, 1), "block_pooling_type": "AVG"}
            return {**super().get_config(), **own}

    class QuantizeAwareActivation:
        def __init__(self, activation: Any) -> None:
            self.activation = activation

        def __call__(self, x: Any) -> Any:
            return self.activation(x)

        def get_config(self) -> dict[str, Any]:
            if self.activation.__name__ == "linear":
                return {"activation": {"class_name": "NoOpActivation", "config": {}}}
            return {"activation": self.activation.__name__}

    class QuantizeWrapperV2(keras.layers.Wrapper):
        def __init__(self, layer: Any, **kwargs: Any) -> None:
            super().__init__(layer, name=f"quant_{layer.name}")
            self._track_trackable(layer, name="layer")

        def build(self, input_shape: Any) -> None:
            super().build(input_shape)
            self._trainable_weights.extend(self.layer.trainable_weights)
            self.optimizer_step = self.add_weight("optimizer_step", (), dtype="int32", trainable=False)
            self.rounded = next((w for w in self.layer.weights if "kernel" in w.name), None)
            if self.rounded is not None:
                self.kernel_min = self.add_weight("kernel_min", self.rounded.shape[-1:], trainable=False)
                self._trainable_weights.append(self.rounded)
            if isinstance(getattr(self.layer, "activation", None), type(keras.activations.relu)):
                self.layer.activation = QuantizeAwareActivation(self.layer.activation)
            self.output_min = self.add_weight("output_min", (), trainable=False)

        def call(self, inputs: Any) -> Any:
            if self.rounded is not None:  # as the toolkit: a tensor takes the place of the variable, which is its own now
                name = self.rounded.name.rpartition("/")[2].partition(":")[0]
                setattr(self.layer, name, self.rounded * 1.0)
            return self.layer.call(inputs)

        @property
        def trainable_weights(self) -> Any:
            return self._dedup_weights(self._trainable_weights + self.layer.trainable_weights)

        @property
        def non_trainable_weights(self) -> Any:
            return self.layer.non_trainable_weights + self._non_trainable_weights

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "quantize_config": {"class_name": "NoOpQuantizeConfig", "config": {}}}

    class QuantizeLayer(keras.layers.Layer):
        def build(self, input_shape: Any) -> None:
            self.low = self.add_weight("quantize_layer_min", (), trainable=False)
            self.optimizer_step = self.add_weight("optimizer_step", (), dtype="int32", trainable=False)

        def call(self, inputs: Any) -> Any:
            return inputs

        def get_config(self) -> dict[str, Any]:
            config = {"num_bits": 8, "per_axis": False, "symmetric": False, "narrow_range": False}
            return {**super().get_config(), "quantizer": {"class_name": "AllValuesQuantizer", "config": config}}

    def pruned(model: Any) -> Any:
        def within(layer: Any) -> Any:
            if isinstance(layer, keras.Model):
                return keras.models.clone_model(layer, clone_function=within)
            return PruneLowMagnitude(layer)

        return keras.models.clone_model(model, clone_function=within)

    def quantized(model: Any) -> Any:
        image = keras.Input((SIZE, SIZE, 3))
        values = {model.layers[0].name: QuantizeLayer(name="quantize_layer")(image)}
        for layer in model.layers[1:]:
            inputs = [values[one.name] for one in np.ravel(layer.inbound_nodes[0].inbound_layers)]
            values[layer.name] = QuantizeWrapperV2(layer)(inputs if len(inputs) > 1 else inputs[0])
        return keras.Model(image, values[model.layers[-1].name])

    return {"pruned": pruned, "quantized": quantized}
