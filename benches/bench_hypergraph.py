"""s-line graphs of hypergraphs against HyperNetX and XGI: from plain lists of members to the graph of hyperedges."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import brockett as bk

#: Nodes, nodes of an edge, classes that share a pool of nodes, and the least number of common nodes.
NODES, MEMBERS, CLASSES, S = 512, 50, 4, 18


@functools.lru_cache(maxsize=2)
def edges(n: int) -> dict[int, list[int]]:
    """Like images of four classes: each holds 50 of the 128 neurons of its class."""
    rng = np.random.Generator(np.random.Philox(n))
    pools = [rng.choice(NODES, NODES // 4, replace=False) for _ in range(CLASSES)]
    return {j: sorted(rng.choice(pools[j % CLASSES], MEMBERS, replace=False).tolist()) for j in range(n)}


@functools.lru_cache(maxsize=2)
def links(n: int) -> int:
    """The answer, from sets alone."""
    sets = [set(members) for members in edges(n).values()]
    return sum(len(a & b) >= S for i, a in enumerate(sets) for b in sets[:i])


def brockett(members: dict[int, list[int]]) -> int:
    rows = np.concatenate(list(members.values()))
    columns = np.repeat(np.arange(len(members)), [len(one) for one in members.values()])
    incidence = scipy.sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(NODES, len(members)))
    return int(bk.hypergraph.Hypergraph.from_incidence(incidence).s_line_graph(S).nnz // 2)


def hypernetx(members: dict[int, list[int]]) -> int:
    module = pytest.importorskip("hypernetx", reason="hypernetx is an optional peer")
    return int(module.Hypergraph(members).get_linegraph(s=S).number_of_edges())


def xgi(members: dict[int, list[int]]) -> int:
    module = pytest.importorskip("xgi", reason="xgi is an optional peer")
    return int(module.to_line_graph(module.Hypergraph(members), s=S).number_of_edges())


PEERS: dict[str, Callable[[dict[int, list[int]]], int]] = {"brockett": brockett, "hypernetx": hypernetx, "xgi": xgi}


@pytest.mark.parametrize("peer", PEERS)
def bench_line_graph(benchmark, measure, timed, peer):
    n = 1000 if timed else 60
    benchmark.group = f"{S}-line graph of {n} hyperedges of {MEMBERS} nodes"
    members, expected = edges(n), links(n)

    def check(found: int) -> dict[str, Any]:
        assert found == expected
        return {"links": found}

    measure(lambda: PEERS[peer](members), check, rounds=9 if peer == "brockett" else 3)
