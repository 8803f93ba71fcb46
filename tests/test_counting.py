"""Counts in messages: one thing is never told in the plural."""

import pytest

from edge_runtime.counting import count_of


@pytest.mark.parametrize(
    ("number", "noun", "expected"),
    [
        (0, "heads", "0 heads"),
        (1, "heads", "1 head"),
        (2, "heads", "2 heads"),
        (11, "heads", "11 heads"),
        (1, "held-out noise pictures", "1 held-out noise picture"),
        (1_200, "rows", "1,200 rows"),
    ],
)
def test_a_count_of_one_is_singular_and_every_other_is_plural(number, noun, expected):
    assert count_of(number, noun) == expected
