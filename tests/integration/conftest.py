"""The job on real servers, without Airflow.

`world` is shared by the tests of a module: each has users and batches of its own, leaves the queue empty, and ends
with rows and documents in agreement. `own_world` is for a test that counts or breaks what a module shares.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from local.servers import cassandra, search
from local.servers.ports import HOST
from local.servers.releases import KNOWN
from local.stack import Stack
from ownership.edge import topics
from ownership.platform import kafka
from tests.harness import Job
from tests.integration.stages.transfer_world import Faults, World, opened_faults, opened_world


def contract_of(part: str) -> list[str]:
    """The releases of a part that its contract tests run on: all, or the one that the environment chooses."""
    asked = os.environ.get(f"{part.upper()}_SERVER")
    return [asked] if asked else list(KNOWN[part])


@pytest.fixture(scope="module", params=contract_of("search"))
def search_server(request: pytest.FixtureRequest, stack: Stack) -> Iterator[str]:
    """URL of a search server; one release after the other, so that only one runs beside the stack."""
    if request.param == stack.releases.search:
        yield stack.addresses.elasticsearch
        return
    with search.server(stack.layout, request.param) as server:
        yield server.address
        server.kill()  # nobody reads its data again


@pytest.fixture(scope="module", params=contract_of("rows"))
def rows_server(request: pytest.FixtureRequest, stack: Stack) -> Iterator[str]:
    """Address of a Cassandra; one release after the other."""
    if request.param == stack.releases.rows:
        yield stack.addresses.cassandra
        return
    with cassandra.server(stack.layout, request.param) as server:
        yield server.address
        server.kill()


@pytest.fixture(scope="module")
def module_world(stack: Any) -> Iterator[World]:
    with opened_world(stack.addresses) as world:
        yield world


@pytest.fixture
def world(module_world: World) -> Iterator[World]:
    module_world.made, module_world.hidden = [], set()
    yield module_world
    left = module_world.job.open_mids()
    module_world.check_stores()
    assert left == []


@pytest.fixture
def own_world(stack: Any) -> Iterator[World]:
    with opened_world(stack.addresses) as world:
        yield world
        world.check_stores()


@pytest.fixture
def job(world: World) -> Job:
    return world.job


@pytest.fixture
def lms(stack: Any) -> Iterator[Faults]:
    with opened_faults(stack.addresses.lms) as faults:
        yield faults


@pytest.fixture
def userorg(stack: Any) -> Iterator[Faults]:
    with opened_faults(stack.addresses.userorg) as faults:
        yield faults


@pytest.fixture
def environment(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The stack's connections in this process; a test changes what it wants wrong."""
    for name, value in stack.airflow_env.items():
        if name.startswith("AIRFLOW"):
            monkeypatch.setenv(name, value)
    return {n: json.loads(v) for n, v in stack.airflow_env.items() if n.startswith("AIRFLOW_CONN_")}


@pytest.fixture
def nowhere(
    environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, dead_port: int
) -> Callable[[str], None]:
    """Lets a connection of this process lead to a port at which nobody answers.

    Kafka's client waits for a broker to its time-out: here a shorter one.
    """
    for module in (kafka, topics):
        monkeypatch.setattr(module, "SECONDS", 2.0)

    def lead(name: str) -> None:
        key = f"AIRFLOW_CONN_{name.upper()}_DEFAULT"
        wrong = environment[key]
        if name == "kafka":
            wrong["extra"]["bootstrap.servers"] = f"{HOST}:{dead_port}"
        else:
            wrong |= {"host": HOST, "port": dead_port}
        monkeypatch.setenv(key, json.dumps(wrong))

    return lead
