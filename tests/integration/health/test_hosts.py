"""What hosts report to a real ledger, and what health makes of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest
from airflow.sdk.api.client import get_hostname

from ownership.domain.clock import now_ms
from ownership.domain.errors import Unavailable
from ownership.domain.installation import Host, HostKind, Tries
from ownership.edge.hooks import load_settings, opened_intake, opened_parts
from ownership.edge.hosts import SIGNS_TOKENS
from ownership.edge.scheduler import report_scheduler
from ownership.edge.triggers import _Watch
from ownership.health.look import look
from ownership.health.problems import Kind, problems
from ownership.ledger.hosts import Hosts
from ownership.ledger.months import remove_old
from tests.integration.stages.transfer_world import World

WORKER, API_SERVER = HostKind.WORKER, HostKind.API_SERVER


def known(world: World) -> list[Host]:
    return Hosts(world.job.parts.database).read()


def minutes_pass(world: World, n: int) -> None:
    span = f"interval '{n} minutes'"
    world.execute(f"UPDATE host SET since = since - {span}, seen_at = seen_at - {span}")


def sentences(world: World) -> list[str]:
    found = problems(look(load_settings()), deadline_minutes=30)
    return [p.sentence for p in found if p.kind == Kind.HOST]


def test_a_host_is_written_once_a_minute_and_its_traits_have_the_time_since_which_they_are(
    world: World,
) -> None:
    report = Hosts(world.job.parts.database).report
    for value in "ab":
        report(WORKER, "w1", {"lms": value})
    (first,) = known(world)
    assert (first.traits, first.since_ms, abs(first.clock_ahead_ms) < 1000) == (
        {"lms": "a"}, first.seen_at_ms, True,
    )  # fmt: skip

    minutes_pass(world, 2)
    report(WORKER, "w1", {"lms": "a"})
    (same,) = known(world)
    assert (same.since_ms, same.seen_at_ms > first.seen_at_ms) == (first.since_ms - 120_000, True)

    minutes_pass(world, 2)
    report(WORKER, "w1", {"lms": "b"})
    (other,) = known(world)
    assert (other.traits, other.since_ms) == ({"lms": "b"}, other.seen_at_ms)


def test_two_workers_with_other_connections_and_clocks_are_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = Hosts(world.job.parts.database)
    for _ in range(2):
        hosts.report(WORKER, "w1", {"cassandra_default": "c1:9042"})
        with monkeypatch.context() as m:
            m.setattr("ownership.ledger.hosts.now_ms", lambda: now_ms() - 300_000)
            hosts.report(WORKER, "w2", {"cassandra_default": "c2:9042"})
        minutes_pass(world, 2)

    clocks, connections = sentences(world)

    assert "worker w2 is 5 min behind" in clocks
    assert "c1:9042 on worker w1; c2:9042 on worker w2" in connections


def test_a_pull_reports_its_worker_also_where_a_part_is_not_there(
    world: World, nowhere: Callable[[str], None]
) -> None:
    nowhere("elasticsearch")
    with suppress(Unavailable), opened_parts() as parts, opened_intake(parts):
        pass
    (host,) = known(world)
    assert (host.kind, host.name) == (WORKER, get_hostname())
    assert {"kafka_default", "cassandra_default", "elasticsearch_default", "lms_default"} < host.traits.keys()
    assert host.traits["kafka_default"] == world.kafka


def test_the_health_task_reports_its_worker_and_a_shell_does_not(world: World) -> None:
    settings = load_settings()
    assert look(settings).hosts == ()
    (host,) = look(settings, on_worker=True).hosts
    assert host.kind is WORKER


def test_the_watcher_reports_its_triggerer(world: World) -> None:
    with ExitStack() as stack:
        watch = _Watch(stack)
        watch.look()
        watch.measure()
    (host,) = known(world)
    assert (host.kind, host.clock_ahead_ms < 1000) == (HostKind.TRIGGERER, True)


def test_a_scheduler_that_signs_with_another_secret_than_the_api_server_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ownership.page.host import report_api_server

    for _ in range(2):
        report_api_server(world.job.parts.database)
        with monkeypatch.context() as m:
            m.setattr("ownership.edge.scheduler.token_secret", lambda: {SIGNS_TOKENS: "another"})
            report_scheduler()
        minutes_pass(world, 2)

    (said,) = sentences(world)
    name = get_hostname()
    assert said.startswith(f"[api_auth] jwt_secret is not the same on API server {name}, scheduler {name}: ")


def test_a_scheduler_without_the_ledger_reports_nothing_and_goes_on(
    world: World, nowhere: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    report_scheduler()
    (host,) = known(world)
    assert (host.kind, SIGNS_TOKENS in host.traits) == (HostKind.SCHEDULER, True)
    monkeypatch.delenv("AIRFLOW_CONN_OWNERSHIP_LEDGER")
    report_scheduler()


def test_an_api_server_tells_of_workers_that_were_never_heard_once_some_are(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ownership.page import airflow_facts
    from ownership.page.host import report_api_server

    monkeypatch.setattr(
        airflow_facts, "tries_by_worker", lambda _since: {"w1": Tries(3, 0), "w2": Tries(0, 2)}
    )
    database = world.job.parts.database
    report_api_server(database)
    assert sentences(world) == []
    minutes_pass(world, 2)
    Hosts(world.job.parts.database).report(WORKER, "w1", {})

    report_api_server(database)

    (said,) = sentences(world)
    assert said.startswith("The last 2 tries on worker w2 failed")
    (api,) = [h for h in known(world) if h.kind is API_SERVER]
    assert {"[api] secret_key", "[api_auth] jwt_secret"} < api.traits.keys()


def test_a_host_that_is_gone_for_a_day_is_forgotten(world: World) -> None:
    hosts = Hosts(world.job.parts.database)
    hosts.report(WORKER, "old", {})
    minutes_pass(world, 24 * 60 + 1)
    hosts.report(WORKER, "new", {})
    assert remove_old(world.job.parts.database, 365).hosts == 1
    assert [h.name for h in known(world)] == ["new"]
