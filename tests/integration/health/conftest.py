"""A look asks Airflow's API server too; these tests have no Airflow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fake_api_server import FakeApiServer, fake_api_server


@pytest.fixture(autouse=True)
def api_server(monkeypatch: pytest.MonkeyPatch, environment: object) -> Iterator[FakeApiServer]:  # set before
    """Says that every part of Airflow runs, unless a test has it say something else."""
    with fake_api_server() as fake:
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", f"{fake.url}/execution/")
        yield fake
