"""The conf of a run started by hand: transfers to carry out, and orders about events that are there.

Pure; the same checks as for Kafka events, and every complaint names its field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from ownership.domain.decoding import too_deep
from ownership.domain.errors import Poison, SettingsError
from ownership.domain.event import Identifier, LedgerId, MessageId, explain, listed, manual_event
from ownership.domain.options import MAX_COURSES, PLAIN, Digest, LiveStatus, Options, Request, Role
from ownership.domain.plan import LIVE_STATUSES, ROLES
from ownership.domain.text import printable

MAX_EVENTS = 1000
"""Events in one conf; more belong on the topic."""
MAX_REASON = 500

WHO = ("from_user", "to_user", "organisation_id")
SCOPE = ("roles", "statuses", "course_ids", "dry_run")
WHY = ("reason", "requested_by")
HOW = (*SCOPE, *WHY)
ORDERS = ("approve", "decline", "abandon", "redrive")
KNOWN = (*WHO, "events", *HOW, "execute_plan", "digest", *ORDERS)

Reason = Annotated[
    str,
    BeforeValidator(lambda words: printable(words) if isinstance(words, str) else words),
    StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=MAX_REASON),
]
_EACH_ONCE = AfterValidator(lambda mids: tuple(dict.fromkeys(mids)))
"""An order that names an event twice means it once."""
Moment = Annotated[datetime, AfterValidator(lambda at: at if at.tzinfo else at.replace(tzinfo=UTC))]
"""A point in time; without an offset it is UTC."""


def _check_range(since: datetime | None, until: datetime | None) -> None:
    if since and until and until <= since:
        raise ValueError("until must be after since")


def _shallow(patch: dict[str, Any]) -> dict[str, Any]:
    if too_deep(patch):
        raise ValueError("is nested too deeply")
    return patch


class ConfError(SettingsError):
    """The conf cannot be carried out; the message names each field."""


class _Given(BaseModel):
    """Fields of a conf; a field that is null or empty was not filled in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {k: v for k, v in values.items() if v is not None and v != ""}


class _Who(_Given):
    from_user: Identifier
    to_user: Identifier
    organisation_id: Identifier


class _How(_Given):
    """How transfers are carried out."""

    roles: Annotated[tuple[Role, ...], Field(min_length=1)] = ROLES
    statuses: Annotated[tuple[LiveStatus, ...], Field(min_length=1)] = LIVE_STATUSES
    course_ids: Annotated[tuple[Identifier, ...], Field(max_length=MAX_COURSES)] = ()
    reason: Reason | None = None
    requested_by: Identifier | None = None
    dry_run: Annotated[bool, Field(strict=True)] = False

    def options(self) -> Options:
        """How it is carried out; a list that names everything, in any order, is no restriction."""
        return Options(
            roles=tuple(r for r in ROLES if r in self.roles),
            statuses=tuple(s for s in LIVE_STATUSES if s in self.statuses),
            course_ids=tuple(dict.fromkeys(self.course_ids)),
            dry_run=self.dry_run,
        )


class TransferForm(_How, _Who):
    """One transfer in the words of the trigger form."""


class _Item(TransferForm):
    """One of several, which may have a mid of its own: a run that is started again then brings the same event."""

    mid: MessageId | None = None


class ExecutePlan(_Given):
    """The plan of a dry run that is to be applied."""

    execute_plan: LedgerId
    digest: Digest
    reason: Reason | None = None
    requested_by: Identifier | None = None


class Approve(_Given):
    """The plan of a transfer that awaits its approval, approved."""

    mid: LedgerId
    digest: Digest
    by: Identifier | None = None


class Decline(_Given):
    """A transfer that awaits its approval, declined, with the reason."""

    mid: LedgerId
    reason: Reason
    by: Identifier | None = None


class Abandon(_Given):
    """Open events to end for good, with the reason."""

    mids: Annotated[tuple[LedgerId, ...], Field(min_length=1, max_length=MAX_EVENTS), _EACH_ONCE]
    reason: Reason


class DeadLetters(_Given):
    """Dead letters to put back, by offset (both ends included), each corrected by a JSON merge patch (RFC 7396)."""

    partition: Annotated[int, Field(strict=True, ge=0)] = 0
    from_offset: Annotated[int, Field(strict=True, ge=0)]
    to_offset: Annotated[int, Field(strict=True, ge=0)]
    merge_patch: Annotated[dict[str, Any], AfterValidator(_shallow)] = {}

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if not 0 <= self.to_offset - self.from_offset < MAX_EVENTS:
            raise ValueError(f"to_offset must not be before from_offset, nor more than {MAX_EVENTS} messages")
        return self


class Redrive(_Given):
    """Events to try again: failed ones now, skipped ones and dead letters as new events."""

    mids: Annotated[tuple[LedgerId, ...], Field(max_length=MAX_EVENTS), _EACH_ONCE] = ()
    states: tuple[Literal["failed", "skipped"], ...] = ()
    since: Moment | None = None
    until: Moment | None = None
    dead_letters: DeadLetters | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if sum((bool(self.mids), bool(self.states), self.dead_letters is not None)) != 1:
            raise ValueError("give one of mids, states (with since and until) and dead_letters")
        if bool(self.states) != (self.since is not None) or (self.until and not self.states):
            raise ValueError("states go with since, and if you like until")
        _check_range(self.since, self.until)
        return self


class Undo(_Given):
    """Completed events to undo: the conf of `ownership_undo`."""

    mids: Annotated[tuple[LedgerId, ...], Field(max_length=MAX_EVENTS), _EACH_ONCE] = ()
    from_user: Identifier | None = None
    to_user: Identifier | None = None
    since: Moment | None = None
    until: Moment | None = None
    run_id: Annotated[Identifier, Field(max_length=250)] | None = None
    dry_run: Annotated[bool, Field(strict=True)] = True
    reason: Reason | None = None
    requested_by: Identifier | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        by_user = bool(self.from_user or self.to_user)
        if sum((bool(self.mids), by_user, self.run_id is not None)) != 1:
            raise ValueError("give one of mids, run_id, and from_user or to_user (with since)")
        if by_user != (self.since is not None) or (self.until and not by_user):
            raise ValueError("from_user and to_user go with since, and if you like until")
        _check_range(self.since, self.until)
        return self


class Orders(NamedTuple):
    """What an operator orders beside transfers."""

    approve: Approve | None = None
    decline: Decline | None = None
    abandon: Abandon | None = None
    redrive: Redrive | None = None
    execute: ExecutePlan | None = None
    undo: Undo | None = None

    @property
    def named(self) -> set[str]:
        """The mids of all events that they name."""
        one = {order.mid for order in (self.approve, self.decline) if order}
        return one.union(*(order.mids for order in (self.abandon, self.redrive, self.undo) if order))


G = TypeVar("G", bound=_Given)


def orders(conf: Mapping[str, Any]) -> Orders:
    """The orders in `conf` beside its transfers.

    :raises ConfError: naming the field and what is wrong with it.
    """
    execute = None
    if conf.get("execute_plan") or conf.get("digest"):
        if beside := [k for k in (*WHO, "events") if conf.get(k)]:
            raise ConfError(f"{beside[0]}: cannot be given with execute_plan: its plan has everything.")
        execute = _read(ExecutePlan, {k: conf.get(k) for k in ("execute_plan", "digest", *WHY)})

    def order(name: str, kind: type[G]) -> G | None:
        return _read(kind, conf[name], f"{name}: ") if conf.get(name) is not None else None

    return Orders(
        approve=order("approve", Approve),
        decline=order("decline", Decline),
        abandon=order("abandon", Abandon),
        redrive=order("redrive", Redrive),
        execute=execute,
    )


def undo_order(conf: Mapping[str, Any]) -> Orders:
    """The order in the conf of `ownership_undo`.

    :raises ConfError: naming the field and what is wrong with it.
    """
    _known(conf, tuple(Undo.model_fields))
    return Orders(undo=_read(Undo, dict(conf)))


def refuse(conf: Mapping[str, Any] | None, *, dag: str) -> None:
    """Refuse the conf of a run whose DAG reads none.

    :raises ConfError: if there is one.
    """
    if conf:
        raise ConfError(f"Conf {listed(conf)}: has no effect, because {dag} takes none; start it without.")


def manual_events(
    conf: Mapping[str, Any], *, run_id: str, at_ms: int, by: str | None = None
) -> list[Request]:
    """The events that `conf` names, in order.

    An item of `events` is a whole event as on the topic, or an object of the form's fields. One without
    a `mid` of its own, or the dry run of a whole event, gets ``manual:<run id>:<n>``, the same at every try. The form's other
    fields say how all of them are carried out. `by` started the run; it counts as requester where an event names none.

    :raises ConfError: for unknown keys, missing fields and events out of contract.
    """
    _known(conf, KNOWN)
    given = conf.get("events")
    if (given is not None and not isinstance(given, Sequence)) or isinstance(given, str | bytes):
        raise ConfError("events: must be a list of events.")
    items = list(given or [])
    form = {k: conf.get(k) for k in WHO}
    filled = any(v not in (None, "") for v in form.values())
    if len(items) + filled > MAX_EVENTS:
        raise ConfError(f"events: has {len(items) + filled} events, at most {MAX_EVENTS} go into one run.")
    shared = {k: v for k in HOW if (v := conf.get(k)) not in (None, "")}
    how = _read(_How, shared)
    whole = [_is_whole(item) for item in items]
    _check_effect(conf, how, whole=any(whole), in_form=filled or not all(whole))
    if by is not None:
        shared.setdefault("requested_by", by)

    found = [
        _item(item, f"events[{n}]: ", f"manual:{run_id}:{n}", at_ms, shared, how)
        for n, item in enumerate(items)
    ]
    if filled:
        transfer = _read(TransferForm, {**shared, **form})
        found.append(_short(transfer, f"manual:{run_id}:{len(items)}", at_ms))
    mids = [r.event.mid for r in found]
    repeated = sorted({m for m in mids if mids.count(m) > 1})
    if repeated:
        raise ConfError(f"events: mid {repeated[0]!r} is given more than once.")
    return found


def apply_merge_patch(value: Any, patch: Any) -> Any:
    """`value` with a JSON merge patch applied (RFC 7396)."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(value) if isinstance(value, Mapping) else {}
    for key, change in patch.items():
        if change is None:
            result.pop(key, None)
        else:
            result[key] = apply_merge_patch(result.get(key), change)
    return result


def _check_effect(conf: Mapping[str, Any], how: _How, *, whole: bool, in_form: bool) -> None:
    """Refuse what the form says of transfers where it would have no effect: a dry run of an order would carry it out.

    `whole`: the conf has whole events; `in_form`: it has transfers in the form's words.
    """
    some = whole or in_form
    options = how.options()
    scope = [name for name in SCOPE if getattr(options, name) != getattr(PLAIN, name)]
    why = [name for name in WHY if getattr(how, name) is not None]
    order = next((name for name in ("execute_plan", *ORDERS) if conf.get(name)), None)
    if order and (beside := [name for name in scope if name == "dry_run" or not some]):
        raise ConfError(
            f"{beside[0]}: has no effect on {order}, which is carried out as it is: give one or the other."
        )
    if scope and not some:
        raise ConfError(f"{scope[0]}: is said of transfers, and the conf has none; give {', '.join(WHO)}.")
    if why and (whole or not in_form) and order != "execute_plan":
        owner = "whole events have their own" if whole else "it has no transfer"
        if order and not whole:
            owner = f"{order} takes its own"
        raise ConfError(f"{why[0]}: would not be kept: {owner}; leave it out.")


def _is_whole(item: Any) -> bool:
    """True for an event as on the topic, False for an object of the form's fields."""
    return isinstance(item, Mapping) and ("edata" in item or "eid" in item)


def _item(item: Any, where: str, mid: str, at_ms: int, shared: Mapping[str, Any], how: _How) -> Request:
    if not isinstance(item, Mapping):
        raise ConfError(f"{where}must be an object, is {type(item).__name__}.")
    if not _is_whole(item):
        transfer = _read(_Item, {**shared, **item}, where)
        return _short(transfer, transfer.mid or mid, at_ms)
    if beside := [k for k in (*WHO, *HOW) if k in item]:
        raise ConfError(
            f"{where}{listed(beside)}: is not read in a whole event; give {', '.join(SCOPE)} outside of events."
        )
    envelope = {"mid": mid, "ets": at_ms, **item}
    if how.dry_run:
        envelope["mid"] = mid  # under its own, the event itself would count as known when it comes
    try:
        return Request.of(envelope, how.options(), unnamed=mid)
    except Poison as e:
        raise ConfError(f"{where}{e}.") from None
    except RecursionError:
        raise ConfError(f"{where}is nested too deeply.") from None


def _short(transfer: TransferForm, mid: str, at_ms: int) -> Request:
    envelope = manual_event(
        mid=mid,
        ets=at_ms,
        **{k: getattr(transfer, k) for k in WHO},
        **request_fields(transfer.reason, transfer.requested_by),
    )
    try:
        return Request.of(envelope, transfer.options())
    except Poison as e:  # for instance a run id that makes the mid too long
        raise ConfError(f"{e}.") from None


def request_fields(reason: str | None, requested_by: str | None) -> dict[str, Any]:
    """Who asked for an event and why, in the fields that the platform's own events have for it."""
    fields: dict[str, Any] = {"context": reason} if reason else {}
    return fields | ({"actionBy": {"userId": requested_by}} if requested_by else {})


def _known(conf: Mapping[str, Any], known: Sequence[str]) -> None:
    unknown = set(conf) - set(known)
    if unknown:
        raise ConfError(f"Unknown conf {listed(unknown)}; known are {', '.join(known)}.")


def _read(kind: type[G], values: Any, where: str = "") -> G:
    try:
        return kind.model_validate(values)
    except ValidationError as e:
        if issubclass(kind, TransferForm) and (wrong := _wrong_names(e)):
            raise ConfError(f"{where}{', '.join(wrong)}; give {', '.join(WHO)}.") from None
        raise ConfError(f"{where}{explain(e)}.") from None
    except RecursionError:
        raise ConfError(f"{where}is nested too deeply.") from None


def _wrong_names(error: ValidationError) -> list[str]:
    """Which fields are missing, and which are there that should not be."""

    def names(kind: str) -> list[str]:
        return [str(e["loc"][-1]) for e in error.errors() if e["type"] == kind]

    found = [f"{name} is missing" for name in names("missing")]
    if unknown := names("extra_forbidden"):
        found.append(f"{listed(unknown)} {'are' if len(unknown) > 1 else 'is'} unknown")
    return found
