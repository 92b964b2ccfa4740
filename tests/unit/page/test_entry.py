"""What the plugin registers."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from local.paths import REPOSITORY
from ownership.page.entry import EXTERNAL_VIEW, FASTAPI_APP, TransferLink


@pytest.mark.parametrize(
    ("dag_id", "leads_to"),
    [
        ("user_ownership_transfer", "?run=manual__1%2B2&one=1"),
        ("ownership_undo", "?run=manual__1%2B2&one=1"),
        ("ownership_approval", "?state=awaiting_approval"),
        ("somebody_else_s", ""),
    ],
)
def test_a_task_s_link_leads_to_the_transfers_of_its_run_and_other_dags_have_none(
    dag_id: str, leads_to: str
) -> None:
    key: Any = SimpleNamespace(dag_id=dag_id, run_id="manual__1+2", task_id="t", map_index=3)
    link = TransferLink().get_link(None, ti_key=key)  # type: ignore[arg-type]  # it does not look at the operator
    assert link == (leads_to and f"/plugin/ownership-transfers/ownership-transfers/{leads_to}")


def test_a_task_s_link_stays_below_the_path_of_the_api_server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://school.example/intranet/airflow/")
    key: Any = SimpleNamespace(dag_id="ownership_approval", run_id="manual__1", task_id="t", map_index=3)
    link = TransferLink().get_link(None, ti_key=key)  # type: ignore[arg-type]  # it does not look at the operator
    # Airflow's frame shows the address that follows the view's own.
    view, page = "/intranet/airflow/plugin/ownership-transfers", "/intranet/airflow/ownership-transfers/"
    assert link == f"{view}{page}?state=awaiting_approval"


def test_the_navigation_has_room_for_the_name_of_its_entry() -> None:
    assert EXTERNAL_VIEW["name"] == "Transfers"


def test_the_view_and_the_app_are_at_one_address() -> None:
    assert f"/{EXTERNAL_VIEW['href']}" == f"{FASTAPI_APP['url_prefix']}/"


def test_what_every_process_of_airflow_imports_knows_nothing_of_the_page_itself() -> None:
    code = (
        "import json, sys; sys.path.insert(0, 'plugins'); import airflow.sdk; before = set(sys.modules);"
        "import ownership.page.entry; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run(
        (sys.executable, "-c", code), cwd=REPOSITORY, check=True, capture_output=True, text=True, timeout=60
    )
    new = json.loads(done.stdout.splitlines()[-1])
    assert "ownership.page.entry" in new
    assert {m.split(".")[0] for m in new} & {
        "cassandra",
        "fastapi",
        "psycopg",
        "jinja2",
        "elasticsearch",
        "confluent_kafka",
    } == set()
