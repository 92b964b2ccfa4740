"""The trigger form, as the REST API shows it and takes it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.airflow_world import DAG, UNDO, Airflow, Story, form

FORM = {"from_user": "a", "to_user": "b", "organisation_id": "o"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("from_user", "  "),
        ("from_user", "a\nb"),
        ("from_user", 7),
        ("to_user", "x" * 257),
        ("organisation_id", ["o"]),
        ("roles", []),
        ("roles", ["owner"]),
        ("roles", "created"),
        ("statuses", [2]),
        ("statuses", []),
        ("course_ids", "do_1"),
        ("course_ids", ["a\tb"]),
        ("course_ids", ["c"] * 1001),
        ("reason", "r" * 501),
        ("requested_by", " "),
        ("dry_run", "yes"),
        ("events", {"from_user": "a"}),
        ("events", [{}] * 1001),
        ("execute_plan", "a\nmid"),
        ("digest", "f00"),
        ("approve", "mid"),
        ("decline", ["mid"]),
        ("redrive", ["mid"]),
        ("abandon", "mid"),
    ],
    ids=lambda v: str(v)[:20].replace("\n", " ") if not isinstance(v, str) else v[:20].strip() or "blank",
)
def test_a_field_out_of_bounds_is_refused_before_there_is_a_run(airflow: Airflow, field: str, value: Any):
    answer = airflow.try_to_trigger({**FORM, field: value})

    assert answer.status_code == 400, answer.text
    assert field in answer.text


def test_what_a_form_cannot_say_about_a_field_the_first_task_says_at_once(airflow: Airflow):
    run_id = airflow.trigger({**FORM, "colour": "red"})

    assert airflow.ended(run_id) == "failed"
    assert "Unknown conf 'colour'" in airflow.log(run_id, "pull_transfer_events")
    assert airflow.tasks(run_id)["pull_transfer_events", -1]["try_number"] == 1


@pytest.mark.parametrize(
    ("dag", "conf"),
    [
        pytest.param(DAG, {"abandon": {"mids": ["LP.typo"], "reason": "no"}}, id="abandon"),
        pytest.param(UNDO, {"mids": ["LP.typo"], "dry_run": False}, id="undo"),
    ],
)
def test_an_order_about_an_event_that_is_not_there_fails_its_run_at_the_verdict(
    airflow: Airflow, dag: str, conf: dict[str, Any]
):
    asked = airflow.of(dag)
    run_id = asked.trigger(conf)

    assert asked.ended(run_id) == "failed"
    states = {name: t["state"] for (name, _), t in asked.tasks(run_id).items()}
    assert {s for name, s in states.items() if name.startswith("transfer.")} == {"skipped"}
    assert (states["settle"], states["verdict"]) == ("success", "failed")
    assert "LP.typo: is not in the ledger" in asked.log(run_id, "verdict")


@pytest.mark.parametrize(
    ("dag", "tasks"), [("ownership_health", ["check", "remove_old"]), ("ownership_approval", ["wanted"])]
)
def test_a_dag_that_takes_no_conf_refuses_one(airflow: Airflow, dag: str, tasks: list[str]):
    asked = airflow.of(dag)
    run_id = asked.trigger({"days": 1, "dry_run": True})

    assert asked.ended(run_id) == "failed"
    for task in tasks:
        assert f"Conf 'days', 'dry_run': has no effect, because {dag} takes none" in asked.log(run_id, task)


def test_a_wrong_conf_of_an_undo_is_refused_with_the_fields_that_go_together(airflow: Airflow):
    undo = airflow.of(UNDO)
    assert undo.try_to_trigger({"mids": "m"}).status_code == 400

    run_id = undo.trigger({"to_user": "b"})

    assert undo.ended(run_id) == "failed"
    assert "from_user and to_user go with since" in undo.log(run_id, "pull_undo_events")


def test_a_form_that_is_filled_in_whole_moves_just_that_and_is_audited(airflow: Airflow, story: Story):
    old, new, other = (story.user(letter) for letter in ("old", "new", "other"))
    created = story.batches(old, 2, "created")
    elsewhere = story.batches(old, 1, "elsewhere")
    mentored = story.batches(other, 1, "mentored")
    for b in mentored:
        story.platform.update_row(b.course_id, b.batch_id, mentors=[old])
        story.platform.put_document(b.batch_id, mentors=[old])
    run_id, summary = airflow.done(
        form(
            old, new, roles=["created"], statuses=[0, 1], course_ids=[b.course_id for b in created],
            reason="moves to another team", requested_by=other, dry_run=False,
        )
    )  # fmt: skip

    assert summary["batches"] == {"moved": 2}
    assert story.owners(created) == {(new, new)}
    assert story.owners([*elsewhere, *mentored]) == {(old, old), (other, other)}
    row = story.event(f"manual:{run_id}:0")
    assert (row["state"], row["request_reason"], row["requested_by"]) == (
        "completed", "moves to another team", other,
    )  # fmt: skip


def test_a_manual_transfer_needs_no_kafka(airflow: Airflow, story: Story):
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 2)
    right = airflow.http.get("/connections/kafka_default").json()["extra"]
    body = {"connection_id": "kafka_default", "conn_type": "kafka"}
    nobody = right.replace(airflow.stack.addresses.kafka, "127.0.0.1:9")
    assert nobody != right
    airflow.http.patch("/connections/kafka_default", json={**body, "extra": nobody}).raise_for_status()
    try:
        run_id, summary = airflow.done(form(old, new), seconds=180)
    finally:
        airflow.http.patch("/connections/kafka_default", json={**body, "extra": right}).raise_for_status()

    assert summary["events"] == {"completed": 1}
    assert summary["notes"]["kafka"].startswith("was not read: ")
    assert story.state(f"manual:{run_id}:0") == "completed"
    assert story.owners(batches) == {(new, new)}
