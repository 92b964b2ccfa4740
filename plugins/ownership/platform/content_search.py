"""The platform's content search: courses by a part of their name, which neither rows nor documents of batches have.

Source: Sunbird-Knowlg's knowledge-platform, `search-api`. `conf/routes` has the path, `SearchActor` the request and the
answer: ``result.count``, and what was found in lists by object type, for courses ``result.content``, without hits none.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from ownership.domain.errors import Unavailable
from ownership.domain.event import folded
from ownership.platform.http_service import Service
from ownership.platform.name_search import (
    MIN_PART,
    NOTHING,
    FoundNames,
    Named,
    fitting,
    full_name,
    name_words,
)

SEARCH_PATH: Final = "/v3/search"
STATUSES: Final = ("Live", "Unlisted", "Retired")
"""Of courses that may have batches: a new one must be live, and retiring a course leaves its batches."""
_OPERATORS: Final = re.compile(r'[.?+*|{}\[\]()"\\#@&<>~^$]')
"""Of regular expressions: the service's `contains` is one, and releases before 2026 do not escape what they are given."""


class _Course(BaseModel):
    identifier: str
    name: str | None = None
    channel: str | None = None
    """The organisation that made it."""


class _Found(BaseModel):
    count: int
    content: list[_Course] = []


class _Answer(BaseModel):
    result: _Found


class Courses:
    """Finds courses in the content search."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def named(self, text: str, organisations: Collection[str] | None, *, limit: int) -> FoundNames:
        """Courses that have `text` in their name, of these organisations (None: of all).

        :raises Unavailable: on an outage or an answer out of contract.
        """
        part = folded(text.strip())
        longest = max((p.strip() for p in _OPERATORS.split(part)), key=len)
        nobodys = organisations is not None and not organisations
        if nobodys or len(longest) < MIN_PART or not name_words(text):
            return NOTHING
        answer = self._service.call("POST", SEARCH_PATH, _search_for(longest, organisations, limit))
        try:
            found = _Answer.model_validate(answer.body).result
        except ValidationError:
            found = None
        if answer.status != 200 or found is None:
            raise Unavailable(
                self._service.name, f"HTTP {answer.status} to a search for courses, without count"
            )
        shown = [
            Named(c.identifier, full_name(c.name), (c.channel or "").strip()) for c in found.content[:limit]
        ]
        return fitting(shown, found.count, [part], organisations)


def _search_for(part: str, organisations: Collection[str] | None, limit: int) -> dict[str, Any]:
    filters: dict[str, Any] = {
        "name": {"contains": [part]},
        "primaryCategory": ["Course"],
        "status": list(STATUSES),
    }
    if organisations is not None:
        filters["channel"] = sorted(organisations)
    return {"request": {"filters": filters, "fields": ["identifier", "name", "channel"], "limit": limit}}
