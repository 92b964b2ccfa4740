"""A look asks Airflow's API server too; these tests have no Airflow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fake_api_server import FakeApiServer, fake_api_server
from tests.integration.stages.transfer_world import World


@pytest.fixture(autouse=True)
def api_server(monkeypatch: pytest.MonkeyPatch, environment: object) -> Iterator[FakeApiServer]:  # set before
    """Says that every part of Airflow runs, unless a test has it say something else."""
    with fake_api_server() as fake:
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", f"{fake.url}/execution/")
        yield fake


@pytest.fixture
def world(environment: dict[str, Any], own_world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world of its own, to which the Connections and the Variable of this process lead."""
    monkeypatch.setenv("AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER", json.dumps({"env": own_world.env}))
    own_world.lead_to_ledger(environment, monkeypatch)
    return own_world
