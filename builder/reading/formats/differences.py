"""The table of differences between configurations of Keras 1 and 2 and those of Keras 3. ``keras2_layer`` applies it.

Sources: configurations written by tf_keras 2.21, and Keras 2.0's ``legacy`` interfaces for the words of Keras 1.
"""

from __future__ import annotations

from typing import Any

ANY = object()  # a setting that may be dropped whatever its value

MODELS = {"Functional": "Functional", "Model": "Functional", "Container": "Functional", "Sequential": "Sequential"}

CLASSES = {
    "SyncBatchNormalization": "BatchNormalization",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "GRUV2": "GRU",
    "LSTMV2": "LSTM",
    "ThresholdedReLU": "ReLU",
    "RandomHeight": "Identity",  # augmentation: does nothing at inference
    "RandomWidth": "Identity",
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "Deconvolution2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
    "Convolution2DTranspose": "Conv2DTranspose",
    "AtrousConvolution2D": "Conv2D",
}

# Where Keras 3 has layers that belong to one of its networks. Files that name no module are refused before: anybody may
# have called a layer so.
MODULES = {
    "CustomScaleLayer": "keras.src.applications.inception_resnet_v2",
    "LayerScale": "keras.src.applications.convnext",
    "StochasticDepth": "keras.src.applications.convnext",
}

# Settings under another name, by class; "" holds for every class. The first two columns of Keras 1 and 2, the last of 3.
RENAMED: dict[str, dict[str, str]] = {
    "": {
        "nb_filter": "filters",
        "border_mode": "padding",
        "subsample": "strides",
        "subsample_length": "strides",
        "filter_length": "kernel_size",
        "dim_ordering": "data_format",
        "atrous_rate": "dilation_rate",
        "bias": "use_bias",
    },
    "Dense": {"output_dim": "units"},
    "Dropout": {"p": "rate"},
    "SpatialDropout2D": {"p": "rate"},
    "GaussianDropout": {"p": "rate"},
    "GaussianNoise": {"sigma": "stddev"},
    "LeakyReLU": {"alpha": "negative_slope"},
    "ThresholdedReLU": {"theta": "threshold"},
    "MaxPooling1D": {"pool_length": "pool_size", "stride": "strides"},
    "AveragePooling1D": {"pool_length": "pool_size", "stride": "strides"},
    "UpSampling1D": {"length": "size"},
    "Concatenate": {"concat_axis": "axis"},
}

# Settings that Keras 3 does not know, by class, with the values that change nothing; any other value is an error.
DROPPED: dict[str, dict[str, Any]] = {
    "": {
        "batch_input_shape": ANY,
        "batch_shape": ANY,
        "build_input_shape": ANY,
        "input_dtype": ANY,
        "input_dim": ANY,
        "input_length": ANY,
        "autocast": ANY,
        "rng_type": ANY,  # of random layers
        "W_learning_rate_multiplier": ANY,
        "b_learning_rate_multiplier": ANY,
        "weights": ANY,
        "init": ANY,
        "time_major": (False,),
        "implementation": ANY,
        "rank": ANY,
    },
    "BatchNormalization": {
        "fused": ANY,
        "renorm": ANY,
        "renorm_clipping": ANY,
        "renorm_momentum": ANY,
        "virtual_batch_size": (None,),
        "adjustment": (None,),
        "mode": (0,),  # Keras 1: by feature, as ever since
        "synchronized": ANY,
        "beta_init": ANY,
        "gamma_init": ANY,
    },
    "DepthwiseConv1D": {"groups": (1,), "filters": ANY},
    "DepthwiseConv2D": {"groups": (1,), "filters": ANY},
    "SeparableConv1D": {"groups": (1,)},
    "SeparableConv2D": {"groups": (1,)},
    "Conv1DTranspose": {"groups": (1,)},
    "Conv2DTranspose": {"groups": (1,), "output_shape": ANY},
    "Conv3DTranspose": {"groups": (1,)},
    "MultiHeadAttention": {
        "query_shape": ANY,
        "key_shape": ANY,
        "value_shape": ANY,
        "softmax_robust_masking": ANY,
    },
    "Identity": {"factor": ANY, "interpolation": ANY, "seed": ANY},
    "SpatialDropout1D": {"trainable": ANY, "noise_shape": ANY},
    "SpatialDropout2D": {"trainable": ANY, "noise_shape": ANY},
    "SpatialDropout3D": {"trainable": ANY, "noise_shape": ANY},
    "Discretization": {"trainable": ANY},
}

# Old defaults of missing settings, where Keras 3 has another.
DEFAULTS: dict[str, dict[str, Any]] = {"GRU": {"reset_after": False}}

# Settings of training, and initializers of weights that the file holds: not needed.
DROPPED_SUFFIXES = ("_initializer", "_regularizer", "_constraint")

# Values under another name, by setting.
VALUES: dict[str, dict[Any, Any]] = {
    "data_format": {"tf": "channels_last", "th": "channels_first", "default": "channels_last"},
}

MERGE_MODES = {  # of Keras 1's Merge
    "sum": "Add",
    "mul": "Multiply",
    "concat": "Concatenate",
    "ave": "Average",
    "max": "Maximum",
    "dot": "Dot",
}

# Names of the weights in the order of ``get_weights``, with the setting that brings each; None: always there.
_CONVOLUTION = (("kernel", None), ("bias", "use_bias"))
_DEPTHWISE = (("depthwise_kernel", None), ("bias", "use_bias"))
_SEPARABLE = (("depthwise_kernel", None), ("pointwise_kernel", None), ("bias", "use_bias"))
_SCALED = (("gamma", "scale"), ("beta", "center"))
VARIABLES: dict[str, tuple[tuple[str, str | None], ...]] = {
    **dict.fromkeys(("Dense", "Conv1D", "Conv2D", "Conv3D"), _CONVOLUTION),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _CONVOLUTION),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _DEPTHWISE),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _SEPARABLE),
    "BatchNormalization": (*_SCALED, ("moving_mean", None), ("moving_variance", None)),
    "LayerNormalization": _SCALED,
    "GroupNormalization": _SCALED,
    "PReLU": (("alpha", None),),
    "LayerScale": (("gamma", None),),
    "Embedding": (("embeddings", None),),
}

# Names of the weights of layers that a SavedModel does not list them of.
OBJECTS: dict[str, tuple[str, ...]] = {"Normalization": ("mean", "variance", "count")}

# Where a layer that holds other layers keeps their weights in a ``.keras``, in the order of ``get_weights``; both places
# where tf_keras and Keras 3 differ.
_ATTENTION = ("query_dense", "key_dense", "value_dense", "output_dense")
PARTS: dict[str, tuple[str, ...]] = {
    "MultiHeadAttention": (*(f"_{part}" for part in _ATTENTION), *_ATTENTION),
    "Bidirectional": ("forward_layer/cell", "backward_layer/cell"),
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), ("cell",)),
    "TimeDistributed": ("layer",),
}
