"""The running Airflow, and people and batches of each test's own."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from local.platform.world import Platform
from local.stack import Stack
from tests.e2e.airflow_world import Airflow, Story


@pytest.fixture(scope="session")
def airflow(airflow_stack: Stack) -> Iterator[Airflow]:
    """The running Airflow."""
    with Airflow.opened(airflow_stack) as running:
        yield running


@pytest.fixture
def story(airflow_stack: Stack) -> Iterator[Story]:
    """Users and batches that no other test has."""
    a = airflow_stack.addresses
    with Platform(cassandra=a.cassandra, elasticsearch=a.elasticsearch, kafka=a.kafka, env="dev") as platform:
        yield Story(platform, uuid4().hex[:8], a.ledger)
