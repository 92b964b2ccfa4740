"""Plugin entry: the only module below plugins/ that Airflow's plugin manager loads.

It preloads what every task imports, so that forked workers inherit it.
"""

import contextlib

from airflow.plugins_manager import AirflowPlugin

with contextlib.suppress(ImportError):  # the API server has no need of the stages
    import ownership.flow
    import ownership.tasks  # noqa: F401


class OwnershipPlugin(AirflowPlugin):
    """Names the plugin in `airflow plugins`."""

    name = "ownership"
