"""The conf of a manual run: transfers to carry out, events to abandon or to redrive.

Pure; the same checks as for Kafka events.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ownership.errors import Poison, SettingsError
from ownership.events import MessageId, TransferEvent, event_from, explain, manual_event

KNOWN = ("events", "from_user", "to_user", "organisation_id", "abandon", "redrive")
FIELDS = ("from_user", "to_user", "organisation_id")
MOST_EVENTS = 1000
"""Most events in one conf; more belong on the topic."""


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    mids: Annotated[tuple[MessageId, ...], Field(min_length=1, max_length=MOST_EVENTS)]


class Abandon(_Order):
    """Open events to end for good, and why."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class Redrive(_Order):
    """Events to try again: failed ones now, skipped ones as new events."""


class Orders(NamedTuple):
    """What an operator asks of a run beside transfers."""

    abandon: Abandon | None = None
    redrive: Redrive | None = None


class ConfError(SettingsError):
    """The conf cannot be carried out; the message names each field."""


def orders(conf: Mapping[str, Any]) -> Orders:
    """What `conf` says under ``abandon`` and ``redrive``.

    :raises ConfError: naming the field and what is wrong with it.
    """
    found: dict[str, Any] = {}
    kinds: tuple[tuple[str, type[_Order]], ...] = (("abandon", Abandon), ("redrive", Redrive))
    for name, kind in kinds:
        if conf.get(name):
            try:
                found[name] = kind.model_validate(conf[name])
            except ValidationError as e:
                raise ConfError(f"{name}: {explain(e)}.") from None
    return Orders(**found)


def manual_events(conf: Mapping[str, Any], *, run_id: str, at_ms: int) -> list[tuple[TransferEvent, bytes]]:
    """The events that `conf` names, each with its payload, in order.

    An item of `events` is a whole event as on the topic, or an object of the three form fields.
    One without a `mid` of its own gets ``manual:<run id>:<n>``, the same at every try.

    :raises ConfError: for unknown keys, missing fields and events out of contract.
    """
    unknown = sorted(set(conf) - set(KNOWN))
    if unknown:
        raise ConfError(f"Unknown conf {', '.join(map(repr, unknown))}; known are {', '.join(KNOWN)}.")
    raw: list[Any] = []
    given = conf.get("events")
    if (given is not None and not isinstance(given, Sequence)) or isinstance(given, str | bytes):
        raise ConfError("events: must be a list of events.")
    raw += given or []
    form = {f: conf.get(f) for f in FIELDS}
    if any(v not in (None, "") for v in form.values()):
        raw.append(form)
    if len(raw) > MOST_EVENTS:
        raise ConfError(f"events: has {len(raw)} events, at most {MOST_EVENTS} go into one run.")
    events = [_event(item, n, run_id, at_ms) for n, item in enumerate(raw)]
    mids = [e.mid for e, _ in events]
    repeated = sorted({m for m in mids if mids.count(m) > 1})
    if repeated:
        raise ConfError(f"events: mid {repeated[0]!r} is given more than once.")
    return events


def _event(item: Any, n: int, run_id: str, at_ms: int) -> tuple[TransferEvent, bytes]:
    where = f"events[{n}]"
    if not isinstance(item, Mapping):
        raise ConfError(f"{where}: must be an object, is {type(item).__name__}.")
    mid = f"manual:{run_id}:{n}"
    if "edata" in item or "eid" in item:
        envelope = {"mid": mid, "ets": at_ms, **item}
    else:
        unknown = sorted(set(item) - set(FIELDS))
        missing = [f for f in FIELDS if not item.get(f)]
        if unknown or missing:
            words = [f"{f} is missing" for f in missing] + [f"{f!r} is unknown" for f in unknown]
            raise ConfError(f"{where}: {', '.join(words)}; give {', '.join(FIELDS)}.")
        envelope = manual_event(mid=mid, ets=at_ms, **{f: item[f] for f in FIELDS})
    try:
        return event_from(envelope), json.dumps(envelope, sort_keys=True).encode()
    except Poison as e:
        raise ConfError(f"{where}: {e}.") from None
    except RecursionError:
        raise ConfError(f"{where}: is nested too deeply.") from None
