"""From the bytes of a message to a JSON value; what is no JSON is named as what it is. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from ownership.domain.errors import Poison

MAX_EVENT_BYTES = 256 * 1024
"""A real event has about 2 KiB; anything above this is rejected unread."""

MAX_LEVELS = 100
"""Objects and lists in one another that an event may have; a real one has five. Python's own bound depends on who
calls: what one task reads, another could not."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_JSON_BEGINS: Final = b'{["\t\n\r '
_OTHER_FORMATS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\xff\xfe\x00\x00", "in UTF-32"),
    (b"\x00\x00\xfe\xff", "in UTF-32"),
    (b"{\x00\x00\x00", "in UTF-32"),
    (b"\x00\x00\x00{\x00\x00\x00", "in UTF-32"),
    (b"\xff\xfe", "in UTF-16"),
    (b"\xfe\xff", "in UTF-16"),
    *((bytes((c, 0)), "in UTF-16") for c in _JSON_BEGINS),
    *((bytes((0, c, 0)), "in UTF-16") for c in _JSON_BEGINS),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"\x04\x22\x4d\x18", "compressed with lz4"),
    (b"\xff\x06\x00\x00sNaPpY", "compressed with snappy"),
    (b"\x82SNAPPY\x00", "compressed with snappy"),
    *((bytes((0x78, level)), "compressed with zlib") for level in (0x01, 0x5E, 0x9C, 0xDA)),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ\x00", "compressed with xz"),
    (b"LZ4Block", "compressed with lz4"),
    (b"PK\x03\x04", "compressed with zip"),
    (b"Obj\x01", "an Avro file"),
    (b"\xc3\x01", "an Avro object"),
    (b"\n\x0eBE_JOB_REQUEST", "a Protobuf message"),
    (b"\xd9\xd9\xf7", "CBOR"),
    (b":)\n", "Smile"),
    (b"\xac\xed\x00\x05", "a serialized Java object"),
    (b"ey", "JSON in Base64"),
    (b"ew", "JSON in Base64"),
    (b"77u/e", "JSON in Base64"),
    (b"H4sI", "compressed with gzip, in Base64"),
    (b"%7B", "JSON, percent-encoded"),
    (b"<", "XML or HTML"),
    (b"\x00", "framed by a schema registry's serializer (magic byte 0x00)"),
    (b"\x01", "framed by a schema registry's serializer (magic byte 0x01)"),  # Confluent's with a GUID
    (b"\x03", "framed by a schema registry's serializer (first byte 0x03)"),  # AWS Glue's
)
"""First bytes and what they say, the longer ones first where one begins another."""
_MAX_DIGITS = 400
"""A longer number is read as infinity: Python refuses to read numbers of more than 4,300 digits."""
MAX_NAME = 60
"""Characters of a name from outside that an error shows."""


def decode(message: bytes | None) -> Any:
    """The JSON value of a message. A UTF-8 byte order mark is taken off.

    :raises Poison: naming what the message is instead: packed, framed, in another encoding, ambiguous.
    """
    if not message:
        raise Poison("the message is empty")
    if len(message) > MAX_EVENT_BYTES:
        raise Poison(f"the message has {len(message)} bytes, at most {MAX_EVENT_BYTES} are read")
    if other := next((what for first, what in _OTHER_FORMATS if message.startswith(first)), None):
        raise Poison(f"the message is {other}; events are plain JSON in UTF-8")
    try:
        text = message.removeprefix(_BYTE_ORDER_MARK).decode("utf-8")
        value = parse_json(text, object_pairs_hook=_object)
    except UnicodeDecodeError as e:
        raise Poison(f"not UTF-8: {e.reason} at byte {e.start}") from None
    except RecursionError:
        raise Poison("the JSON is nested too deeply") from None
    except ValueError as e:
        raise Poison(f"not JSON: {e}") from None
    if isinstance(value, (dict, list)) and too_deep(value):
        raise Poison("the JSON is nested too deeply")
    return value


def parse_json(text: bytes | str, **hooks: Any) -> Any:
    """The value of a JSON text, which may have numbers of any length.

    :raises ValueError: if it is none.
    :raises RecursionError: if it is nested too deeply for Python.
    """
    return json.loads(text, parse_int=_integer, **hooks)


def holds_json(text: str) -> bool:
    """True for a text that looks like JSON again: its producer encoded it twice."""
    return text.lstrip("\ufeff \t\r\n").startswith(("{", "["))


def too_deep(value: dict[str, Any] | list[Any]) -> bool:
    """True for a JSON object or list with more than `MAX_LEVELS` objects and lists in one another."""
    level: list[Any] = [value]
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


def same_payload(one: bytes, other: bytes) -> bool:
    """True if both payloads hold the same JSON value, whatever their spacing and key order."""
    if one == other:
        return True
    try:
        return bool(parse_json(one) == parse_json(other))
    except (ValueError, RecursionError):
        return False


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object. A key that is there twice has no value that all readers agree on."""
    found = dict(pairs)
    if len(found) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise Poison(f"the key {name[:MAX_NAME]!r} is there twice in one object")
    return found


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)
