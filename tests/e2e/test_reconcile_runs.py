"""A reconciliation on a real Airflow: red for what differs, green once it is repaired, cleared in the middle."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.airflow_world import Airflow, Story, until

RANGES = 40


@pytest.fixture
def reconcile(airflow: Airflow, story: Story) -> Airflow:
    """Its DAG. The stores are emptied: what other tests left differs, and is meant to."""
    story.platform.delete_batches()
    return airflow.of("ownership_reconcile")


def run(reconcile: Airflow, **conf: Any) -> tuple[str, str, dict[str, Any]]:
    """A run by hand that leaves the ledger out: its id, how it ended, its report."""
    run_id = reconcile.trigger({"rows_per_second": 0, "ranges": RANGES, "days": 0, **conf})
    state = reconcile.ended(run_id)
    return run_id, state, reconcile.xcom(run_id, "report")


def test_a_stale_document_makes_a_run_red_and_a_repair_makes_the_next_ones_green(
    reconcile: Airflow, story: Story
):
    owner = story.user("owner")
    stale, missing, *_ = story.batches(owner, 30)
    story.platform.put_document(stale.batch_id, createdBy="somebody-else")
    story.platform.delete_document(missing.batch_id)

    red, state, found = run(reconcile)

    assert state == "failed"
    assert found["counts"] == {"stale_owner": 1, "missing_document": 1}
    assert (found["rows"], found["documents"], found["left"], found["complete"]) == (30, 29, 2, True)
    assert {s["batch_id"] for s in found["samples"]} == {stale.batch_id, missing.batch_id}
    assert "2 batches differ, more than 0" in reconcile.log(red, "verdict")
    assert f"row {owner}  document somebody-else" in reconcile.log(red, "report")
    tasks = reconcile.tasks(red)
    assert {tasks[t, -1]["state"] for t in ("plan_ranges", "unproven", "report")} == {"success"}
    assert [tasks["reconcile_range", n]["rendered_map_index"] for n in range(2)] == [
        "slice 1 of 2", "slice 2 of 2",
    ]  # fmt: skip
    assert (story.platform.document(stale.batch_id) or {})["createdBy"] == "somebody-else"

    health = reconcile.of("ownership_health")
    look = health.trigger()
    assert health.ended(look) == "failed"
    assert f"The last reconciliation, {red}, left 2 differences" in health.log(look, "check")

    _, state, found = run(reconcile, repair=True)
    assert (state, found["repaired"], found["left"]) == ("success", 2, 0)
    assert story.owners([stale, missing]) == {(owner, owner)}

    _, state, found = run(reconcile)
    assert (state, found["different"]) == ("success", 0)
    assert [(p["left"], p["repaired"]) for p in found["trend"][-3:]] == [(2, 0), (0, 2), (0, 0)]
    assert health.ended(health.trigger()) == "success"


def test_what_is_accepted_does_not_make_a_run_red(airflow: Airflow, reconcile: Airflow, story: Story):
    (orphan,) = story.batches(story.user("owner"), 1)
    story.platform.delete_row(orphan.course_id, orphan.batch_id)
    with airflow.settings(reconcile_alert_differences=1):
        _, state, found = run(reconcile, repair=True)
    assert (state, found["counts"], found["left"]) == ("success", {"orphan_document": 1}, 1)


def test_a_run_that_is_cleared_while_it_looks_goes_on_with_the_ranges_that_are_not_done(
    airflow: Airflow, reconcile: Airflow, story: Story
):
    stale, *_ = story.batches(story.user("owner"), 400)
    story.platform.put_document(stale.batch_id, createdBy="somebody-else")
    with airflow.settings(reconcile_slices=1):
        run_id = reconcile.trigger({"rows_per_second": 100, "ranges": RANGES, "days": 0})

        def some() -> int:
            found = story.rows("SELECT part FROM reconciliation_part WHERE run_id = %(run)s", run=run_id)
            return sum(r["part"].startswith("range") for r in found)

        done = until("some ranges are done", lambda: n if (n := some()) >= 4 else 0, every=0.1)
        assert done < RANGES
        answer = airflow.http.post(
            f"/dags/ownership_reconcile/dagRuns/{run_id}/clear", json={"dry_run": False}
        )
        assert answer.status_code == 200, answer.text
        until("it is tried again", lambda: _tries(reconcile, run_id) >= 2)
        assert reconcile.ended(run_id) == "failed"  # one document is stale

    looked = reconcile.xcom(run_id, "reconcile_range", map_index=0)
    assert looked["done_before"] >= done
    assert looked["done_before"] + looked["done"] == RANGES
    found = reconcile.xcom(run_id, "report")
    assert (found["complete"], found["rows"], found["documents"], found["counts"]) == (
        True, 400, 400, {"stale_owner": 1},
    )  # fmt: skip


def _tries(reconcile: Airflow, run_id: str) -> int:
    return int(reconcile.tasks(run_id).get(("reconcile_range", 0), {}).get("try_number") or 0)
