"""Files that are not int8: both interpreters answer as the one of the building machine."""

from __future__ import annotations

import numpy as np
import pytest
from edge_runtime import MultiHeadClassifier
from edge_runtime.interpreter import open_interpreter

from tests.device.conftest import FOLDER, Expected
from tests.laws import assert_well_formed, scores_of

# How far interpreters are apart, in probability: JPEG decoders and sums in another order; int8 and int16 round as well,
# and a step of int8 features moves a score by some steps (tests/device/test_answers.py).
TOLERANCE = {"mixed": 0.08, "int16": 0.004, "weights": 0.002, "float16": 0.002, "float": 0.002}


@pytest.mark.parametrize("precision", TOLERANCE)
def test_answers(precision: str, interpreter: str, three: Expected) -> None:
    with MultiHeadClassifier(FOLDER / f"{precision}.tflite", interpreter=interpreter) as classifier:
        results = [classifier.classify(path) for path in three.pictures]
        labels = {head.head_name: head.labels for head in classifier.metadata.heads}
        assert classifier.metadata.built["precision"] == precision
    with np.load(FOLDER / "precisions.npz") as expected:
        for head in labels:
            found = np.stack([scores_of(result.classifications)[head] for result in results])
            np.testing.assert_allclose(found, expected[f"{precision}/{head}"], atol=TOLERANCE[precision], err_msg=head)
            assert np.ptp(found, axis=0).max() > 3 * TOLERANCE[precision]  # else this test says nothing
    assert_well_formed(results[0], labels)


@pytest.mark.parametrize("precision", TOLERANCE)
def test_pixels_are_what_goes_in(precision: str, interpreter: str, three: Expected) -> None:
    """The outer contract does not change: uint8 in, also for any TensorFlow Lite client."""
    _, opened = open_interpreter(str(FOLDER / f"{precision}.tflite"), name=interpreter)
    (image,) = opened.get_input_details()
    assert (image["dtype"], tuple(image["shape"])) == (np.uint8, three.images[:1].shape)
    outputs = opened.get_signature_runner("serving_default")(image=three.images[:1])
    assert set(outputs) == set(three.scores[0])
