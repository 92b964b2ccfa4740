"""What carries the job: Airflow's parts, and the hosts of its workers, triggerers and API servers. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Silent(NamedTuple):
    """A part of Airflow that does not run, by Airflow's own judgement."""

    part: str
    """`metadatabase`, `scheduler`, `dag_processor` or `triggerer`."""
    heartbeat_ms: int | None = None
    """Of its last heartbeat, epoch ms; None if there has been none, and for the database."""
