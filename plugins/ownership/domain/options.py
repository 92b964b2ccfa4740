"""Options of an event beyond the platform's own contract. Pure.

Only a run's conf gives options; of an event from the topic there is at most its asset. The ledger keeps them beside
the event's payload.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ownership.domain.decoding import MAX_EVENT_BYTES
from ownership.domain.errors import Poison
from ownership.domain.event import Identifier, LedgerId, TransferEvent, event_from
from ownership.domain.plan import LIVE_STATUSES, ROLES, Scope

MAX_COURSES = 1000
"""Courses that one transfer can be restricted to."""

Role = Literal["created", "mentored"]
LiveStatus = Annotated[Literal[0, 1], BeforeValidator(lambda s: int(s) if s in ("0", "1") else s)]
"""The trigger form sends the numbers as text."""
Scopes = Literal["user", "asset"]
"""What a transfer moves: everything of the old user, or the asset that the event names."""
Digest = Annotated[str, Field(strict=True, pattern=r"^[0-9a-f]{20}$")]
"""Identifies the content of a plan."""


class Asset(BaseModel):
    """The one asset that an event names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    """Its objectType."""
    batch_id: Identifier | None = None
    """None for an asset that is no course batch."""


class Options(BaseModel):
    """How an event is carried out; all defaults for an event from the topic."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    roles: Annotated[tuple[Role, ...], Field(min_length=1)] = ROLES
    """What of the old user's moves: batches that they created, batches that they mentor, or both."""
    statuses: Annotated[tuple[LiveStatus, ...], Field(min_length=1)] = LIVE_STATUSES
    """Only batches of these statuses move."""
    course_ids: Annotated[tuple[Identifier, ...], Field(max_length=MAX_COURSES)] = ()
    """Only batches of these courses move; all if empty."""
    asset: Asset | None = None
    """Only this asset moves. The event says so, where `transfer.scope` was ``asset`` when it was accepted."""
    dry_run: bool = False
    """Plan only."""
    undo_of: LedgerId | None = None
    """The event whose changes are undone; this one then moves nothing else."""
    plan_of: LedgerId | None = None
    """The dry run whose plan is applied."""
    digest: Digest | None = None
    """Digest of that plan: any other is refused."""

    @property
    def scope(self) -> Scope:
        """Which batches, and what of them."""
        return Scope(
            frozenset(self.roles),
            frozenset(self.statuses),
            frozenset(self.course_ids),
            batch_id=self.asset.batch_id if self.asset else None,
        )

    @property
    def whole(self) -> bool:
        """True for a transfer of everything, as from the topic: only such ones are composed."""
        return self == PLAIN

    @property
    def composable(self) -> bool:
        """True for a transfer as from the topic: it may form a phase with others of the same scope."""
        return self.about(None).whole

    def about(self, asset: Asset | None) -> Self:
        """The same options for one asset, or for everything."""
        return self.model_copy(update={"asset": asset})

    def to_be_executed(self, mid: str, digest: str) -> Self:
        """The options of the event that applies the plan of dry run `mid`."""
        return self.model_copy(update={"dry_run": False, "plan_of": mid, "digest": digest})

    def to_json(self) -> dict[str, Any] | None:
        """As the ledger keeps it; None for an event from the topic."""
        return None if self.whole else self.model_dump(mode="json", exclude_defaults=True)

    @classmethod
    def of(cls, value: dict[str, Any] | None) -> Self:
        """From the ledger."""
        return cls.model_validate(value) if value else cls()


PLAIN = Options()


class Request(NamedTuple):
    """An event that was given by hand, with its payload and options."""

    event: TransferEvent
    payload: bytes
    options: Options = PLAIN

    @classmethod
    def of(
        cls, envelope: Mapping[str, Any], options: Options = PLAIN, *, unnamed: str | None = None
    ) -> Request:
        """The event that `envelope` is, with the bytes that the ledger keeps of it; `unnamed`: its mid if it has none.

        :raises Poison: if it is out of contract, or larger than a message of the topic may be.
        """
        event = event_from(envelope, unnamed=unnamed)
        # UTF-8 has no half of a surrogate pair; its escape is JSON again.
        text = json.dumps(envelope, sort_keys=True, ensure_ascii=False)
        payload = text.encode("utf-8", "backslashreplace")
        if len(payload) > MAX_EVENT_BYTES:
            raise Poison(f"the event has {len(payload)} bytes, at most {MAX_EVENT_BYTES} are taken")
        return cls(event, payload, options)
