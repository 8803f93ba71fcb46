"""The metadata of the joint list, and the rule for its answer; needs no interpreter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import BundleError, EdgeRuntimeError
from edge_runtime.bundle import append_members, read_metadata
from edge_runtime.image_input import ImageInput
from edge_runtime.joint import JointInfo, judge
from edge_runtime.metadata import HeadInfo, Metadata, SeamTensor
from tests.laws import joint_table, one_line

MODEL = b"\x1c\0\0\0TFL3" + b"\0" * 200
HEADS = (HeadInfo("cats", ("tabby", "lion")), HeadInfo("dogs", ("pug",)))
PLAIN = Metadata(ImageInput(32, 32), "sha256:0", (SeamTensor("features", (8,)),), HEADS, len(MODEL))
TABLE = joint_table(PLAIN)


def file_with(folder: Path, table: Any) -> Path:
    """The bytes of a writer that does not check: the text is replaced after the checks."""
    from dataclasses import replace

    path = folder / "file.tflite"
    path.write_bytes(append_members(MODEL, replace(PLAIN, joint=table)))
    return path


def test_members_come_back(tmp_path: Path) -> None:
    metadata = read_metadata(str(file_with(tmp_path, TABLE)))
    assert metadata.joint == TABLE
    info = JointInfo.from_json(metadata.joint, ["cats", "dogs"])
    assert info.labels == ("cats/tabby", "cats/lion", "dogs/pug", "none")
    assert info.classes == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {}, "joint labels"),
        (lambda t: {**t, "labels": []}, "joint labels"),
        (lambda t: {**t, "labels": ["a", "a"]}, "each once"),
        (lambda t: {**t, "labels": ["a", 3]}, "joint labels"),
        (lambda t: {**t, "gated": ["birds"]}, "gated"),
        (lambda t: {**t, "gated": "cats"}, "gated"),
        (lambda t: {**t, "none": 1}, "joint none"),
        (lambda t: {**t, "threshold": 1.5}, "threshold"),
        (lambda t: {**t, "threshold": None}, "threshold"),
        (lambda t: {**t, "threshold": True}, "threshold"),
        (lambda t: {**t, "head_thresholds": {"cats": 0.5}}, "threshold for each head"),
        (lambda t: {**t, "head_thresholds": {"dogs": 0.5, "cats": 0.5}}, "threshold for each head"),
        (lambda t: {**t, "head_thresholds": {"cats": 0.5, "dogs": "0.5"}}, "threshold"),
        (lambda t: [t], "as a table"),
    ],
)
def test_refused_tables(change: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(BundleError, match=words) as caught:
        JointInfo.from_json(change(TABLE), ["cats", "dogs"])
    assert one_line(str(caught.value), "polyhead.json")


def test_labels_that_other_tools_read_must_be_those(tmp_path: Path) -> None:
    path = file_with(tmp_path, TABLE)
    content = path.read_bytes().replace(b"labels/joint.txt", b"labels/joinx.txt")
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"labels/joint\.txt"):
        read_metadata(str(path))


def info() -> JointInfo:
    return JointInfo.from_json(TABLE, ["cats", "dogs"])


def answer(heads: list[float], scores: list[float], **options: Any) -> Any:
    return judge(info(), np.array(scores, np.float32), np.array(heads, np.float32), **options)


def test_known() -> None:
    found = answer([0.75, 0.2, 0.05], [0.5, 0.25, 0.2, 0.05])
    assert found.known
    assert found.best.category_name == "cats/tabby"
    assert [c.category_name for c in found.categories] == ["cats/tabby", "cats/lion", "dogs/pug", "none"]
    assert [(h.head_name, h.known) for h in found.heads] == [("cats", True), ("dogs", False)]


def test_below_the_threshold_there_is_no_answer() -> None:
    found = answer([0.45, 0.4, 0.15], [0.3, 0.15, 0.4, 0.15])
    assert not found.known
    assert found.best is None
    assert all(h.known for h in found.heads)  # each for itself would take it


@pytest.mark.parametrize("bar", [0.25, 0.5, 0.625])
def test_what_reaches_a_threshold_is_known_and_what_is_just_below_is_not(bar: float) -> None:
    chosen = info().with_thresholds({"joint": bar, "cats": bar, "dogs": bar})
    for score, known in ((bar, True), (np.nextafter(np.float32(bar), np.float32(0)), False)):
        found = judge(chosen, np.ones(4, np.float32), np.array([score, 0.125, 0.0625], np.float32))
        assert (found.known, found.best is not None) == (known, known)
        assert [head.known for head in found.heads] == [known, False]


def test_none_outranks_a_low_threshold() -> None:
    assert judge(info().with_thresholds(0.1), np.ones(4, np.float32), np.array([0.3, 0.3, 0.4], np.float32)).best is None
    assert judge(info().with_thresholds(0.1), np.ones(4, np.float32), np.array([0.4, 0.2, 0.4], np.float32)).known


def test_equal_scores_keep_the_order_of_the_list() -> None:
    found = answer([0.5, 0.5, 0.0], [0.25, 0.25, 0.5, 0.0])
    assert [c.category_name for c in found.categories] == ["dogs/pug", "cats/tabby", "cats/lion", "none"]


@pytest.mark.parametrize("wrong", [-0.1, 1.1, "0.5", True, {"birds": 0.5}, {"cats": None}, {"joint": 2}])
def test_refused_thresholds(wrong: Any) -> None:
    with pytest.raises(EdgeRuntimeError, match="threshold"):
        info().with_thresholds(wrong)


@pytest.mark.parametrize("none", [0.1, 0.3, 0.9])
def test_the_best_label_is_never_none(none: float) -> None:
    """Also where a head is likelier than none, but its probability is spread over more labels."""
    found = answer([0.5, 0.1, 0.4], [0.25, 0.25, 0.1, none])
    assert found.known
    assert found.best.category_name == "cats/tabby"
    assert answer([0.4, 0.1, 0.5], [0.25, 0.25, 0.1, none]).best is None
