"""All heads in one run: the signature ``all``, its use by the runtime, and files that lack it."""

from __future__ import annotations

import copy
import json
import operator
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from builder import BuildResult, build
from builder.growing.finished import Finished, read_finished, with_heads
from builder.settings.heads import HeadConfig
from builder.tflite.link import link
from edge_runtime import MultiHeadClassifier
from edge_runtime.bundle import append_members
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.interpreter import open_interpreter
from edge_runtime.results import Answers, Category, Classifications
from edge_runtime.signatures import Signatures
from tests.tiny_models import THREE_HEADS


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The signatures that run, in their order."""
    found, run = list[str](), Signatures.run

    def watched(self: Signatures, signature: str, inputs: Any) -> Any:
        found.append(signature)
        return run(self, signature, inputs)

    monkeypatch.setattr(Signatures, "run", watched)
    return found


def with_many(file: Finished, count: int) -> Finished:
    """``count`` heads, copies of the three."""
    infos = dict(zip(THREE_HEADS, file.metadata.heads, strict=True))
    names = [f"h{i}" for i in range(count)]
    sources = [list(THREE_HEADS)[i % 3] for i in range(count)]
    heads = {
        name: (replace(infos[source], head_name=name), copy.deepcopy(file.parts[source]))
        for name, source in zip(names, sources, strict=True)
    }
    return with_heads(file, heads, None)[0]


def written(file: Finished, path: Path) -> Path:
    """The file linked again, with the names of its metadata."""
    linked = link(file.parts)
    path.write_bytes(append_members(linked.model, replace(file.metadata, model_bytes=len(linked.model))))
    return path


def assert_all_is_every_head(path: Path, pictures: list[Path]) -> None:
    _, interpreter = open_interpreter(str(path))
    with MultiHeadClassifier(path) as classifier:
        whole = interpreter.get_signature_runner("all")
        for picture in pictures:
            features = classifier.features(picture)
            alone = [interpreter.get_signature_runner(n)(features=features)["scores"] for n in classifier.head_names]
            np.testing.assert_array_equal(whole(features=features)["scores"], np.concatenate(alone, axis=1))
            found = classifier.scores(features)
            for name, scores in zip(classifier.head_names, found, strict=True):
                np.testing.assert_array_equal(scores, classifier.head_scores(features, name))


@pytest.mark.parametrize("heads", [1, 2, 3, 20])
def test_all_gives_what_each_head_gives(tiny_file: Path, tmp_path: Path, tiny_pictures: list[Path], heads: int) -> None:
    assert_all_is_every_head(
        written(with_many(read_finished(tiny_file), heads), tmp_path / "x.tflite"), tiny_pictures[:4]
    )


@pytest.mark.parametrize("precision", ["float", "weights"])
def test_all_is_float_where_the_heads_are(
    tiny: BuildResult, tmp_path: Path, tiny_pictures: list[Path], precision: str
) -> None:
    config = replace(tiny.report.config, output=tmp_path / "x.tflite", precision=precision, rounding="nearest")
    path = build(config).output
    assert_all_is_every_head(path, tiny_pictures[:2])
    outputs = open_interpreter(str(path))[1].get_signature_runner("all").get_output_details()
    assert outputs["scores"]["dtype"] == np.float32


def test_when_all_heads_are_asked_for_one_signature_runs(
    tiny_file: Path, tmp_path: Path, tiny_pictures: list[Path], ran: list[str]
) -> None:
    path = written(with_many(read_finished(tiny_file), 20), tmp_path / "x.tflite")
    with MultiHeadClassifier(path) as classifier:
        whole = classifier.classify(tiny_pictures[0]).classifications
        assert ran == ["backbone", "all"]
        some = classifier.classify(tiny_pictures[0], heads=["h7", "h0", "h19"]).classifications
        assert ran[2:] == ["backbone", "all"]
        assert some == (whole[7], whole[0], whole[19])
        assert classifier.classify(tiny_pictures[0], heads=["h7"]).classifications == (whole[7],)
        assert ran[4:] == ["backbone", "h7"]
        assert [c.categories[:2] for c in whole] == [
            c.categories for c in classifier.classify(tiny_pictures[0], top_k=2).classifications
        ]
        with pytest.raises(EdgeRuntimeError, match="top_k"):  # now, not when somebody looks
            classifier.classify(tiny_pictures[0], top_k=0)


def test_a_file_without_all_answers_as_one_with_it(
    tiny_file: Path, tmp_path: Path, tiny_pictures: list[Path], ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.tflite.link.ALL", "animals")  # as builders before it wrote files
    older = written(read_finished(tiny_file), tmp_path / "older.tflite")
    with MultiHeadClassifier(older) as before, MultiHeadClassifier(tiny_file) as now:
        assert before.classify(tiny_pictures[0]).classifications == now.classify(tiny_pictures[0]).classifications
    assert ran == ["backbone", *THREE_HEADS, "backbone", "all"]


def test_a_head_called_all_in_an_older_file_stays_a_head(
    tiny_file: Path, tmp_path: Path, tiny_pictures: list[Path], ran: list[str]
) -> None:
    file = read_finished(tiny_file)
    parts = {"all" if name == "garden" else name: part for name, part in file.parts.items()}
    heads = tuple(replace(h, head_name="all") if h.head_name == "garden" else h for h in file.metadata.heads)
    path = written(replace(file, parts=parts, metadata=replace(file.metadata, heads=heads)), tmp_path / "older.tflite")
    with MultiHeadClassifier(path) as classifier, MultiHeadClassifier(tiny_file) as now:
        found, expected = classifier.classify(tiny_pictures[0]).classifications, now.classify(tiny_pictures[0])
        assert [c.categories for c in found] == [c.categories for c in expected.classifications]
    assert ran[:4] == ["backbone", "animals", "all", "things"]
    again = read_finished(path)
    assert list(again.parts) == ["backbone", "animals", "all", "things"]
    assert link(again.parts).model == path.read_bytes()[: again.metadata.model_bytes]


def test_a_new_head_is_not_called_all() -> None:
    with pytest.raises(Exception, match="'all' is taken by the file itself"):
        HeadConfig("all", Path("x.keras"), ("a", "b"))


def test_all_costs_less_than_100_bytes_a_head(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = with_many(read_finished(tiny_file), 20).parts
    whole = len(link(parts).model)
    monkeypatch.setattr("builder.tflite.link.ALL", "h0")
    assert 0 < whole - len(link(parts).model) < 20 * 100 + 2000


def answers() -> tuple[Answers, list[int], tuple[Classifications, ...]]:
    made = list[int]()
    plain = tuple(Classifications(i, f"h{i}", (Category(0, 0.5, "x"), Category(1, 0.25, str(i)))) for i in range(4))

    def make(index: int) -> Classifications:
        made.append(index)
        return plain[index]

    return Answers(4, make), made, plain


LAWS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda t: t,
    "the other way round": lambda t: answers()[2] == t,
    "length": len,
    "items": lambda t: [*t],
    "last": lambda t: t[-1],
    "slice": lambda t: t[1:3],
    "backwards": lambda t: t[::-1],
    "reversed": lambda t: [*reversed(t)],
    "hash": hash,
    "words": repr,
    "in front": lambda t: (1, *t),
    "behind": lambda t: operator.add(t, (1,)),
    "before": lambda t: operator.add((1,), t),
    "twice": lambda t: t * 2,
    "in": lambda t: answers()[2][1] in t,
    "index": lambda t: t.index(answers()[2][2]),
    "count": lambda t: t.count(answers()[2][0]),
    "json": json.dumps,
    "pickle": lambda t: pickle.loads(pickle.dumps(t)),  # noqa: S301  # what was just written
    "copy": copy.copy,
    "deep copy": copy.deepcopy,
    "arguments": lambda t: (lambda *a: a)(*t),
    "sorted": sorted,
    "max": max,
    "less": lambda t: t < (),
    "more": lambda t: t >= answers()[2],
    "a tuple": tuple,
    "is a tuple": lambda t: isinstance(t, tuple),
    "unequal": lambda t: t != answers()[2][:2],
    "truth": bool,
    "array": lambda t: np.asarray(t, object).shape,
}


@pytest.mark.parametrize("law", list(LAWS))
def test_what_is_made_when_it_is_looked_at_is_a_tuple_for_all_that(law: str) -> None:
    late, _, plain = answers()
    assert LAWS[law](late) == LAWS[law](plain)


def test_only_what_is_looked_at_is_made_and_once() -> None:
    late, made, plain = answers()
    assert (late[2], late[-2], late[2:3]) == (plain[2], plain[2], plain[2:3])
    assert made == [2]
    with pytest.raises(IndexError):
        late[4]
