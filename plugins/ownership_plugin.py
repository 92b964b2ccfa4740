"""Plugin entry: the only module below plugins/ that Airflow's plugin manager loads.

It preloads what every task imports, so that forked workers inherit it, and registers page and listener.
"""

import contextlib
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from ownership.edge.scheduler import SchedulerListener
from ownership.page.entry import EXTERNAL_VIEW, FASTAPI_APP, TransferLink

with contextlib.suppress(ImportError):  # the API server has no need of the stages
    import ownership.edge.preload  # noqa: F401


class OwnershipPlugin(AirflowPlugin):
    """The page "Ownership transfers", its place in the navigation, the link of each task instance, and a listener."""

    name = "ownership"
    listeners: list[Any] = [SchedulerListener()]  # noqa: RUF012  # as Airflow declares it
    fastapi_apps: list[Any] = [FASTAPI_APP]  # noqa: RUF012  # as Airflow declares it
    external_views: list[Any] = [EXTERNAL_VIEW]  # noqa: RUF012  # as Airflow declares it
    global_operator_extra_links: list[Any] = [TransferLink()]  # noqa: RUF012  # as Airflow declares it
