"""The three ways to start a run, and what a person sees of it, on a real Airflow."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from local.paths import REPOSITORY
from local.servers import airflow as airflow_server
from tests.e2e.airflow_world import DAG, ORGANISATION, Airflow, Story, form, until

STAGES = ("lookup_users", "update_course_batches", "reindex_course_batches")


def test_an_event_on_the_topic_starts_a_run_and_is_completed(airflow: Airflow, story: Story):
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 6)
    event = story.platform.event(old, new, ORGANISATION)
    story.platform.emit(event)

    story.completed(event["mid"])

    assert story.owners(batches) == {(new, new)}
    row = story.event(event["mid"])
    assert row["counts"]["moved"] == 6
    assert airflow.ended(row["run_id"]) == "success"
    tasks = airflow.tasks(row["run_id"])
    # The watcher's run, unless the hourly one came by in that very second: each claims what there is.
    assert airflow.run(row["run_id"])["run_type"] in ("asset_triggered", "scheduled")
    assert {t["state"] for (name, _), t in tasks.items() if name != "verdict"} == {"success"}
    assert tasks["verdict", -1]["state"] == "skipped"
    labels = {t["rendered_map_index"] for (name, index), t in tasks.items() if index >= 0}
    assert any(f"{old} → {new}" in str(label) for label in labels)
    settled = airflow.xcom(row["run_id"], "settle")
    assert settled["batches"]["moved"] >= 6


def test_a_manual_run_takes_a_list_and_has_an_instance_of_each_stage_per_lane_named_after_its_users(
    airflow: Airflow, story: Story
):
    a, b, c, d, e, f, g = (story.user(letter) for letter in "abcdefg")
    of_d, of_f = story.batches(d, 2, "d"), story.batches(f, 2, "f")
    whole = story.platform.event(d, e, ORGANISATION)
    short = [form(u, v) for u, v in ((a, b), (b, c), (f, g))]

    run_id = airflow.trigger({"events": [*short, whole]})

    assert airflow.ended(run_id) == "success"
    assert story.state(whole["mid"]) == "completed"
    assert story.state(f"manual:{run_id}:2") == "completed"
    assert (story.owners(of_d), story.owners(of_f)) == ({(e, e)}, {(g, g)})
    labels: dict[str, set[str]] = {}
    for (name, index), task in airflow.tasks(run_id).items():
        if index >= 0:
            labels.setdefault(name, set()).add(task["rendered_map_index"])
    lanes = {f"{a} → {b} + 1 more (2 events)", f"{d} → {e}", f"{f} → {g}"}
    assert labels == {f"transfer.{stage}": lanes for stage in STAGES}


def test_a_lane_that_cannot_be_applied_at_once_goes_phase_after_phase_in_one_run(
    airflow: Airflow, story: Story
):
    a, b, c, d = (story.user(letter) for letter in "abcd")
    of_a, of_b, of_c = (story.batches(user, 2, user[:1]) for user in (a, b, c))

    # Each receives after they gave.
    run_id = airflow.trigger({"events": [form(u, v) for u, v in ((c, d), (b, c), (a, b))]})

    assert airflow.ended(run_id) == "success"
    assert airflow.xcom(run_id, "settle")["events"] == {"completed": 3}
    assert [story.owners(batches) for batches in (of_a, of_b, of_c)] == [{(u, u)} for u in (b, c, d)]
    log = airflow.log(run_id, "transfer.reindex_course_batches", map_index=0)
    assert log.count("next phase") == 2


def test_a_run_without_work_is_green_and_skips_everything_else(airflow: Airflow):
    run_id = airflow.trigger()

    assert airflow.ended(run_id) == "success"
    states = {name: t["state"] for (name, _), t in airflow.tasks(run_id).items()}
    assert states.pop("pull_transfer_events") == "success"
    assert set(states.values()) == {"skipped"}


def test_a_failing_user_service_is_retried_and_the_transfer_completes(airflow: Airflow, story: Story):
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 2)
    with airflow.userorg_fails(old):
        run_id = airflow.trigger(form(old, new))
        mid = f"manual:{run_id}:0"
        until("the event is seen to fail", lambda: story.state(mid) == "failed")
        assert story.owners(batches) == {(old, old)}

    story.completed(mid)

    assert airflow.ended(run_id) == "success"
    tries = {
        t["try_number"] for (name, _), t in airflow.tasks(run_id).items() if name.endswith("lookup_users")
    }
    assert max(tries) >= 2
    assert story.owners(batches) == {(new, new)}


def test_clearing_a_finished_run_changes_nothing(airflow: Airflow, story: Story):
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 2)
    run_id = airflow.trigger(form(old, new))
    assert airflow.ended(run_id) == "success"
    documents = [story.platform.document(b.batch_id) for b in batches]
    before = airflow.run(run_id)["end_date"]

    cleared = airflow.http.post(
        f"/dags/{DAG}/clearTaskInstances", json={"dag_run_id": run_id, "dry_run": False, "only_failed": False}
    )

    assert cleared.status_code == 200, cleared.text
    until("the run ends again", lambda: (e := airflow.run(run_id)["end_date"]) and e != before)
    assert airflow.ended(run_id) == "success"
    assert story.owners(batches) == {(new, new)}
    assert [story.platform.document(b.batch_id) for b in batches] == documents


def test_a_wrong_setting_fails_a_run_in_its_first_task_and_nothing_is_consumed(
    airflow: Airflow, story: Story
):
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 1)
    event = story.platform.event(old, new, ORGANISATION)
    right = airflow.http.get("/connections/kafka_default").json()["extra"]
    wrong = json.dumps({**json.loads(right), "enable.auto.commit": "true"})
    _set_kafka(airflow, wrong)
    try:
        story.platform.emit(event)
        run_id = airflow.trigger()

        assert airflow.ended(run_id) == "failed"
        log = airflow.log(run_id, "pull_transfer_events")
        assert "Connection 'kafka_default' has enable.auto.commit=true, which loses events" in log
        assert airflow.tasks(run_id)["pull_transfer_events", -1]["try_number"] == 1
        assert story.state(event["mid"]) is None
    finally:
        _set_kafka(airflow, right)

    story.completed(event["mid"])
    assert story.owners(batches) == {(new, new)}


def _set_kafka(airflow: Airflow, extra: str) -> None:
    body = {"connection_id": "kafka_default", "conn_type": "kafka", "extra": extra}
    answer = airflow.http.patch("/connections/kafka_default", json=body)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("ownership.ledger check", "The ledger is ready"),
        ("ownership.health --kind part", "No problem of kind part."),
        ("ownership.edge.topics", ".user.ownership.transfer: exist"),
        ("ownership.edge.rehearsals --hours 0.001", "No dry run in the last"),
    ],
)
def test_a_command_of_a_shell_reads_the_connections_and_settings_that_are_in_airflow_s_database(
    airflow: Airflow, command: str, says: str
):
    environment = airflow_server.own_environment(airflow.stack.airflow_env)
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        env={**environment, "PYTHONPATH": str(REPOSITORY / "plugins")},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert says in done.stdout, done.stderr
