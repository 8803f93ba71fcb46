"""Find duplicates by content among any number of samples, in a temporary file once they are many."""

from __future__ import annotations

import sqlite3
from types import TracebackType


class Seen:
    """A context manager. ``equal``: number of duplicates. ``contradicting``: of those with another label than the
    first.
    """

    def __init__(self) -> None:
        self.equal = self.contradicting = 0
        self._known = sqlite3.connect("")  # in memory, and beyond a few megabytes in a private temporary file
        self._known.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY, head INTEGER, label INTEGER) WITHOUT ROWID")
        self._known.execute("PRAGMA journal_mode = OFF")

    def is_new(self, digest: bytes, head: int, label: int) -> bool:
        """Whether the content is new; a duplicate is counted."""
        row = (digest, head, label)
        if self._known.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", row).rowcount:
            return True
        first = self._known.execute("SELECT head, label FROM seen WHERE digest = ?", (digest,)).fetchone()
        self.equal += 1
        self.contradicting += first != (head, label)
        return False

    def __contains__(self, digest: bytes) -> bool:
        return self._known.execute("SELECT 1 FROM seen WHERE digest = ?", (digest,)).fetchone() is not None

    def __enter__(self) -> Seen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._known.close()
