"""Starting Ray on a busy machine, and reaching it where it is not."""

from __future__ import annotations

from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="needs the extra `cluster`; make test has an environment with it")

from builder.support.errors import ClusterError  # noqa: E402
from builder.support.side_by_side import cluster  # noqa: E402

LATE = "The current node timed out during startup.\nIt may be overloaded."


@pytest.mark.parametrize("late", [0, 2, 3])
def test_a_local_cluster_that_starts_late_is_started_again(monkeypatch: pytest.MonkeyPatch, late: int) -> None:
    begun, ended = [], []

    def start(**_: Any) -> None:
        begun.append(True)
        if len(begun) <= late:
            raise Exception(LATE)

    monkeypatch.setattr(ray, "init", start)
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(True))
    if late == 3:
        with pytest.raises(ClusterError, match=r"^Ray does not start on this machine: The .* startup\. It may be"):
            cluster().__enter__()
    else:
        with cluster():
            assert len(begun) == late + 1
    assert len(ended) == (3 if late else 1)


def test_a_cluster_that_cannot_be_reached_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(address: str, **_: Any) -> None:
        asked.append(address)
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ClusterError, match=r"^Ray at 10\.0\.0\.1:6379 cannot be used: nobody answers$"):
        cluster(address="10.0.0.1:6379").__enter__()
    assert asked == ["10.0.0.1:6379"]
