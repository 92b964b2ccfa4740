"""What addresses may carry."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

NO_NUL = r"^[^\x00]*$"
"""PostgreSQL's text has no such character."""
MID = Annotated[str, Query(min_length=1, max_length=320, pattern=NO_NUL)]
TEXT = Annotated[str, Query(max_length=320, pattern=NO_NUL)]
