"""The LMS's batch search: which live batches the index shows for some users."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, TypeGuard

from more_itertools import chunked

from ownership.domain.errors import Unavailable
from ownership.domain.event import folded
from ownership.domain.plan import LIVE_STATUSES, BatchId
from ownership.platform.http_service import Service, at

PAGE = 1000
WINDOW = 10_000
"""The service cuts offset + limit down to this, and Elasticsearch stops counting at it unless it
is told otherwise, which the service does not (Sunbird-Lern lms-service): a count of 10,000 may be more."""
USERS_PER_SEARCH = 500
MAX_KEY_BYTES = 65_535
"""Cassandra refuses a longer one."""

Owners = tuple[frozenset[str], BatchId]
"""The users (folded) that a hit's document names, and the batch."""


class WindowExceeded(Exception):
    """The service's pages do not show all hits; the index itself must be asked."""


class BatchSearch:
    """Searches live batches by creator and mentor through the LMS."""

    def __init__(self, service: Service, search_path: str) -> None:
        self._service = service
        self._path = search_path

    def live_batches(self, user_ids: Collection[str]) -> list[Owners]:
        """Every live batch whose document names one of `user_ids` as creator or mentor.

        :raises WindowExceeded: if the users have more batches than the service pages through, or its pages
            show some twice and so miss others.
        :raises Unavailable: on an outage or an answer out of contract.
        """
        found: dict[BatchId, frozenset[str]] = {}
        for some in chunked(sorted(user_ids), USERS_PER_SEARCH):
            for field in ("createdBy", "mentors"):
                for users, batch in self._pages({field: some, "status": list(LIVE_STATUSES)}):
                    found[batch] = found.get(batch, frozenset()) | users
        return [(users, batch) for batch, users in found.items()]

    def _pages(self, filters: dict[str, Any]) -> Iterator[Owners]:
        offset, total = 0, 1
        shown: set[BatchId] = set()
        while offset < total:
            answer = self._service.call(
                "POST",
                self._path,
                {
                    "request": {
                        "filters": filters,
                        "fields": ["batchId", "courseId", "createdBy", "mentors"],
                        "limit": PAGE,
                        "offset": offset,
                        "sort_by": {"createdDate": "desc"},
                    }
                },
            )
            total, content = self._content(answer.status, answer.body)
            if total >= WINDOW:
                raise WindowExceeded
            if not content and offset < total:
                raise Unavailable(self._service.name, f"counts {total} batches but shows {offset}")
            hits = [self._hit(item) for item in content]
            shown.update(batch for _, batch in hits)
            yield from hits
            offset += len(content)
        # Batches of the same date have no order of their own, and new ones push the others on.
        if len(shown) < total:
            raise WindowExceeded

    def _content(self, status: int, body: dict[str, Any]) -> tuple[int, list[Any]]:
        total, content = (at(body, "result", "response", name) for name in ("count", "content"))
        # An empty result may leave its list out; a positive count may not.
        content = [] if content is None and total == 0 else content
        counted = isinstance(total, int) and not isinstance(total, bool) and total >= 0
        if status != 200 or not counted or not isinstance(content, list):
            raise Unavailable(self._service.name, f"HTTP {status} without count and content")
        return total, content

    def _hit(self, item: Any) -> Owners:
        course, batch = at(item, "courseId"), at(item, "batchId")
        if not batch or not stored(batch):
            raise Unavailable(self._service.name, "shows a batch without batchId")
        # A document that names no course belongs to no row; the plan will say that it is gone.
        return owners(item), BatchId(course if stored(course) else "", batch)


def stored(value: Any) -> TypeGuard[str]:
    """True for a text that a row's key can hold: of anything else there is no row."""
    try:
        return isinstance(value, str) and len(value.encode()) <= MAX_KEY_BYTES
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell
        return False


def owners(document: dict[str, Any]) -> frozenset[str]:
    """Users that a document names, folded as the index compares them."""
    creator, mentors = document.get("createdBy"), document.get("mentors")
    named = [creator, *(mentors if isinstance(mentors, list) else [mentors])]
    return frozenset(folded(u) for u in named if isinstance(u, str))
