"""The joint list on the device gives the numbers of plain numpy, with both interpreters."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from edge_runtime import MultiHeadClassifier
from edge_runtime.interpreter import find_interpreter, open_interpreter

from tests.device.conftest import FOLDER
from tests.device.test_commands import run
from tests.laws import SCORE_STEP

FILE = FOLDER / "joint.tflite"


@pytest.fixture(scope="module")
def router() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "joint.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def classifier(interpreter: str) -> Iterator[MultiHeadClassifier]:
    with MultiHeadClassifier(FILE, interpreter=interpreter) as opened:
        yield opened


def softmax(values: np.ndarray) -> np.ndarray:
    exponentials = np.exp(values - values.max())
    return exponentials / exponentials.sum()


def plain_numpy(
    row: np.ndarray, logits: list[np.ndarray], router: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the list and P(heads and none) of one picture."""
    scale, zero_point = router["seam"]
    features = (row - zero_point) * scale
    evidence = features / np.linalg.norm(features) @ router["weights"] * router["steps"] + router["bias"]
    for h, (z, width, gain) in enumerate(zip(logits, router["widths"], router["gains"])):
        evidence[h] += gain * np.log(np.sum(np.exp(z / width)))
    heads = softmax(evidence)
    own = [heads[h] * softmax(z) for h, z in enumerate(logits)]
    return np.concatenate([*own, heads[-1:]]), heads


def test_equals_plain_numpy(classifier: MultiHeadClassifier, interpreter: str, router: dict[str, np.ndarray]) -> None:
    _, factory = find_interpreter(interpreter)
    opened = factory(model_path=str(FILE), experimental_preserve_all_tensors=True)
    joint, best, spread = opened.get_signature_runner("joint"), set(), []
    for row in router["features"]:
        joint(features=row[None])
        quantized = [opened.get_tensor(int(i), int(router["subgraph"]))[0] for i, _, _ in router["logits"]]
        real = [(q - zero) * scale for q, (_, scale, zero) in zip(quantized, router["logits"])]
        scores, heads = plain_numpy(row, real, router)
        found, found_heads = classifier.joint_scores(row[None])
        assert np.abs(found - scores).max() <= SCORE_STEP / 16
        assert np.abs(found_heads - heads).max() <= SCORE_STEP / 16
        assert found.sum() == pytest.approx(1, abs=1e-5)
        best.add(int(found.argmax()))
        spread.append(found_heads)
    assert len(best) > 1  # else this test would say nothing
    assert np.ptp(spread, axis=0).max() > 0.1


def test_end_to_end(classifier: MultiHeadClassifier, interpreter: str) -> None:
    _, opened = open_interpreter(str(FILE), name=interpreter)
    whole = opened.get_signature_runner("serving_default")
    for path in sorted((FOLDER / "pictures").glob("*.png"))[:4]:
        image = classifier.prepare(path)
        scores, _ = classifier.joint_scores(classifier.features_of(image))
        assert np.abs(whole(image=image)["joint"][0] - scores).max() <= 1e-6


def test_command(interpreter: str) -> None:
    pictures = sorted((FOLDER / "pictures").glob("*.png"))[:2]
    done = run("classify", FILE, *pictures, "--joint", "--json", "--top-k", 3, "--interpreter", interpreter)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        joint = json.loads(line)["joint"]
        scores = [c["score"] for c in joint["categories"]]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == 3
        assert [h["head_name"] for h in joint["heads"]] == ["animals", "garden", "things"]


def test_threshold_of_the_command() -> None:
    picture = next((FOLDER / "pictures").glob("*.png"))
    for arguments, known in ((("--threshold", "1"), False), (("--threshold", "0", "--threshold", "garden=0.4"), None)):
        done = run("classify", FILE, picture, "--joint", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        joint = json.loads(done.stdout)["joint"]
        assert known is None or joint["known"] is known
    assert next(h for h in joint["heads"] if h["head_name"] == "garden")["threshold"] == 0.4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threshold", "0.5"], "--joint"),
        (["--joint", "--threshold", "much"], "[HEAD=]P"),
        (["--joint", "--threshold", "plants=0.5"], "no such head"),
        (["--joint", "--threshold", "1.5"], "from 0 to 1"),
    ],
)
def test_refused(arguments: list[str], words: str) -> None:
    done = run("classify", FILE, next((FOLDER / "pictures").glob("*.png")), *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_a_file_without_a_joint_head_says_so() -> None:
    done = run("classify", FOLDER / "three.tflite", next((FOLDER / "pictures").glob("*.png")), "--joint")
    assert done.returncode == 2
    assert "no joint head" in done.stderr
