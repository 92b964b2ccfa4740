"""What the plugin registers. Every process of Airflow imports this, so it imports nothing of the page itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey
    from starlette.types import Receive, Scope, Send

NAME = "Transfers"
"""The name in the navigation, which cuts longer ones."""
PREFIX = "/ownership-transfers"
ROUTE = "ownership-transfers"
AIRFLOW = "ownership.airflow"
"""Key of Airflow's own app in an ASGI scope: the page starts runs through its API."""
DAGS = frozenset(("user_ownership_transfer", "ownership_undo", "ownership_approval"))


class LazyPage:
    """The page as an ASGI app, imported at its first request and in a thread: it needs the hooks."""

    def __init__(self) -> None:
        self._page: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._page is None:
            self._page = await asyncio.to_thread(_page)
        scope[AIRFLOW] = scope.get("app")
        await self._page(scope, receive, send)


def _page() -> Any:
    from ownership.page.app import page

    return page


class TransferLink(BaseOperatorLink):
    """From a task instance to the transfers of its run; with a single one, to that."""

    name = "Ownership transfers"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  # Airflow's signature
        """The page inside Airflow's own frame; nothing for tasks of other DAGs."""
        if ti_key.dag_id not in DAGS:
            return ""
        path = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
        # An approval's run carries nothing out: what it asks about is what waits.
        approval = ti_key.dag_id == "ownership_approval"
        query = urlencode({"state": "awaiting_approval"} if approval else {"run": ti_key.run_id, "one": "1"})
        return f"{path}/plugin/{ROUTE}{path}{PREFIX}/?{query}"


FASTAPI_APP = {"app": LazyPage(), "url_prefix": PREFIX, "name": NAME}
EXTERNAL_VIEW = {
    "name": NAME,
    # Relative: Airflow may be served below any path.
    "href": f"{PREFIX.lstrip('/')}/",
    "destination": "nav",
    "url_route": ROUTE,
    "icon": f"{PREFIX.lstrip('/')}/static/icon.svg",
    "icon_dark_mode": f"{PREFIX.lstrip('/')}/static/icon-dark.svg",
    "nav_top_level": True,
}
