"""One function, one digest: every public layer of Keras, each with settings that matter and settings that do not.

Functions that agree on random inputs share a digest, functions that differ do not. Both are decided by running the
layers, never by a list of what should come out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from inspect import signature
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras.src.ops.core import Unstack
from keras.src.ops.math import TopK
from keras.src.ops.numpy import Split

from builder.reading.digests import tensor_digests
from builder.reading.formats.stored import live_weights
from builder.reading.graph import INPUT, Graph, Node, Ref, WeightPool
from builder.reading.keras_graph import read_graph
from builder.reading.layers import UnknownLayerError, canonical_layers, does_nothing_at_inference
from builder.reading.simplify import is_no_op
from builder.reading.spelling import moments

PICTURE, SEQUENCE, VECTOR, VOLUME, TOKENS = (6, 5, 4), (6, 4), (4,), (4, 4, 4, 2), (7,)
PHOTO, VOLUMES, WORDS, SOUND = (12, 16, 3), (3, 3, 2, 2, 2), (2,), (64,)
# Which read two tensors: a list of them, or one after the other.
LISTED = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot", "Attention",
          "AdditiveAttention", "HashedCrossing")  # fmt: skip
PAIRED = ("MultiHeadAttention", "GroupQueryAttention")
TAKE_TOKENS = ("Embedding", "ReversibleEmbedding", "CategoryEncoding", "Hashing", "HashedCrossing", "IntegerLookup")
Variants = tuple[tuple[int, ...], dict[str, tuple[Any, ...]]]  # the input's shape, and values of settings

_CONV: dict[str, tuple[Any, ...]] = {
    "filters": (4,), "kernel_size": (3, 1), "strides": (1, 2), "padding": ("valid", "same"), "use_bias": (True, False),
    "activation": (None, "linear", "relu", "relu6", layers.ReLU(6), layers.LeakyReLU(0.1, name="mine"), "leaky_relu"),
    "dilation_rate": (1,), "name": ("auto", "other"), "kernel_initializer": ("zeros",),
    "kernel_regularizer": (None, "l2"), "trainable": (True, False), "data_format": (None, "channels_last"),
}  # fmt: skip
_DEPTH = {key: value for key, value in _CONV.items() if not key.startswith(("filters", "kernel_i", "kernel_r"))}
_POOL: dict[str, tuple[Any, ...]] = {
    "pool_size": (2, 1), "strides": (None, 1, 2), "padding": ("valid", "same"), "data_format": (None, "channels_last"),
    "name": ("auto", "other"),
}  # fmt: skip
_GLOBAL: dict[str, tuple[Any, ...]] = {"keepdims": (False, True), "data_format": (None, "channels_last")}
_RECURRENT: dict[str, tuple[Any, ...]] = {
    "units": (3,), "return_sequences": (False, True), "go_backwards": (False, True), "unroll": (False, True),
    "dropout": (0.0, 0.5), "recurrent_dropout": (0.0, 0.5), "use_bias": (True, False), "stateful": (False,),
    "activation": ("tanh", "relu"), "name": ("auto", "other"),
}  # fmt: skip
_INNER = tuple(
    lambda name=name, units=units: layers.Dense(units, name=name) for name, units in (("x", 3), ("y", 3), ("z", 2))
)
_INNER_RNN = tuple(lambda name=name, back=back: layers.LSTM(3, name=name, return_sequences=back)
                   for name, back in (("x", False), ("y", False), ("z", True)))  # fmt: skip
_CELLS = (lambda: layers.LSTMCell(3, name="x"), lambda: layers.LSTMCell(3, name="y"), lambda: layers.GRUCell(3),
          lambda: layers.LSTMCell(3, use_bias=False), lambda: layers.LSTMCell(3, activation="relu", dropout=0.5),
          lambda: layers.GRUCell(3, reset_after=False), lambda: layers.GRUCell(3, recurrent_activation="tanh"),
          lambda: layers.SimpleRNNCell(3), lambda: layers.SimpleRNNCell(3, activation=layers.ReLU()),
          lambda: layers.SimpleRNNCell(3, activation="relu", recurrent_dropout=0.5),
          lambda: layers.StackedRNNCells([layers.SimpleRNNCell(3, name="x"), layers.SimpleRNNCell(2)]),
          lambda: layers.StackedRNNCells([layers.SimpleRNNCell(3), layers.SimpleRNNCell(2, name="y")]))  # fmt: skip
_CONVLSTM: dict[str, tuple[Any, ...]] = {
    "filters": (2,), "kernel_size": (2, 1), "return_sequences": (False, True), "padding": ("valid", "same"),
    "dropout": (0.0, 0.5), "name": ("auto", "other"),
}  # fmt: skip
_PIPELINES = tuple(lambda inner=inner: [make() for make in inner] for inner in (
    (lambda: layers.Rescaling(0.5),), (lambda: layers.Rescaling(0.5, name="other"),), (lambda: layers.Rescaling(0.25),),
    (lambda: layers.Rescaling(0.5), lambda: layers.Rescaling(1.0, 3.0)), (lambda: layers.Rescaling(1.0, 3.0),),
))  # fmt: skip
_SOUNDS: dict[str, tuple[Any, ...]] = {
    "fft_length": (16,), "sequence_stride": (4, 8), "window": ("hann", "hamming"), "name": ("auto", "other"),
    "sequence_length": (None, 16, 12),
}  # fmt: skip
_NORM: dict[str, tuple[Any, ...]] = {"axis": (-1, 3, [-1], [3], 1), "epsilon": (1e-3, float(np.float32(1e-3)), 1e-2)}

LAYERS: dict[str, Variants] = {
    "Activation": (PICTURE, {"activation": ("linear", "relu", "relu6", "softmax", "sigmoid", "elu", "silu",
                                            "swish", layers.ReLU(6), layers.Softmax(), "leaky_relu",
                                            "hard_sigmoid", "gelu")}),
    "ReLU": (PICTURE, {"max_value": (None, 6, 6.0, 1), "negative_slope": (0, 0.0, 0.1), "threshold": (0, 0.5)}),
    "LeakyReLU": (PICTURE, {"negative_slope": (0.3, 0.1, float(np.float32(0.1)), 0.0)}),
    "ELU": (PICTURE, {"alpha": (1.0, 1, 0.5)}),
    "PReLU": (PICTURE, {"shared_axes": (None, [1, 2], (1, 2), [1])}),
    "Softmax": (PICTURE, {"axis": (-1, 3, [3], 1, -3, [1, 3], [3, 1])}),
    "Conv1D": (SEQUENCE, {**_CONV, "padding": ("valid", "same", "causal")}),
    "Conv2D": (PICTURE, _CONV), "Conv3D": (VOLUME, {**_CONV, "strides": (1,)}),
    "Conv1DTranspose": (SEQUENCE, {**_CONV, "strides": (2,)}),
    "Conv2DTranspose": (PICTURE, {**_CONV, "strides": (2, [2, 2])}),
    "Conv3DTranspose": (VOLUME, {**_CONV, "strides": (2,)}),
    "DepthwiseConv1D": (SEQUENCE, _DEPTH), "DepthwiseConv2D": (PICTURE, {**_DEPTH, "dilation_rate": (1, (1, 1))}),
    "SeparableConv1D": (SEQUENCE, {**_DEPTH, "filters": (4,)}), "SeparableConv2D": (PICTURE, {**_DEPTH, "filters": (4,)}),
    "Dense": (VECTOR, {"units": (4,), "activation": ("relu", None, "linear", "softmax", layers.Softmax(axis=1)),
                       "use_bias": (True, False), "name": ("auto", "other"), "bias_regularizer": (None, "l2")}),
    "EinsumDense": (VECTOR, {"equation": ("ab,bc->ac",), "output_shape": (4, (4,)), "bias_axes": (None, "c")}),
    "MaxPooling1D": (SEQUENCE, _POOL), "MaxPooling2D": (PICTURE, _POOL), "MaxPooling3D": (VOLUME, _POOL),
    "AveragePooling1D": (SEQUENCE, _POOL), "AveragePooling2D": (PICTURE, _POOL), "AveragePooling3D": (VOLUME, _POOL),
    **{f"Global{kind}Pooling{n}D": (shape, _GLOBAL) for kind in ("Max", "Average")
       for n, shape in ((1, SEQUENCE), (2, PICTURE), (3, VOLUME))},
    "BatchNormalization": (PICTURE, {"axis": (-1, 3, 1), "epsilon": _NORM["epsilon"], "momentum": (0.99, 0.9),
                                     "center": (True, False), "scale": (True, False),
                                     "gamma_initializer": ("zeros", "ones")}),
    "LayerNormalization": (PICTURE, {**_NORM, "center": (True, False)}),
    "RMSNormalization": (PICTURE, {"axis": (-1, 3), "epsilon": (1e-6, 1e-2)}),
    "UnitNormalization": (PICTURE, {"axis": (-1, 3, [3], [1, 3], [3, 1])}),
    "GroupNormalization": (PICTURE, {"groups": (2, 4, -1, 1), "axis": (-1, 3), "epsilon": (1e-3, 1e-2)}),
    "Normalization": (PICTURE, {"mean": (0.5, [0.5] * 4, (1.0, 2.0, 3.0, 4.0)), "variance": (2.0,), "axis": (-1, 3, [3]),
                                "invert": (False, True)}),
    "Rescaling": (PICTURE, {"scale": (1, 1.0, 0.5), "offset": (0, 0.0, 1)}),
    "Flatten": (PICTURE, {"data_format": (None, "channels_last", "channels_first")}),
    "Reshape": (PICTURE, {"target_shape": (PICTURE, list(PICTURE), (-1, 5, 4), (30, 4), (-1, 4), (120,))}),
    "Permute": (PICTURE, {"dims": ((1, 2, 3), [1, 2, 3], (2, 1, 3), (3, 1, 2))}),
    "RepeatVector": (VECTOR, {"n": (1, 2)}),
    **{f"ZeroPadding{n}D": (shape, {"padding": (0, 1, (1,) * n if n > 1 else (1, 1), ((1, 0),) * n if n > 1 else (1, 0))})
       for n, shape in ((1, SEQUENCE), (2, PICTURE), (3, VOLUME))},
    **{f"Cropping{n}D": (shape, {"cropping": (0, 1, (1,) * n if n > 1 else (1, 1), ((1, 0),) * n if n > 1 else (1, 0))})
       for n, shape in ((1, SEQUENCE), (2, PICTURE), (3, VOLUME))},
    **{f"UpSampling{n}D": (shape, {"size": (1, 2, (2,) * n if n > 1 else 2)})
       for n, shape in ((1, SEQUENCE), (2, PICTURE), (3, VOLUME))},
    "Resizing": (PICTURE, {"height": (3, 6), "width": (4, 5), "interpolation": ("bilinear", "nearest")}),
    "CenterCrop": (PICTURE, {"height": (3, 6), "width": (4, 5)}),
    "ConvLSTM1D": (VOLUME[1:], {**_CONVLSTM, "kernel_size": (1, 2)}), "ConvLSTM2D": (VOLUME, _CONVLSTM),
    "SpectralNormalization": (VECTOR, {"layer": _INNER, "power_iterations": (1, 2)}),
    "RNN": (SEQUENCE, {"layer": _CELLS, "return_sequences": (False, True), "unroll": (False, True)}),
    "Embedding": (TOKENS, {"input_dim": (9,), "output_dim": (3, 2), "name": ("auto", "other"), "mask_zero": (False,)}),
    "ReversibleEmbedding": (TOKENS, {"input_dim": (9,), "output_dim": (3, 2), "name": ("auto", "other")}),
    "CategoryEncoding": (TOKENS, {"num_tokens": (9, 10), "output_mode": ("multi_hot", "count"),
                                  "name": ("auto", "other")}),
    "Discretization": (SEQUENCE, {"bin_boundaries": ([0.0, 1.0], (0, 1), [0.0, 2.0]), "output_mode": ("int", "one_hot")}),
    "Hashing": (TOKENS, {"num_bins": (5, 4), "salt": (None, 3, [3, 3], 4), "mask_value": (None, 2)}),
    "HashedCrossing": (TOKENS[:0], {"num_bins": (50, 40), "output_mode": ("int", "one_hot"), "name": ("auto", "other")}),
    "IntegerLookup": (TOKENS, {"vocabulary": ([1, 2, 3], [1, 3, 2]), "num_oov_indices": (1, 2),
                               "output_mode": ("int", "multi_hot", "count"), "name": ("auto", "other")}),
    "StringLookup": (WORDS, {"vocabulary": (["a", "b"], ["b", "a"]), "num_oov_indices": (1, 2), "mask_token": (None, "a"),
                             "output_mode": ("int", "multi_hot"), "name": ("auto", "other")}),
    "TextVectorization": ((), {"vocabulary": (["a", "b", "a b"], ["b", "a", "a b"]),
                               "output_sequence_length": (None, 4, 7),
                               "standardize": ("lower_and_strip_punctuation", "lower", None),
                               "ngrams": (None, 2), "output_mode": ("int", "count"), "name": ("auto", "other")}),
    "MelSpectrogram": (SOUND, {**_SOUNDS, "num_mel_bins": (4, 5), "mag_exp": (2.0, 1.0), "power_to_db": (True, False)}),
    "STFTSpectrogram": ((*SOUND, 1), {"mode": ("log", "magnitude", "psd", "real"), "frame_length": (16, 12),
                                      "frame_step": (4, 8), "fft_length": (16, 32), "window": ("hann", "hamming"),
                                      "scaling": ("density", "spectrum"), "name": ("auto", "other")}),
    "Masking": (SEQUENCE, {"mask_value": (0.0, 0), "name": ("auto", "other")}),
    "Pipeline": (PICTURE, {"layers": _PIPELINES, "name": ("auto", "other")}),
    "ContrastLimitedAdaptiveHistogramEqualization": (
        PHOTO, {"value_range": ((0, 255), [0, 255]), "clip_limit": (4.0, 1.0), "tile_grid_size": ((8, 8), (2, 2))}
    ),
    "ConvLSTM3D": (VOLUMES, {**_CONVLSTM, "return_sequences": (False,)}),
    # Not of size 1: there the process ends in the largest of all, in Keras 3.15 on TensorFlow 2.21.
    **{f"Adaptive{kind}Pooling{n}D": (shape, {"output_size": (2, (2,) * n if n > 1 else 2, 3), "name": ("auto", "other")})
       for kind in ("Average", "Max") for n, shape in ((1, SEQUENCE), (2, PICTURE), (3, VOLUME))},
    "AutoContrast": (PICTURE, {"value_range": ((0, 255), [0.0, 255.0], (0, 1)), "name": ("auto", "other")}),
    **{kind: (PICTURE, {"name": ("auto", "other"), "trainable": (True, False)})
       for kind in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")},
    "Concatenate": (PICTURE, {"axis": (-1, 3, 1, -3)}), "Dot": (SEQUENCE, {"axes": (1, -2, 2, (1, 1), (2, 2), -1),
                                                                         "normalize": (False, True)}),
    "Attention": (SEQUENCE, {"use_scale": (False, True), "score_mode": ("dot", "concat"), "dropout": (0.0, 0.5)}),
    "AdditiveAttention": (SEQUENCE, {"use_scale": (True, False), "dropout": (0.0, 0.5)}),
    "MultiHeadAttention": (SEQUENCE, {"num_heads": (2, 1), "key_dim": (3,), "value_dim": (None, 3, 2),
                                      "use_bias": (True, False),
                                      "attention_axes": (None, 1, (1,), [1]), "dropout": (0.0, 0.5)}),
    "GroupQueryAttention": (SEQUENCE, {"head_dim": (3,), "num_query_heads": (2,), "num_key_value_heads": (1, 2),
                                       "use_bias": (True, False)}),
    "Dropout": (VECTOR, {"rate": (0.0, 0.5), "seed": (None, 3)}),
    **{f"SpatialDropout{n}D": (shape, {"rate": (0.0, 0.5)}) for n, shape in ((1, SEQUENCE), (2, PICTURE), (3, VOLUME))},
    "GaussianDropout": (VECTOR, {"rate": (0.0, 0.5)}), "AlphaDropout": (VECTOR, {"rate": (0.0, 0.5)}),
    "GaussianNoise": (VECTOR, {"stddev": (0.0, 0.5)}), "ActivityRegularization": (VECTOR, {"l1": (0.0, 0.5)}),
    "Identity": (VECTOR, {"name": ("auto", "other")}),
    "RandomFlip": (PICTURE, {"mode": ("horizontal", "vertical")}), "RandomRotation": (PICTURE, {"factor": (0.1, 0.3)}),
    "RandomTranslation": (PICTURE, {"height_factor": (0.1,), "width_factor": (0.1, 0.2)}),
    "RandomZoom": (PICTURE, {"height_factor": (0.1, 0.2)}), "RandomBrightness": (PICTURE, {"factor": (0.1, 0.2)}),
    "RandomContrast": (PICTURE, {"factor": (0.1, 0.2)}),
    "LSTM": (SEQUENCE, _RECURRENT), "GRU": (SEQUENCE, {**_RECURRENT, "reset_after": (True, False)}),
    "SimpleRNN": (SEQUENCE, _RECURRENT),
    "TimeDistributed": (SEQUENCE, {"layer": _INNER}),
    "Bidirectional": (SEQUENCE, {"layer": _INNER_RNN, "merge_mode": ("concat", "sum")}),
}  # fmt: skip


DROPPED: dict[str, tuple[Any, ...]] = {
    "AugMix": (), "CutMix": (), "MixUp": (), "RandAugment": (), "RandomColorDegeneration": (0.5,),
    "RandomColorJitter": (), "RandomElasticTransform": (), "RandomErasing": (), "RandomGaussianBlur": (),
    "RandomGrayscale": (), "RandomHue": (0.5,), "RandomInvert": (), "RandomPerspective": (), "RandomPosterization": (4,),
    "RandomSaturation": (0.5,),
    "RandomSharpness": (0.5,), "RandomShear": (0.5,),
    "Equalization": (), "Solarization": (), "MaxNumBoundingBoxes": (3,),
}  # fmt: skip
# Of these the settings are walked by no pair: bare classes, wrappers of code, cells, which are walked within RNN, what
# does nothing at inference whatever its settings, as a test proves, and RandomCrop, which Keras 3 and tf_keras do
# otherwise.
NOT_WALKED = (
    "Layer", "Wrapper", "InputLayer", "InputSpec", "Lambda", "TFSMLayer", "JaxLayer", "FlaxLayer", "TorchModuleWrapper",
    "StackedRNNCells", "LSTMCell", "GRUCell", "SimpleRNNCell", "RandomCrop", *DROPPED,
)  # fmt: skip


def combinations(settings: Mapping[str, tuple[Any, ...]], most: int = 14) -> Iterator[dict[str, Any]]:
    """The first values of all settings, each other value alone, then a seeded sample of mixtures."""
    first = {key: values[0] for key, values in settings.items()}
    yield first
    alone = [{**first, key: value} for key, values in settings.items() for value in values[1:]]
    yield from alone
    mixed = list(itertools.islice(itertools.product(*settings.values()), 1, 4000))
    rng = np.random.default_rng(0)
    for i in rng.permutation(len(mixed))[: max(0, most - len(alone))]:
        yield dict(zip(settings, mixed[i], strict=True))


def made(kind: str, settings: Mapping[str, Any]) -> Any:
    given = {
        ("cell" if kind == "RNN" else key) if key == "layer" else key: value() if key in ("layer", "layers") else value
        for key, value in settings.items()
        if (key, value) != ("name", "auto")
    }
    return getattr(layers, kind)(**given)


def seeded(layer: Any) -> None:
    """Weights by their shapes: equal layers have equal ones, whatever they are called."""
    rng = np.random.default_rng(1)
    layer.set_weights([rng.uniform(0.2, 1.0, w.shape).astype(w.dtype) for w in layer.weights])


def other_tensor() -> Any:
    """The second of two inputs."""
    return layers.Rescaling(0.5, offset=1.0)


def call_of(kind: str, first: Any, second: Any) -> tuple[Any, ...]:
    """The call of a layer with one tensor, or two."""
    return ([first, second],) if kind in LISTED else (first, second) if kind in PAIRED else (first,)


def digest_of(layer: Any, shape: tuple[int, ...]) -> str:
    canonical, pool = canonical_layers(), WeightPool()
    weights = tuple(pool.add(np.asarray(w)) for w in layer.get_weights()) if layer.weights else ()
    other = Node("other", canonical(keras.saving.serialize_keras_object(other_tensor())), (), (Ref(INPUT, 0),), {})
    kind = type(layer).__name__
    arguments = call_of(kind, Ref(INPUT, 0), Ref(INPUT if kind in TAKE_TOKENS else 0, 0))
    node = Node(layer.name, canonical(keras.saving.serialize_keras_object(layer)), weights, arguments, {})
    return tensor_digests(Graph((other, node), Ref(1, 0)), "input", shape)[1]


def input_of(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers, tokens, or words."""
    rng = np.random.default_rng(2)
    if kind in ("StringLookup", "TextVectorization"):
        return np.array([["a", "c"], ["d", "b"], ["a", "A!"]] if shape else ["a b c", "b A! a", "B c"])
    if kind in TAKE_TOKENS:
        return rng.integers(0, 9, (2, *shape)).astype(np.int32)
    return (rng.uniform(0, 255, (2, *shape)) if shape == PHOTO else rng.normal(0, 4, (2, *shape))).astype(np.float32)


def answers_of(kind: str, shape: tuple[int, ...], settings: Mapping[str, Any]) -> tuple[str, np.ndarray]:
    x = input_of(kind, shape)
    layer = made(kind, settings)
    given = call_of(kind, x, x if kind in TAKE_TOKENS else other_tensor()(x)) if kind in (*LISTED, *PAIRED) else (x,)
    layer(*given)  # builds it
    if kind not in ("Normalization", "MelSpectrogram", "STFTSpectrogram"):  # which know their weights
        seeded(layer)
    inference = {"training": False} if "training" in signature(layer.call).parameters else {}
    return digest_of(layer, shape), np.asarray(layer(*given, **inference))


def agree(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-5, atol=1e-6))


def is_recurrent(kind: str) -> bool:
    return any(word in kind for word in ("LSTM", "GRU", "RNN", "Bidirectional"))


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if is_recurrent(kind) else kind for kind in LAYERS]
)
def test_one_function_has_one_digest_and_two_have_two(kind: str) -> None:
    shape, settings = LAYERS[kind]
    found = []
    for choice in combinations(settings):
        try:
            found.append((choice, *answers_of(kind, shape, choice)))
        except (ValueError, TypeError):  # settings that Keras does not allow together
            continue
    assert len(found) > 1
    for (one, digest, answer), (other, digest2, answer2) in itertools.combinations(found, 2):
        same = agree(answer, answer2)
        assert (digest == digest2) == same, f"{kind}: {one} and {other} are {'one function' if same else 'two functions'}"


Chain = Callable[[], list[Any]]
SPELLINGS: dict[str, tuple[Chain, ...]] = {
    "relu6": (
        lambda: [layers.ReLU(6)], lambda: [layers.ReLU(6.0)], lambda: [layers.Activation("relu6")],
        lambda: [layers.Activation(layers.ReLU(6))], lambda: [layers.Dropout(0.1), layers.ReLU(max_value=6, threshold=0)],
    ),
    "softmax": (
        lambda: [layers.Softmax()], lambda: [layers.Softmax(3)], lambda: [layers.Softmax([-1])],
        lambda: [layers.Activation("softmax")],
    ),
    "elu": (lambda: [layers.ELU()], lambda: [layers.ELU(1)], lambda: [layers.Activation("elu")],
            lambda: [layers.Activation(layers.ELU(1.0))]),
    "elu of another slope": (lambda: [layers.ELU(0.5)], lambda: [layers.Activation(layers.ELU(0.5))]),
    "leaky": (lambda: [layers.LeakyReLU(0.2)], lambda: [layers.ReLU(negative_slope=0.2)],
              lambda: [layers.Activation("leaky_relu")]),
    "means": (
        lambda: [layers.GlobalAveragePooling2D()],
        lambda: [layers.GlobalAveragePooling2D(keepdims=True), layers.Flatten()],
        lambda: [layers.GlobalAveragePooling2D(keepdims=True), layers.Reshape((4,))],
        lambda: [layers.GlobalAveragePooling2D(), layers.Reshape((1, 1, 4)), layers.Flatten()],
        lambda: [layers.Identity(), layers.GlobalAveragePooling2D(), layers.Flatten(), layers.Reshape((-1,))],
        lambda: [layers.GlobalAveragePooling2D(), layers.Dropout(0.5)],
    ),
    "maxima": (lambda: [layers.GlobalMaxPooling2D()],
               lambda: [layers.GlobalMaxPooling2D(keepdims=True), layers.Flatten()]),
    "flat": (lambda: [layers.Flatten()], lambda: [layers.Reshape((120,))],
             lambda: [layers.Reshape((30, 4)), layers.Flatten()]),
    "nothing": (
        lambda: [layers.Reshape(PICTURE)], lambda: [layers.Activation("linear")], lambda: [layers.Permute((1, 2, 3))],
        lambda: [layers.Permute((3, 1, 2)), layers.Dropout(0.1), layers.Permute((2, 3, 1))],
        lambda: [layers.Permute((2, 1, 3)), layers.Permute((2, 1, 3))],
        lambda: [layers.ZeroPadding2D(0)], lambda: [layers.Flatten(), layers.Reshape(PICTURE)],
        lambda: [layers.MaxPooling2D(1)], lambda: [layers.SpatialDropout2D(0.3)], lambda: [layers.Rescaling(1.0)],
    ),
    "a transposition": (lambda: [layers.Permute((2, 1, 3))],),
    "a rotation": (lambda: [layers.Permute((3, 1, 2))], lambda: [layers.Permute((2, 3, 1)), layers.Permute((2, 3, 1))],
                   lambda: [layers.Permute((2, 1, 3)), layers.Permute((3, 2, 1))]),
    "through channels first": (
        lambda: [layers.MaxPooling2D(2, strides=1)],
        lambda: [layers.Permute((3, 1, 2)), layers.Permute((2, 3, 1)), layers.MaxPooling2D(2, strides=1)],
    ),
}  # fmt: skip


def digest_of_chain(chain: list[Any], shape: tuple[int, ...] = PICTURE) -> tuple[str, np.ndarray]:
    answer = np.random.default_rng(2).normal(0, 4, (2, *shape)).astype(np.float32)
    canonical, pool, nodes = canonical_layers(), WeightPool(), []
    for i, layer in enumerate(chain):
        layer(answer)  # builds it
        seeded(layer)
        answer = layer(answer)
        weights = tuple(pool.add(np.asarray(w)) for w in layer.get_weights())
        definition = canonical(keras.saving.serialize_keras_object(layer))
        nodes.append(Node(layer.name, definition, weights, (Ref(i - 1, 0),), {}))
    return tensor_digests(Graph(tuple(nodes), Ref(len(nodes) - 1, 0)), "input", shape)[-1], np.asarray(answer)


def test_layers_that_spell_one_function_share_a_digest() -> None:
    found = {name: [digest_of_chain(make()) for make in chains] for name, chains in SPELLINGS.items()}
    for name, spellings in found.items():
        assert all(agree(spellings[0][1], answer) for _, answer in spellings), f"{name}: the test compares two functions"
        assert len({digest for digest, _ in spellings}) == 1, f"{name}: {[digest[:6] for digest, _ in spellings]}"
    assert len({spellings[0][0] for spellings in found.values()}) == len(found)


WINDOWS: dict[str, Callable[..., Any]] = {
    "Conv2D": lambda *window, **how: layers.Conv2D(3, *window, **how),
    "DepthwiseConv2D": layers.DepthwiseConv2D,
    "SeparableConv2D": lambda *window, **how: layers.SeparableConv2D(3, *window, **how),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", WINDOWS)
def test_zeros_in_front_and_inside_are_one_function_where_they_are_the_same_zeros(kind: str, seed: int) -> None:
    """Along each axis in turn: on the other side, all on one side, one less and one more, none."""
    size = [int(n) for n in np.random.default_rng(seed).integers(9, 13, 2)]
    kernel, stride, dilation = ([(3, 2), (2, 3), (4, 3), (2, 2)][seed], *[(1, 2), (1, 3), (2, 1), (3, 1)][seed])
    how = {"strides": stride, "dilation_rate": dilation}
    windows = [(k - 1) * dilation + 1 for k in kernel]
    needed = [max((-(-n // stride) - 1) * stride + k - n, 0) for n, k in zip(size, windows, strict=True)]
    exact = [(total // 2, total - total // 2) for total in needed]
    chains = [[WINDOWS[kind](kernel, padding="same", **how)]]
    for axis, (few, more) in enumerate(exact):
        for amount in dict.fromkeys([(few, more), (more, few), (few + more, 0), (0, few + more), (few, more + 1),
                                     (max(few - 1, 0), more), (few, max(more - 1, 0)), (0, 0)]):  # fmt: skip
            zeros = [amount if i == axis else exact[i] for i in range(2)]
            chains.append([layers.ZeroPadding2D(zeros), WINDOWS[kind](kernel, padding="valid", **how)])
    for (one, answer), (other, answer2) in itertools.combinations([digest_of_chain(c, (*size, 2)) for c in chains], 2):
        assert (one == other) == agree(answer, answer2)


@pytest.mark.parametrize("kind", LAYERS)
def test_where_no_shape_is_known_a_layer_has_a_digest_too(kind: str) -> None:
    """Behind a layer of a user's own; not that of what stands before it, unless it does nothing whatever the shape."""
    theirs = {"module": "mine", "class_name": "Odd", "registered_name": "mine>Odd", "config": {}}
    odd = Node("odd", theirs, (), (Ref(INPUT, 0),), {})
    first, last = ({key: values[i] for key, values in LAYERS[kind][1].items()} for i in (0, -1))
    try:
        layer = made(kind, last)
    except ValueError:  # settings that Keras does not allow together
        layer = made(kind, first)
    definition = canonical_layers()(keras.saving.serialize_keras_object(layer))
    found = []
    for name in ("one", "other"):
        node = Node(name, definition, (), call_of(kind, Ref(0, 0), Ref(0, 0)), {})
        behind, digest = tensor_digests(Graph((odd, node), Ref(1, 0)), "input", (None,))
        found.append(digest)
    assert found[0] == found[1]
    assert found[0] != behind or does_nothing_at_inference(definition)


SEVERAL: dict[str, tuple[tuple[int, ...], Callable[[], Any]]] = {
    "LSTM": (SEQUENCE, lambda: layers.LSTM(3, return_sequences=True, return_state=True)),
    "GRU": (SEQUENCE, lambda: layers.GRU(3, return_state=True)),
    "Bidirectional": (SEQUENCE, lambda: layers.Bidirectional(layers.GRU(3, return_state=True))),
    "Split": (PICTURE, lambda: Split(2, axis=-1)),
    "Unstack": (PICTURE, lambda: Unstack(axis=-1)),
    "TopK": (VECTOR, lambda: TopK(3)),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_which_of_several_outputs_is_read_is_part_of_the_function(kind: str) -> None:
    """This holds for layers that read one of them, and for layers that read both in either order."""
    shape, make = SEVERAL[kind]
    canonical = canonical_layers()
    producer, behind, subtract = (
        canonical(keras.saving.serialize_keras_object(one)) for one in (make(), layers.ReLU(0.5), layers.Subtract())
    )
    count = len(keras.tree.flatten(make()(np.ones((1, *shape), np.float32))))
    found = []
    for i, j in itertools.product(range(count), repeat=2):
        nodes = (
            Node("several", producer, (), (Ref(INPUT, 0),), {}),
            Node("behind", behind, (), (Ref(0, i),), {}),
            Node("difference", subtract, (), ([Ref(1, 0), Ref(0, j)],), {}),
        )
        found.append(tensor_digests(Graph(nodes, Ref(2, 0)), "input", shape)[1:])
    assert count > 1
    assert len({digest for digest, _ in found}) == count
    assert len({digest for _, digest in found}) == count * count


def test_every_public_layer_is_walked_or_named_here() -> None:
    """A layer that a new Keras brings fails here, until somebody has looked at its settings."""
    public = {getattr(layers, name) for name in dir(layers) if isinstance(getattr(layers, name), type)}
    known = {getattr(layers, name) for name in (*LAYERS, *NOT_WALKED) if hasattr(layers, name)}
    assert not {kind.__name__ for kind in public - known}


@pytest.mark.parametrize("kind", DROPPED)
def test_what_is_dropped_does_nothing(kind: str) -> None:
    layer = getattr(layers, kind)(*DROPPED[kind])
    pictures = np.random.default_rng(0).uniform(0, 255, (2, 6, 5, 3)).astype(np.float32)
    assert does_nothing_at_inference(keras.saving.serialize_keras_object(layer))
    np.testing.assert_array_equal(layer(pictures, training=False), pictures)


@pytest.mark.parametrize(
    ("kind", "words"),
    [("TextVectorization", ["", "[UNK]"]), ("StringLookup", ["[UNK]"]), ("IntegerLookup", [-1]), ("StringLookup", [])],
)
def test_a_table_without_words_is_a_layer_that_cannot_be_made(kind: str, words: list[Any]) -> None:
    """TensorFlow refuses it by an error of its own, which is none of Python's."""
    definition = keras.saving.serialize_keras_object(getattr(layers, kind)())
    definition["config"]["vocabulary"] = words
    with pytest.raises(UnknownLayerError, match=f"{kind}.*cannot make it"):
        canonical_layers()(definition)


def test_a_transposition_without_axes_turns_all_of_them() -> None:
    def digest_with(axes: tuple[int, ...] | None) -> str:
        source = keras.Input((4,))
        turned = ops.transpose(layers.Dense(3, kernel_initializer="ones")(source), axes)
        model = keras.Model(source, ops.transpose(ops.softmax(turned, axis=0), (1, 0)))
        definition = keras.saving.serialize_keras_object(model)
        graph = read_graph(definition, live_weights(model), pool=WeightPool(), canonical=canonical_layers())
        return tensor_digests(graph, "input", (4,))[graph.output.node]

    assert digest_with(None) == digest_with((1, 0)) == digest_with((-1, 0))
    assert digest_with(None) != digest_with((0, 1))


def test_a_channel_without_variance_is_divided_by_what_keras_divides_by() -> None:
    layer = layers.Normalization(mean=[0.5, 1.0], variance=[0.0, 4.0])
    answer = np.asarray(layer(np.ones((1, 2), np.float32)))
    definition = canonical_layers()(keras.saving.serialize_keras_object(layer))
    mean, deviation = moments(Node("normal", definition, (), (Ref(INPUT, 0),), {}))
    np.testing.assert_allclose(((1 - mean) / deviation).ravel(), answer[0], rtol=1e-5)


def test_what_a_mask_hides_is_told_apart() -> None:
    zero, same, five = (digest_of(layers.Masking(value), SEQUENCE) for value in (0, 0.0, 5.0))
    assert zero == same != five


def test_a_users_class_is_no_layer_of_keras() -> None:
    """Neither one that is called as a layer that does nothing, nor one that is called as an activation."""
    for name in ("RandomProjection", "Dropout", "ReLU", "Flatten"):
        theirs = {"module": "mine", "class_name": name, "registered_name": f"mine>{name}", "config": {}}
        weights = (WeightPool().add(np.ones((4, 4), np.float32)),)
        node, other = (Node("a", theirs, w, (Ref(INPUT, 0),), {}) for w in (weights, ()))
        found = [tensor_digests(Graph((n,), Ref(0, 0)), "input", VECTOR)[0] for n in (node, other)]
        assert len({"input", *found}) == 3
        assert not is_no_op(node)
        if hasattr(layers, name):
            assert digest_of(getattr(layers, name)(*([0.5] if name == "Dropout" else [])), VECTOR) not in found


def test_the_weights_of_one_of_two_masks_matter() -> None:
    """``Softmax(x, mask)``: what the mask is computed from is part of the function."""
    softmax = canonical_layers()(keras.saving.serialize_keras_object(layers.Softmax()))
    made = [
        canonical_layers()(keras.saving.serialize_keras_object(layer)) for layer in (layers.ReLU(0.5), layers.ReLU(0.7))
    ]
    digests = []
    for definition in made:
        mask = Node("mask", definition, (), (Ref(INPUT, 0),), {})
        node = Node("softmax", softmax, (), (Ref(INPUT, 0),), {"mask": Ref(0, 0)})
        digests.append(tensor_digests(Graph((mask, node), Ref(1, 0)), "input", VECTOR)[1])
    assert digests[0] != digests[1]


def test_the_policy_of_half_precision_does_not_enter_and_another_dtype_does() -> None:
    plain, mixed, double = (
        digest_of(layers.UnitNormalization(dtype=dtype), VECTOR) for dtype in (None, "mixed_float16", "float64")
    )
    assert plain == mixed != double
