"""Where a page of a list begins, as addresses carry it: the last row of the page before."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Annotated, Any, Final, Generic, TypeVar

from pydantic import Field, StringConstraints, TypeAdapter

from ownership.domain.event import LedgerId, OrderKey
from ownership.domain.plan import BatchId
from ownership.page.parameters import NO_NUL

K = TypeVar("K", bound=tuple[Any, ...])
_Integer = Annotated[int, Field(ge=-(2**31), lt=2**31)]
_Bigint = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_Text = Annotated[str, StringConstraints(max_length=1000, pattern=NO_NUL)]


class Cursor(Generic[K]):
    """A row's key as a text."""

    def __init__(self, key: Callable[..., K], fields: Any) -> None:
        """`fields`: the type of a tuple with the key's values."""
        self._key = key
        self._fields: TypeAdapter[tuple[Any, ...]] = TypeAdapter(fields)

    def text(self, key: K) -> str:
        """For an address."""
        return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")

    def key(self, text: str) -> K | None:
        """From an address, in which clients may send anything; None if it is no cursor."""
        try:
            return self._key(
                *self._fields.validate_json(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            )
        except ValueError:
            return None


ENTRIES: Final = Cursor(OrderKey, tuple[_Bigint, _Integer, _Bigint, LedgerId])
"""Of the list of transfers and rejected messages."""
BATCHES: Final = Cursor(BatchId, tuple[_Text, _Text])
"""Of the batches of a transfer."""
