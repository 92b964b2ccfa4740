"""The name under which a part of the cluster shows in Airflow: all run on one host."""

from __future__ import annotations

import os
import socket

VARIABLE = "OWNERSHIP_CLUSTER_PART"


def of_this_part() -> str:
    """Airflow's `[core] hostname_callable`."""
    return os.environ.get(VARIABLE) or socket.gethostname()
