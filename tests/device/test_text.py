"""Texts on the device: the tokens of the layer without TensorFlow, and the answers that were given where it was built."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from edge_runtime import MultiHeadClassifier

from tests.device.conftest import FOLDER
from tests.laws import SCORE_TOLERANCE, scores_of

FILE = FOLDER / "text.tflite"
# The interpreters may differ by a step of the features, and so a score by more than on equal features.
WHOLE_WAY = 4 * SCORE_TOLERANCE


@pytest.fixture(scope="module")
def expected() -> list[dict]:
    return json.loads((FOLDER / "text.json").read_text("utf-8"))


@pytest.fixture
def classifier(interpreter: str) -> Iterator[MultiHeadClassifier]:
    with MultiHeadClassifier(FILE, interpreter=interpreter) as opened:
        yield opened


def test_there_is_something_to_compare(expected: list[dict]) -> None:
    assert len({tuple(item["tokens"]) for item in expected}) == len(expected)
    assert len({int(np.argmax(item["scores"]["b"])) for item in expected}) > 1


def test_tokens_and_scores(classifier: MultiHeadClassifier, expected: list[dict]) -> None:
    for item in expected:
        assert classifier.prepare(item["text"])[0].tolist() == item["tokens"]
        found = scores_of(classifier.classify_text(item["text"]).classifications)
        for name, scores in item["scores"].items():
            assert np.abs(found[name] - np.asarray(scores)).max() <= WHOLE_WAY, (item["text"], name)


def test_the_command_reads_lines(expected: list[dict]) -> None:
    command = [sys.executable, "-m", "edge_runtime", "classify-text", str(FILE), "--head", "1", "--json"]
    done = subprocess.run(command, input=b"w1 w2\n\xff\n", capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["classifications"][0]["head_name"] for line in done.stdout.splitlines()] == ["b", "b"]
