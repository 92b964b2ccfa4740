"""When Airflow counts as well again after a fault, by what its API answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from airflow.api.common import airflow_health
from airflow.api_fastapi.core_api.datamodels.monitor import HealthInfoResponse

from chaos import faults
from local.stack import Stack

RUNNERS = ("SchedulerJobRunner", "TriggererJobRunner", "DagProcessorJobRunner")


class Airflow:
    """Three parts with heartbeats, seconds before now; None: no database, "": no job. Health is Airflow's own answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *polls: dict[str, Any]) -> None:
        """What each look finds, one after the other: seconds by runner, or an HTTP status."""
        self.left = list(polls)
        self.started: list[str] = []
        self.servers = {n: Server(n, self) for n in ("api-server", "scheduler", "triggerer", "dag-processor")}
        self.stack = cast(
            "Stack",
            SimpleNamespace(
                servers=self.servers,
                parts=tuple(self.servers),
                addresses=SimpleNamespace(airflow="http://airflow"),
            ),
        )
        for runner in RUNNERS:
            job = SimpleNamespace(most_recent_job=lambda runner=runner: self.job(runner))
            monkeypatch.setattr(airflow_health, runner, job)
        monkeypatch.setattr("chaos.faults.httpx.get", self.answer)
        monkeypatch.setattr("local.servers.processes.time.sleep", lambda _: self.left.pop(0))

    def job(self, runner: str) -> Any:
        seconds = self.left[0].get(runner, -1)
        if seconds is None:
            raise ConnectionError
        if seconds == "":
            return None
        heartbeat = datetime.now(UTC) - timedelta(seconds=seconds)
        return SimpleNamespace(latest_heartbeat=heartbeat, is_alive=lambda: True)

    def answer(self, url: str, **_: Any) -> httpx.Response:
        assert url == "http://airflow/api/v2/monitor/health"
        body = HealthInfoResponse.model_validate(airflow_health.get_airflow_health())
        status = self.left[0].get("status", 200)
        request = httpx.Request("GET", url)
        content = body.model_dump_json() if status == 200 else "Internal Server Error"
        return httpx.Response(status, text=content, request=request)


class Server:
    """A process of Airflow."""

    def __init__(self, name: str, airflow: Airflow) -> None:
        self.name, self.airflow = name, airflow

    @property
    def running(self) -> bool:
        return self.name in self.airflow.started or self.name not in self.airflow.left[0].get("exited", ())

    def answers(self) -> bool:
        return self.name not in self.airflow.left[0].get("mute", ())

    def stop(self) -> None:
        pass

    def start(self) -> None:
        self.airflow.started.append(self.name)


def test_airflow_is_well_when_each_part_has_had_a_heartbeat_since(monkeypatch: pytest.MonkeyPatch) -> None:
    stale = [dict.fromkeys(RUNNERS, 20), *({runner: 20} for runner in RUNNERS)]
    airflow = Airflow(monkeypatch, *stale, {"mute": ["api-server"]}, {})
    faults.supervise(airflow.stack)
    assert airflow.left == [{}]
    assert airflow.started == []


@pytest.mark.parametrize(
    "away",
    [
        pytest.param(dict.fromkeys(RUNNERS), id="no database"),
        pytest.param({"TriggererJobRunner": ""}, id="a part that never ran"),
        pytest.param({"status": 500}, id="an error"),
    ],
)
def test_an_answer_without_heartbeats_is_awaited(
    monkeypatch: pytest.MonkeyPatch, away: dict[str, Any]
) -> None:
    airflow = Airflow(monkeypatch, away, {})
    faults.supervise(airflow.stack)
    assert airflow.left == [{}]


def test_a_part_that_exits_while_it_is_awaited_is_started_once(monkeypatch: pytest.MonkeyPatch) -> None:
    exits = {"exited": ["scheduler"], "SchedulerJobRunner": 20}
    airflow = Airflow(monkeypatch, {"SchedulerJobRunner": 20}, exits, exits, {})
    faults.supervise(airflow.stack)
    assert airflow.started == ["scheduler"]
