"""Which parts of Airflow do not run, as its API server says it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ownership.domain.errors import SettingsError, Unavailable
from ownership.domain.installation import Silent
from ownership.edge.api_server import REPORT, heard
from tests.fake_api_server import FakeApiServer, fake_api_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApiServer]:
    with fake_api_server() as fake:
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", f"{fake.url}/below/execution/")
        yield fake


def test_it_is_asked_where_tasks_reach_it(server: FakeApiServer) -> None:
    assert heard().silent == ()
    assert server.asked == ["/below/api/v2/monitor/health", "/below/ownership-transfers/report"]


def test_it_is_told_to_report_itself_where_the_page_has_that_route() -> None:
    from ownership.page.app import app
    from ownership.page.entry import PREFIX

    assert f"/{REPORT}" in {f"{PREFIX}{route.path}" for route in app.routes}  # type: ignore[attr-defined]  # each has one


def test_an_api_server_without_the_plugin_is_asked_for_its_parts_all_the_same(server: FakeApiServer) -> None:
    server.missing = f"/below/{REPORT}"
    server.answer["triggerer"] = {"status": None, "latest_triggerer_heartbeat": None}
    assert heard().silent == (Silent("triggerer"),)


def test_without_an_address_for_tasks_the_one_of_the_ui_is_asked(
    server: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", f"{server.url}/")
    assert heard().silent == ()


def test_a_part_without_a_heartbeat_is_silent_since_the_last_one_or_always(server: FakeApiServer) -> None:
    server.answer["triggerer"] = {
        "status": "unhealthy",
        "latest_triggerer_heartbeat": "1970-01-01T00:00:02.500000+00:00",
    }
    server.answer["dag_processor"] = {"status": None, "latest_dag_processor_heartbeat": None}
    assert heard().silent == (Silent("dag_processor"), Silent("triggerer", 2500))


def test_the_last_heartbeat_of_each_part_is_told_also_of_those_that_run(server: FakeApiServer) -> None:
    server.answer["scheduler"]["latest_scheduler_heartbeat"] = "1970-01-01T00:00:02.500000+00:00"
    assert heard() == ((), {"scheduler": 2500})


def test_without_its_database_airflow_knows_nothing_of_the_others(server: FakeApiServer) -> None:
    server.answer = {part: {"status": "unhealthy"} for part in server.answer}
    assert heard().silent == (Silent("metadatabase"),)


@pytest.mark.parametrize("answer", [{"detail": "Not Found"}, {"scheduler": "well"}, ["healthy"]])
def test_another_answer_is_no_health(server: FakeApiServer, answer: object) -> None:
    server.answer = answer
    with pytest.raises(Unavailable, match="Airflow's API server unavailable"):
        heard()


def test_an_api_server_that_does_not_answer_is_named_with_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with fake_api_server() as gone:
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", f"{gone.url}/execution/")
    with pytest.raises(Unavailable, match=f"is {gone.url}, from .* right"):
        heard()


def test_a_certificate_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "https://airflow.invalid/execution/")
    monkeypatch.setenv("AIRFLOW__API__SSL_CERT", "/nowhere.pem")
    with pytest.raises(SettingsError, match=r"\[api\] ssl_cert, /nowhere\.pem, cannot be read"):
        heard()
