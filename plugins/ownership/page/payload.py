"""What of an event's payload may be shown: the contract's own fields, with ids, names and roles of people. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ownership.domain.decoding import parse_json
from ownership.domain.text import printable

HIDDEN: Final = "(not shown)"
MAX_CHARACTERS: Final = 20_000

_PERSON: Final[Mapping[str, Any]] = dict.fromkeys(("userId", "userName", "firstName", "lastName", "roles"))
_FIELDS: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("eid", "ets", "mid", "undo_of", "plan_of", "redrive_of", "follow_up_of")),
    "actor": dict.fromkeys(("id", "type")),
    "object": dict.fromkeys(("id", "type")),
    "context": {"pdata": dict.fromkeys(("id", "ver", "pid")), "cdata": dict.fromkeys(("id", "type"))},
    "edata": {
        **dict.fromkeys(("action", "iteration", "organisationId", "context", "fromUserId", "toUserId")),
        "actionBy": {"userId": None, "userName": None},
        "fromUserProfile": _PERSON,
        "toUserProfile": _PERSON,
        "assetInformation": dict.fromkeys(("objectType", "identifier", "primaryCategory", "name")),
    },
}
"""The contract; None is a value that is shown, if it is no object."""


def shown(payload: bytes) -> str | None:
    """The payload for people, with everything beyond the contract hidden; None if it cannot be read as JSON."""
    try:
        value = parse_json(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    text = json.dumps(_shown(value, _FIELDS), indent=2, ensure_ascii=False)
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}\n…"


def names(payload: bytes) -> dict[str, str]:
    """By `fromUserProfile`, `toUserProfile` and `actionBy`, the name that the event carries for them."""
    try:
        edata = parse_json(payload).get("edata", {})
        people = {k: edata[k] for k in ("fromUserProfile", "toUserProfile", "actionBy") if k in edata}
    except (ValueError, AttributeError, TypeError, RecursionError):
        return {}
    return {k: name for k, p in people.items() if isinstance(p, dict) and (name := _name(p))}


class NamePair(NamedTuple):
    """The names of old and new user, each empty where it is not known."""

    from_name: str = ""
    to_name: str = ""


NO_NAMES: Final = NamePair()


def name_pair(payload: bytes) -> NamePair:
    """The names that the event carries."""
    found = names(payload)
    return NamePair(found.get("fromUserProfile", ""), found.get("toUserProfile", ""))


def _name(person: Mapping[str, Any]) -> str:
    parts = [person.get("firstName"), person.get("lastName")]
    full = " ".join(p for p in parts if isinstance(p, str) and p)
    name = full or person.get("userName")
    return printable(name[:200]) if isinstance(name, str) else ""


def _shown(value: Any, fields: Mapping[str, Any] | None) -> Any:
    if isinstance(value, list):
        return [_shown(v, fields) for v in value[:50]]
    if not isinstance(value, dict):
        # Where the contract has an object, a plain value may be anything.
        if fields is not None and value is not None:
            return HIDDEN
        return printable(value) if isinstance(value, str) else value
    if fields is None:
        return HIDDEN
    return {printable(k[:100]): _shown(v, fields[k]) if k in fields else HIDDEN for k, v in value.items()}
