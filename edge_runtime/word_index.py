"""The words of a text as Keras 2's ``keras.preprocessing.text.Tokenizer`` makes them, on characters, not on bytes.

The same calls of Python's strings as there, so the same words: lower case of every script, each character of ``filters``
in the place of a ``split``, and empty words left out (``tests/test_text_tokenizer_json.py`` holds them against each
other).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Mapping, Optional

from edge_runtime.errors import BundleError


@dataclass(frozen=True)
class WordIndex:
    """Settings as in ``Tokenizer``. ``unknown``: the number of a word that has none; None: such a word is left out."""

    filters: str
    lower: bool
    split: Optional[str]
    char_level: bool
    unknown: Optional[int]

    def words(self, data: bytes) -> List[str]:
        """Of a text in UTF-8; a byte that is none becomes a character that is in no vocabulary."""
        text = data.decode("utf-8", "surrogateescape")
        if self.lower:
            text = text.lower()
        if self.char_level:
            return list(text)
        text = text.translate({ord(character): self.split for character in self.filters})
        return [word for word in text.split(self.split) if word]

    def __str__(self) -> str:
        return "characters" if self.char_level else "words of a Tokenizer"

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, item: Any, size: int) -> WordIndex:
        """What ``to_json`` wrote. ``size``: of the vocabulary. Raises ``BundleError``."""
        if not isinstance(item, Mapping):
            raise BundleError(f"expected input word_index as a table, found {item!r:.60}")
        found = cls(*(item.get(key) for key in ("filters", "lower", "split", "char_level", "unknown")))  # type: ignore
        fits = (
            isinstance(found.filters, str)
            and isinstance(found.lower, bool)
            and isinstance(found.char_level, bool)
            and (found.split is None or (isinstance(found.split, str) and found.split != ""))
            and (found.unknown is None or (type(found.unknown) is int and 0 < found.unknown < size))
        )
        if not fits:
            raise BundleError(f"expected input word_index as the settings of a Tokenizer, found {dict(item)!r:.200}")
        return found
