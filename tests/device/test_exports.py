"""Exported files give the answers of the file that they come from, with both interpreters."""

from __future__ import annotations

import numpy as np
from edge_runtime import MultiHeadClassifier
from edge_runtime.interpreter import open_interpreter

from tests.device.conftest import FOLDER, Expected

WHOLE = FOLDER / "joint.tflite"


def test_backbone_and_heads_apart(three: Expected, interpreter: str) -> None:
    apart = FOLDER / "apart" / "joint.tflite"
    with MultiHeadClassifier(WHOLE, interpreter=interpreter) as whole, MultiHeadClassifier(
        apart, interpreter=interpreter
    ) as parts:
        assert sorted(parts.head_names) == sorted(whole.head_names)
        for picture in three.pictures:
            features = whole.features(picture)
            np.testing.assert_array_equal(parts.features(picture), features)
            for name in whole.head_names:
                np.testing.assert_array_equal(parts.head_scores(features, name), whole.head_scores(features, name))


def test_one_subgraph_for_other_clients(three: Expected, interpreter: str) -> None:
    _, opened = open_interpreter(str(FOLDER / "task.tflite"), name=interpreter)
    run = opened.get_signature_runner("serving_default")
    with MultiHeadClassifier(WHOLE, interpreter=interpreter) as whole:
        for image in three.images:
            found, features = run(image=image[None]), whole.features_of(image[None])
            np.testing.assert_array_equal(found["joint"][0], whole.joint_scores(features)[0])
            for name in whole.head_names:
                np.testing.assert_array_equal(found[name][0], whole.head_scores(features, name))
