"""Which worker of `pytest -n 2` runs which file.

Each worker has servers of its own and runs its files one after the other. Files that need Airflow are most of the time:
one worker begins with them and keeps its Airflow. The other one begins with everything else, and helps in the end with
an Airflow of its own, if enough is left to be worth its start.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from xdist.scheduler import LoadScopeScheduling

from local.stack import given_from_environment

END_TO_END = "tests/e2e/"
WORTH_AN_AIRFLOW = 5
"""Files: the last ones are short, and an Airflow takes a minute to start beside another one."""
LONGEST = [
    f"{END_TO_END}test_{name}.py"
    for name in ("page", "plans_and_undo", "page_in_a_browser", "cleared", "drill", "privacy", "runs")
]
"""They come first: the short ones fill what is left between two workers."""


def next_file(waiting: Collection[str], *, has_airflow: bool, others_have: bool) -> str | None:
    """The file that a worker runs next; None if those that are left are another's.

    `others_have`: whether another worker has an Airflow.
    """
    with_airflow = [file for file in waiting if file.startswith(END_TO_END)]
    with_airflow.sort(key=lambda file: file not in LONGEST)
    without = [file for file in waiting if not file.startswith(END_TO_END)]
    if with_airflow and (has_airflow or not others_have):
        return with_airflow[0]
    if without:
        return without[0]
    # From the other end: the worker that has an Airflow began with the first ones.
    return with_airflow[-1] if len(with_airflow) >= WORTH_AN_AIRFLOW else None


class ByServers(LoadScopeScheduling):
    """Deals tests out file by file. Servers that are given there are once: then one worker runs all."""

    def _split_scope(self, nodeid: str) -> str:
        return "all" if given_from_environment() else nodeid.partition("::")[0]

    def _has_airflow(self, node: Any) -> bool:
        return any(file.startswith(END_TO_END) for file in self.assigned_work[node])

    def _next(self, node: Any) -> str | None:
        others_have = any(self._has_airflow(other) for other in self.nodes if other is not node)
        return next_file(self.workqueue, has_airflow=self._has_airflow(node), others_have=others_have)

    def _assign_work_unit(self, node: Any) -> None:
        if (file := self._next(node)) is None:
            node.shutdown()
            return
        self.workqueue.move_to_end(file, last=False)
        super()._assign_work_unit(node)
