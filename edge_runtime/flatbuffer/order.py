"""Operators run in the file's order: everything is there before it is read, and is written once."""

from __future__ import annotations

import numpy as np

from edge_runtime.errors import BundleError
from edge_runtime.flatbuffer.model import Model
from edge_runtime.flatbuffer.tables import refuse_where

_NEVER = 1 << 40


def operator_that_makes(model: Model) -> np.ndarray:
    """Of each of ``model.tensor_of`` the operator that makes it; -1: there from the start, ``_NEVER``: none does.

    Raises ``BundleError`` for a tensor that is read before it is made, or made twice, or made over a constant.
    """
    constant = model.tensors.constant[model.tensor_of]
    made = np.where(constant, -1, _NEVER)  # by which operator; -1: there from the start
    lists, inputs = model.inputs
    refuse_where(constant[inputs], lambda i: f"an input of subgraph {lists.owners[i]} that is constant")
    made[inputs] = -1
    writes, places = model.writes
    by = writes.owners
    refuse_where(made[places] == -1, lambda i: _words(model, by[i], "writes over what was given"))
    if (np.diff(np.sort(places)) == 0).any():
        raise BundleError("two operators write one tensor")
    made[places] = by
    reads, sources = model.reads
    there = sources >= 0
    reader = reads.owners
    wrong = there & (made[sources] >= reader)
    refuse_where(wrong, lambda i: _words(model, reader[i], "reads what is not there yet"))
    owners, outputs = model.outputs[0].owners, model.outputs[1]
    refuse_where(made[outputs] == _NEVER, lambda i: f"an output of subgraph {owners[i]} that nothing makes")
    return made


def arena_bytes(model: Model, made: np.ndarray) -> int:
    """What the tensors that are alive together need at the least, of all subgraphs together."""
    size = np.where(model.tensors.constant, 0, model.tensors.bytes)[model.tensor_of]
    size[made == _NEVER] = 0
    count = len(model.kind)
    if not count:
        return int(size.sum())
    graph = np.repeat(np.arange(len(model.first) - 1), np.diff(model.first))
    begin = np.searchsorted(model.graph_of, graph)  # the first operator of the tensor's own subgraph
    first = np.minimum(np.where(made < 0, begin, made), count)
    last = first.copy()
    reads, sources = model.reads
    np.maximum.at(last, sources[sources >= 0], reads.owners[sources >= 0])
    alive = np.bincount(first, size, count + 2) - np.bincount(last + 1, size, count + 2)
    starts = np.flatnonzero(np.diff(model.graph_of, prepend=-1))
    return int(np.maximum.reduceat(np.cumsum(alive)[:count], starts).sum())


def _words(model: Model, operator: int, what: str) -> str:
    return f"operator {operator} of subgraph {model.graph_of[operator]} {what}"
