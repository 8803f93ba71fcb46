"""A damaged file is an error, never a crash: the interpreter is not shown it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from edge_runtime import EdgeRuntimeError, MultiHeadClassifier

from tests.device.conftest import Expected
from tests.laws import one_line

ROUNDS = 150


def test_a_damaged_file_is_refused_or_answers_as_before(three: Expected, tmp_path: Path, interpreter: str) -> None:
    """One to eight bytes: in the model they are always noticed, in the dates and the copies of the members not always."""
    whole, rng = three.path.read_bytes(), np.random.default_rng(5)
    image = three.images[:1]
    with MultiHeadClassifier(three.path, interpreter=interpreter) as classifier:
        expected, model_bytes = classifier.features_of(image), classifier.metadata.model_bytes
    path, refused = tmp_path / "damaged.tflite", 0
    for _ in range(ROUNDS):
        damaged = np.frombuffer(whole, np.uint8).copy()
        begin = rng.choice([0, model_bytes])
        places = rng.integers(begin, len(whole), rng.integers(1, 9))
        damaged[places] ^= rng.integers(1, 256, len(places)).astype(np.uint8)
        path.write_bytes(damaged.tobytes())
        try:
            with MultiHeadClassifier(path, interpreter=interpreter) as classifier:
                found = classifier.features_of(image)
        except EdgeRuntimeError as error:
            assert one_line(str(error), path)
            refused += 1
        else:
            np.testing.assert_array_equal(found, expected)
            assert damaged[:model_bytes].tobytes() == whole[:model_bytes]
    assert refused > ROUNDS // 2
