"""Names in any script -> head names: lower-case ASCII letters, digits and _."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge_runtime.metadata import RESERVED_NAMES

# Names that exporters give files and folders: they tell the tool, not the task.
_GENERIC = re.compile(
    r"(._)?(converted[ _-]?(keras|savedmodel|tflite)|keras[ _-]?model|model([ _-]?(keras|unquant|quant))?|"
    r"saved[ _-]?model|my[ _-]?model|downloads?|exports?|final|best|weights)?([ _-]?\(?\d+\)?)*",
    re.IGNORECASE,
)


def title_of(path: Path, labels: Sequence[str], root: Path) -> str:
    """A classifier's title: from its file name, else from the folders around it up to ``root``, else from its labels."""
    inside = [path.stem, *(folder.name for folder in path.parents if root in folder.parents)]
    found = next((name for name in inside if not _GENERIC.fullmatch(name.removesuffix(".savedmodel"))), None)
    return found or " or ".join(labels[:2]) or path.stem


def head_names(titles: Iterable[str]) -> list[str]:
    """A unique name for each title."""
    found: list[str] = []
    for title in titles:
        name = ascii_name(title)
        same = next((f"{name}_{number}" for number in range(2, len(found) + 3) if f"{name}_{number}" not in found), name)
        found.append(same if name in found or name in RESERVED_NAMES else name)
    return found


def ascii_name(title: str) -> str:
    """``Große Hunde`` is ``grosse_hunde``; letters of other scripts by their Unicode names: ``감정`` is ``gamjeong``."""
    plain = unicodedata.normalize("NFKC", title).casefold()
    name = "".join(map(_letter, plain))
    name = re.sub(r"[^a-z0-9]+", "_", name).strip("_")[:40].rstrip("_")
    return name if re.match(r"[a-z]", name) else f"head_{name}".rstrip("_")


def _letter(letter: str) -> str:
    base = unicodedata.normalize("NFD", letter)[0] if "HANGUL" not in unicodedata.name(letter, "") else letter
    if base.isascii():
        return base
    name = unicodedata.name(base, "")
    known = re.search(r"(?:LETTER|SYLLABLE)(?: SHORT)? ([A-Z]+)$", name)
    if known and name.startswith("CYRILLIC"):  # whose consonants are called ka, be, el
        return re.sub("^E(?=[^AEIOU])|(?<=[^AEIOUY])[AE]$", "", known[1]).lower()
    return known[1].lower() if known else f"_{ord(base):x}_" if letter.isalnum() else "_"
