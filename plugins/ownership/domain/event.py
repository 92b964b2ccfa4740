"""The event contract: bytes from Kafka, or an object from a run's conf, to a `TransferEvent`.

Shape and meaning of the fields: the producer's own code, Sunbird-Lern userorg-service 8.0.0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ownership.domain.errors import Poison
from ownership.domain.text import one_line, printable

MAX_EVENT_BYTES = 256 * 1024
"""A real event has about 2 KiB; anything above this is rejected unread."""

MAX_CLOCK_DRIFT_MS = 5 * 60 * 1000
"""An `ets` further than this from the broker's timestamp does not decide the order."""

MAX_LEVELS = 100
"""Objects and lists in one another that an event may have; a real one has five. Python's own bound depends on who
calls: what one task reads, another could not."""

MAX_FOLLOW_UPS = 4
"""Follow-ups in a row of one event."""

_FIELDS_NAMED = 10
"""Most fields that one error names: each is one to mend, and there is a next time."""
_LONGEST_NAME = 60

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def _printable(value: str) -> str:
    if _UNPRINTABLE.search(value):
        raise ValueError("contains control characters or lone surrogates")
    if value != value.strip():
        raise ValueError("begins or ends with white space")
    if value in (".", ".."):
        raise ValueError("is a step in a path, not an id")
    return value


Identifier = Annotated[
    str, StringConstraints(strict=True, min_length=1, max_length=256), AfterValidator(_printable)
]
"""An id as it may go into a bound parameter, a URL path segment or a terms query."""


def follow_up(mid: str) -> str:
    """The mid of an event's follow-up: what the second proof found left to do."""
    return f"{mid}+"


def with_follow_ups(mid: str) -> list[str]:
    """The mids of an event and of the follow-ups that it can have."""
    return [f"{mid}{'+' * n}" for n in range(MAX_FOLLOW_UPS + 1)]


def folded(user_id: str) -> str:
    """A user id as it is compared: the platform's services and its index ignore case.

    Letter by letter, as the index's lower-casing does it: Python's own would make two letters of one (İ), and
    of a Greek sigma what its place in the word asks for.
    """
    if user_id.isascii():
        return user_id.lower()
    return "".join(letter.lower()[0] for letter in user_id)


def _not_reserved(mid: str) -> str:
    if mid.startswith("rejected:"):
        raise ValueError("begins with 'rejected:', which names the rows of rejected messages")
    return mid


MessageId = Annotated[
    str,
    # A manual run's mid holds its run id, which may have 250 characters.
    StringConstraints(strict=True, min_length=1, max_length=300),
    AfterValidator(_printable),
    AfterValidator(_not_reserved),
]
"""An event's own id."""

LedgerId = Annotated[
    str, StringConstraints(strict=True, min_length=1, max_length=320), AfterValidator(_printable)
]
"""The mid under which the ledger has an event: its own, a follow-up's, or that of a rejected message."""


class OrderKey(NamedTuple):
    """Place of an event in the one order: time (epoch ms), partition, offset, mid."""

    t: int
    partition: int
    offset: int
    mid: str


class Transfer(NamedTuple):
    """What ordering and planning need of an event: its place and its two users, as it spells them."""

    key: OrderKey
    from_user: str
    to_user: str

    @property
    def mid(self) -> str:
        """The event's message id."""
        return self.key.mid

    @property
    def source(self) -> str:
        """The user who gives, folded."""
        return folded(self.from_user)

    @property
    def target(self) -> str:
        """The user who receives, folded."""
        return folded(self.to_user)

    @property
    def users(self) -> frozenset[str]:
        """Both users, folded."""
        return frozenset((self.source, self.target))


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Profile(_Part):
    userId: Identifier


class _Edata(_Part):
    action: Literal["ownership-transfer"]
    organisationId: Identifier
    fromUserProfile: _Profile
    toUserProfile: _Profile
    # For people only: whatever is there that is no text must not reject the event.
    context: Any = None
    actionBy: Any = None


class TransferEvent(_Part):
    """One request to pass a person's work on. Fields that the job does not read are ignored."""

    eid: Literal["BE_JOB_REQUEST"]
    ets: Annotated[int, Field(strict=True, gt=0, lt=2**53)]
    mid: MessageId
    edata: _Edata

    @property
    def from_user(self) -> str:
        """Id of the user who gives."""
        return self.edata.fromUserProfile.userId

    @property
    def to_user(self) -> str:
        """Id of the user who receives."""
        return self.edata.toUserProfile.userId

    @property
    def organisation_id(self) -> str:
        """Organisation that both users must belong to."""
        return self.edata.organisationId

    @property
    def requested_by(self) -> str | None:
        """Id of whoever asked for the transfer, None if the event does not say."""
        by = self.edata.actionBy
        return _words(by.get("userId")) if isinstance(by, dict) else None

    @property
    def request_reason(self) -> str | None:
        """Why it was asked for, in their words, None if the event does not say."""
        return _words(self.edata.context)


def _words(value: Any) -> str | None:
    """A text for people, printable and cut; None for anything else."""
    return printable(value)[:500] if isinstance(value, str) and value else None


def explain(error: ValidationError) -> str:
    """One line that names each bad field, the first few, and what is wrong with it (values are not repeated)."""
    found = error.errors(include_url=False, include_input=False)
    told = [
        f"{'.'.join(one_line(part, _LONGEST_NAME) for part in e['loc']) or 'message'}: {e['msg']}"
        for e in found[:_FIELDS_NAMED]
    ]
    return "; ".join(told) + (f"; and {n} more" if (n := len(found) - _FIELDS_NAMED) > 0 else "")


def listed(names: Iterable[str]) -> str:
    """Names that somebody else gave, quoted: the first few, each cut."""
    some = sorted(names)
    told = ", ".join(repr(name[:_LONGEST_NAME]) for name in some[:_FIELDS_NAMED])
    return told + (f" and {n} more" if (n := len(some) - _FIELDS_NAMED) > 0 else "")


def parse_event(message: bytes | None) -> TransferEvent:
    """Read a Kafka message's value.

    :raises Poison: with the reason, for anything that is not a transfer event.
    """
    if not message:
        raise Poison("the message is empty")
    if len(message) > MAX_EVENT_BYTES:
        raise Poison(f"the message has {len(message)} bytes, at most {MAX_EVENT_BYTES} are read")
    try:
        value = json.loads(message.decode("utf-8"))
    except UnicodeDecodeError as e:
        raise Poison(f"not UTF-8: {e.reason} at byte {e.start}") from None
    except RecursionError:
        raise Poison("the JSON is nested too deeply") from None
    except ValueError as e:
        raise Poison(f"not JSON: {e}") from None
    return event_from(value)


def event_from(value: Any) -> TransferEvent:
    """Check a decoded message against the contract.

    :raises Poison: naming every field that is wrong.
    """
    if not isinstance(value, dict):
        raise Poison(f"the message is a JSON {type(value).__name__}, not an object")
    if too_deep(value):
        raise Poison("the JSON is nested too deeply")
    try:
        return TransferEvent.model_validate(value)
    except ValidationError as e:
        raise Poison(explain(e)) from None
    except RecursionError:
        raise Poison("the JSON is nested too deeply") from None


def too_deep(value: Any) -> bool:
    """True for a JSON value with more than `MAX_LEVELS` objects and lists in one another."""
    level = [value]
    for _ in range(MAX_LEVELS):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def readable_mid(message: bytes) -> str | None:
    """The mid of a message that is no event, where it can be read: helps to find it in the ledger."""
    try:
        value = json.loads(message[:MAX_EVENT_BYTES])
    except (ValueError, RecursionError):
        return None
    mid = value.get("mid") if isinstance(value, dict) else None
    return mid[:256] if isinstance(mid, str) and not _UNPRINTABLE.search(mid) else None


def same_payload(one: bytes, other: bytes) -> bool:
    """True if both payloads hold the same JSON value, whatever their spacing and key order."""
    if one == other:
        return True
    try:
        return bool(json.loads(one) == json.loads(other))
    except (ValueError, RecursionError):
        return False


def order_time(ets: int, broker_ms: int) -> int:
    """Epoch ms that orders an event: the producer's clock unless it is far off the broker's."""
    return ets if abs(ets - broker_ms) <= MAX_CLOCK_DRIFT_MS else broker_ms


def manual_event(
    *, mid: str, ets: int, from_user: str, to_user: str, organisation_id: str, **edata: Any
) -> dict[str, Any]:
    """Envelope of a transfer that was started by hand, in the shape of the topic's events."""
    return {
        "eid": "BE_JOB_REQUEST",
        "ets": ets,
        "mid": mid,
        "actor": {"id": "ownership-transfer", "type": "System"},
        "object": {"id": from_user, "type": "User"},
        "edata": {
            "action": "ownership-transfer",
            "organisationId": organisation_id,
            "fromUserProfile": {"userId": from_user},
            "toUserProfile": {"userId": to_user},
            "assetInformation": {},
            "iteration": 1,
            **edata,
        },
    }
