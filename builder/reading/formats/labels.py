"""Read labels from ``.txt``, ``.json`` and ``.csv`` files."""

from __future__ import annotations

import codecs
import contextlib
import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from builder.support.errors import ConfigError
from edge_runtime.files import read_file

MAX_LABEL_FILE = 16 << 20  # bytes

_TEXT_SUFFIXES = ("", ".txt", ".names", ".labels")
_NUMBERED = re.compile(r"(\d{1,9})(?:(?:\s*[:,;\t]\s*|\.\s+|\s+)(\S.*)|[:.,;]?)")
# Plain text, and the letters that an encoding is for: other text decodes only by chance.
_HANGUL = re.compile(r"[\t\n\r -~가-힣]*")
_LATIN = re.compile(r"[\t\n\r -~À-ÖØ-öø-ÿŠšŽžŒœŸ°ºª·¡¿’]*")
_INDEX_COLUMNS = ("index", "id", "idx", "class_id", "class_index", "number", "no")
_NAME_COLUMNS = ("label", "labels", "name", "names", "class", "classes", "class_name", "category")


def read_label_file(path: Path) -> tuple[str, ...]:
    """The labels in ``path``, in the order of the model's outputs.

    ``.txt``: one label on each line, or ``0 Name``, ``0: Name``, ``0. Name``. Leading numbers count as indices only if
    the lines have all of them, from 0; otherwise they are part of the label. ``.json``: a list, ``{"0": "name"}``,
    ``{"name": 0}`` (the ``class_indices`` of Keras's generators), or an object with one of these under ``labels``.
    ``.csv``: one column, or an index and a name, with or without a header. Empty lines are ignored. Raises
    ``ConfigError``.
    """
    try:
        return labels_in(path, read_file(path, MAX_LABEL_FILE))
    except OSError as error:
        raise _unreadable(path, error.strerror or error) from error


def labels_in(path: Path, data: bytes) -> tuple[str, ...]:
    """As ``read_label_file``, from bytes that were read already."""
    try:
        text = decoded(data)
    except ValueError as error:
        raise _unreadable(path, error) from error
    if path.suffix.lower() == ".json":
        return _of_json(text, path)
    if path.suffix.lower() in (".csv", ".tsv"):
        return _of_csv(text, path)
    if path.suffix.lower() in _TEXT_SUFFIXES:
        try:
            return labels_of_text(text)
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from error
    raise ConfigError(f"{path}: expected labels in a .txt, .json or .csv file, found {path.suffix}")


def labels_of_text(text: str) -> tuple[str, ...]:
    """One label on each line; leading numbers are dropped if every line has its own. Raises ``ValueError`` for a line
    with only a number.
    """
    return numbered_labels(text) or tuple(_lines(text))


def numbered_labels(text: str, *, firsts: Sequence[int] = (0,)) -> tuple[str, ...] | None:
    """The names in lines ``0 Name``, ``1: Name``, ``2. Name``, ordered by number; None for lines of another form.

    ``firsts``: allowed first numbers. Raises ``ValueError`` for a line with a number and no name.
    """
    lines = _lines(text)
    found = [_NUMBERED.fullmatch(line) for line in lines]
    names = {int(match[1]): (match[2] or "").strip() for match in found if match}
    first = min(names, default=-1)
    if first not in firsts or sorted(names) != list(range(first, first + len(lines))) or not any(names.values()):
        return None
    missing = next((number for number, name in names.items() if not name), None)
    if missing is not None:
        raise ValueError(f"number {missing} has no name; write one after it")
    return tuple(names[number] for number in sorted(names))


def teachable_labels(text: str) -> tuple[str, ...]:
    """Labels as Teachable Machine writes them, ``0 Name``, or edited by users: from 1, or without numbers.

    Raises ``ValueError`` where a number is missing or repeated.
    """
    names = numbered_labels(text, firsts=(0, 1))
    if names is not None:
        return names
    lines = _lines(text)
    found = [_NUMBERED.fullmatch(line) for line in lines]
    if lines and all(match and match[2] for match in found):
        numbers = ", ".join(str(int(match[1])) for match in found[:8] if match)
        raise ValueError(f"expected numbers 0 to {len(lines) - 1}, each once, found {numbers}; write a line for each")
    return tuple(lines)


def decoded(data: bytes) -> str:
    """Text in UTF-8 or as its byte order mark says; otherwise in an older encoding whose letters it consists of.

    Raises ``ValueError``.
    """
    for mark, code in ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if data.startswith(mark):
            return data.decode(code)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        for code, letters in (("cp949", _HANGUL), ("cp1252", _LATIN)):
            with contextlib.suppress(UnicodeDecodeError):
                if letters.fullmatch(text := data.decode(code)):
                    return text
        raise ValueError(str(error)) from error


def _lines(text: str) -> list[str]:
    """Lines of text; U+2028 or a form feed in a name does not end a line."""
    return [line.strip() for line in re.split(r"\r\n|\n|\r", text) if line.strip()]


def _unreadable(path: Path, reason: Any) -> ConfigError:
    return ConfigError(f"{path}: labels cannot be read ({reason}); expected UTF-8 text, one label a line")


def labels_of_json(text: str) -> tuple[str, ...]:
    """Raises ``ValueError``."""
    value = json.loads(text)
    if isinstance(value, Mapping) and isinstance(value.get("labels"), (list, Mapping)):
        value = value["labels"]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if isinstance(value, Mapping) and value:
        if all(_is_index(number) for number in value.values()):
            return _ordered([(number, name) for name, number in value.items()])
        if all(re.fullmatch(r"\d{1,9}", key) for key in value) and all(isinstance(name, str) for name in value.values()):
            return _ordered([(int(key), name) for key, name in value.items()])
    raise ValueError('expected a list of labels, {"0": "name"} or {"name": 0}')


def _of_json(text: str, path: Path) -> tuple[str, ...]:
    try:
        return labels_of_json(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: expected JSON with labels ({str(error)[:100]})") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _of_csv(text: str, path: Path) -> tuple[str, ...]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ";" if ";" in text and "," not in text else ","
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=delimiter)]
    except csv.Error as error:
        raise ConfigError(f"{path}: expected a table of labels ({error})") from error
    rows = [row for row in rows if any(row)]
    widths = {len(row) for row in rows}
    if len(widths) != 1:
        raise ConfigError(f"{path}: expected rows with the same number of columns, found {sorted(widths) or 'no rows'}")
    header = [cell.lower() for cell in rows[0]]
    known = [place for place, cell in enumerate(header) if cell in _NAME_COLUMNS]
    if known:
        rows = rows[1:]
    if widths == {1}:
        return tuple(row[0] for row in rows)
    index = next((place for place, cell in enumerate(header) if known and cell in _INDEX_COLUMNS), None)
    columns = range(len(header))
    if index is None:
        index = next((place for place in columns if rows and all(row[place].isdecimal() for row in rows)), None)
    name = known[0] if known else next((place for place in columns if place != index and widths == {2}), None)
    if index is None or name is None or name == index or not all(row[index].isdecimal() for row in rows):
        raise ConfigError(f"{path}: expected one column of labels, or the columns index and label")
    try:
        return _ordered([(int(row[index][:9]), row[name]) for row in rows])
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _ordered(pairs: Sequence[tuple[int, str]]) -> tuple[str, ...]:
    """Names by their index, which must count from 0 without a gap. Raises ``ValueError``."""
    ordered = sorted(pairs, key=lambda pair: pair[0])
    numbers = [number for number, _ in ordered]
    if numbers != list(range(len(numbers))):
        shown = ", ".join(map(str, numbers[:8]))
        raise ValueError(f"expected indices 0 to {len(numbers) - 1}, each once; found {shown}")
    return tuple(name for _, name in ordered)
