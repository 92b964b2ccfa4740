"""What addresses may carry."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query

from ownership.ledger.reads.lists import Filters

NO_NUL = r"^[^\x00]*$"
"""PostgreSQL's text has no such character."""
MID = Annotated[str, Query(min_length=1, max_length=320, pattern=NO_NUL)]
TEXT = Annotated[str, Query(max_length=320, pattern=NO_NUL)]
AFTER = Annotated[str, Query(max_length=4000, pattern=NO_NUL)]
"""Where a page begins: see `cursors`."""


def narrowed(
    who: Annotated[
        str, Query(alias="user", max_length=256, pattern=NO_NUL, description="Old or new user")
    ] = "",
    run: TEXT = "",
    course: TEXT = "",
    batch: TEXT = "",
    request: Annotated[
        str, Query(max_length=256, pattern=NO_NUL, description="The platform's API call that emitted it")
    ] = "",
) -> Filters:
    """What a list or an export is narrowed to, without state and time: of these the API is stricter than the page."""
    return Filters(
        user=who.strip(),
        run_id=run.strip(),
        course_id=course.strip(),
        batch_id=batch.strip(),
        request_id=request.strip(),
    )


Narrowed = Annotated[Filters, Depends(narrowed)]
