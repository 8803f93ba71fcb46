"""Labels from every supported kind of file, and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("keras")

from builder.reading.formats import read_label_file
from builder.support.errors import ConfigError

GOOD = {
    "plain": ("labels.txt", "cat\ndog\n\nbird\n", ("cat", "dog", "bird")),
    "Teachable Machine": ("labels.txt", "0 Cat\n1 Big dog\n2 3 birds\n", ("Cat", "Big dog", "3 birds")),
    "index and colon": ("labels.txt", "0:cat\n1: dog\n", ("cat", "dog")),
    "byte order mark and Windows": ("labels.txt", "\ufeff0 eins\r\n1 zwei\r\n", ("eins", "zwei")),
    "numbers that are no places": ("labels.txt", "1 dog\n2 dogs\n", ("1 dog", "2 dogs")),
    "one line without a number": ("labels.txt", "0 cat\ndog\n", ("0 cat", "dog")),
    "digits as labels": ("labels.txt", "0\n1\n2\n", ("0", "1", "2")),
    "no suffix": ("labelmap", "cat\ndog", ("cat", "dog")),
    "list": ("labels.json", '["cat", "dog"]', ("cat", "dog")),
    "by index": ("labels.json", '{"1": "dog", "0": "cat"}', ("cat", "dog")),
    "class_indices": ("labels.json", '{"dog": 1, "cat": 0}', ("cat", "dog")),
    "digits by index": ("labels.json", '{"7": 0, "3": 1}', ("7", "3")),
    "metadata of Teachable Machine": ("metadata.json", '{"tmVersion": "2.4", "labels": ["cat", "dog"]}', ("cat", "dog")),
    "one column": ("labels.csv", "cat\ndog\n", ("cat", "dog")),
    "one column with header": ("labels.csv", "label\ncat\ndog\n", ("cat", "dog")),
    "two columns": ("labels.csv", "1,dog\n0,cat\n", ("cat", "dog")),
    "two columns, name first": ("labels.csv", "cat,0\ndog,1\n", ("cat", "dog")),
    "header": ("labels.csv", 'class_id,name,note\n0,"cat, small",x\n1,dog,y\n', ("cat, small", "dog")),
    "semicolons": ("labels.csv", "index;label\n0;Katze\n1;Hund\n", ("Katze", "Hund")),
    "tabs": ("labels.tsv", "0\tcat\n1\tdog\n", ("cat", "dog")),
}

BAD = {
    "not UTF-8": ("labels.txt", b"\xff\xfe\x00", "labels cannot be read"),
    "broken JSON": ("labels.json", b'["cat"', "expected JSON"),
    "deep JSON": ("labels.json", b"[" * 100_000, "expected JSON"),
    "JSON of numbers": ("labels.json", b"[1, 2]", "expected a list of labels"),
    "JSON of lists": ("labels.json", b'{"0": ["n01", "tench"]}', "expected a list of labels"),
    "empty object": ("labels.json", b"{}", "expected a list of labels"),
    "a gap": ("labels.json", b'{"0": "cat", "2": "dog"}', "expected indices 0 to 1, each once; found 0, 2"),
    "twice": ("labels.json", b'{"cat": 0, "dog": 0}', "expected indices 0 to 1, each once; found 0, 0"),
    "from one": ("labels.csv", b"1,cat\n2,dog\n", "expected indices 0 to 1, each once; found 1, 2"),
    "rows of two lengths": ("labels.csv", b"0,cat\n1\n", "number of columns"),
    "no rows": ("labels.csv", b"\n", "found no rows"),
    "two columns of words": ("labels.csv", b"cat,Katze\ndog,Hund\n", "expected one column"),
    "three columns without header": ("labels.csv", b"0,cat,x\n1,dog,y\n", "expected one column"),
    "another kind": ("labels.pbtxt", b"item {}", "expected labels in a .txt, .json or .csv file, found .pbtxt"),
    "too large": ("labels.txt", b"x" * ((16 << 20) + 1), "at most 16,777,216 bytes, found more"),
}


@pytest.mark.parametrize("case", GOOD)
def test_labels_are_read(tmp_path: Path, case: str) -> None:
    name, text, expected = GOOD[case]
    (tmp_path / name).write_bytes(text.encode())
    assert read_label_file(tmp_path / name) == expected


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_list_of_labels_is_refused(tmp_path: Path, case: str) -> None:
    name, data, words = BAD[case]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=words) as error:
        read_label_file(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.txt: labels cannot be read"):
        read_label_file(tmp_path / "gone.txt")
