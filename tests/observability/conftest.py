"""Programs of `make tools`, started on free ports, and what a fresh Airflow process sends to them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from local.paths import REPOSITORY
from local.servers.layout import Layout
from local.servers.ports import HOST
from local.servers.processes import Server, child_environment
from tests.needs import needed

FOLDER = REPOSITORY / "deploy" / "observability"

# Every function of ownership/edge/metrics.py, each figure another one.
SENDS = """
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils
stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)  # Airflow's default
from ownership.edge import metrics
from ownership.domain.backlog import BacklogFacts, HeldBack, QueueFacts
from ownership.domain.compare import LABELS
from ownership.domain.contracts import Pulled
from ownership.domain.proven import ProvenCounts
metrics.pulled(Pulled(received=101, rejected=102, known=103, follow_ups=104, lost=135))
metrics.settled(
    {"completed": 105, "skipped": 106, "failed": 107, "rehearsed": 108, "declined": 109, "awaiting_approval": 110},
    {"moved": 111, "changed_elsewhere": 112},
)
metrics.users_read(113)
metrics.reconciled(114, 115, dict(zip(LABELS, range(116, 122), strict=True)))
metrics.reconciliation_ended(left=122, in_flight=123, repaired=124)
metrics.problems(125)
metrics.proven(ProvenCounts(in_time=39, late=1))
metrics.backlog(BacklogFacts(126, 0, held_back=(HeldBack(0, 136, 0),), retention_share=0.25), 128, 127_500)
metrics.queue(QueueFacts(129, 130, 131, 132, 1_000, ("late",) * 133), 135_500)
metrics.lag(12_500)
for state, milliseconds in (("failed", 2_500), ("success", 7_500)):
    stats.timing(f"dagrun.duration.{state}", milliseconds, tags={"dag_id": "user_ownership_transfer"})
    stats.timing(f"dagrun.duration.{state}", milliseconds, tags={"dag_id": "another_s"})
"""
COUNTERS = {
    "ownership_accepted_events_total": 101,
    "ownership_rejected_messages_total": 102,
    "ownership_known_messages_total": 103,
    "ownership_lost_messages_total": 135,
    "ownership_follow_up_events_total": 104,
    'ownership_transfer_events_total{outcome="completed"}': 105,
    'ownership_transfer_events_total{outcome="skipped"}': 106,
    'ownership_transfer_events_total{outcome="failed"}': 107,
    'ownership_transfer_events_total{outcome="rehearsed"}': 108,
    'ownership_transfer_events_total{outcome="declined"}': 109,
    'ownership_transfer_events_total{outcome="awaiting_approval"}': 110,
    "ownership_moved_rows_total": 111,
    "ownership_conflicting_batches_total": 112,
    "ownership_user_reads_total": 113,
    "ownership_reconcile_rows_total": 114,
    "ownership_reconcile_documents_total": 115,
    'ownership_reconcile_differences_total{kind="stale_owner"}': 116,
    'ownership_reconcile_differences_total{kind="stale_mentors"}': 117,
    'ownership_reconcile_differences_total{kind="missing_document"}': 118,
    'ownership_reconcile_differences_total{kind="orphan_document"}': 119,
    'ownership_reconcile_differences_total{kind="unproven"}': 120,
    'ownership_reconcile_differences_total{kind="unmoved"}': 121,
    "ownership_reconcile_in_flight_differences_total": 123,
    "ownership_reconcile_repaired_documents_total": 124,
}
GAUGES = {
    "ownership_reconcile_differences_left": 122,
    "ownership_health_problems": 125,
    "ownership_proven_in_time_share": 0.975,
    "ownership_due_events": 40,
    "ownership_backlog_messages": 126,
    "ownership_backlog_age_seconds": 127.5,
    "ownership_held_back_messages": 136,
    "ownership_backlog_retention_share": 0.25,
    "ownership_dead_letters": 128,
    "ownership_open_events": 129,
    "ownership_claims_held": 130,
    "ownership_blocked_events": 131,
    "ownership_awaiting_approval_events": 132,
    "ownership_overdue_events": 133,
    "ownership_oldest_open_event_seconds": 134.5,
}
TIMERS = {  # sum and count
    "ownership_event_to_proven_seconds": (12.5, 1),
    'airflow_dagrun_duration_seconds{dag_id="user_ownership_transfer",state="failed"}': (2.5, 1),
    'airflow_dagrun_duration_seconds{dag_id="user_ownership_transfer",state="success"}': (7.5, 1),
}


def sent(*, home: Path, script: str = SENDS, **settings: str) -> None:
    """Run a script in a fresh Airflow process that is configured as an operator would."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "OTEL_"))}
    done = subprocess.run(
        (sys.executable, "-c", script),
        env={
            **ours,
            "AIRFLOW_HOME": str(home),
            "PYTHONPATH": str(REPOSITORY / "plugins"),
            "NO_PROXY": HOST,
            "no_proxy": HOST,
            **settings,
        },
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def fetched(url: str) -> str:
    """What a server of this machine answers."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=5) as answer:
        text: str = answer.read().decode()
    return text


def answers(url: str) -> bool:
    """Whether it does at all; a receiver that has received nothing has nothing to say."""
    try:
        fetched(url)
    except OSError:
        return False
    return True


def metrics_of(text: str) -> tuple[dict[str, float], dict[str, str]]:
    """Values by name and labels, in Prometheus' own text, and the type by name."""
    values = re.findall(r"(?m)^(\w+(?:\{.*\})?) (\S+)$", text)
    types = re.findall(r"(?m)^# TYPE (\w+) (\w+)$", text)
    return {name: float(value) for name, value in values}, dict(types)


def part(series: str, suffix: str) -> str:
    """The series of a histogram's sum or count."""
    name, brace, labels = series.partition("{")
    return f"{name}{suffix}{brace}{labels}"


Starts = Callable[..., Server]


@pytest.fixture
def layout(spare_directory: Path) -> Layout:
    return Layout.of(spare_directory)


@pytest.fixture
def starts(layout: Layout) -> Iterator[Starts]:
    """Starts a program and waits until it answers; all of them are stopped after the test."""
    with ExitStack() as stack:

        def start(name: str, *arguments: str, health: str, **environment: str) -> Server:
            server = Server(
                name=name,
                command=(needed(name), *arguments),
                directory=layout.data(name),
                log_file=layout.log(name),
                pid_file=layout.pid(name),
                address=health,
                answers=lambda: answers(health),
                environment=child_environment(**environment),
                ready_within_s=30,
            )
            stack.callback(server.stop)
            server.start()
            server.wait_ready()
            return server

        yield start
