"""What the tests share: one set of real servers for a session; `tests/e2e` adds Airflow to it.

A part whose address is set in the environment (KAFKA, CASSANDRA, ELASTICSEARCH, LEDGER, LMS, USERORG) is used instead
of started. SEARCH_SERVER, ROWS_SERVER and KAFKA_SERVER choose releases.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.paths import TEST_STACKS
from local.platform import versions
from local.servers.ports import HOST
from local.servers.releases import Releases
from local.stack import Stack, claim, given_from_environment
from tests.dealing import ByServers


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServers:
    """With `-n 2`, as `make test` has it."""
    config.option.loadscopereorder = False  # in the order of the folders
    return ByServers(config, log)


def pytest_configure() -> None:
    """Refuse an unknown server before the first test, and let Java compile once.

    Servers that live for minutes and do little spend half of their first minute on a second, better compilation.
    """
    try:
        Releases.from_environment()
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")


def pytest_collection_finish() -> None:
    """Keep the garbage collector from what the tests have imported: it walks through all of Airflow again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


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


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that refuses connections, held so that no server takes it while the test runs."""
    with socket.socket() as held:
        held.bind((HOST, 0))
        yield int(held.getsockname()[1])


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
            "grace.ms": 300,  # every run waits for it
        },
    )
    with started:
        if request.config.getoption("xmlpath"):  # the table of `make matrix` shows them
            log = started.layout.log(started.releases.kafka)
            record_testsuite_property("search", versions.of_search(started.addresses.elasticsearch))
            record_testsuite_property("rows", versions.of_rows(started.addresses.cassandra))
            record_testsuite_property("kafka", versions.of_kafka(log))
        yield started
        for name in ("kafka", "cassandra", "elasticsearch"):
            if server := started.servers.get(name):
                server.stop_signal = signal.SIGKILL  # nobody reads its data again
