"""One look at real parts: what is open, since when, and what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from airflow.sdk.observability import stats

from ownership.domain.clock import from_ms, now_ms
from ownership.domain.installation import HostKind
from ownership.domain.proven import ProvenCounts
from ownership.edge.triggers import _Watch
from ownership.health.look import look
from ownership.health.problems import HealthFacts, Kind, problems, sentence
from ownership.ledger.hosts import Hosts
from ownership.platform.kafka import Span
from tests.fake_api_server import FakeApiServer
from tests.integration.stages.transfer_world import World


@pytest.fixture
def seen(environment: dict[str, Any], own_world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A look at the world's own topic and ledger, for which every open event is late."""
    own_world.lead_to_ledger(environment, monkeypatch)
    return lambda: look(own_world.job.settings.model_copy(update={"deadline_minutes": 0}))


def sentences(found: HealthFacts, deadline_minutes: int = 30) -> dict[str, str]:
    return {p.kind: p.sentence for p in problems(found, deadline_minutes=deadline_minutes)}


def test_a_platform_with_nothing_to_do_is_healthy(seen: Any):
    found = seen()
    assert (found.unreachable, sentences(found)) == ((), {})
    assert sentence(found, []) == "Healthy: nothing is open."


def test_messages_that_no_run_has_pulled_are_counted_with_the_age_of_the_oldest(seen: Any, own_world: World):
    old, new = own_world.users("old", "new")
    before = now_ms()
    for _ in range(3):
        own_world.transfer(old, new)

    found = seen()

    assert (found.backlog.messages, found.queue.open) == (3, 0)
    assert before - 1000 <= found.backlog.since_ms <= now_ms()
    assert sentences(found) == {}
    assert Kind.BACKLOG in sentences(found, deadline_minutes=0)
    own_world.whole_run()
    assert (seen().backlog.messages, seen().backlog.since_ms) == (0, None)


def test_an_event_that_fails_is_overdue_with_its_reason_and_what_it_blocks(
    seen: Any, own_world: World, userorg: Any
):
    old, new, third = own_world.users("old", "new", "third")
    own_world.batch(created_by=old)
    first = own_world.transfer(old, new)
    own_world.transfer(new, third)
    own_world.transfer(third, "an-unknown-user")
    userorg.set("503")
    own_world.run().pull().finish()

    found = seen()

    assert (found.queue.open, found.queue.held) == (3, 0)
    assert found.proven == ProvenCounts(overdue=3)
    said = sentences(found, deadline_minutes=0)
    assert set(said) == {Kind.OVERDUE}
    assert f"the oldest, {first} ({old} to {new}), is open for" in said[Kind.OVERDUE]
    assert "failed: User-Org" in said[Kind.OVERDUE]
    assert "2 others wait for it" in said[Kind.OVERDUE]
    userorg.clear()
    own_world.whole_run()


@pytest.mark.parametrize("name", ["kafka", "cassandra", "elasticsearch", "lms", "userorg"])
def test_a_part_that_does_not_answer_is_named_and_the_others_are_asked_all_the_same(
    seen: Any, nowhere: Callable[[str], None], name: str
):
    nowhere(name)

    found = seen()

    assert len(found.unreachable) == 1
    assert f"Connection '{name}_default' right" in sentences(found)[Kind.PART]
    assert (found.backlog is None) is (name == "kafka")
    assert found.queue is not None


def test_a_ledger_that_does_not_answer_is_named_and_the_others_are_asked_all_the_same(
    seen: Any, environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, dead_port: int
):
    wrong = environment["AIRFLOW_CONN_OWNERSHIP_LEDGER"] | {"port": dead_port}
    monkeypatch.setenv("AIRFLOW_CONN_OWNERSHIP_LEDGER", json.dumps(wrong))

    found = seen()

    assert len(found.unreachable) == 1
    assert "Connection 'ownership_ledger' right" in sentences(found)[Kind.PART]
    assert (found.backlog is None, found.queue) == (False, None)


def test_the_command_says_what_is_wrong_and_ends_with_one(
    environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from ownership.health.__main__ import main

    monkeypatch.setenv("AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER", '{"env": "nowhere"}')
    assert main([]) == 1
    assert "topic 'nowhere.user.ownership.transfer.failed'" in capsys.readouterr().out.splitlines()[0].lower()
    assert main(["--kind", "backlog"]) == 0  # as a probe asks, which a part that is down must not fail
    assert capsys.readouterr().out == "No problem of kind backlog.\n"
    monkeypatch.setenv("AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER", '{"env": 5')
    assert main([]) == 1
    assert main(["--kind", "backlog"]) == 0
    assert capsys.readouterr().out.count("is not JSON") == 2


def test_a_probe_asks_kafka_and_the_ledger_alone_and_finds_whether_the_watcher_looks(
    world: World,
    api_server: FakeApiServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    from ownership.health.__main__ import main

    late = {"env": world.env, "deadline.minutes": 1}
    monkeypatch.setenv("AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER", json.dumps(late))
    for name in ("CASSANDRA", "ELASTICSEARCH", "LMS", "USERORG"):
        monkeypatch.delenv(f"AIRFLOW_CONN_{name}_DEFAULT")
    old, new = world.users("old", "new")
    world.platform.emit(world.event(old, new), timestamp=now_ms() - 600_000)
    hosts = Hosts(world.job.parts.database)
    hosts.report(HostKind.WORKER, "w1", {})

    assert main(["--kind", "watcher"]) == 1
    assert "No triggerer has looked at the topic within a day, and messages wait" in capsys.readouterr().out
    hosts.report(HostKind.TRIGGERER, "t1", {})
    # A store that is down lets messages wait as well: no restart helps.
    assert main(["--kind", "watcher"]) == 0
    assert main(["--kind", "backlog"]) == 1

    assert "1 message not pulled yet, the oldest for 10 min" in capsys.readouterr().out
    assert api_server.asked == []
    assert main(["--kind", "lost"]) == 0


def test_the_oldest_message_of_each_partition_is_found_and_reading_it_moves_nothing(own_world: World):
    old, new = own_world.users("old", "new")
    topic = own_world.job.topic
    events = [own_world.event(old, new) for _ in range(3)]
    own_world.platform.emit_all(events[:2], partition=0)
    before = topic.backlog({})
    own_world.platform.emit(events[2], partition=1)

    oldest = topic.oldest(topic.backlog({}))

    mids = {partition: json.loads(m.value)["mid"] for partition, m in oldest.items()}
    assert mids == {0: events[0]["mid"], 1: events[2]["mid"]}
    assert [s.start for s in topic.backlog({})] == [s.start for s in before]
    assert topic.oldest([Span(s.partition, s.end, s.end) for s in topic.backlog({})]) == {}
    own_world.whole_run()


def test_the_watcher_measures_topics_and_open_list(
    environment: dict[str, Any], own_world: World, monkeypatch: pytest.MonkeyPatch
):
    given = own_world.job.settings
    monkeypatch.setenv("AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER", json.dumps({"env": given.env}))
    own_world.lead_to_ledger(environment, monkeypatch)
    sent: list[tuple[str, float]] = []
    monkeypatch.setattr(stats, "gauge", lambda name, value: sent.append((name, value)))
    a, b, c, d = own_world.users("a", "b", "c", "d")
    began = now_ms()
    own_world.platform.emit(b"{no event")
    own_world.transfer(a, b)
    own_world.transfer(b, c)
    run = own_world.run().pull()
    own_world.transfer(c, d)
    own_world.run().pull()
    own_world.transfer(d, a)

    with ExitStack() as stack:
        watch = _Watch(stack)
        watch.look()
        watch.measure()
        first = len(sent)
        watch.measure()  # at once again: nothing is due

    gauges = {name.removeprefix("ownership."): value for name, value in sent}
    assert len(sent) == len(gauges) == first
    since_began = (now_ms() - began) / 1000 + 0.1  # they are rounded
    assert 0 <= gauges.pop("backlog-age-seconds") <= since_began
    assert 0 < gauges.pop("oldest-open-event-seconds") <= since_began
    assert gauges == {
        "backlog-messages": 1, "dead-letters": 1, "open-events": 3, "overdue-events": 0, "blocked-events": 1,
        "claims-held": 2, "awaiting-approval-events": 0, "held-back-messages": 0, "backlog-retention-share": 0,
    }  # fmt: skip
    run.finish()
    own_world.whole_run()


def test_a_scheduler_whose_clock_is_ahead_is_named(seen: Any, api_server: FakeApiServer):
    ahead = from_ms(now_ms() + 330_000)
    api_server.answer["scheduler"]["latest_scheduler_heartbeat"] = ahead.isoformat()
    assert "Airflow's scheduler is 5 min ahead" in sentences(seen())[Kind.HOST]


def test_a_triggerer_that_is_missing_is_named(seen: Any, api_server: FakeApiServer):
    api_server.answer["triggerer"] = {"status": None, "latest_triggerer_heartbeat": None}
    assert sentences(seen()).keys() == {Kind.AIRFLOW}
