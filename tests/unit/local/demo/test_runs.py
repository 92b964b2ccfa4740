"""A run that is started by hand: what is asked of Airflow, what comes back, what is said when it does not."""

from __future__ import annotations

import re
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from local.demo.runs import RefusedError, carried_out
from local.servers.processes import NotReadyError
from local.stack import Addresses
from tests.unit.conftest import Request, Server

RUN_ID = "manual__2026-11-23T08:00:00+00:00"
CONF = {"mids": ["m1"], "dry_run": False}
SUMMARY = {"events": {"completed": 1}}


class Airflow:
    """Takes one run, which is running when it is first asked for, and `state` from then on."""

    def __init__(self, state: str, summary: dict[str, Any] | None, refusal: str = "") -> None:
        self.state, self.summary, self.refusal = state, summary, refusal
        self.asked = 0

    def __call__(self, request: Request, _handler: BaseHTTPRequestHandler) -> tuple[int, Any]:
        path = request.path.partition("?")[0]
        if path == "/auth/token":
            return 201, {"access_token": "t"}
        if (request.method, path) == ("POST", "/api/v2/dags/ownership_undo/dagRuns"):
            return (400, {"detail": self.refusal}) if self.refusal else (200, {"dag_run_id": RUN_ID})
        if path.endswith("/taskInstances/settle/xcomEntries/return_value"):
            return (200, {"value": self.summary}) if self.summary is not None else (404, {})
        assert path == "/api/v2/dags/ownership_undo/dagRuns/manual__2026-11-23T08%3A00%3A00%2B00%3A00"
        self.asked += 1
        state = "running" if self.asked == 1 else self.state
        return 200, {
            "run_type": "manual",
            "state": state,
            "start_date": "2026-11-23T08:00:00Z",
            "end_date": None if state == "running" else "2026-11-23T08:00:02.500Z",
        }


def addresses(url: str) -> Addresses:
    return Addresses("k", "c", "e", "l", "u", airflow=url, airflow_user="admin")


@pytest.mark.parametrize("state", ["success", "failed"])
def test_a_run_is_started_by_its_conf_awaited_and_its_summary_read(server: Server, state: str):
    server.answer = Airflow(state, SUMMARY)

    run, summary = carried_out(addresses(server.url), CONF, dag_id="ownership_undo", poll_s=0)

    (order,) = (r for r in server.requests if r.path.endswith("/dagRuns"))
    assert order.body == {"logical_date": None, "conf": CONF}
    assert (run.state, run.run_type, run.seconds, run.ended) == (state, "manual", 2.5, True)
    assert run.url == f"{server.url}/dags/ownership_undo/runs/manual__2026-11-23T08:00:00%2B00:00"
    assert summary == SUMMARY


def test_a_run_that_had_nothing_to_do_has_no_summary(server: Server):
    server.answer = Airflow("success", None)
    assert carried_out(addresses(server.url), CONF, dag_id="ownership_undo", poll_s=0)[1] == {}


def test_a_run_that_does_not_end_in_time_is_named_with_its_address(server: Server):
    server.answer = Airflow("running", None)
    address = re.escape(f"{server.url}/dags/ownership_undo/runs/manual__2026")
    with pytest.raises(NotReadyError, match=f"for the end of the run {address}"):
        carried_out(addresses(server.url), CONF, dag_id="ownership_undo", timeout_s=0.05, poll_s=0.01)


def test_a_conf_that_airflow_does_not_take_is_reported_in_its_own_words(server: Server):
    server.answer = Airflow("success", None, refusal="Invalid input for param mids")
    with pytest.raises(
        RefusedError, match=r"refused a run of ownership_undo: .*Invalid input for param mids"
    ):
        carried_out(addresses(server.url), CONF, dag_id="ownership_undo", poll_s=0)
