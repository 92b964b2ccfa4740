"""Scheduled windows and backfills, on a real Airflow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.e2e.airflow_world import DAG, ORGANISATION, Airflow, Story, until


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
