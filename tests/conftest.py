"""What the tests share: one set of real servers for a session, Airflow on top of it when a test asks for it.

A part whose address is set in the environment (KAFKA, CASSANDRA, ELASTICSEARCH, LEDGER, LMS, USERORG) is used instead
of started. SEARCH_SERVER, ROWS_SERVER and KAFKA_SERVER choose releases.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.paths import REPOSITORY, TEST_STACKS
from local.platform import versions
from local.servers.releases import Releases
from local.stack import Stack, claim, given_from_environment


def pytest_configure() -> None:
    """Refuse an unknown server before the first test."""
    try:
        Releases.from_environment()
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session")
def stack_directory(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Where this session's servers keep their data; kept for a look at the logs when a test failed.

    It lies where `make down` finds what an interrupted session left.
    """
    directory = TEST_STACKS / str(os.getpid())
    claim(directory)
    yield directory
    if not request.session.testsfailed:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def spare_directory(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The same for servers of one test's own."""
    directory = TEST_STACKS / f"{os.getpid()}-{abs(hash(request.node.nodeid)):x}"
    claim(directory)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def stack(
    request: pytest.FixtureRequest,
    stack_directory: Path,
    record_testsuite_property: Callable[[str, str], None],
) -> Iterator[Stack]:
    """Kafka, the stores, PostgreSQL and both stand-ins, with the platform's and the job's tables and topics."""
    started = Stack(
        stack_directory,
        airflow=False,
        releases=Releases.from_environment(),
        given=given_from_environment(),
        settings={
            "env": "dev",
            "claim.seconds": 20,  # another run takes the events of a dead one while a test waits
        },
    )
    with started:
        if request.config.getoption("xmlpath"):  # the table of `make matrix` shows them
            log = started.layout.log(started.releases.kafka)
            record_testsuite_property("search", versions.of_search(started.addresses.elasticsearch))
            record_testsuite_property("rows", versions.of_rows(started.addresses.cassandra))
            record_testsuite_property("kafka", versions.of_kafka(log))
        yield started


@pytest.fixture(scope="session")
def airflow_stack(stack: Stack) -> Stack:
    """The same stack with Airflow running on it; it has the example DAGs of the docs, too."""
    examples = {"path": str(REPOSITORY / "docs/examples")}
    stack.airflow_env["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] = json.dumps(
        [
            {
                "name": name,
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": kwargs,
            }
            for name, kwargs in (("dags-folder", {}), ("examples", examples))
        ]
    )
    stack.start_airflow()
    return stack
