"""Numbers: from integers to probabilities, and from probabilities to categories."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime import Category, ClassificationResult, Classifications, EdgeRuntimeError
from edge_runtime.quantization import FLOAT, Quantization
from edge_runtime.results import Answers, top_categories

SOFTMAX = Quantization(1 / 256, -128, np.int8)
DTYPES = st.sampled_from([np.int8, np.uint8, np.int16])


@st.composite
def quantizations(draw: st.DrawFn) -> Quantization:
    dtype = draw(DTYPES)
    limits = np.iinfo(dtype)
    scale = draw(st.floats(2.0**-20, 2.0**10, width=32))
    return Quantization(scale, draw(st.integers(int(limits.min), int(limits.max))), dtype)


@given(quantizations())
def test_every_integer_survives_the_round_trip(quantization: Quantization) -> None:
    limits = np.iinfo(quantization.dtype)
    every = np.arange(limits.min, limits.max + 1, dtype=np.int64).astype(quantization.dtype)
    again = quantization.quantize(quantization.dequantize(every))
    assert again.dtype == quantization.dtype
    np.testing.assert_array_equal(again, every)


@given(quantizations(), st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20))
def test_what_is_in_range_comes_back_within_half_a_step(quantization: Quantization, shares: list[float]) -> None:
    limits = np.iinfo(quantization.dtype)
    low, high = quantization.dequantize(np.asarray([limits.min, limits.max], quantization.dtype)).tolist()
    real = np.clip(np.asarray(shares, np.float32) * max(abs(low), abs(high)), low, high)
    error = np.abs(quantization.dequantize(quantization.quantize(real)) - real)
    # float32 holds 24 bits: beside half a step, what rounding a value of 17 bits at most may add.
    assert error.max() <= quantization.scale * (0.5 + 2.0**-5)


@given(quantizations())
def test_limits_are_what_the_least_and_the_greatest_integer_stand_for(quantization: Quantization) -> None:
    """The smallest int16 is not used, as in the interpreters."""
    integers = np.iinfo(quantization.dtype)
    least = -integers.max if quantization.dtype is np.int16 else integers.min
    assert quantization.quantize(np.asarray(quantization.limits)).tolist() == [least, integers.max]


@pytest.mark.filterwarnings("ignore:overflow")
@given(quantizations(), st.floats(allow_nan=False, width=32))
def test_what_is_out_of_range_is_clipped_and_does_not_wrap(quantization: Quantization, real: float) -> None:
    limits = np.iinfo(quantization.dtype)
    low, high = quantization.dequantize(np.asarray([limits.min, limits.max], quantization.dtype)).tolist()
    (found,) = quantization.quantize(np.asarray([real], np.float32)).tolist()
    assert limits.min <= found <= limits.max
    assert real < high or found == limits.max
    assert real > low or found == limits.min


@given(quantizations(), st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=20))
def test_order_is_kept(quantization: Quantization, reals: list[float]) -> None:
    found = quantization.quantize(np.sort(np.asarray(reals, np.float32))).astype(int)
    assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (0.49, 0), (0.51, 1), (-0.51, -1), (1.99, 2)],
)
def test_rounds_to_nearest_and_halves_to_even(steps: float, expected: int) -> None:
    """Truncation would turn every one of these but the first and the smallest another way."""
    quantization = Quantization(0.25, 3, np.int8)
    assert quantization.quantize(np.asarray([steps * 0.25], np.float32)).tolist() == [expected + 3]


def test_known_values() -> None:
    """A softmax in int8: -128 is 0, 0 is a half, 127 is a step below 1."""
    found = SOFTMAX.dequantize(np.asarray([[-128, 0, 127]], np.int8))
    assert (found.shape, found.dtype) == ((1, 3), np.float32)
    np.testing.assert_array_equal(found, [[0, 0.5, 255 / 256]])
    np.testing.assert_array_equal(SOFTMAX.quantize(np.asarray([0, 0.5, 1.0], np.float32)), [-128, 0, 127])


def test_integers_do_not_overflow_on_the_way() -> None:
    wide = Quantization(1.0, -128, np.int8)
    np.testing.assert_array_equal(wide.dequantize(np.asarray([-128, 127], np.int8)), [0, 255])


def test_a_float_tensor_passes() -> None:
    quantization = FLOAT
    real = np.asarray([0.1, -7.5], np.float32)
    np.testing.assert_array_equal(quantization.quantize(real), real)
    np.testing.assert_array_equal(quantization.dequantize(real), real)


SCORES = st.lists(st.integers(0, 256).map(lambda step: step / 256), min_size=1, max_size=12)


@given(SCORES)
def test_every_label_once_best_first_ties_in_order(scores: list[float]) -> None:
    labels = [f"label {i}" for i in range(len(scores))]
    found = top_categories(np.asarray(scores, np.float32), labels)
    assert [c.index for c in found] == sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    assert all(c == Category(c.index, scores[c.index], labels[c.index]) for c in found)


@given(SCORES, st.integers(1, 15))
def test_top_k_is_the_beginning_of_all(scores: list[float], top_k: int) -> None:
    labels = [str(i) for i in range(len(scores))]
    array = np.asarray(scores, np.float32)
    assert top_categories(array, labels, top_k=top_k) == top_categories(array, labels)[:top_k]


@pytest.mark.parametrize("top_k", [0, -1, -5])
def test_top_k_below_one_is_refused(top_k: int) -> None:
    with pytest.raises(EdgeRuntimeError, match="expected 1 or more"):
        top_categories(np.zeros(3, np.float32), "abc", top_k=top_k)


def test_a_result_as_a_document() -> None:
    category = top_categories(np.asarray([0.25, 0.75], np.float32), ("cat", "dög"), top_k=1)
    result = ClassificationResult(
        (Classifications(4, "pets", category),), {"preprocess": 1.23456, "backbone": 2.0, "heads": 0.1}
    )
    assert json.loads(json.dumps(result.to_dict())) == {
        "classifications": [
            {"head_index": 4, "head_name": "pets", "categories": [{"index": 1, "category_name": "dög", "score": 0.75}]}
        ],
        "latency_ms": {"preprocess": 1.235, "backbone": 2.0, "heads": 0.1},
    }


@pytest.mark.parametrize("index", [-1, -3, 0, 2, slice(None, None, -1), slice(-2, None)])
def test_answers_made_when_asked_for_are_those_of_a_tuple(index: int | slice) -> None:
    """Whatever is asked for first."""
    whole = tuple(Classifications(i, f"head {i}", ()) for i in range(3))
    assert Answers(3, lambda place: {c.head_index: c for c in whole}[place])[index] == whole[index]
