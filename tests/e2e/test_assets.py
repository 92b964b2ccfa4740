"""A finished transfer updates two assets, and a team's own DAG runs on it: the example of the docs, on a real Airflow."""

from __future__ import annotations

from typing import Any

import httpx

from tests.e2e.airflow_world import ORGANISATION, Airflow, Story, form, until

TABLE, INDEX = "course_batch.table", "course_batch.index"


def events_of(
    airflow: Airflow, run_id: str, dag: str = "user_ownership_transfer"
) -> dict[str, list[dict[str, Any]]]:
    """The asset events that `settle` of a run emitted, by the asset's name."""
    params: dict[str, str | int] = {
        "source_dag_id": dag,
        "source_run_id": run_id,
        "source_task_id": "settle",
        "limit": 50,
    }

    def answered() -> httpx.Response | None:
        """Airflow 3.3.2 answers 500 until a run that an event created has begun."""
        answer = airflow.http.get("/assets/events", params=params)
        assert answer.status_code in (200, 500), answer.text
        return answer if answer.status_code == 200 else None

    found: dict[str, list[dict[str, Any]]] = {}
    for event in until("Airflow shows the events", answered).json()["asset_events"]:
        found.setdefault(event["name"], []).append(event["extra"])
    return found


def test_a_finished_transfer_updates_table_and_index_with_users_and_counts_and_a_dag_of_the_docs_runs(
    airflow: Airflow, story: Story
) -> None:
    old, new = story.user("old"), story.user("new")
    story.batches(old, 3)
    example = airflow.of("batches_received")

    run_id, _ = airflow.done(form(old, new))

    mid = f"manual:{run_id}:0"
    expected = {
        "run_id": run_id,
        "moved": 3,
        "transfers": [
            {
                "mid": mid, "from_user": old, "to_user": new, "organisation_id": ORGANISATION,
                "undo_of": None, "moved": 3, "counts": {"moved": 3},
            }
        ],
    }  # fmt: skip
    assert events_of(airflow, run_id) == {TABLE: [expected], INDEX: [expected]}

    def received() -> bool:
        ended = [r["dag_run_id"] for r in example.runs() if r["state"] == "success"]
        return any(example.xcom(r, "received").get(new) == 3 for r in ended)

    assert until("the example has counted", received)


def test_what_moved_nothing_for_good_updates_nothing(airflow: Airflow, story: Story) -> None:
    old, new = story.user("old"), story.user("new")
    story.batches(old, 1)

    rehearsed, _ = airflow.done(form(old, new, dry_run=True))

    assert events_of(airflow, rehearsed) == {}


def test_both_assets_are_shown_by_airflow(airflow: Airflow) -> None:
    shown = airflow.http.get("/assets", params={"name_pattern": "course_batch.", "limit": 50}).json()[
        "assets"
    ]
    assert {a["name"] for a in shown} >= {TABLE, INDEX}
