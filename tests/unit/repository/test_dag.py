"""What every DAG of the house must be, and what this one must be besides."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "dags").glob("*.py"))
DAG_IDS = [f.stem for f in FILES]
TAGS = {"ownership", "sunbird", "operators"}
OWNERS = {"platform"}
HEAVY = ("cassandra", "confluent_kafka", "elasticsearch", "elastic_transport", "pydantic", "httpx", "stamina")

LOOK = """
import importlib, json, sys
sys.path[:0] = ["plugins", "dags"]
import airflow.sdk
from airflow.sdk import BaseSensorOperator, DAG, RetryPolicy, task
import airflow.triggers.base
before = set(sys.modules)
imported = {}
for dag_id in sys.argv[1:]:
    importlib.import_module(dag_id)
    imported[dag_id] = sorted(set(sys.modules) - before)
    for name in imported[dag_id]:  # the next file imports what it needs itself
        del sys.modules[name]
print(json.dumps(imported))
"""


@pytest.fixture(scope="session")
def in_a_fresh_airflow(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    home = tmp_path_factory.mktemp("airflow")

    def run(code: str, *arguments: str) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")}
        environment |= {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins")}
        command = (sys.executable, "-c", code, *arguments)
        done = subprocess.run(
            command, env=environment, cwd=ROOT, check=False, timeout=120, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.splitlines()[-1]

    return run


SHOW = """
import json, logging, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization
sys.path.insert(0, "plugins")
bag = DagBag("dags", bundle_path=None)
dags = {}
for dag_id, dag in bag.dags.items():
    DagSerialization.to_dict(dag)
    dags[dag_id] = {
        "doc_md": dag.doc_md,
        "tags": sorted(dag.tags),
        "max_active_runs": dag.max_active_runs,
        "catchup": dag.catchup,
        "schedule": type(dag.timetable).__name__,
        "start_date": str(dag.start_date),
        "leaves": sorted(t.task_id for t in dag.leaves),
        "params": {name: {"value": dag.params[name], **dag.params.get_param(name).schema,
                          "described": bool(dag.params.get_param(name).description)} for name in dag.params},
        "tasks": {
            t.task_id: {
                "owner": t.owner,
                "retries": t.retries,
                "policy": type(getattr(t, "retry_policy", None)).__name__,
                "delay": t.retry_delay.total_seconds(),
                "backoff": t.retry_exponential_backoff,
                "timeout": t.execution_timeout.total_seconds() if t.execution_timeout else None,
                "sensor_timeout": getattr(t, "timeout", None),
                "poke_interval": getattr(t, "poke_interval", None),
                "mode": getattr(t, "mode", None),
                "trigger_rule": str(getattr(t.trigger_rule, "value", t.trigger_rule)),
                "label": getattr(t, "map_index_template", None),
                "rendered": list(t.template_fields),
                "multiple_outputs": getattr(t, "multiple_outputs", False),
                "downstream": sorted(t.downstream_task_ids),
                "doc": bool(t.doc_md or t.doc),
            }
            for t in dag.tasks
        },
    }
print(json.dumps({"errors": bag.import_errors, "dags": dags}))
"""


AHEAD = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.definitions._internal.dag_parsing_context import _airflow_parsing_context_manager
sys.path.insert(0, "plugins")
from ownership.edge import hooks
opened = []
hooks.open_ahead = lambda **what: opened.append([task_id, [name for name in what if what[name]]])
stages = ["transfer.lookup_users", "transfer.update_course_batches", "transfer.reindex_course_batches"]
for task_id in (None, "pull_transfer_events", *stages, "settle", "verdict"):
    with _airflow_parsing_context_manager(dag_id=task_id and "user_ownership_transfer", task_id=task_id):
        DagBag("dags/user_ownership_transfer.py", bundle_path=None)
print(json.dumps(opened))
"""


COLLECTOR = """
import gc, json, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.definitions._internal.dag_parsing_context import _airflow_parsing_context_manager
seldom = []
for task_id in (None, "settle"):
    for dag_id in sys.argv[1:]:
        gc.unfreeze()
        gc.set_threshold(700, 10, 10)
        with _airflow_parsing_context_manager(dag_id=dag_id, task_id=task_id):
            DagBag(f"dags/{dag_id}.py", bundle_path=None)
        if gc.get_freeze_count() and gc.get_threshold()[0] > 700:
            seldom.append([dag_id, task_id])
print(json.dumps(seldom))
"""


def test_the_garbage_collector_runs_seldom_in_the_process_of_a_task_and_in_no_other(
    in_a_fresh_airflow: Callable[..., str],
) -> None:
    reads_many_rows = ["user_ownership_transfer", "ownership_undo", "ownership_reconcile"]
    assert json.loads(in_a_fresh_airflow(COLLECTOR, *reads_many_rows)) == [
        [dag_id, "settle"] for dag_id in reads_many_rows
    ]


def test_the_parts_that_a_pull_or_a_stage_will_use_are_opened_at_the_parse_in_its_process_and_in_no_other(
    in_a_fresh_airflow: Callable[..., str],
) -> None:
    opened = json.loads(in_a_fresh_airflow(AHEAD))
    assert opened == [
        ["pull_transfer_events", ["rows"]],
        ["transfer.lookup_users", ["index", "services"]],
        ["transfer.update_course_batches", ["rows"]],
        ["transfer.reindex_course_batches", ["rows", "index"]],
    ]  # fmt: skip


@pytest.fixture(scope="session")
def bag(in_a_fresh_airflow: Callable[..., str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(in_a_fresh_airflow(SHOW))
    return found


@pytest.fixture
def dag(bag: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = bag["dags"]["user_ownership_transfer"]
    return found


def test_every_file_is_found_by_airflow_and_is_one_dag_of_its_own_name(bag: dict[str, Any]) -> None:
    assert bag["errors"] == {}
    assert sorted(bag["dags"]) == DAG_IDS


@pytest.mark.parametrize("dag_id", DAG_IDS)
def test_a_dag_keeps_the_rules_of_the_house(bag: dict[str, Any], dag_id: str) -> None:
    parsed = bag["dags"][dag_id]
    assert len(parsed["doc_md"]) > 300
    assert parsed["tags"]
    assert set(parsed["tags"]) <= TAGS
    assert 1 <= parsed["max_active_runs"] <= 32
    assert parsed["catchup"] is False
    assert {t["owner"] for t in parsed["tasks"].values()} <= OWNERS
    assert all(p["described"] for p in parsed["params"].values())


@pytest.mark.parametrize("dag_id", ["user_ownership_transfer", "ownership_undo"])
def test_a_result_is_one_call_to_the_api_server(bag: dict[str, Any], dag_id: str) -> None:
    assert [n for n, t in bag["dags"][dag_id]["tasks"].items() if t["multiple_outputs"]] == []


@pytest.mark.parametrize("dag_id", ["user_ownership_transfer", "ownership_undo"])
def test_a_stage_has_no_argument_that_airflow_resolves_and_stores_before_it_begins(
    bag: dict[str, Any], dag_id: str
) -> None:
    stages = [t for n, t in bag["dags"][dag_id]["tasks"].items() if n.startswith("transfer.")]
    assert [(t["rendered"], t["doc"], "task.slice_label" in t["label"]) for t in stages] == [
        ([], True, True)
    ] * 3


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_dag_file_only_wires(file: Path) -> None:
    manual, code = re.fullmatch(r'(?s)(""".*?""")(.*)', file.read_text()).groups()  # type: ignore[union-attr]  # None fails the test
    assert len(code.splitlines()) < 150
    assert len(manual.splitlines()) > 5
    assert "Variable" not in code


@pytest.fixture(scope="session")
def imported(in_a_fresh_airflow: Callable[..., str]) -> dict[str, list[str]]:
    """By DAG: the modules that its file imports beyond Airflow's own."""
    found: dict[str, list[str]] = json.loads(in_a_fresh_airflow(LOOK, *DAG_IDS))
    return found


@pytest.mark.parametrize("dag_id", DAG_IDS)
def test_parsing_a_dag_file_imports_nothing_heavy_beyond_airflow_itself(
    imported: dict[str, list[str]], dag_id: str
) -> None:
    new = imported[dag_id]
    assert dag_id in new
    assert [m for m in new if m.split(".")[0] in HEAVY] == []
    ours = {m for m in new if m.startswith("ownership")}
    assert not ours & {
        "ownership.domain.event",
        "ownership.domain.contracts",
        "ownership.stages.parts",
        "ownership.edge.hooks",
    }


def test_nothing_can_be_started_without_a_valid_default(dag: dict[str, Any]) -> None:
    values = {name: p["value"] for name, p in dag["params"].items()}
    assert values == {
        **dict.fromkeys(("from_user", "to_user", "organisation_id", "reason", "requested_by")),
        **dict.fromkeys(("execute_plan", "digest", "approve", "decline", "redrive", "abandon")),
        "events": [],
        "course_ids": [],
        "roles": ["created", "mentored"],
        "statuses": [0, 1],
        "dry_run": False,
    }


def test_an_untouched_form_asks_for_nothing(bag: dict[str, Any]) -> None:
    from ownership.domain.conf import ConfError, manual_events, orders, undo_order

    values = {
        dag_id: {name: p["value"] for name, p in bag["dags"][dag_id]["params"].items()} for dag_id in DAG_IDS
    }
    main = values["user_ownership_transfer"]
    assert manual_events(main, run_id="r", at_ms=1) == []
    assert not any(orders(main))
    with pytest.raises(ConfError, match="give one of mids, run_id"):
        undo_order(values["ownership_undo"])
    assert values["ownership_undo"]["dry_run"] is True


def test_every_field_of_a_form_is_typed_and_bounded_and_stands_in_a_section_under_a_title(
    bag: dict[str, Any],
) -> None:
    for dag_id in ("user_ownership_transfer", "ownership_undo", "ownership_reconcile"):
        for name, param in bag["dags"][dag_id]["params"].items():
            assert param["section"], name
            assert param["title"], name
            types = {param["type"]} if isinstance(param["type"], str) else set(param["type"])
            assert types <= {"null", "string", "boolean", "integer", "array", "object"}, name
            assert "array" not in types or "maxItems" in param, name
            assert "string" not in types or {"maxLength", "pattern"} & set(param), name


def test_the_params_are_those_that_the_conf_knows(bag: dict[str, Any], dag: dict[str, Any]) -> None:
    from ownership.domain.conf import KNOWN, MAX_EVENTS, Undo

    assert set(dag["params"]) == set(KNOWN)
    assert set(bag["dags"]["ownership_undo"]["params"]) == set(Undo.model_fields)
    assert dag["params"]["events"]["maxItems"] == MAX_EVENTS


def test_the_example_in_the_manual_is_a_valid_conf(dag: dict[str, Any]) -> None:
    from ownership.domain.conf import manual_events

    example = next(line for line in dag["doc_md"].splitlines() if line.startswith("    {"))
    assert len(manual_events(json.loads(example), run_id="r", at_ms=1_767_225_601_000)) == 1


def test_the_manual_names_every_stage_that_can_be_red(dag: dict[str, Any]) -> None:
    for word in ("pull", "lookup", "update", "reindex", "settle"):
        assert f"{word} red" in dag["doc_md"] or f"`{word}`" in dag["doc_md"]


def test_the_form_of_the_reconciliation_is_what_its_conf_knows_and_repairs_nothing_untouched(
    bag: dict[str, Any],
) -> None:
    from ownership.reconcile.run import ReconcileConf

    params = bag["dags"]["ownership_reconcile"]["params"]
    assert set(params) == set(ReconcileConf.model_fields)
    untouched = {name: p["value"] for name, p in params.items() if p["value"] is not None}
    assert ReconcileConf.of(untouched) == ReconcileConf()
    for name, p in params.items():
        if "integer" in p["type"]:
            for edge in (p["minimum"], p["maximum"]):
                assert getattr(ReconcileConf.of({name: edge}), name) == edge


def test_a_reconciliation_looks_both_ways_and_reports_whatever_became_of_it(bag: dict[str, Any]) -> None:
    parsed = bag["dags"]["ownership_reconcile"]
    assert {t: v["downstream"] for t, v in parsed["tasks"].items()} == {
        "plan_ranges": ["reconcile_range", "unproven"],
        "reconcile_range": ["report"],
        "unproven": ["report"],
        "report": ["verdict"],
        "verdict": [],
    }
    assert parsed["leaves"] == ["verdict"]
    assert parsed["schedule"] == "CronTriggerTimetable"
    assert parsed["max_active_runs"] == 1
    rules = {n: t["trigger_rule"] for n, t in parsed["tasks"].items()}
    assert rules.pop("report") == "all_done"
    assert set(rules.values()) == {"all_success"}
    assert {n for n, t in parsed["tasks"].items() if not t["retries"]} == {"verdict"}
    for name in parsed["tasks"]:
        assert f"{name} " in f"{parsed['doc_md']} report ".replace("*", " ").replace("`", " ")


def test_time_or_messages_start_it(dag: dict[str, Any]) -> None:
    assert dag["schedule"] == "AssetOrTimeSchedule"
    assert "+00:00" in dag["start_date"]


def test_asset_runs_do_not_wait_for_a_backfill_to_end(dag: dict[str, Any]) -> None:
    assert dag["max_active_runs"] > 10


def test_the_tasks_are_those_of_the_design_in_their_order(dag: dict[str, Any]) -> None:
    assert {t: v["downstream"] for t, v in dag["tasks"].items()} == {
        "pull_transfer_events": ["settle", "transfer.lookup_users"],
        "transfer.lookup_users": ["transfer.update_course_batches"],
        "transfer.update_course_batches": ["transfer.reindex_course_batches"],
        "transfer.reindex_course_batches": ["settle"],
        "settle": ["verdict"],
        "verdict": [],
    }
    assert dag["leaves"] == ["verdict"]


def test_every_task_that_can_fail_for_a_while_is_tried_again(dag: dict[str, Any]) -> None:
    from ownership.edge.retries import RETRIES

    retries = {name: t["retries"] for name, t in dag["tasks"].items()}
    stages = [n for n in retries if n.startswith("transfer.")]
    assert len(stages) == 3
    assert all(retries[n] == RETRIES for n in stages)
    assert retries["pull_transfer_events"] >= 1
    assert retries["settle"] >= 1
    assert retries["verdict"] == 0
    assert {t["policy"] for n, t in dag["tasks"].items() if n != "verdict"} == {"TransferRetries"}
    # For a try that died with its worker nobody asks the policy, and Airflow's own delay is five minutes.
    assert {(t["delay"], t["backoff"]) for n, t in dag["tasks"].items() if n != "verdict"} == {(3.0, 2.0)}


def test_no_task_of_any_dag_can_last_for_ever(bag: dict[str, Any]) -> None:
    limits = {
        f"{dag_id}.{name}": task["timeout"]
        for dag_id in DAG_IDS
        for name, task in bag["dags"][dag_id]["tasks"].items()
    }
    assert len(limits) > len(DAG_IDS)
    wrong = {name: limit for name, limit in limits.items() if not limit or not 60 <= limit <= 24 * 3600}
    assert wrong == {}


def test_a_pull_is_a_sensor_that_pokes_often_and_not_for_long(bag: dict[str, Any]) -> None:
    pulls = [
        task
        for dag_id in DAG_IDS
        for name, task in bag["dags"][dag_id]["tasks"].items()
        if name.startswith("pull_")
    ]
    assert len(pulls) == 2
    for pull in pulls:
        assert (pull["mode"], pull["poke_interval"] < 1) == ("poke", True)
        assert pull["poke_interval"] < pull["sensor_timeout"] <= 60 < pull["timeout"]


def test_claims_are_released_whatever_became_of_the_stages(dag: dict[str, Any]) -> None:
    rules = {n: t["trigger_rule"] for n, t in dag["tasks"].items()}
    assert rules.pop("settle") == "all_done"
    assert set(rules.values()) == {"all_success"}
