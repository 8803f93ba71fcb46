"""Make the built-in profiles of ARM processors from published figures: ``python -m benchmarks.profiles``.

Published are milliseconds of whole networks, in float and in int8. Two rates are fitted to their multiply-adds: one for
convolutions, one for depthwise layers. Operators that no network shows separately (sums, products, means, tables,
conversions) count as one channel of a depthwise layer of 3 x 3. ``error`` is the error of the profile on networks that it
was not fitted to or, where there are none, on those that it was. Writes ``builder/boards/profiles/*.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from edge_runtime.probe import FORMAT_VERSION

FOLDER = Path(__file__).parent.parent / "builder" / "boards" / "profiles"
XNNPACK = "XNNPACK's README, Raspberry Pi, all 4 cores, 8 February 2022"
LITE = "EfficientNet-Lite's README (tensorflow/tpu), Pixel 4, 4 threads, 2020"
# Elementwise operators are taken to move as many elements in a microsecond as depthwise layers of 3 x 3.
_TAPS = 9
_ELEMENTWISE = ("ADD", "MUL", "MEAN", "LOGISTIC")


@dataclass(frozen=True)
class Published:
    """Milliseconds by the name of the network. ``held``: networks for the error only. ``like``: a profile whose ratio of
    the two rates is used where the published networks are too similar to separate them.
    """

    name: str
    device: str
    source: str
    ms: Mapping[str, Mapping[str, float]]
    held: tuple[str, ...] = ()
    like: str = ""


PI3 = {"float": {"mobilenet": 114.0, "mobilenet_v2": 79.0, "mobilenet_v3_large": 67.0, "mobilenet_v3_small": 22.0},
       "int8": {"mobilenet": 46.0, "mobilenet_v2": 30.0}}  # fmt: skip
PI4 = {"float": {"mobilenet": 77.0, "mobilenet_v2": 46.0, "mobilenet_v3_large": 40.0, "mobilenet_v3_small": 15.0},
       "int8": {"mobilenet": 24.0, "mobilenet_v2": 17.0}}  # fmt: skip
PIXEL4 = {"float": {"lite0": 12.0, "lite1": 18.0, "lite2": 26.0, "lite3": 41.0, "lite4": 76.0},
          "int8": {"lite0": 6.5, "lite1": 9.1, "lite2": 12.0, "lite3": 18.0, "lite4": 30.0}}  # fmt: skip
_V3 = ("mobilenet_v3_large", "mobilenet_v3_small")
PUBLISHED = (
    Published("cortex-a53", "Cortex-A53 (Pi 3 B+)", f"{XNNPACK}; 32-bit", PI3, _V3),
    Published("cortex-a72", "Cortex-A72 (Pi 4)", f"{XNNPACK}; 64-bit", PI4, _V3),
    Published(
        "cortex-a76",
        "Cortex-A76 with dot product",
        f"{LITE}; int8 by TensorFlow Lite's own kernels, depthwise to others as Cortex-A72",
        PIXEL4,
        ("lite2",),
        "cortex-a72",
    ),
)
LITES = {
    "lite0": (1.0, 1.0, 224),
    "lite1": (1.0, 1.1, 240),
    "lite2": (1.1, 1.2, 260),
    "lite3": (1.2, 1.4, 280),
    "lite4": (1.4, 1.8, 300),
}  # width, depth, input; fmt: skip


def main() -> None:
    work = {name: counted(name) for name in dict.fromkeys(n for p in PUBLISHED for n in p.ms["float"])}
    rates: dict[str, dict[str, np.ndarray]] = {}
    for published in PUBLISHED:
        rates[published.name] = fitted(published, work, rates.get(published.like))
    FOLDER.mkdir(exist_ok=True)
    for published in PUBLISHED:
        write(published.name, published.device, published.source, rates[published.name], judged(published, work, rates))


def fitted(
    published: Published, work: Mapping[str, np.ndarray], like: Mapping[str, np.ndarray] | None
) -> dict[str, np.ndarray]:
    """Microseconds for each multiply-add (convolutions, depthwise layers), by precision."""
    found = {}
    for precision, times in published.ms.items():
        names = [name for name in times if name not in published.held]
        matrix = np.stack([work[name] * 1e-6 / times[name] for name in names])  # relative errors
        basis = np.eye(2) if like is None else like[precision][:, None] / like[precision].max()
        found[precision] = basis @ nnls(matrix @ basis, np.ones(len(names)))[0] * 1e-3
    return found


def judged(published: Published, work: Mapping[str, np.ndarray], rates: Mapping[str, Any]) -> str:
    """The error of the rates against the published milliseconds, in words."""
    words = []
    for precision, times in published.ms.items():
        off = {name: work[name] @ rates[published.name][precision] * 1e-3 / ms - 1 for name, ms in times.items()}
        kind = "held out" if any(name in published.held for name in times) else "fitted"
        chosen = {n: v for n, v in off.items() if kind == "fitted" or n in published.held}
        words.append(
            f"{precision}: " + ", ".join(f"{name} {value:+.0%}" for name, value in chosen.items()) + f" ({kind})"
        )
    return "; ".join(words)


def write(name: str, device: str, source: str, rates: Mapping[str, np.ndarray], error: str) -> None:
    """Write the profile in the form of ``edge-runtime benchmark --operators --json``."""
    rows = []
    for precision, (layer, depthwise) in rates.items():
        each = {"CONV_2D 1x1": layer, "CONV_2D": layer, "FULLY_CONNECTED": layer, "DEPTHWISE_CONV_2D": depthwise}
        each |= dict.fromkeys(_ELEMENTWISE, _TAPS * depthwise)
        rows += [
            {"kind": k, "precision": precision, "work": 1e6, "us": float(f"{1e6 * us:.4g}")} for k, us in each.items()
        ]
    rows.append(
        {"kind": "conversion", "precision": "float", "work": 1e6, "us": float(f"{_TAPS * 1e6 * rates['float'][1]:.4g}")}
    )
    document = {
        "format_version": FORMAT_VERSION, "device": device, "source": source, "error": error, "threads": 4,
        "operators": rows,
    }  # fmt: skip
    (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    ratio = {kind: rates["float"][i] / rates["int8"][i] for i, kind in enumerate(("convolutions", "depthwise"))}
    print(name, "float / int8:", {kind: round(float(value), 2) for kind, value in ratio.items()}, error)


def counted(name: str) -> np.ndarray:
    """Multiply-adds of convolutions and dense layers, and of depthwise layers, of the network called ``name``."""
    return _lite(*LITES[name]) if name in LITES else _of_keras(name)


def _lite(width: float, depth: float, side: int) -> np.ndarray:
    """EfficientNet-Lite: stem and head are not scaled, nor the repeats of the first and the last stage."""
    from builder.training.efficientnet_lite0 import FEATURES, STAGES

    def channels(filters: int) -> int:  # to a multiple of 8, never below 0.9 of it
        scaled = filters * width
        rounded = max(8, int(scaled + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * scaled else rounded

    side, before, layers, depthwise = -(-side // 2), 32, 0.0, 0.0
    layers += side**2 * 32 * 27
    for number, stage in enumerate(STAGES):
        ends = number in (0, len(STAGES) - 1)
        for repeat in range(stage.repeats if ends else int(np.ceil(stage.repeats * depth))):
            wide, after = before * stage.expansion, channels(stage.filters)
            layers += side**2 * before * wide if stage.expansion > 1 else 0
            side = -(-side // stage.stride) if repeat == 0 else side
            depthwise += side**2 * wide * stage.kernel**2
            layers += side**2 * wide * after
            before = after
    return np.array([layers + side**2 * before * FEATURES + FEATURES * 1000, depthwise])


def _of_keras(name: str) -> np.ndarray:
    import keras

    makers = {"mobilenet": "MobileNet", "mobilenet_v2": "MobileNetV2"}
    maker = getattr(keras.applications, makers.get(name) or f"MobileNetV3{name.rsplit('_', 1)[1].title()}")
    found = np.zeros(2)
    for layer in maker(input_shape=(224, 224, 3), weights=None).layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            found[1] += np.prod(layer.output.shape[1:]) * np.prod(layer.kernel_size)
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            found[0] += np.prod(layer.output.shape[1:]) * np.prod(layer.kernel.shape[:-1])
    return found


if __name__ == "__main__":
    main()
