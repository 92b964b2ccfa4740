"""The event contract: bytes from Kafka, or an object from a run's conf, to a `TransferEvent`.

Shape and meaning of the fields: the producer's own code, Sunbird-Lern userorg-service 8.0.0.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StringConstraints,
    ValidationError,
    model_validator,
)

from ownership.domain.decoding import MAX_EVENT_BYTES, decode, holds_json, too_deep
from ownership.domain.errors import Poison
from ownership.domain.event_times import epoch_ms
from ownership.domain.text import one_line, printable

MAX_FOLLOW_UPS = 4
"""Follow-ups in a row of one event."""

UNNAMED: Final = "message:"
"""Begins the mid of an event that has none of its own: its place in Kafka names it."""

COURSE_BATCH: Final = "course batch"
"""The kind of asset that this job moves, folded."""

_FIELDS_NAMED = 10
"""Most fields that one error names: each is one to mend, and there is a next time."""
_LONGEST_NAME = 60

_BLANKS: Final = "".join(map(chr, range(0x21)))
"""What Java's `String.trim()` takes off both ends: everything up to the blank."""
_INVISIBLE_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})
_INVISIBLE_OTHERS: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U000e0000-\U000e0fff]"
)
"""Characters of other categories that show nothing: fillers, variation selectors (Unicode's default ignorables)."""
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


def _trimmed(value: Any) -> Any:
    """A text as the platform's producer checks it; it sends it with its blanks."""
    return value.strip(_BLANKS) if isinstance(value, str) else value


def _as_id(value: Any) -> Any:
    """A text without the blanks around it, if each of its characters can be seen."""
    text = _trimmed(value)
    if not isinstance(text, str):
        return value
    if hidden := next(filter(_invisible, text), None):
        raise ValueError(f"contains U+{ord(hidden):04X}, {_name_of(hidden)}")
    if text in (".", ".."):
        raise ValueError("is a step in a path, not an id")
    return text


def _invisible(c: str) -> bool:
    return c != " " and bool(unicodedata.category(c) in _INVISIBLE_CATEGORIES or _INVISIBLE_OTHERS.match(c))


def _name_of(c: str) -> str:
    """Unicode's name of a character, in words for those that have none."""
    unnamed = "half a surrogate pair" if _SURROGATES.match(c) else "a control character"
    return unicodedata.name(c, unnamed)


Identifier = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=256),
    BeforeValidator(_as_id),
]
"""An id as it may go into a bound parameter, a URL path segment or a terms query; blanks around it are taken off."""


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
    if mid.startswith(UNNAMED):
        raise ValueError(f"begins with '{UNNAMED}', which names messages that have no mid")
    return mid


MessageId = Annotated[
    str,
    # A manual run's mid holds its run id, which may have 250 characters.
    StringConstraints(strict=True, min_length=1, max_length=300),
    BeforeValidator(_as_id),
]
"""An event's id."""

LedgerId = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=320),
    BeforeValidator(_as_id),
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

    @model_validator(mode="before")
    @classmethod
    def _is_object(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return value
        if isinstance(value, str) and holds_json(value):
            raise ValueError("is JSON inside a JSON text: it was encoded twice")
        raise ValueError(f"must be an object, is a JSON {_json_type(value)}")


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
    # Read only where `transfer.scope` says so.
    assetInformation: Any = None


class _Asset(_Part):
    objectType: Annotated[str, StringConstraints(strict=True, min_length=1), BeforeValidator(_trimmed)]


class _CourseBatch(_Part):
    identifier: Identifier


class TransferEvent(_Part):
    """One request to pass a person's work on. Fields that the job does not read are ignored."""

    eid: Literal["BE_JOB_REQUEST"]
    ets: Annotated[int | None, BeforeValidator(epoch_ms)] = None
    """The producer's time, epoch ms; None if it says none that can be read. It only orders."""
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
        return words(by.get("userId")) if isinstance(by, dict) else None

    @property
    def request_reason(self) -> str | None:
        """Why it was asked for, in their words, None if the event does not say."""
        return words(self.edata.context)

    def asset(self) -> tuple[str, str | None] | None:
        """Kind and batch id of the one asset that the event names; None if it names none, which means everything.

        The batch id is None for an asset that is no course batch.

        :raises Poison: naming what is wrong with `assetInformation`.
        """
        given = self.edata.assetInformation
        if given is None or given == {}:
            return None
        try:
            kind = _Asset.model_validate(given).objectType
            if folded(kind) != COURSE_BATCH:
                return words(kind) or "", None
            return kind, _CourseBatch.model_validate(given).identifier
        except ValidationError as e:
            raise Poison(explain(e, "edata.assetInformation")) from None


def words(value: Any) -> str | None:
    """A text for people, printable and cut; None for anything else."""
    return printable(value)[:500] if isinstance(value, str) and value else None


def _json_type(value: Any) -> str:
    names = {str: "text", list: "array", dict: "object", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def explain(error: ValidationError, where: str = "") -> str:
    """One line that names each bad field, the first few, and what is wrong with it (values are not repeated).

    `where` is the field that was checked, if it is not a whole message.
    """
    found = error.errors(include_url=False, include_input=False)
    named = [
        ".".join(filter(None, (where, *(one_line(part, _LONGEST_NAME) for part in e["loc"])))) for e in found
    ]
    told = [
        f"{name or 'message'}: {e['msg'].removeprefix('Value error, ')}"
        for name, e in zip(named[:_FIELDS_NAMED], found, strict=False)
    ]
    return "; ".join(told) + (f"; and {n} more" if (n := len(found) - _FIELDS_NAMED) > 0 else "")


def listed(names: Iterable[str]) -> str:
    """Names that somebody else gave, quoted: the first few, each cut."""
    some = sorted(names)
    told = ", ".join(repr(name[:_LONGEST_NAME]) for name in some[:_FIELDS_NAMED])
    return told + (f" and {n} more" if (n := len(some) - _FIELDS_NAMED) > 0 else "")


def parse_event(message: bytes | None, *, unnamed: str | None = None) -> TransferEvent:
    """Read a Kafka message's value. `unnamed` is the event's mid if the message has none.

    :raises Poison: with the reason, for anything that is not a transfer event.
    """
    return event_from(decode(message), unnamed=unnamed)


def event_from(value: Any, *, unnamed: str | None = None) -> TransferEvent:
    """Check a decoded message against the contract. `unnamed` is the event's mid if it has none of its own.

    :raises Poison: naming every field that is wrong.
    """
    check_shape(value)
    mid = _trimmed(value.get("mid"))
    if unnamed and mid in (None, ""):
        value = {**value, "mid": unnamed}
    try:
        if isinstance(mid, str):
            _not_reserved(mid)
        return TransferEvent.model_validate(value)
    except ValidationError as e:
        raise Poison(explain(e)) from None
    except ValueError as e:
        raise Poison(f"mid: {e}") from None
    except RecursionError:
        raise Poison("the JSON is nested too deeply") from None


def check_shape(value: Any) -> None:
    """Check that a decoded message may be an event.

    :raises Poison: if it is no object, or one that has the event inside it.
    """
    if isinstance(value, str) and holds_json(value):
        raise Poison("the message is JSON inside a JSON text: it was encoded twice")
    if isinstance(value, list):
        raise Poison(
            f"the message is a JSON array of {len(value)}, not an object: an event is a message of its own"
        )
    if not isinstance(value, dict):
        raise Poison(f"the message is a JSON {_json_type(value)}, not an object")
    if "eid" not in value and "edata" not in value:
        wrapped = next(
            (k for k in ("payload", "value", "data") if isinstance(value.get(k), dict | str)), None
        )
        if wrapped:
            raise Poison(f"the message is an envelope: the event is inside its field '{wrapped}'")
    if too_deep(value):
        raise Poison("the JSON is nested too deeply")


def readable_mid(message: bytes) -> str | None:
    """The mid of a message that is no event, where it can be read: helps to find it in the ledger."""
    try:
        value = json.loads(message[:MAX_EVENT_BYTES])
    except (ValueError, RecursionError):
        return None
    mid = value.get("mid") if isinstance(value, dict) else None
    return mid[:256] if isinstance(mid, str) and not any(map(_invisible, mid)) else None


def unnamed_mid(topic: str, partition: int, offset: int, digest: str) -> str:
    """The mid of an event that has none: its coordinates, and of its digest what tells a topic from its successor."""
    return f"{UNNAMED}{topic}:{partition}:{offset}:{digest[:8]}"


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
