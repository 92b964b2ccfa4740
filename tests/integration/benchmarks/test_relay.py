"""The benchmark's relay before both stores: clients stay on it, although Cassandra announces another address."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.relay import NAME, Relay
from local.platform.schema import BATCH_INDEX, connect_cassandra, connect_elasticsearch
from local.stack import Stack


@pytest.fixture(scope="module")
def relay(stack: Stack) -> Iterator[Relay]:
    started = Relay.started(stack, 1)
    yield started
    stack.servers.pop(NAME).stop()


def test_the_driver_stays_on_the_relay(relay: Relay):
    cluster = connect_cassandra(relay.cassandra)
    try:
        session = cluster.connect()
        cluster.refresh_nodes(force_token_rebuild=True)
        assert session.execute("SELECT release_version FROM system.local").one()
        (host,) = cluster.metadata.all_hosts()
        (pool,) = session.get_pools()
    finally:
        cluster.shutdown()
    assert str(host.endpoint) == str(pool.host.endpoint) == relay.cassandra


def test_searches_pass(relay: Relay):
    with connect_elasticsearch(relay.elasticsearch) as client:
        assert client.count(index=BATCH_INDEX)["count"] >= 0
