"""Whether the calibration samples resemble the verification samples, as far as int8 is concerned.

What counts is whether the backbone's features stay within the ranges seen in calibration. Of samples from the same
distribution, one in n + 1 lies beyond the largest of n. Sets that were dark, grey, inverted or of one head's objects
alone came to 0.03 at most and cost int8 at most 1.7 dB; noise, blur and plain colours came to 0.38 and more and cost 5
dB or more (docs/concepts/quantization.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from builder.quantizing.backbone_runner import backbone_runner
from builder.support.threads import beside

SAMPLES = 100  # of each set
MOST_BEYOND = 0.2


def beyond_calibration(
    float_model: bytes, calibration: np.ndarray, verification: np.ndarray, advance: Callable[[], None] = lambda: None
) -> float:
    """The share of the features of ``verification`` that exceed the largest of ``calibration`` in their channel, 0 to 1.

    Both: (samples, ...), as the model's ``image`` or ``tokens`` takes them; only the first ``SAMPLES`` of each are used.
    ``advance`` is called after each sample.
    """
    runner = backbone_runner(float_model)

    def magnitudes(sample: np.ndarray) -> np.ndarray:
        (name,) = runner().get_input_details()
        return _by_channel(runner()(**{name: sample[None]}))

    first, others = calibration[:SAMPLES], verification[:SAMPLES]
    found = list[np.ndarray]()
    for one in beside(magnitudes, [*first, *others]):
        found.append(one)
        advance()
    greatest = np.max(found[: len(first)], axis=0)
    return float(np.mean(np.stack(found[len(first) :]) > greatest))


def _by_channel(features: dict[str, Any]) -> np.ndarray:
    """The largest magnitude of each channel, (channels,), of all tensors of the seam."""
    tensors = [features[name] for name in sorted(features)]
    return np.concatenate([np.abs(values).reshape(-1, values.shape[-1]).max(0) for values in tensors])
