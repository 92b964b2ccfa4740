"""What the queue shows, what is wrong with what was seen, and how it is said."""

from __future__ import annotations

from typing import Any

import pytest

from ownership.domain.backlog import (
    BacklogFacts,
    HeldBack,
    QueueFacts,
    RetentionLimits,
    queue_facts,
    retention_share,
)
from ownership.domain.installation import Host, HostKind, Silent, Tries
from ownership.domain.queue import QueuedEvent
from ownership.domain.reconciliation import Report
from ownership.health.problems import HealthFacts, Kind, Unreachable, problems, sentence
from ownership.health.tasks import is_news
from tests.unit.replay import transfer

NOW = 10_000_000
DEADLINE = 60_000


def queued(n: int, pair: str, age_ms: int = 1000, **fields: Any) -> QueuedEvent:
    return QueuedEvent(transfer(n, *pair), NOW - age_ms, **fields)


def facts(*rows: QueuedEvent) -> QueueFacts:
    return queue_facts(rows, now_ms=NOW, deadline_ms=DEADLINE)


HELD: dict[str, Any] = {"holder": "run", "lease_expires_ms": NOW + 1}
AWAITS: dict[str, Any] = {"awaits": "approval", "next_try_ms": NOW + 1}


def test_an_empty_queue_has_nothing() -> None:
    assert facts() == QueueFacts()


def test_events_that_wait_for_an_earlier_one_are_blocked_by_the_first_of_their_chain() -> None:
    found = facts(queued(0, "ab"), queued(1, "bc"), queued(2, "cd"), queued(3, "xy"))
    assert (found.open, found.blocked, dict(found.blocks)) == (4, 2, {"m00": 2})


def test_the_users_of_an_event_are_compared_without_case() -> None:
    assert facts(queued(0, "ab"), queued(1, "Bc")).blocked == 1


def test_the_order_is_that_of_the_queue_not_of_the_rows() -> None:
    assert dict(facts(queued(1, "bc"), queued(0, "ab")).blocks) == {"m00": 1}


def test_what_a_run_holds_is_not_blocked_even_behind_another() -> None:
    found = facts(queued(0, "ab", **HELD), queued(1, "bc", **HELD))
    assert (found.held, found.blocked) == (2, 0)


def test_a_claim_that_has_expired_holds_nothing() -> None:
    assert facts(queued(0, "ab", holder="run", lease_expires_ms=NOW)).held == 0


def test_an_event_is_overdue_after_its_deadline_and_not_before() -> None:
    found = facts(queued(0, "ab", DEADLINE), queued(1, "cd", DEADLINE + 1))
    assert [r.transfer.mid for r in found.overdue] == ["m01"]
    assert found.oldest_ms == NOW - DEADLINE - 1


def test_what_waits_for_an_approval_is_not_overdue_nor_what_waits_for_that() -> None:
    found = facts(queued(0, "ab", 2 * DEADLINE, **AWAITS), queued(1, "bc", 2 * DEADLINE))
    assert (found.awaiting, found.blocked, found.overdue, found.oldest_ms) == (1, 1, (), None)


def test_an_approval_that_was_not_given_in_time_makes_it_overdue() -> None:
    found = facts(queued(0, "ab", 2 * DEADLINE, awaits="approval", next_try_ms=NOW))
    assert (found.awaiting, len(found.overdue)) == (0, 1)


# -- sentences --------------------------------------------------------------------------------------------------


def sentences(**seen: Any) -> list[str]:
    return [p.sentence for p in problems(HealthFacts(NOW, **seen), deadline_minutes=1)]


def test_nothing_wrong_is_said_in_a_sentence_with_what_is_under_way() -> None:
    def said(**given: Any) -> str:
        return sentence(HealthFacts(NOW, **given), [])

    assert said(backlog=BacklogFacts(), queue=facts()) == "Healthy: nothing is open."
    assert said(backlog=BacklogFacts(2), queue=facts(queued(0, "ab", 4000, **HELD), queued(1, "bc"))) == (
        "Healthy: 2 open, 1 held by runs, 1 blocked, 2 messages not pulled yet, the oldest for 4.0 s."
    )


def test_an_overdue_event_is_named_with_its_users_its_reason_and_what_it_blocks() -> None:
    queue = facts(queued(0, "ab", 5 * DEADLINE), queued(1, "bc", 2 * DEADLINE))
    assert sentences(queue=queue, reasons={"m00": "failed: User-Org unavailable: HTTP 503"}) == [
        "2 events are not proven 1 min after they were accepted; the oldest, m00 (a to b), is open for 5 min and "
        "failed: User-Org unavailable: HTTP 503; 1 other waits for it."
    ]
    assert sentences(queue=facts(queued(0, "ab", 2 * DEADLINE))) == [
        "1 event is not proven 1 min after it was accepted; the oldest, m00 (a to b), is open for 2 min."
    ]


def test_messages_that_no_run_pulls_are_a_problem_after_the_deadline() -> None:
    assert sentences(backlog=BacklogFacts(1, NOW - DEADLINE)) == []
    (said,) = sentences(backlog=BacklogFacts(1, NOW - 3 * DEADLINE))
    assert said.startswith(
        "1 message not pulled yet, the oldest for 3 min: is the DAG user_ownership_transfer unpaused"
    )


def test_a_watcher_that_does_not_look_while_messages_wait_is_told_from_one_whose_runs_fail() -> None:
    waiting = BacklogFacts(1, NOW - 3 * DEADLINE)

    def kinds(backlog: BacklogFacts, *hosts: Host) -> list[Kind]:
        return [p.kind for p in problems(HealthFacts(NOW, backlog=backlog, hosts=hosts), deadline_minutes=1)]

    worker, looked = host("w1"), host("t1", HostKind.TRIGGERER, seen_at_ms=NOW - 600_000)
    frozen = host("t1", HostKind.TRIGGERER, seen_at_ms=NOW - 600_001)
    assert kinds(waiting, worker, looked) == [Kind.BACKLOG]
    assert kinds(waiting, worker, frozen) == [Kind.WATCHER, Kind.BACKLOG]
    assert kinds(waiting, worker) == [Kind.WATCHER, Kind.BACKLOG]
    assert kinds(waiting) == [Kind.BACKLOG]  # without the ledger nothing is known of the watcher
    assert kinds(BacklogFacts(1, NOW - DEADLINE), worker, frozen) == []


def test_messages_that_the_topic_deleted_are_a_problem() -> None:
    (said,) = sentences(backlog=BacklogFacts(deleted=7))
    assert said.startswith("7 messages were deleted from the topic before a run accepted them")


def test_an_open_transaction_is_named_with_its_partition_and_what_stands_behind_it() -> None:
    held = (HeldBack(3, 5, NOW - 90_000),)
    (said,) = sentences(backlog=BacklogFacts(5, NOW - 1, held_back=held))
    assert "5 of partition 3 behind an open transaction for 90 s" in said
    assert "kafka-transactions.sh" in said


def test_a_transaction_of_a_producer_whose_clock_is_ahead_is_named_at_once() -> None:
    held = (HeldBack(3, 5, NOW + 50 * 60_000),)
    facts = HealthFacts(NOW, backlog=BacklogFacts(5, NOW - 1, held_back=held))
    (found,) = problems(facts, deadline_minutes=30)
    assert found.kind is Kind.TRANSACTION


def test_a_transaction_that_was_begun_just_now_is_no_problem_but_is_said() -> None:
    backlog = BacklogFacts(5, NOW - 1, held_back=(HeldBack(3, 5, NOW - 2000),))
    assert sentences(backlog=backlog) == []
    assert sentence(HealthFacts(NOW, backlog=backlog), []) == (
        "Healthy: 5 messages not pulled yet, 5 of partition 3 behind an open transaction for 2.0 s."
    )


@pytest.mark.parametrize(("share", "wrong"), [(0.49, False), (0.5, True), (3.0, True)])
def test_messages_at_half_of_the_topics_retention_are_a_problem_before_they_are_deleted(
    share: float, wrong: bool
) -> None:
    limits = RetentionLimits(ms=120_000)
    said = sentences(backlog=BacklogFacts(1, NOW - 1, retention=limits, retention_share=share))
    assert bool(said) is wrong
    assert all(f"{share:.0%} of what the topic keeps (retention.ms, 2 min)" in s for s in said)


@pytest.mark.parametrize(
    ("limits", "share"),
    [
        pytest.param(RetentionLimits(), 0.0, id="nothing is deleted"),
        pytest.param(RetentionLimits(ms=2000), 0.5, id="by age"),
        pytest.param(RetentionLimits(bytes=40), 2.5, id="by size"),
        pytest.param(RetentionLimits(ms=2000, bytes=1000), 0.5, id="by whichever comes first"),
        pytest.param(RetentionLimits(ms=0), 1000.0, id="at once"),
    ],
)
def test_a_backlog_uses_up_its_topics_retention_by_age_or_by_size(
    limits: RetentionLimits, share: float
) -> None:
    assert retention_share(age_ms=1000, size=100, limits=limits) == share


def test_a_timestamp_in_the_future_uses_up_nothing() -> None:
    assert retention_share(age_ms=-5, size=0, limits=RetentionLimits(ms=10)) == 0.0


@pytest.mark.parametrize(("left", "wrong"), [(0, False), (3, True)])
def test_differences_of_the_last_reconciliation_are_a_problem_above_the_threshold(
    left: int, wrong: bool
) -> None:
    report = Report(
        run_id="scheduled__1", started_ms=0, ended_ms=1, repair=False, parts=1, done=1, left=left,
        counts={"stale_owner": left} if left else {},
    )  # fmt: skip
    said = sentences(report=report)
    assert bool(said) is wrong
    assert all("scheduled__1, left 3 differences (3 stale owner)" in s for s in said)


def test_what_does_not_answer_comes_first_and_the_rest_all_the_same() -> None:
    seen = HealthFacts(
        NOW,
        unreachable=(Unreachable("User-Org:9002", "User-Org:9002 unavailable: refused"),),
        queue=facts(queued(0, "ab", 2 * DEADLINE)),
    )
    found = problems(seen, deadline_minutes=1)
    assert [p.kind for p in found] == [Kind.PART, Kind.OVERDUE]
    assert sentence(seen, found).startswith("User-Org:9002 unavailable: refused. 1 event is not proven")


def test_two_services_on_one_host_are_two_problems() -> None:
    seen = HealthFacts(NOW, unreachable=(Unreachable("h:9001", "refused"), Unreachable("h:9002", "refused")))
    assert [set(p.subjects) for p in problems(seen, deadline_minutes=1)] == [{"h:9001"}, {"h:9002"}]


def test_news_is_a_problem_or_a_subject_that_was_not_there_before() -> None:
    assert not is_news({}, {})
    assert is_news({}, {"part": ["Kafka"]})
    assert not is_news({"part": ["Kafka"], "overdue": ["m1", "m2"]}, {"overdue": ["m1"]})
    assert is_news({"overdue": ["m1"]}, {"overdue": ["m1", "m3"]})


def test_a_part_of_airflow_that_does_not_run_is_named_with_what_does_not_happen_and_what_to_start() -> None:
    silent = (Silent("dag_processor"), Silent("triggerer", NOW - 5 * DEADLINE))
    assert sentences(silent=silent) == [
        "Airflow's DAG processor has never run, so changes of DAG files are not read: start `airflow dag-processor`.",
        "Airflow's triggerer has had no heartbeat for 5 min, so no message starts a run before the hour is over: start "
        "`airflow triggerer`.",
    ]
    (said,) = sentences(silent=(Silent("metadatabase"),))
    assert said.startswith("Airflow's metadata database does not answer its API server")


def host(name: str, kind: HostKind = HostKind.WORKER, **given: Any) -> Host:
    fields = {"traits": {}, "since_ms": NOW - 600_000, "seen_at_ms": NOW, "clock_ahead_ms": 0, "tries": {}}
    return Host(kind, name, **{**fields, **given})


def test_clocks_that_are_off_are_named_with_way_and_amount() -> None:
    hosts = (
        host("w1", clock_ahead_ms=-30_000),
        host("w2", clock_ahead_ms=300_000),
        host("t1", HostKind.TRIGGERER, clock_ahead_ms=-31_000),
        host("w3", clock_ahead_ms=900_000, seen_at_ms=NOW - 3_600_000),
    )
    (said,) = sentences(hosts=hosts, clock_limit_ms=30_000)
    assert said.startswith(
        "Clocks differ from PostgreSQL's: worker w2 is 5 min ahead, triggerer t1 is 31 s behind. "
    )


def test_an_api_server_whose_clock_is_off_is_named_and_not_the_parts_that_seem_dead_to_it() -> None:
    silent = (Silent("scheduler", NOW - 2000), Silent("triggerer", NOW - 300_000), Silent("dag_processor"))
    ahead = host("a1", HostKind.API_SERVER, clock_ahead_ms=300_000)
    clocks = [s for s in sentences(hosts=(ahead,)) if "API server a1 is 5 min ahead" in s]
    assert "API servers refuse tokens that another clock has signed, so tasks fail." in clocks[0]
    found = sentences(silent=silent, hosts=(ahead,))
    assert [s.partition(",")[0] for s in found if s not in clocks] == [
        "Airflow's triggerer has had no heartbeat for 5 min",
        "Airflow's DAG processor has never run",
    ]
    assert len(sentences(silent=silent, hosts=(host("w1", clock_ahead_ms=300_000),))) == 4


def test_a_scheduler_whose_heartbeat_is_ahead_is_named_with_the_tokens_that_it_signs() -> None:
    (said,) = sentences(parts_ahead_ms={"scheduler": 297_000, "triggerer": -3000, "dag_processor": -400_000})
    assert said.startswith("Clocks differ from PostgreSQL's: Airflow's scheduler is 5 min ahead. Claims end")
    assert "API servers refuse tokens that another clock has signed, so tasks fail." in said


def test_a_scheduler_that_is_behind_is_named_by_its_own_report() -> None:
    (said,) = sentences(hosts=(host("s1", HostKind.SCHEDULER, clock_ahead_ms=-300_000), host("w1")))
    assert said.startswith("Clocks differ from PostgreSQL's: scheduler s1 is 5 min behind. Claims end")
    assert "API servers refuse tokens that another clock has signed, so tasks fail." in said


def test_a_scheduler_that_is_ahead_is_named_once() -> None:
    (said,) = sentences(
        hosts=(host("s1", HostKind.SCHEDULER, clock_ahead_ms=300_000),),
        parts_ahead_ms={"scheduler": 297_000, "dag_processor": 299_000},
    )
    assert "scheduler s1 is 5 min ahead, Airflow's DAG processor is 5 min ahead. Claims end" in said


def test_a_connection_that_leads_elsewhere_on_one_worker_is_named_with_both_places() -> None:
    hosts = tuple(host(f"w{n}", traits={"cassandra_default": "c2" if n == 3 else "c1"}) for n in range(9))
    assert sentences(hosts=hosts) == [
        "Connection 'cassandra_default' does not lead to the same place everywhere, c1 on worker w0, worker w1, "
        "worker w2, worker w4, worker w5 and 3 more; c2 on worker w3: give all hosts the same one."
    ]


def test_api_servers_with_two_secrets_are_named_with_what_they_refuse_and_no_digest() -> None:
    hosts = tuple(
        host(
            f"a{n}",
            HostKind.API_SERVER,
            traits={"[api] secret_key": f"digest{n}", "[api_auth] jwt_secret": "s"},
        )
        for n in (1, 2)
    )
    assert sentences(hosts=hosts) == [
        "[api] secret_key is not the same on API server a1, API server a2: an API server refuses the forms of the page "
        "and the requests for logs that were signed with another. Set the same on all of them."
    ]


def test_two_versions_of_the_plugin_are_named() -> None:
    hosts = (host("w1", traits={"plugin": "schema 0001"}), host("w2", traits={"plugin": "schema 0002"}))
    assert sentences(hosts=hosts) == [
        "The plugin is not the same on all hosts, schema 0001 on worker w1; schema 0002 on worker w2: deploy one image "
        "to all of them."
    ]


def test_a_worker_that_never_reported_lacks_the_plugin_or_has_another_ledger() -> None:
    seen = {"w2": Tries(0, 4), "w3": Tries(1, 4)}
    found = sentences(hosts=(host("w1"), host("a1", HostKind.API_SERVER, tries=seen)))
    assert [s.partition(":")[0] for s in found] == [
        "The last 4 tries on worker w2 failed, and it has never reported to the ledger",
        "Tasks succeed on worker w3, but it has never reported to the ledger",
    ]


def test_each_host_that_is_wrong_is_news() -> None:
    hosts = (host("w1", clock_ahead_ms=300_000), host("w2", clock_ahead_ms=300_000))
    (found,) = problems(HealthFacts(NOW, hosts=hosts), deadline_minutes=1)
    assert found.subjects == {"clock of worker w1", "clock of worker w2"}
