"""Messages, confs, settings and answers that are almost what they should be.

All of it is made from good ones by a few changes, each drawn from a `random.Random`: hypothesis hands one out whose
every choice it can shrink, and a plain one with a seed makes the same messages again.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, TypeVar

from ownership.domain.event import manual_event

T = TypeVar("T")

PEOPLE = {
    "userName": "zq-username-77",
    "firstName": "Zqfirstname",
    "lastName": "Zqlastname",
    "email": "zq.private@mail.example",
    "phone": "+99-8877-6655-4433",
}
"""What profiles say about people, in words that occur nowhere else."""

ODD_TEXTS = (
    "", " ", "\t", "\n", " A", "A ", "\x00", "a\x00b", "\x1b[31m", "\x7f", "\x85", "\u2028", "\ud800", "a\udfffb",
    "\ufeffA", "\u202eA", "e\u0301", "İ", "ß", "ΟΔΟΣ", "漢字", "🙂", "🙂" * 64, "a" * 256, "a" * 257, "m" * 300, "m" * 301,
    "\u00e9" * 256, "x" * 5000, ".", "..", "...", "a/b?c#d", "%00", "'; DROP TABLE x; --", "{{ 7 * 7 }}", "${jndi:x}",
    "true", "null", "NaN", "0", "-1", "1767225601000", "1e3", "rejected:t:0:1", "a+", "LP.1:follow-up:1",
    "BE_JOB_REQUEST", "ownership-transfer", "Ownership-Transfer",
)  # fmt: skip
ODD_NUMBERS = (
    0, -0.0, -1, 1, 1.0, 1.5, 2**31, -(2**31) - 1, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30,
    10**400, 1e308, float("inf"), float("-inf"), float("nan"), 1767225601000.0,
)  # fmt: skip


def pick(random: Random, among: Sequence[T]) -> T:
    """One of `among`."""
    return among[random.randrange(len(among))]


def odd(random: Random, depth: int = 0) -> Any:
    """A value that is most likely not what belongs there."""
    kind = random.randrange(7 if depth < 3 else 5)
    if kind == 0:
        return pick(random, (None, True, False))
    if kind == 1:
        return pick(random, ODD_NUMBERS)
    if kind in (2, 3):
        return pick(random, ODD_TEXTS)
    if kind == 4:
        return pick(random, ([], {}, [[]], [None], {"userId": "A"}, {"": ""}, ["A"]))
    if kind == 5:
        return [odd(random, depth + 1) for _ in range(random.randrange(4))]
    return {pick(random, ODD_TEXTS): odd(random, depth + 1) for _ in range(random.randrange(4))}


def deep(levels: int, inner: Any = 1, *, objects: bool = False) -> Any:
    """`inner`, in so many lists or objects."""
    for _ in range(levels):
        inner = {"a": inner} if objects else [inner]
    return inner


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key or index) in `value`."""
    keys: Any = ()
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = range(len(value))
    for key in keys:
        yield value, key
        yield from places(value[key])


def changed(random: Random, value: Any, *, times: int | None = None) -> Any:
    """A copy of a JSON value with one to three things wrong."""
    value = copy.deepcopy(value)
    for _ in range(times if times is not None else random.randrange(1, 4)):
        there = list(places(value))
        if not there:
            return odd(random)
        holder, key = pick(random, there)
        _CHANGES[random.randrange(len(_CHANGES))](random, holder, key, there)
    return value


def _replace(random: Random, holder: Any, key: Any, _: Any) -> None:
    holder[key] = odd(random)


def _remove(_random: Random, holder: Any, key: Any, _: Any) -> None:
    del holder[key]


def _as_text(_random: Random, holder: Any, key: Any, _: Any) -> None:
    """A number as text, a text as number where it is one, an object as its JSON."""
    value = holder[key]
    if isinstance(value, str):
        holder[key] = int(value) if value.isdecimal() and len(value) < 4000 else [value]
    else:
        holder[key] = json.dumps(value)


def _wrap(random: Random, holder: Any, key: Any, _: Any) -> None:
    holder[key] = pick(random, ([holder[key]], {"value": holder[key]}, [holder[key], holder[key]]))


def _swap(random: Random, holder: Any, key: Any, there: Any) -> None:
    other, place = pick(random, there)
    a, b = copy.deepcopy(holder[key]), copy.deepcopy(other[place])
    holder[key] = b
    # The first may have held the second: then its place is gone with it.
    if (place in other) if isinstance(other, dict) else (place < len(other)):
        other[place] = a


def _extra(random: Random, holder: Any, key: Any, _: Any) -> None:
    if isinstance(holder, dict):
        holder[pick(random, (*ODD_TEXTS, "fromUserId", "Mid", "userid"))] = odd(random)
    else:
        holder.insert(key, odd(random))


def _rename(random: Random, holder: Any, key: Any, _: Any) -> None:
    if isinstance(holder, dict):
        new = pick(random, (key.upper(), key.lower(), f"{key} ", f" {key}", key[:-1], f"{key}\x00"))
        holder[new] = holder.pop(key)


def _text(random: Random, holder: Any, key: Any, _: Any) -> None:
    """Something put into a text, before it or behind it."""
    if isinstance(holder[key], str):
        at = random.randrange(len(holder[key]) + 1)
        holder[key] = holder[key][:at] + pick(random, ODD_TEXTS) + holder[key][at:]
    else:
        holder[key] = pick(random, ODD_TEXTS)


def _deepen(random: Random, holder: Any, key: Any, _: Any) -> None:
    holder[key] = deep(pick(random, (5, 50, 100)), holder[key], objects=bool(random.randrange(2)))


_CHANGES: tuple[Callable[[Random, Any, Any, Any], None], ...] = (
    _replace, _replace, _replace, _remove, _remove, _as_text, _wrap, _swap, _extra, _extra, _rename, _text, _text,
    _deepen,
)  # fmt: skip


# --- events and messages


def good_event(random: Random, users: Sequence[str] = ("A-1", "b-2", "Ç-3", "漢-4")) -> dict[str, Any]:
    """An event as the platform sends it, profiles with people's names included."""
    old, new = pick(random, users), pick(random, users)
    ets = 1_767_225_601_000 + random.randrange(10**6)
    event = manual_event(
        mid=f"LP.{ets}.{random.randrange(10**9)}", ets=ets, from_user=old, to_user=new, organisation_id="org-1",
        context=pick(random, ("User Deletion", "Ownership Transfer")),
    )  # fmt: skip
    edata = event["edata"]
    edata["actionBy"] = {"userId": "admin-1", "userName": PEOPLE["userName"]}
    edata["fromUserProfile"] |= {**PEOPLE, "roles": ["CONTENT_CREATOR"]}
    edata["toUserProfile"] |= {**PEOPLE, "roles": []}
    if random.randrange(2):
        edata["assetInformation"] = {"objectType": "Content", "identifier": "do_21", "name": "Course 0"}
    return event


def dumped(random: Random, value: Any) -> bytes:
    """`value` as JSON, in one of the ways in which JSON is written."""
    text = json.dumps(
        value,
        ensure_ascii=bool(random.randrange(2)),
        separators=pick(random, (None, (",", ":"), (" ,\n", "\t: "))),
    )
    return text.encode("utf-8", "surrogatepass")


def spoiled(random: Random, message: bytes) -> bytes:
    """A copy of a message with something done to its bytes."""
    return _SPOILS[random.randrange(len(_SPOILS))](random, message)


def _cut(random: Random, m: bytes) -> bytes:
    return m[: random.randrange(len(m) + 1)]


def _flip(random: Random, m: bytes) -> bytes:
    at = random.randrange(len(m)) if m else 0
    return m[:at] + bytes([random.randrange(256)]) + m[at + 1 :]


def _insert(random: Random, m: bytes) -> bytes:
    at = random.randrange(len(m) + 1)
    return m[:at] + pick(random, _BYTES) + m[at:]


def _lose(random: Random, m: bytes) -> bytes:
    at = random.randrange(len(m) + 1)
    return m[:at] + m[at + random.randrange(20) :]


def _repeat_key(random: Random, m: bytes) -> bytes:
    """A key of the object twice, the first time with another value."""
    name = pick(random, ("mid", "ets", "eid", "edata", "actor"))
    return m.replace(b"{", b"{" + json.dumps({name: odd(random)}).encode()[1:-1] + b", ", 1)


def _encode(random: Random, m: bytes) -> bytes:
    text = m.decode("utf-8", "replace")
    return text.encode(pick(random, ("utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig")), "replace")


def _nest(random: Random, m: bytes) -> bytes:
    n = pick(random, (400, 900, 950, 990, 2000))
    return m.replace(pick(random, (b"{}", b"[]")), b'{"a":' * n + b"[1]" + b"}" * n, 1)


def _long_number(random: Random, m: bytes) -> bytes:
    return m.replace(b"1", b"9" * pick(random, (30, 4300, 5000)), 1)


_BYTES = (
    b"\xef\xbb\xbf", b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\r\n", b"//", b"'", b"\\", b"\\u0000", b"\\ud800", b",",
    b"}", b"]", b"[" * 2000, b'{"a":' * 2000, b"NaN", b"-Infinity", b"1e999", b"\x1f\x8b",
)  # fmt: skip
_SPOILS: tuple[Callable[[Random, bytes], bytes], ...] = (
    _cut, _cut, _flip, _flip, _insert, _insert, _insert, _lose, _repeat_key, _repeat_key, _encode, _long_number, _nest, _nest,
    lambda _, m: b"\xef\xbb\xbf" + m,
    lambda r, m: m + pick(r, (m, b"\n" + m, b",", b"\x00", b" ", b"}")),
    lambda _, m: b"[" + m + b"]",
    lambda _, m: json.dumps(m.decode("utf-8", "replace")).encode(),
    lambda _, m: m.replace(b'"', b"'"),
)  # fmt: skip


def message(random: Random, users: Sequence[str] = ("A-1", "b-2", "Ç-3", "漢-4")) -> bytes:
    """A message that is good, or wrong in its fields, its bytes, or both."""
    event: Any = good_event(random, users)
    kind = random.randrange(10)
    if kind >= 3:
        event = changed(random, event)
    raw = dumped(random, event)
    return spoiled(random, raw) if kind in (1, 2, 8, 9) else raw


# --- confs

DIGEST = "0123456789abcdef0123"
TRANSFER = {"from_user": "A-1", "to_user": "b-2", "organisation_id": "org-1"}
CONFS: dict[str, dict[str, Any]] = {
    "form": {
        **TRANSFER, "roles": ["created"], "statuses": ["0", 1], "course_ids": ["c1", "c2"], "reason": "left",
        "requested_by": "admin-1", "dry_run": True,
    },
    "events": {"events": [TRANSFER, {**TRANSFER, "to_user": "d", "reason": "why"}], "dry_run": False},
    "execute": {"execute_plan": "LP.1.a", "digest": DIGEST, "reason": "agreed"},
    "approve": {"approve": {"mid": "LP.1.a", "digest": DIGEST, "by": "admin-1"}},
    "decline": {"decline": {"mid": "LP.1.a", "reason": "no", "by": "admin-1"}},
    "abandon": {"abandon": {"mids": ["LP.1.a", "LP.1.b"], "reason": "wrong"}},
    "redrive mids": {"redrive": {"mids": ["LP.1.a"]}},
    "redrive states": {
        "redrive": {"states": ["failed", "skipped"], "since": "2026-11-23T08:00:00Z", "until": "2026-11-24T08:00:00"}
    },
    "redrive letters": {
        "redrive": {"dead_letters": {"partition": 0, "from_offset": 3, "to_offset": 7, "merge_patch": {"eid": "BE_JOB_REQUEST"}}}
    },
}  # fmt: skip
"""Good confs of `user_ownership_transfer`."""
UNDOS: dict[str, dict[str, Any]] = {
    "undo mids": {"mids": ["LP.1.a"], "dry_run": False, "reason": "wrong", "requested_by": "admin-1"},
    "undo run": {"run_id": "manual__2026-11-23T09:00:00+00:00"},
    "undo user": {"from_user": "A-1", "to_user": "b-2", "since": "2026-11-23T08:00:00Z", "until": "2026-11-24T00:00:00Z"},
}  # fmt: skip
"""Good confs of `ownership_undo`."""


def conf(random: Random) -> dict[str, Any]:
    """A conf of the transfer DAG, good or with something wrong."""
    made = copy.deepcopy(CONFS[pick(random, list(CONFS))])
    if "events" in made and random.randrange(2):
        made["events"].append(good_event(random))
    if random.randrange(5) == 0:
        made |= copy.deepcopy(CONFS[pick(random, list(CONFS))])
    return _object(random, made)


def undo(random: Random) -> dict[str, Any]:
    """A conf of the undo DAG, good or with something wrong."""
    return _object(random, copy.deepcopy(UNDOS[pick(random, list(UNDOS))]))


def _object(random: Random, made: dict[str, Any]) -> dict[str, Any]:
    """Airflow lets nothing but an object through, without texts that its database refuses."""
    if not random.randrange(6):
        return made
    value = changed(random, made)
    return value if isinstance(value, dict) else {"events": value}


# --- settings

SETTINGS: dict[str, Any] = {
    "env": "prod", "kafka.input.topic": "in", "kafka.failed.topic": "out", "kafka.groupId": "group",
    "lms-cassandra.keyspace": "lms", "lms-cassandra.course_batch.table": "course_batch",
    "es.course_batch.index": "course-batch", "threshold.batch.write.size": 10,
    "service.lms.basePath": "http://lms:9000/base", "service.userorg.basePath": "https://userorg",
    "user_read_api": "/private/user/v1/read/", "batch_search_api": "/v1/course/batch/search",
    "user.ownership.transfer.parallelism": 2, "max_mapped": 16, "max_events": 100, "claim.seconds": 60, "grace.ms": 0,
    "watcher.resignal.seconds": 5, "approval.batches": 0, "approval.timeout.hours": 1, "notify.email.to": "a@b.example",
    "notify.webhook.connection": "hook", "ledger.retention.days": 30,
}  # fmt: skip
URLS = (
    "http://", "http://[", "http://[::1]:9000", "http://h:0", "http://h:99999", "http://h:-1", "http://h:9x", "http://:80",
    "http://u:p@h", "http://h/%zz", "http://" + "a" * 64, "http://" + "a." * 200, "http://a..b", "http://\x00", "http://h\\x",
    "http://ünï", "http://xn--", "http://1.2.3.4.5", "HTTP://h", "http://h:", "http://h://x", "ftp://h", "http://h/\ud800",
)  # fmt: skip
NAMES = (
    ".",
    "..",
    "...",
    "-",
    "_",
    "a" * 249,
    "a" * 250,
    "a b",
    "a/b",
    "select",
    "A",
    "1a",
    "a\n",
    "a\x00",
    "é",
)


def settings_text(random: Random) -> str:
    """The text of the Variable, good or with something wrong."""
    wanted = [k for k in SETTINGS if random.randrange(4) == 0]
    made: Any = {k: SETTINGS[k] for k in wanted}
    kind = random.randrange(6)
    if kind in (1, 2) and made:
        made[pick(random, list(made))] = pick(random, (*URLS, *NAMES))
    elif kind == 3 and made:
        made[pick(random, list(made))] = pick(random, (*ODD_NUMBERS, "10", "ten", True))
    elif kind in (4, 5):
        made = changed(random, made or {"env": "dev"})
    text = json.dumps(made)
    if random.randrange(8) == 0:
        return spoiled(random, text.encode()).decode("utf-8", "replace")
    return text


# --- what the services and the index answer


def user_answer(random: Random, user_id: str) -> tuple[int, bytes]:
    """Status and body of User-Org's read."""
    body: Any = {
        "id": "api.user.read", "ver": "v1", "responseCode": "OK", "params": {"err": None, "status": "success"},
        "result": {"response": {"identifier": user_id, "rootOrgId": "org-1", "isDeleted": False, **PEOPLE}},
    }  # fmt: skip
    status = pick(
        random, (200, 200, 200, 200, 404, 400, 201, 301, 401, 403, 409, 418, 429, 500, 502, 503, 599)
    )
    if status in (400, 404) or random.randrange(8) == 0:
        body = {
            "responseCode": pick(random, ("RESOURCE_NOT_FOUND", "CLIENT_ERROR")),
            "params": {"err": pick(random, ("USER_NOT_FOUND", None)), "status": "FAILED"},
            "result": {},
        }
    return status, _answer(random, body)


def search_answer(random: Random, hits: int, total: int | None = None) -> tuple[int, bytes]:
    """Status and body of the LMS's batch search."""
    content = [
        {"batchId": f"b{n}", "courseId": f"c{n}", "createdBy": "A-1", "mentors": ["m", "A-1"]} for n in range(hits)
    ]  # fmt: skip
    body = {
        "responseCode": "OK",
        "result": {"response": {"count": hits if total is None else total, "content": content}},
    }
    status = pick(random, (200,) * 40 + (400, 404, 429, 500, 503))
    return status, _answer(random, body)


def _answer(random: Random, body: Any) -> bytes:
    kind = random.randrange(10)
    if kind >= 6:
        body = changed(random, body)
    raw = json.dumps(body).encode("utf-8", "surrogatepass")
    return spoiled(random, raw) if kind in (5, 9) else raw
