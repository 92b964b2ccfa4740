"""The backfill drill of the operations manual, step by step: two windows fail, one backfill heals both."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.e2e.airflow_world import DAG, ORGANISATION, Airflow, Story, until

PULL = ("pull_transfer_events", -1)


def hours_ago(hours: int) -> datetime:
    """The start of a whole hour in the past."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours)


def runs_of(airflow: Airflow, hours: list[datetime]) -> list[str]:
    """The runs of these hours, one each, in their order."""
    params = {"logical_date_gte": hours[0].isoformat(), "logical_date_lte": hours[-1].isoformat()}
    found = airflow.http.get(f"/dags/{DAG}/dagRuns", params=params).json()["dag_runs"]
    runs = {datetime.fromisoformat(r["logical_date"]): r["dag_run_id"] for r in found}
    assert (len(found), sorted(runs)) == (len(hours), hours)
    return [runs[at] for at in hours]


def tries(airflow: Airflow, runs: list[str]) -> list[int]:
    """How often each run has begun its first task."""
    return [airflow.tasks(run)[PULL]["try_number"] for run in runs]


def misses(airflow: Airflow, run: str, service: str, *, attempt: int = 1) -> bool:
    """Whether a run's first task says that a service is out of reach."""
    log = airflow.log(run, "pull_transfer_events", attempt=attempt)
    return f"is the host of Connection '{service}_default' right?" in log


def announced(story: Story, old: str, new: str, at: datetime) -> str:
    """Announce a transfer as at that time; its mid."""
    ms = int(at.timestamp() * 1000)
    event = story.platform.event(old, new, ORGANISATION, ets=ms)
    story.platform.emit(event, timestamp=ms)
    return str(event["mid"])


def events_of(story: Story, users: list[str]) -> set[str]:
    """Mids of all events that the ledger has of these users, follow-ups and rejections included."""
    folded = [user.lower() for user in users]
    events = story.rows(
        "SELECT mid FROM event WHERE source_user = ANY(%(users)s) OR target_user = ANY(%(users)s)",
        users=folded,
    )
    mids = {row["mid"] for row in events}
    rejected = "SELECT mid FROM rejected_message WHERE message_mid = ANY(%(mids)s)"
    return mids | {row["mid"] for row in story.rows(rejected, mids=list(mids))}


def images(story: Story, mids: list[str]) -> list[dict[str, Any]]:
    """The audit trail of events: every change of a row that was begun."""
    return story.rows(
        "SELECT mid, change.* FROM change JOIN event ON event_id = id WHERE mid = ANY(%(mids)s) "
        "ORDER BY recorded_at, image, hop",
        mids=mids,
    )


def moves(story: Story, mids: list[str]) -> Counter[tuple[str, str, str, str]]:
    """Changes that were made: (mid, batch, creator before, creator after), and how often."""
    return Counter(
        (i["mid"], i["batch_id"], i["before_created_by"], i["after_created_by"])
        for i in images(story, mids)
        if i["outcome"] == "applied"
    )


@pytest.mark.timeout(420)
def test_two_windows_fail_while_the_services_are_down_and_one_backfill_heals_both_without_moving_twice(
    airflow: Airflow, story: Story
):
    users = [story.user(letter) for letter in "abcde"]
    a, b, c, d, e = users
    of_a, of_b, of_d = story.batches(a, 3, "a"), story.batches(b, 1, "b"), story.batches(d, 2, "d")
    batches = [*of_a, *of_b, *of_d]
    before = story.platform.as_written(batches)
    hours = [hours_ago(61), hours_ago(60)]

    with airflow.down("userorg"):
        with airflow.down("lms"):
            # A chain through both hours, and a transfer that has nothing to do with it.
            chain = [announced(story, a, b, hours[0] + timedelta(minutes=10))]
            apart = announced(story, d, e, hours[1] + timedelta(minutes=5))
            chain.append(announced(story, b, c, hours[1] + timedelta(minutes=10)))
            mids = [*chain, apart]
            airflow.backfill(hours[0], hours[-1])
            runs = runs_of(airflow, hours)

            assert [airflow.ended(run, seconds=180) for run in runs] == ["failed", "failed"]
            red = tries(airflow, runs)
            for run, tried in zip(runs, red, strict=True):
                assert misses(airflow, run, "lms", attempt=tried)
        # One is back, the other is not: a run that comes too early takes nothing.
        early = airflow.trigger()
        until("User-Org is missed", lambda: misses(airflow, early, "userorg"))
        assert [story.state(mid) for mid in mids] == [None] * 3
        assert story.platform.as_written(batches) == before

    airflow.backfill(hours[0], hours[-1], "--reprocess-behavior", "failed")

    assert runs_of(airflow, hours) == runs
    assert [airflow.ended(run, seconds=180) for run in runs] == ["success", "success"]
    green = tries(airflow, runs)
    assert all(now > then for now, then in zip(green, red, strict=True))
    # By the windows' runs, or by one that came between them: each carries out what it finds.
    story.completed(*mids)
    assert (story.owners(of_a), story.owners(of_b), story.owners(of_d)) == ({(c, c)}, {(c, c)}, {(e, e)})
    assert moves(story, mids) == Counter(
        [(chain[0], batch.batch_id, a, b) for batch in of_a]
        + [(chain[1], batch.batch_id, b, c) for batch in [*of_a, *of_b]]
        + [(apart, batch.batch_id, d, e) for batch in of_d]
    )

    # Once more, the hours that succeeded: nothing is left to do, and nothing is done.
    airflow.ended(early)
    trail, moved = images(story, mids), story.platform.as_written(batches)
    airflow.backfill(hours[0], hours[-1], "--reprocess-behavior", "completed")

    assert runs_of(airflow, hours) == runs
    assert [airflow.ended(run, seconds=180) for run in runs] == ["success", "success"]
    assert all(now > then for now, then in zip(tries(airflow, runs), green, strict=True))
    for run in runs:
        pulled = airflow.xcom(run, "pull_transfer_events", "pulled")
        assert (pulled["received"], pulled["claimed"], pulled["follow_ups"]) == (0, 0, 0)
    assert images(story, mids) == trail
    assert story.platform.as_written(batches) == moved
    assert events_of(story, users) == set(mids)
