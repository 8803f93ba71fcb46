"""An interpreter gets only the subgraphs that run, and their answers equal those of the whole file."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.bundle import open_model, read_model
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.flatbuffer import Views, check_model
from edge_runtime.flatbuffer import views as views_module
from edge_runtime.interpreter import INTERPRETERS, find_interpreter
from edge_runtime.signatures import Signatures


def answers(content: bytes, name: str, given: dict[str, np.ndarray], interpreter: str) -> dict[str, np.ndarray]:
    runner = find_interpreter(interpreter)[1](model_content=content, num_threads=1).get_signature_runner(name)
    found: dict[str, np.ndarray] = runner(**given)
    return found


def inputs(tables: Any, signature: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random integers for each input of a signature, by the tensors of its subgraph."""
    found, graph = {}, signature.graph
    places = tables.inputs[1][tables.inputs[0].owners == graph]
    for name, place in zip(signature.inputs, places.tolist(), strict=True):
        tensor = tables.tensor_of[place]
        shape = tables.tensors.shape[tensor, : tables.tensors.rank[tensor]]
        dtype = {3: np.uint8, 9: np.int8}[int(tables.tensors.type[tensor])]
        found[name] = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape, dtype=dtype)
    return found


@pytest.fixture(params=["tiny", "joint"])
def model(request: pytest.FixtureRequest) -> bytes:
    return read_model(str(request.getfixturevalue(request.param).output))[1]


@pytest.fixture(params=[1, 1 << 14], ids=["all that can be is left out", "as it is"])
def least(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(views_module, "_LEFT_OUT", request.param)
    yield


@pytest.mark.parametrize("interpreter", [name for name in INTERPRETERS if name != "tflite_runtime"])
@pytest.mark.usefixtures("least")
def test_a_part_answers_as_the_whole_and_is_itself_safe_to_run(model: bytes, interpreter: str) -> None:
    tables = check_model(model)
    views, rng, order = Views(tables), np.random.default_rng(0), random.Random(0)
    for name, signature in views.signatures.items():
        given = inputs(tables, signature, rng)
        expected = answers(model, name, given, interpreter)
        others = order.sample(sorted(views.signatures), order.randrange(3))
        for names in ([name], list(dict.fromkeys([*others, name]))):
            content = views.of(names)
            assert sorted(Views(check_model(content)).signatures) == sorted(names)
            found = answers(content, name, given, interpreter)
            assert found.keys() == expected.keys()
            assert all(np.array_equal(found[key], expected[key]) for key in expected)


def test_the_checked_bytes_stay_and_what_is_not_read_takes_no_memory(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views_module, "_LEFT_OUT", 1)
    model = read_model(str(tiny.output))[1]
    kept, views = bytes(model), Views(check_model(model))
    for name in views.signatures:
        content = views.of([name])
        size = len(content) - len(model)
        assert size % 64 == 0
        rest, source = np.frombuffer(content[size:], np.uint8), np.frombuffer(kept, np.uint8)
        assert ((rest == source) | (rest == 0)).all()
        if name not in ("serving_default", "backbone"):
            assert (rest != source).sum() > len(kept) // 4
    assert model == kept


def test_contents_that_lie_over_tables_are_copied(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crafted file: the constant of another subgraph lies over the tables of this one."""
    monkeypatch.setattr(views_module, "_LEFT_OUT", 1)
    tables = check_model(read_model(str(tiny.output))[1])
    views = Views(tables)
    graph = views.signatures["animals"].graph
    constant = int(np.argmax(tables.buffer_bytes))
    start, end = int(tables.graph_places[graph]) - 40, int(tables.graph_places[graph]) + 40
    tables.buffer_starts[constant], tables.buffer_bytes[constant] = start, end - start
    assert views.of(["animals"])[-tables.data.size :][start:end] == bytes(tables.data.raw[start:end])


def test_contents_behind_the_tables_leave_the_model_whole(tiny: Any) -> None:
    """Their offsets count from the first byte of the file, which a new root table would shift."""
    tables = check_model(read_model(str(tiny.output))[1])
    tables.behind[-1] = True
    assert Views(tables).of(["backbone"]) == bytes(tables.data.raw)


@pytest.mark.parametrize("seed", range(4))
def test_heads_asked_one_by_one_take_few_interpreters_and_answer_alike(
    tiny: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(tiny.metadata.heads) and [head.head_name for head in tiny.metadata.heads]
    order = random.Random(seed)
    with MultiHeadClassifier(tiny.output) as one, MultiHeadClassifier(tiny.output) as other:
        features = one.features_of(np.random.default_rng(seed).integers(0, 256, one._spec.shape, np.uint8))
        opened, given = [], one._model.open
        monkeypatch.setattr(one._model, "open", lambda *asked: (opened.append(asked), given(*asked))[1])
        expected = dict(zip(names, other.scores(features), strict=True))
        for name in order.choices(names, k=8):
            assert np.array_equal(one.head_scores(features, name), expected[name])
        held = [name for asked in opened for name in asked]
        assert len(held) == len(set(held)) <= len(names)
        assert all(asked[0] in names for asked in opened)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 64, 200])
def test_interpreters_grow_with_the_logarithm_of_the_heads(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    names, rng = [f"h{i}" for i in range(count)], random.Random(count)

    class Interpreter:
        def get_signature_runner(self, name: str) -> Any:
            return lambda: {}

    monkeypatch.setattr("edge_runtime.signatures.open_interpreter", lambda *_, **__: ("any", Interpreter()))
    asked: list[list[str]] = []
    model = Signatures(
        "f", (0, 0), lambda chosen: asked.append(list(chosen)) or b"", interpreter=None, num_threads=None, alike=names
    )
    for name in rng.sample(names, count):
        model.run(name, {})
    assert sorted(name for chosen in asked for name in chosen) == sorted(names)
    assert len(asked) <= 2 + np.log2(count)
    assert len(asked[0]) == 1
    model.run("all", {})
    assert asked[-1] == ["all"]


def test_a_file_replaced_after_opening_answers_as_it_was(tiny: Any, tmp_path: Path) -> None:
    path = tmp_path / "file.tflite"
    path.write_bytes(tiny.output.read_bytes())
    with MultiHeadClassifier(path) as classifier, MultiHeadClassifier(tiny.output) as expected:
        (tmp_path / "next").write_bytes(b"another")
        (tmp_path / "next").replace(path)
        features = classifier.features_of(np.zeros(classifier._spec.shape, np.uint8))
        for found, known in zip(classifier.scores(features), expected.scores(features), strict=True):
            assert np.array_equal(found, known)


def test_a_file_is_mapped_and_only_a_signed_one_read(tiny: Any) -> None:
    _, views = open_model(str(tiny.output))
    assert not isinstance(views._model.data.raw.obj.base, bytes)
    assert struct.unpack("<4s", views.of(["backbone"])[4:8]) == (b"TFL3",)
