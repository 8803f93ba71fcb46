"""The results of a classification, with the names of MediaPipe.

``Category(index, score, category_name)`` and ``Classifications(head_index, head_name, categories)`` mean what they mean
in MediaPipe Tasks' ``ClassificationResult``.
"""

from __future__ import annotations

from typing import Any, Callable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edge_runtime.errors import EdgeRuntimeError


class Category(NamedTuple):
    """One label with its score.

    Attributes:
        index: Position in the labels of the head, from 0.
        score: Probability, from 0 to 1.
        category_name: The label.
    """

    index: int  # type: ignore[assignment]  # MediaPipe's name for it, and a method of tuple
    score: float
    category_name: str


class Classifications(NamedTuple):
    """The answer of one head.

    Attributes:
        head_index: Position in the heads of the file, from 0.
        head_name: Its name.
        categories: In descending order of score; equal scores keep the order of the labels.
    """

    head_index: int
    head_name: str
    categories: Tuple[Category, ...]


class Answers(Tuple[Classifications, ...]):
    """A tuple whose items are made on first use: of 200 heads, a program often reads only a few.

    ``make``: makes the item at an index.
    """

    _made: List[Optional[Classifications]]
    _make: Callable[[int], Classifications]

    def __new__(cls, count: int, make: Callable[[int], Classifications]) -> Answers:
        answers = super().__new__(cls)
        answers._made, answers._make = [None] * count, make
        return answers

    def __len__(self) -> int:
        return len(self._made)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple([self[i] for i in range(*index.indices(len(self)))])
        found = self._made[index]
        if found is None:
            found = self._made[index] = self._make(range(len(self))[index])
        return found

    def __iter__(self) -> Iterator[Classifications]:
        return map(self.__getitem__, range(len(self)))

    # What Python's own tuple would answer from items that are not there yet.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, tuple) and tuple(self) == tuple(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: Tuple[Classifications, ...]) -> bool:
        return tuple(self) < tuple(other)

    def __le__(self, other: Tuple[Classifications, ...]) -> bool:
        return tuple(self) <= tuple(other)

    def __gt__(self, other: Tuple[Classifications, ...]) -> bool:
        return tuple(self) > tuple(other)

    def __ge__(self, other: Tuple[Classifications, ...]) -> bool:
        return tuple(self) >= tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __contains__(self, item: object) -> bool:
        return item in tuple(self)

    def __add__(self, other: Any) -> Any:
        return tuple(self) + tuple(other)

    def __radd__(self, other: Any) -> Any:
        return tuple(other) + tuple(self)

    def __mul__(self, times: Any) -> Any:
        return tuple(self) * times

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return repr(tuple(self))

    def __reduce__(self) -> Any:
        return tuple, (list(self),)

    def index(self, *arguments: Any) -> int:
        return tuple(self).index(*arguments)

    def count(self, item: object) -> int:
        return tuple(self).count(item)


class ClassificationResult(NamedTuple):
    """The result for one picture or text.

    Attributes:
        classifications: One for each requested head, in the requested order.
        latency_ms: Milliseconds by part: ``preprocess``, ``backbone``, ``heads``.
        joint: A ``JointClassification`` if it was requested, otherwise None.
    """

    classifications: Tuple[Classifications, ...]
    latency_ms: Mapping[str, float]
    joint: Optional[Any] = None

    def to_dict(self) -> dict[str, Any]:
        """The result as ``classify --json`` prints it, without its source."""
        return {
            "classifications": [
                {
                    "head_index": c.head_index,
                    "head_name": c.head_name,
                    "categories": [category._asdict() for category in c.categories],
                }
                for c in self.classifications
            ],
            **({} if self.joint is None else {"joint": self.joint.to_dict()}),
            "latency_ms": {part: round(ms, 3) for part, ms in self.latency_ms.items()},
        }


def check_top_k(top_k: Optional[int]) -> None:
    """Raises ``EdgeRuntimeError`` for one below 1."""
    if top_k is not None and top_k < 1:
        raise EdgeRuntimeError(f"top_k: expected 1 or more, or None for all labels; found {top_k}")


def top_categories(scores: np.ndarray, labels: Sequence[str], *, top_k: Optional[int] = None) -> Tuple[Category, ...]:
    """The ``top_k`` best labels, or all labels, best first; equal scores keep the order of the labels.

    ``scores``: float32 (labels,). Raises ``EdgeRuntimeError`` for a ``top_k`` below 1.
    """
    check_top_k(top_k)
    values = scores.tolist()  # Python's own numbers, and its stable sort: for a few labels numpy's takes twice as long
    order = sorted(range(len(values)), key=values.__getitem__, reverse=True)[:top_k]
    return tuple([Category(i, values[i], labels[i]) for i in order])
