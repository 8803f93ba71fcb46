"""The HTML pages: names are escaped, nothing is fetched, and red is used for failures only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from builder.judging import evaluate_page
from builder.judging.metrics import Counts, counted, judge
from builder.judging.verify import HeadQuality
from builder.quantizing.noise import LayerNoise
from builder.reporting import report_page
from builder.reporting.verdicts import caption, marked_agreement
from builder.reporting.words import _WORDS, meanings
from builder.scoring.cards import Card
from builder.training import report as training_page

pytestmark = pytest.mark.draws
EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(2)>&amp;{{ 7 * 7 }}{% raw %}'
PIXELS = np.zeros((8, 8, 3), np.uint8)


class Elements(HTMLParser):
    """Tags with their attributes, and whether each is closed where it should be."""

    VOID = ("meta", "img", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def classes(self) -> list[str]:
        return [name for _, attributes in self.tags for name in (attributes.get("class") or "").split()]


def built(name: str, sample: np.ndarray | bytes = PIXELS) -> str:
    """The page of a build in which everything is called ``name``."""
    quality = HeadQuality(name, 10, 0.9, (0.6, 0.98), 0.01, 0.1, (), (0.01, 0.1))
    return report_page.render(
        report_page.Page(
            made=name, title=name, facts=[(name, name)], noun="pictures", failures=[name], warnings=[name],
            bytes_by_part={name: 5, "backbone": 100}, heads=[quality], costs={name: (name, name)},
            captions=[name], min_agreement=0.97,
            worst=[report_page.Worst(name, name, sample, name, name, 0.1, False)],
            noise=[LayerNoise(name, name, 20.0, 25.0, None, 26.0, 0.1)], precisions=[(name,) * 9, (name, name)],
            seconds={name: 1.0},
        )
    )  # fmt: skip


def evaluated(name: str) -> str:
    scores, truth = np.array([[0.9, 0.1], [0.3, 0.7]]), np.array([0, 0])
    counts = Counts((name, name))
    counts.add(scores, truth)
    found, matrix = counts.accuracy, evaluate_page.Matrix(name, (name, name), counts.table.counts)
    page = evaluate_page.Page(
        name, {name: {name: found}}, {name: found}, [(name, name)], [matrix], {name: counts.reliability.curve},
        {name: counts.table.rates()}, [(name, [Card("", (name,))])], [name],
    )  # fmt: skip
    return evaluate_page.render(page)


def trained(name: str) -> str:
    scores, truth = np.array([[0.9, 0.1], [0.3, 0.7]]), np.array([0, 0])
    found = SimpleNamespace(accuracy=judge(scores, truth), confusion=counted(scores, truth).table.counts)
    curves = {key: [0.5, 0.4] for key in ("loss", "accuracy", "val_loss", "val_accuracy")}
    config = SimpleNamespace(output=SimpleNamespace(name=name), backbone=name)
    return training_page._page(
        SimpleNamespace(  # type: ignore[arg-type]
            config=config, labels=(name, name), samples=3, features=name, validation=found, held_out=None,
            seconds={"fit": 1.0}, fit=SimpleNamespace(epochs=1, curves=curves),
        )
    )  # fmt: skip


PAGES = {
    "build": built,
    "build of texts": lambda name: built(name, name.encode()),
    "evaluate": evaluated,
    "train": trained,
}


@pytest.mark.parametrize("make", PAGES.values(), ids=PAGES.keys())
def test_names_are_shown_and_not_obeyed(make: Callable[[str], str]) -> None:
    harmless, hostile = Elements(make("harmless")), Elements(make(EVIL))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in harmless.tags]
    assert [set(attributes) for _, attributes in hostile.tags] == [set(attributes) for _, attributes in harmless.tags]
    assert hostile.text.count(EVIL) == harmless.text.count("harmless") > 0


@pytest.mark.parametrize("make", PAGES.values(), ids=PAGES.keys())
def test_a_page_fetches_nothing_and_fits(make: Callable[[str], str]) -> None:
    page = make("harmless")
    found = Elements(page)
    assert all(
        value.startswith("data:") for _, a in found.tags for key, value in a.items() if key in ("src", "href") and value
    )
    assert "http" not in page
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in found.tags
    assert "prefers-color-scheme: dark" in page
    assert all(word in found.text for word in ("What the words on this page mean",))


@pytest.mark.parametrize(("failures", "problems"), [((), 0), (("one",), 1), (("one", "two"), 2)])
def test_red_is_for_failures(failures: tuple[str, ...], problems: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings are shown as notes, whatever failed."""
    whole = report_page.Page

    def changed(**values: Any) -> report_page.Page:
        return dataclasses.replace(whole(**values), failures=failures, warnings=("a note", "another"))

    monkeypatch.setattr(report_page, "Page", changed)
    found = Elements(built("harmless"))
    assert found.classes().count("problem") == problems
    assert found.classes().count("verdict") == (not problems)
    assert found.classes().count("notes") == 1


def test_every_word_has_a_meaning_without_gaps() -> None:
    assert all("{" not in meaning and meaning.endswith(".") for _, meaning in meanings(*_WORDS))


def test_a_row_that_passed_only_because_pictures_are_few_is_marked_and_explained() -> None:
    few = HeadQuality("a", 10, 0.9, (0.6, 0.98), 0.01, 0.1, (), (0.01, 0.1))
    many = HeadQuality("b", 1000, 0.98, (0.97, 0.99), 0.01, 0.1, (), (0.01, 0.1))
    assert [marked_agreement(q, 0.97) for q in (few, many)] == ["0.900*", "0.980"]
    assert "0.900*" in built("a")
    assert "so few pictures cannot prove that it is worse" in caption([few, many], 0.97, "pictures")[0]
    assert caption([many], 0.97, "pictures") == []


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ((False,), "no head has pictures of its own"),
        ((True, False), "1 of 2 heads has no pictures of its own"),
        ((False, True, False), "2 of 3 heads have no pictures of their own"),
    ],
)
def test_the_caption_counts_the_heads_without_pictures(own: tuple[bool, ...], said: str) -> None:
    heads = [HeadQuality("b", 1000, 0.98, (0.97, 0.99), 0.01, 0.1, (), (0.01, 0.1), own_pictures=o) for o in own]
    assert [line.partition(":")[0] for line in caption(heads, 0.97, "pictures")] == [said]
