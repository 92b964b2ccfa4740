"""The plan of the cluster: parts, ports, tokens, settings, and what it says of a machine that is too small."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from local.cluster import hostname, plan
from local.cluster.command import refuse_small_machine
from local.cluster.hosts import Hosts
from local.cluster.stack import LARGE, SMALL, Cluster
from local.servers import haproxy, pgbouncer, postgres, search
from local.servers.airflow import COMPONENTS, METADATA, connections
from local.servers.cassandra import token
from local.servers.layout import Layout
from local.servers.nodes import ONLY, Node, nodes


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.of(tmp_path)


def test_there_are_two_of_each_part_that_airflow_can_have_two_of(layout: Layout) -> None:
    parts = [*plan.first_parts(layout), *plan.LAST_PARTS]
    kinds = [part.kind for part in parts]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        **dict.fromkeys(COMPONENTS, 2),
        "worker": 2,
        "dag-processor": 1,
    }


def test_each_part_has_a_name_of_its_own_in_airflow(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [*plan.first_parts(layout), *plan.LAST_PARTS]
    assert len({part.name for part in parts}) == len(parts)
    for part in parts:
        monkeypatch.setenv(hostname.VARIABLE, part.settings[hostname.VARIABLE])
        assert hostname.of_this_part() == part.name


def test_every_port_is_used_once(layout: Layout) -> None:
    fronts = plan.fronts(layout, LARGE, "elasticsearch717")
    behind = [address for front in fronts.values() for address in front.servers.values()]
    listening = [f"127.0.0.1:{front.port}" for front in fronts.values()]
    assert len({*listening, *behind}) == len(listening) + len(behind)


def test_airflow_is_reached_through_haproxy_and_its_database_through_pgbouncer(layout: Layout) -> None:
    settings = plan.environment(layout, "secret")
    fronts = plan.fronts(layout, LARGE, "elasticsearch717")
    assert urlsplit(settings[METADATA]).port == layout.port(pgbouncer.NAME)
    assert urlsplit(settings[f"{METADATA}_ASYNC"]).port == fronts["postgres-primary"].port
    assert fronts["airflow"].port == layout.port("airflow")  # where a stack on one machine has its API server
    assert settings["AIRFLOW__CELERY__BROKER_URL"] == plan.broker(layout)


def test_celery_s_workers_import_what_tasks_need_before_they_fork(layout: Layout) -> None:
    extra = json.loads(plan.environment(layout, "secret")["AIRFLOW__CELERY__EXTRA_CELERY_CONFIG"])
    assert extra["imports"] == ["ownership.edge.preload"]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_nodes_of_cassandra_share_the_ring_evenly(count: int) -> None:
    tokens = [token(node) for node in nodes(count)]
    assert tokens[0] == -(2**63)
    widths = {after - before for before, after in zip(tokens, [*tokens[1:], 2**63], strict=True)}
    assert max(widths) - min(widths) <= 1


def test_a_node_that_is_alone_is_named_and_placed_as_before() -> None:
    assert (ONLY.named("kafka4"), ONLY.host, token(ONLY)) == ("kafka4", "127.0.0.1", 0)
    assert [node.named("kafka4") for node in nodes(2)] == ["kafka4-1", "kafka4-2"]
    assert Node(2, 3).hosts == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]


def test_a_third_search_node_is_there_to_vote() -> None:
    assert [search.votes_only(node) for node in nodes(3)] == [False, False, True]


def test_the_job_knows_every_node_that_holds_data(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, stores=LARGE)
    cluster._name_addresses()
    a = cluster.addresses
    assert [each.partition(":")[0] for each in a.kafka.split(",")] == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    made = connections(
        kafka=a.kafka, cassandra=a.cassandra, elasticsearch=a.elasticsearch,
        ledger=a.ledger, lms=a.lms, userorg=a.userorg,
    )  # fmt: skip
    assert json.loads(made["AIRFLOW_CONN_CASSANDRA_DEFAULT"])["host"] == "127.0.0.1,127.0.0.2,127.0.0.3"
    assert json.loads(made["AIRFLOW_CONN_ELASTICSEARCH_DEFAULT"])["host"] == "127.0.0.1,127.0.0.2"


def test_nodes_of_one_number_share_a_host(tmp_path: Path) -> None:
    hosts = Hosts()
    cluster = Cluster(tmp_path, stores=LARGE, hosts=hosts)
    cluster._name_addresses()
    wanted = [f"{hosts.network}.{number}" for number in (1, 2, 3)]
    assert [each.partition(":")[0] for each in cluster.addresses.kafka.split(",")] == wanted
    front = plan.fronts(cluster.layout, cluster.nodes, "elasticsearch717")["search-nodes"]
    assert [address.partition(":")[0] for address in front.servers.values()] == wanted[:2]


def test_a_server_of_a_cluster_may_take_longer_to_start(tmp_path: Path) -> None:
    waited: list[float] = []
    server: Any = SimpleNamespace(ready_within_s=20.0, start=lambda: None)
    server.wait_ready = lambda: waited.append(server.ready_within_s)
    Cluster(tmp_path)._run_together({"haproxy": server})
    assert waited == [60.0]


def test_small_stores_have_one_node_each(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, stores=SMALL)
    cluster._name_addresses()
    assert "," not in cluster.addresses.kafka + cluster.addresses.cassandra + cluster.addresses.elasticsearch


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cluster_can_have_fewer_workers(tmp_path: Path, workers: int) -> None:
    cluster = Cluster(tmp_path, workers=workers)
    assert [part for part in cluster.parts if part.startswith("worker")] == ["worker-1", "worker-2"][:workers]


def test_haproxy_prefers_the_first_postgres_and_uses_all_api_servers(layout: Layout) -> None:
    made = haproxy.configuration(plan.fronts(layout, LARGE, "elasticsearch717"))
    sections = {text.split()[0]: text.splitlines() for text in made.split("listen ")[1:]}
    servers = {
        name: [line.split() for line in lines if line.startswith("    server ")]
        for name, lines in sections.items()
    }
    assert [(line[1], line[-1] == "backup") for line in servers["postgres-primary"]] == [
        (postgres.NAME, False),
        (plan.STANDBY, True),
    ]
    assert [line[-1] == "backup" for line in servers["airflow"]] == [False, False]


def test_a_machine_that_is_too_small_is_refused_with_what_is_needed() -> None:
    refuse_small_machine(plan.NEEDED)
    with pytest.raises(RuntimeError, match=r"needs a machine with 12 GiB of memory; this one has 8\.0 GiB"):
        refuse_small_machine(8 * plan.GIB)
