"""A node that froze answers from its old copy of the index when it wakes: no proof may be satisfied by that."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any, cast

import pytest
import stamina
from elasticsearch import ApiError, Elasticsearch, TransportError

from local.platform.schema import connect_elasticsearch, create_batch_index
from local.servers import search
from local.servers.layout import Layout
from local.servers.nodes import Node, nodes
from local.servers.processes import Server, await_condition
from ownership.domain.errors import Unavailable
from ownership.platform.search_dialect import SearchNode
from ownership.platform.search_index import SearchIndex

# It takes 55 to 90 s with three search nodes, and all of `make test` is to take 20 minutes.
pytestmark = pytest.mark.skipif(
    "STALE_COPIES" not in os.environ,
    reason="three nodes, of which one freezes until the others give it up, a minute and a half: STALE_COPIES=1 runs it; "
    "that every copy is asked is checked in every run by tests/unit/platform/test_search_index.py",
)

RELEASE = os.environ.get("SEARCH_SERVER", "elasticsearch717")
INDEX = "course-batch"
DOCUMENTS = 12
ASKING = 4
"""Requests that the frozen node finds when it wakes: it answers them before it hears of the others."""
ROUNDS = 3
QUICKLY = "\n".join(
    f"cluster.fault_detection.{check}.retry_count: 1" for check in ("follower_check", "leader_check")
)
"""So that the others give a node up after one check, of three seconds."""


def _quick(server: Server, node: Node) -> Server:
    def prepare() -> None:
        server.prepare()
        file = server.directory / "config" / f"{search.RELEASES[RELEASE].product}.yml"
        file.write_text(f"{file.read_text()}\n{QUICKLY}\n")

    return replace(server, prepare=prepare)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """By name, three nodes; the third holds no documents."""
    layout = Layout.of(Path(tmp_path_factory.mktemp("nodes")))
    made = {n.named(RELEASE): _quick(search.server(layout, RELEASE, node=n), n) for n in nodes(3)}
    try:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda s: s.start(), made.values()))
            list(pool.map(lambda s: s.wait_ready(), made.values()))
        yield made
    finally:
        for server in made.values():
            server.stop()


def _replica(client: Elasticsearch) -> str:
    """The name of the node that holds the second copy of the index's only shard."""
    client.cluster.health(wait_for_status="green", wait_for_nodes="3", timeout="60s")
    state = client.cluster.state(metric="routing_table,nodes", index=INDEX)
    copies = state["routing_table"]["indices"][INDEX]["shards"]["0"]
    (holder,) = [c["node"] for c in copies if not c["primary"]]
    return str(state["nodes"][holder]["name"])


@stamina.retry(on=(ApiError, TransportError, AssertionError), attempts=60, wait_max=1.0, timeout=None)
def _write(client: Elasticsearch, user: str) -> None:
    """What the LMS writes meanwhile: it is acknowledged once the others have given the frozen node up."""
    lines = [
        line
        for n in range(DOCUMENTS)
        for line in (
            {"index": {"_id": f"{user}-{n}"}},
            {"batchId": f"{user}-{n}", "courseId": "c", "status": 1, "createdBy": user, "mentors": []},
        )
    ]
    answer = client.options(request_timeout=10).bulk(index=INDEX, operations=lines, refresh=True)
    assert not answer["errors"]


def test_no_proof_is_satisfied_by_the_old_copy_of_a_node_that_froze(servers: dict[str, Server]):
    with connect_elasticsearch(next(iter(servers.values())).address) as any_node:
        create_batch_index(any_node, INDEX, copies=2)
    fooled = 0
    for n in range(ROUNDS):
        voter = servers[Node(3, 3).named(RELEASE)]
        with connect_elasticsearch(voter.address) as through_voter:
            sleeper = servers[_replica(through_voter)]
        (other,) = [s for s in servers.values() if s not in (sleeper, voter)]
        plain, *proofs = _asked_at_the_thaw(sleeper, other, f"user-{n}")
        assert all(proofs)
        assert {found for proof in proofs for found in proof} == {DOCUMENTS}
        fooled += min(plain) < DOCUMENTS
    assert fooled, "no round showed an old copy: the test saw nothing"


class _ByTurns:
    """Asks a node which copies there are, and another one for all else: as a client that takes the nodes in turn."""

    def __init__(self, informed: Elasticsearch, asked: Elasticsearch) -> None:
        self._informed, self._asked = informed, asked

    def options(self, **given: Any) -> _ByTurns:
        return _ByTurns(self._informed.options(**given), self._asked.options(**given))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._informed if name == "search_shards" else self._asked, name)


def _asked_at_the_thaw(sleeper: Server, other: Server, user: str) -> tuple[list[int], list[int], list[int]]:
    """How many documents the node that froze shows just after it wakes.

    To plain searches; to proofs; and to proofs of a client that has another node say which copies there are.
    """
    assert sleeper.pid
    plain: list[int] = []
    proofs: list[int] = []
    by_turns: list[int] = []
    with (
        connect_elasticsearch(other.address) as lms,
        Elasticsearch(sleeper.address, node_class=SearchNode, request_timeout=60, max_retries=0) as client,
        ThreadPoolExecutor(3 * ASKING) as pool,
    ):
        index = SearchIndex(lambda: client, INDEX, zone=UTC)
        by_turn = cast("Elasticsearch", _ByTurns(lms, client))  # it answers like one
        index_by_turns = SearchIndex(lambda: by_turn, INDEX, zone=UTC)
        index.refresh()

        def ask(index: SearchIndex, found: list[int], *, every_copy: bool) -> None:
            for _ in range(3):
                try:
                    index.refresh()
                    found.append(len({b for _, b in index.live_batches({user}, every_copy=every_copy)}))
                except Unavailable:
                    continue  # an outage proves nothing

        os.kill(sleeper.pid, signal.SIGSTOP)
        try:
            _write(lms, user)
            asking = [
                asked
                for _ in range(ASKING)
                for asked in (
                    pool.submit(ask, index, plain, every_copy=False),
                    pool.submit(ask, index, proofs, every_copy=True),
                    pool.submit(ask, index_by_turns, by_turns, every_copy=True),
                )
            ]
            await_condition(lambda: all(a.running() for a in asking), timeout_s=30, what="requests under way")
        finally:
            os.kill(sleeper.pid, signal.SIGCONT)
        for a in asking:
            a.result()
    return plain, proofs, by_turns
