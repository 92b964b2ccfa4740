"""User-Org and the LMS's batch search: what their services answer, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from ownership.domain.errors import Unavailable
from ownership.domain.event import folded
from ownership.platform.http_service import Answer
from simulation.scheduler import Scheduler
from simulation.stores.index import Index


@dataclass
class UserOrg:
    """Users, their organisations, and who is deleted."""

    scheduler: Scheduler
    organisation_of: dict[str, str] = field(default_factory=dict)
    """By folded id."""
    deleted: set[str] = field(default_factory=set)
    """Folded ids."""
    name: str = "User-Org"

    def call(self, _method: str, path: str, _body: object = None) -> Answer:
        """The answer to a read of one user."""
        user = unquote(path.partition("?")[0].rsplit("/", 1)[1])
        return self.scheduler.call(
            "users",
            f"read {user}",
            lambda: self._read(user),
            lambda: Unavailable(self.name, "no answer"),
            told=lambda a: str(a.status),
        )

    def _read(self, user: str) -> Answer:
        if folded(user) in self.deleted:
            err = {"err": "UOS_USRRED0006", "status": "FAILED", "errmsg": "User account has been blocked."}
            return Answer(400, {"responseCode": "CLIENT_ERROR", "params": err})
        organisation = self.organisation_of.get(folded(user))
        if organisation is None:
            err = {"err": "UOS_USRRED0013", "status": "USER_NOT_FOUND", "errmsg": "user not found"}
            return Answer(404, {"responseCode": "RESOURCE_NOT_FOUND", "params": err})
        response = {"identifier": user, "rootOrgId": organisation}
        return Answer(200, {"responseCode": "OK", "result": {"response": response}})


@dataclass
class Lms:
    """The batch search, over the index as searches show it."""

    scheduler: Scheduler
    index: Index
    name: str = "LMS"

    def call(self, _method: str, _path: str, body: Mapping[str, Any]) -> Answer:
        """The answer to a search."""
        filters = body["request"]["filters"]
        return self.scheduler.call(
            "lms",
            "search",
            lambda: self._search(filters, body["request"]["offset"]),
            lambda: Unavailable(self.name, "no answer"),
            told=lambda a: ",".join(c["batchId"] for c in a.body["result"]["response"]["content"]),
        )

    def _search(self, filters: Mapping[str, Any], offset: int) -> Answer:
        (name,) = set(filters) - {"status"}
        wanted = {folded(u) for u in filters[name]}
        found = []
        for _, d in sorted(self.index.visible.items()):
            value = d.source.get(name)
            named = value if isinstance(value, list) else [value]
            if d.source.get("status") in filters["status"] and any(u and folded(u) in wanted for u in named):
                found.append(dict(d.source))
        response = {"count": len(found), "content": found[offset:]}
        return Answer(200, {"responseCode": "OK", "result": {"response": response}})
