"""The running Airflow, and people and batches of each test's own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from local.paths import REPOSITORY
from local.servers import airflow as airflow_server
from local.servers.ports import HOST
from local.stack import Stack
from tests.e2e.airflow_world import Airflow, StatsdReceiver, Story, opened_story, passwords_in_connections

HERE = Path(__file__).parent
STACK = pytest.StashKey[Stack]()
"""The stack whose Airflow runs."""
NORTH, SOUTH = "north-admin", "south-admin"
"""Users of an organisation's each. The simple auth manager takes its roles in any case, rights tell cases apart."""
ADMINS = {NORTH: "User", SOUTH: "USER"}
EXAMPLES = str(REPOSITORY / "docs/examples")


@pytest.fixture(scope="session")
def statsd() -> Iterator[StatsdReceiver]:
    """What the session's Airflow counts."""
    receiver = StatsdReceiver()
    yield receiver
    receiver.close()


def admins_of_organisations(environment: Mapping[str, str]) -> dict[str, str]:
    """Two more users of Airflow, and the setting that shows each of them one organisation."""
    settings = "AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER"
    rights = [
        *({"role": role, "organisations": "*"} for role in airflow_server.ROLES.values()),
        *({"role": role, "organisations": [f"org-{user}"]} for user, role in ADMINS.items()),
    ]
    users = airflow_server.ROLES | ADMINS
    return {
        settings: json.dumps({**json.loads(environment[settings]), "page.organisations": rights}),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{u}:{role}" for u, role in users.items()),
    }


@pytest.fixture(scope="session")
def airflow_stack(request: pytest.FixtureRequest, stack: Stack, statsd: StatsdReceiver) -> Stack:
    """The session's servers with Airflow on them.

    It has the example DAGs of the docs, and passwords in its Connections: every test leaves traces of them where they
    do not belong, if one does.
    """
    bundles = [
        {
            "name": name,
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": kwargs,
        }
        for name, kwargs in (("dags-folder", {}), ("examples", {"path": EXAMPLES}))
    ]
    of_airflow = {
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",  # no file changes meanwhile
        "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "2",  # of questions that nobody answers, too
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": HOST,
        "AIRFLOW__METRICS__STATSD_PORT": str(statsd.port),
    }
    own = dict(stack.airflow_env)
    stack.airflow_env |= of_airflow | admins_of_organisations(own) | passwords_in_connections(own)
    stack.start_airflow()
    request.config.stash[STACK] = stack
    # This process runs the job with them, too.
    stack.airflow_env |= own
    for name in of_airflow:
        del stack.airflow_env[name]
    return stack


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Airflow ends with the last test here: it would look for work until the worker of the tests has done the rest.

    Only with several workers, who come back to none of these files: see `tests/dealing.py`.
    """
    last = nextitem is not None and not nextitem.path.is_relative_to(HERE)
    if last and hasattr(item.config, "workerinput") and (stack := item.config.stash.get(STACK, None)):
        stack.stop_airflow()


@pytest.fixture(scope="session")
def airflow(airflow_stack: Stack) -> Iterator[Airflow]:
    """The running Airflow."""
    with Airflow.opened(airflow_stack) as running:
        yield running


@pytest.fixture
def story(airflow_stack: Stack) -> Iterator[Story]:
    """Users and batches that no other test has."""
    with opened_story(airflow_stack) as story:
        yield story
