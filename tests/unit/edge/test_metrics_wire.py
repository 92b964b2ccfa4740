"""One fresh Airflow, configured as an operator would, and what arrives at its StatsD."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

PLUGINS = Path(__file__).parents[3] / "plugins"
SENDS = """
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils
stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)  # as the task runner does
from ownership.domain.backlog import BacklogFacts
from ownership.domain.contracts import Pulled
from ownership.edge import metrics
metrics.pulled(Pulled(received=3))
metrics.settled({"completed": 2}, {"moved": 140})
metrics.backlog(BacklogFacts(7, retention_share=0.5), None, 0)
metrics.lag(12.5)
"""


def test_the_names_arrive_at_statsd_as_they_are(tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(2)
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")},
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(receiver.getsockname()[1]),
            "PYTHONPATH": str(PLUGINS),
        }
        subprocess.run((sys.executable, "-c", SENDS), env=environment, check=True, timeout=120)
        got: set[str] = set()
        while len(got) < 8:
            line = receiver.recv(1024).decode()
            if "ownership" in line:  # Airflow counts for itself too
                got.add(line)
    assert got == {
        "airflow.ownership.total-transfer-events-count:3|c",
        "airflow.ownership.success-message-count:2|c",
        "airflow.ownership.db-update-success-count:140|c",
        "airflow.ownership.backlog-messages:7|g",
        "airflow.ownership.backlog-age-seconds:0|g",
        "airflow.ownership.held-back-messages:0|g",
        "airflow.ownership.backlog-retention-share:0.5|g",
        "airflow.ownership.event-to-proven:12.500000|ms",
    }
