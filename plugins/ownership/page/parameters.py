"""What addresses may carry."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query
from pydantic import StringConstraints

from ownership.ledger.reads.lists import Filters

NO_NUL = r"^[^\x00]*$"
"""PostgreSQL's text has no such character."""
TEXT = Annotated[str, StringConstraints(strip_whitespace=True, max_length=320, pattern=NO_NUL)]
"""What people may paste with blanks around it."""
ID = Annotated[TEXT, Query(min_length=1)]
"""A mid, or an id of the platform's."""
IMPORT_ID = r"^[0-9a-f]{20}$"
AFTER = Annotated[str, Query(max_length=4000, pattern=NO_NUL)]
"""Where a page begins: see `cursors`."""


def narrowed(
    who: Annotated[TEXT, Query(alias="user", description="Old or new user")] = "",
    run: TEXT = "",
    course: TEXT = "",
    batch: TEXT = "",
    request: Annotated[TEXT, Query(description="The platform's API call that emitted it")] = "",
) -> Filters:
    """What a list or an export is narrowed to, without state and time: of these the API is stricter than the page."""
    return Filters(user=who, run_id=run, course_id=course, batch_id=batch, request_id=request)


Narrowed = Annotated[Filters, Depends(narrowed)]
