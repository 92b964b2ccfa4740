"""When Airflow tries a task again, by the job's error tree."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryDecision, RetryPolicy

from ownership.domain.errors import Permanent
from ownership.edge.versions import missing

if TYPE_CHECKING:
    from airflow.sdk import Context

if not TYPE_CHECKING:
    __getattr__ = missing

RETRIES = 9
"""Retries of a stage: after 10 s to a quarter of an hour each, about 50 minutes in all."""
FIRST_SECONDS = 10.0
LAST_SECONDS = 900.0
AFTER_DEATH: Mapping[str, Any] = {
    "retry_delay": timedelta(seconds=3),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(seconds=LAST_SECONDS),
}
"""For a try that Airflow found dead, or could not hand to a worker: no policy is asked, and Airflow's own delay is five
minutes. A worker that died is no reason to wait; a broker that is away is one to wait longer each time."""


def delay_seconds(seed: str, try_number: int) -> float:
    """Seconds before the try after `try_number` (1-based): doubling, with ±25 % jitter.

    The jitter follows from `seed` (run, task and map index): instances do not retry in the same moment, and a stage
    can compute the delay that its claim must outlive.
    """
    jitter = random.Random(f"{seed}:{try_number}").random()
    return float(min(LAST_SECONDS, FIRST_SECONDS * 2 ** min(try_number - 1, 10)) * (0.75 + 0.5 * jitter))


def seed_of(context: Context) -> str:
    """A seed that no other task instance has."""
    ti = context["ti"]
    return f"{ti.run_id}:{ti.task_id}:{ti.map_index}"


class TransferRetries(RetryPolicy):
    """Permanent errors fail at once; everything else backs off exponentially."""

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,  # noqa: ARG002  # Airflow applies its own limit
        context: Context | None = None,
    ) -> RetryDecision:
        """Decide, in the task's process, after the exception."""
        if isinstance(exception, Permanent):
            return RetryDecision.fail(str(exception))
        seconds = delay_seconds(seed_of(context) if context else "", try_number)
        return RetryDecision.retry(timedelta(seconds=seconds), f"{type(exception).__name__}: {exception}")


RETRIED: Mapping[str, Any] = {"retry_policy": TransferRetries(), **AFTER_DEATH}
"""How the tasks are tried again, beside their number of tries."""
