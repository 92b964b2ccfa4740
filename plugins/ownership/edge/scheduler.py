"""A scheduler tells the ledger of itself when a run begins, so that health knows its clock and its secret.

Airflow calls a plugin's listener in the scheduler's own loop, with a session of that loop bound to its thread
(https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/listeners.html). So the report has
a thread of its own, and the loop waits for it a moment only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from airflow.listeners import hookimpl

from ownership.domain.errors import OwnershipError
from ownership.domain.installation import HostKind
from ownership.edge.hosts import report, token_secret
from ownership.edge.ledger_hook import opened_database
from ownership.ledger.hosts import EVERY_SECONDS

PATIENCE_S = 2.0
"""How long the scheduler waits for its report."""


def report_scheduler() -> None:
    """Report this host. A ledger that is away, or that has no Connection here, is let be."""
    with suppress(OwnershipError), opened_database(connections=1) as database:
        report(database, HostKind.SCHEDULER, token_secret())


class SchedulerListener:
    """Reports the scheduler in which it is called."""

    def __init__(
        self,
        report: Callable[[], None] = report_scheduler,
        clock: Callable[[], float] = time.monotonic,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._report, self._clock, self._patience_s = report, clock, patience_s
        self._report_at = float("-inf")
        self._thread = threading.Thread()

    @hookimpl
    def on_dag_run_running(self) -> None:
        """Report, once in `EVERY_SECONDS`; not while the last report is still under way."""
        now = self._clock()
        if now < self._report_at or self._thread.is_alive():
            return
        self._report_at = now + EVERY_SECONDS
        self._thread = threading.Thread(target=self._report, name="ownership-report", daemon=True)
        self._thread.start()
        self._thread.join(self._patience_s)
