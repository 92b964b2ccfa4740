"""Scheduled windows, backfills, and runs that die, on a real Airflow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.e2e.airflow_world import DAG, ORGANISATION, Airflow, Story, until


@pytest.fixture(autouse=True)
def faults_end(airflow: Airflow):
    """No fault outlives its test."""
    yield
    for url in (airflow.stack.addresses.userorg, airflow.stack.addresses.lms):
        airflow.http.delete(f"{url}/_faults")


def _window() -> datetime:
    """A whole hour in the past that no other test uses."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=31)


def _window_run(airflow: Airflow, at: datetime) -> str:
    """The run of an hour, once it is there."""

    def found() -> str | None:
        params = {"logical_date_gte": at.isoformat(), "logical_date_lte": at.isoformat()}
        runs = airflow.http.get(f"/dags/{DAG}/dagRuns", params=params).json()["dag_runs"]
        return runs[0]["dag_run_id"] if runs else None

    return str(until("the window's run is there", found))


def test_a_window_takes_what_the_ledger_has_lost_and_a_second_time_changes_nothing(
    airflow: Airflow, story: Story
):
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 3)
    at = _window()
    event = story.platform.event(old, new, ORGANISATION)
    kafka_ms = int((at + timedelta(minutes=10)).timestamp() * 1000)
    event["ets"] = kafka_ms
    story.platform.emit(event, timestamp=kafka_ms)
    story.completed(event["mid"])
    # Its offset stays: the ledger has read so far.
    story.forget(event["mid"])
    story.platform.update_row(batches[0].course_id, batches[0].batch_id, createdby=old)
    story.platform.put_document(batches[0].batch_id, createdBy=old)

    airflow.backfill(at, at)

    run_id = _window_run(airflow, at)
    assert airflow.ended(run_id) == "success"
    story.completed(event["mid"])
    assert story.owners(batches) == {(new, new)}
    assert airflow.xcom(run_id, "pull_transfer_events", "pulled")["received"] == 1

    airflow.backfill(at, at, "--reprocess-behavior", "completed")
    until(
        "the window ran again", lambda: airflow.tasks(run_id)["pull_transfer_events", -1]["try_number"] == 2
    )
    assert airflow.ended(run_id) == "success"
    assert airflow.xcom(run_id, "pull_transfer_events", "pulled")["received"] == 0
    assert story.owners(batches) == {(new, new)}


def test_a_run_killed_between_rows_and_documents_is_completed_by_a_later_one(airflow: Airflow, story: Story):
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 4)
    first = batches[0]
    index = airflow.stack.servers["elasticsearch"]
    run_id = airflow.trigger({"from_user": old, "to_user": new, "organisation_id": ORGANISATION})
    try:
        until(
            "a row moved",
            lambda: story.creator(first) == new,
            every=0.01,
        )
        index.freeze()
        airflow.mark_failed(run_id)
        until("its tasks ended", lambda: _state(airflow, run_id, "reindex_course_batches") != "running")
    finally:
        index.thaw()

    story.completed(f"manual:{run_id}:0", seconds=180)
    assert story.owners(batches) == {(new, new)}


def _state(airflow: Airflow, run_id: str, stage: str) -> str | None:
    state = airflow.tasks(run_id).get((f"transfer.{stage}", 0), {}).get("state")
    return str(state) if state else None
