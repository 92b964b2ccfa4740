"""The event contract: bytes from Kafka, or an object from a run's conf, to a `TransferEvent`.

Shape and meaning of the fields: the producer's own code, Sunbird-Lern userorg-service 8.0.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StringConstraints,
    ValidationError,
    model_validator,
)

from ownership.domain.decoding import MAX_EVENT_BYTES, MAX_NAME, decode, holds_json, parse_json, too_deep
from ownership.domain.errors import Poison
from ownership.domain.event_times import epoch_ms
from ownership.domain.id_text import as_id, trimmed, visible
from ownership.domain.text import one_line, printable

MAX_FOLLOW_UPS = 4
"""Follow-ups in a row of one event."""

_FOLLOW_UP: Final = re.compile(rf"(.+):follow-up:([1-{MAX_FOLLOW_UPS}])", re.DOTALL)

UNNAMED: Final = "message:"
"""Begins the mid of an event that has none of its own: its place in Kafka names it."""

COURSE_BATCH: Final = "coursebatch"
"""The kind of asset that this job moves, folded and without what parts its words: reports have a blank, telemetry none."""

_ENVELOPE_FIELDS: Final = ("payload", "value", "data")
"""Fields in which Kafka Connect, a REST proxy and CloudEvents put a message."""

MAX_ID: Final = 256
MAX_ID_BYTES: Final = 320
"""Bytes of an id in UTF-8. An entry of PostgreSQL's indexes has 2,704 at most; one of the ledger's holds three ids and a
mid, and a letter may have another byte when it is folded."""

MAX_NAMES = 10
"""Names in one error, at most: after a correction the next error names the rest."""


def _short_enough(value: str) -> str:
    if (size := len(value.encode())) > MAX_ID_BYTES:
        raise ValueError(f"has {size} bytes in UTF-8, at most {MAX_ID_BYTES} are taken")
    return value


Identifier = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=MAX_ID),
    BeforeValidator(as_id),
    AfterValidator(_short_enough),
]
"""An id as it may go into a bound parameter, a URL path segment or a terms query; blanks around it are taken off."""


def follow_ups(mid: str) -> list[str]:
    """The mids of the follow-ups that an event can still have, in order: what second proofs found left to do.

    Each begins with the event's own, so that among events of the same moment it comes behind it.
    """
    found = _FOLLOW_UP.fullmatch(mid)
    first, last = (found[1], int(found[2])) if found else (mid, 0)
    return [f"{first}:follow-up:{n}" for n in range(last + 1, MAX_FOLLOW_UPS + 1)]


def folded(user_id: str) -> str:
    """A user id as it is compared: the platform's services and its index ignore case.

    Letter by letter, as the index's lower-casing does it: Python's own would make two letters of one (İ), and
    of a Greek sigma what its place in the word asks for.
    """
    if user_id.isascii():
        return user_id.lower()
    return "".join(letter.lower()[0] for letter in user_id)


def _check_reserved(mid: str) -> None:
    """:raises Poison: if only the job itself gives such a mid."""
    if mid.startswith("rejected:"):
        raise Poison("mid: begins with 'rejected:', which names the rows of rejected messages")
    if mid.startswith(UNNAMED):
        raise Poison(f"mid: begins with '{UNNAMED}', which names messages that have no mid")
    if _FOLLOW_UP.fullmatch(mid):
        raise Poison("mid: ends with ':follow-up:' and a number, which names follow-ups of other events")


MessageId = Annotated[
    str,
    # A manual run's mid holds its run id, which may have 250 characters.
    StringConstraints(strict=True, min_length=1, max_length=300),
    BeforeValidator(as_id),
]

LedgerId = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=320),
    BeforeValidator(as_id),
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
    objectType: Annotated[str, StringConstraints(strict=True, min_length=1), BeforeValidator(trimmed)]


class _CourseBatch(_Part):
    identifier: Identifier


class TransferEvent(_Part):
    """One request to pass a person's work on. Fields that the job does not read are ignored."""

    eid: Literal["BE_JOB_REQUEST"]
    ets: Annotated[int | None, BeforeValidator(epoch_ms)] = None
    """The producer's time, epoch ms; None if it says none that can be read. It only orders."""
    mid: MessageId
    edata: _Edata
    # For people only, as those of `_Edata`.
    context: Any = None

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

    @property
    def request_id(self) -> str | None:
        """Id of the platform's API call that emitted the event with others, None if the event does not say."""
        return _request_of(self.context)

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
            if re.sub(r"[\s_-]+", "", folded(kind)) != COURSE_BATCH:
                return words(kind) or "", None
            return kind, _CourseBatch.model_validate(given).identifier
        except ValidationError as e:
            raise Poison(explain(e, "edata.assetInformation")) from None


def _request_of(context: Any) -> str | None:
    """The id in `context.cdata` whose type is `Request`: an object in the producer's code, elsewhere a list of them."""
    cdata = context.get("cdata") if isinstance(context, dict) else None
    entries = cdata if isinstance(cdata, list) else [cdata]
    given = (e.get("id") for e in entries if isinstance(e, dict) and e.get("type") == "Request")
    return next(filter(None, map(_readable_id, given)), None)


def _readable_id(value: Any) -> str | None:
    """An id that people can see, trimmed; None for anything else."""
    text = trimmed(value)
    return text if isinstance(text, str) and 0 < len(text) <= MAX_ID and visible(text) else None


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
    named = [".".join(filter(None, (where, *(one_line(part, MAX_NAME) for part in e["loc"])))) for e in found]
    complaints = [
        f"{name or 'message'}: {e['msg'].removeprefix('Value error, ')}"
        for name, e in zip(named[:MAX_NAMES], found, strict=False)
    ]
    return "; ".join(complaints) + (f"; and {n} more" if (n := len(found) - MAX_NAMES) > 0 else "")


def listed(names: Iterable[str]) -> str:
    """Names from outside, quoted, for an error: the first few, each shortened."""
    every = sorted(names)
    shown = ", ".join(repr(name[:MAX_NAME]) for name in every[:MAX_NAMES])
    return shown + (f" and {n} more" if (n := len(every) - MAX_NAMES) > 0 else "")


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
    mid = trimmed(value.get("mid"))
    if unnamed and mid in (None, ""):
        value = {**value, "mid": unnamed}
    elif isinstance(mid, str):
        _check_reserved(mid)
    try:
        return TransferEvent.model_validate(value)
    except ValidationError as e:
        raise Poison(explain(e)) from None
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
    wrapped = next((k for k, inner in value.items() if _may_be_event(k, inner)), None)
    if wrapped is not None and "eid" not in value and "edata" not in value:
        where = one_line(wrapped, MAX_NAME)
        raise Poison(f"the message is an envelope: the event is inside its field '{where}'")
    if too_deep(value):
        raise Poison("the JSON is nested too deeply")


def _may_be_event(name: str, value: Any) -> bool:
    """True for the field of an envelope that has the event inside it."""
    if isinstance(value, dict):
        return name in _ENVELOPE_FIELDS or "edata" in value
    return isinstance(value, str) and (name in _ENVELOPE_FIELDS or holds_json(value))


class Legible(NamedTuple):
    """What can be read of a message that is no event: helps to find it in the ledger."""

    mid: str | None = None
    request_id: str | None = None


def legible(message: bytes) -> Legible:
    """The mid and the request of a message that is no event, where they can be read."""
    try:
        value = parse_json(message[:MAX_EVENT_BYTES])
    except (ValueError, RecursionError):
        return Legible()
    if not isinstance(value, dict):
        return Legible()
    mid = value.get("mid")
    shown = mid[:MAX_ID] if isinstance(mid, str) and visible(mid) else None
    return Legible(shown, _request_of(value.get("context")))


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
