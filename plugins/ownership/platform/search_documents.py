"""Documents of course batches: what one says of its batch, and one made from a row as the LMS writes it. Pure.

The LMS's code (Sunbird-Lern lms-service) is the source of names and formats. Documents are older than it, and say what
they say: nothing here raises an error for what stands in one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, tzinfo
from itertools import chain
from typing import Any, Final, NamedTuple, TypeGuard

from ownership.domain.clock import from_ms
from ownership.domain.event import folded
from ownership.domain.plan import BatchId

MAX_KEY_BYTES: Final = 1_300
"""Two longer ones do not fit into a row of the ledger's index (2,704 bytes), and one of them would fail the whole plan.
The platform's ids have some 30."""
NAMES: Final = ("batchId", "identifier", "id")
"""Fields that name a document's batch: the LMS writes all of them, old documents have some."""
OWNERS: Final = ("createdBy", "mentors")

_FIELDS: Final = {
    "courseid": "courseId",
    "batchid": "batchId",
    "name": "name",
    "description": "description",
    "createdby": "createdBy",
    "createdfor": "createdFor",
    "mentors": "mentors",
    "enrollmenttype": "enrollmentType",
    "status": "status",
}
"""Column -> field."""
_TIMES: Final = {
    "createdDate": ("created_date", "createddate"),
    "updatedDate": ("updated_date", "updateddate"),
}
"""Field with a time of day -> its column as a timestamp, which counts, and its column as text."""
_DATES: Final = {
    "startDate": ("start_date", "startdate"),
    "endDate": ("end_date", "enddate"),
    "enrollmentEndDate": ("enrollment_enddate", "enrollmentenddate"),
}
"""The same of fields without one."""
_TEMPLATES: Final = "cert_templates"
_JSON_IN_TEMPLATES: Final = frozenset(
    {"criteria", "issuer", "signatoryList", "notifyTemplate", "additionalProps"}
)
"""Fields of a template that hold JSON text in the row, and are objects in the document."""
COLUMNS: Final = frozenset(
    {*_FIELDS, _TEMPLATES} | {column for pair in (*_TIMES.values(), *_DATES.values()) for column in pair}
)
"""Columns that a document is made from. An installation has some of the date columns."""


class Hit(NamedTuple):
    """A document as a search shows it."""

    users: frozenset[str]
    """Creator and mentors, folded as the index compares them."""
    batch: BatchId


def is_key(value: object) -> TypeGuard[str]:
    """True for a text that a row's key and the ledger can hold: of anything else there is no row, or no trail."""
    try:
        return isinstance(value, str) and "\0" not in value and len(value.encode()) <= MAX_KEY_BYTES
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell
        return False


def batch_named(source: Mapping[str, Any]) -> str | None:
    """The id of the batch that a document names; None if it names none."""
    return next(filter(None, (row_key(source.get(name)) for name in NAMES)), None)


def row_key(value: object) -> str:
    """A part of a row's key, by the value of its field: a text, a number, or a list of one; empty for anything else."""
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if is_key(value) else ""


def users_named(source: Mapping[str, Any]) -> frozenset[str]:
    """Creator and mentors of a document, folded as the index compares them."""
    values = [source.get(name) for name in OWNERS]
    named = chain.from_iterable(v if isinstance(v, list) else [v] for v in values)
    return frozenset(folded(u) for u in named if isinstance(u, str))


def document_from(row: Mapping[str, Any], zone: tzinfo) -> dict[str, Any]:
    """A document made from a whole row.

    `row`: columns by name, timestamps in ms since the epoch. `zone`: the platform's time zone, in which a timestamp
    becomes a date.
    """
    doc = {field: _plain(row.get(column)) for column, field in _FIELDS.items()}
    for fields, write in ((_TIMES, _time), (_DATES, _date)):
        for field, columns in fields.items():
            texts = (_moment(row.get(column), zone, write) for column in columns)
            doc[field] = next(filter(None, texts), None)
    if templates := row.get(_TEMPLATES):
        doc[_TEMPLATES] = {name: _template(fields) for name, fields in templates.items()}
    doc |= {"id": row["batchid"], "identifier": row["batchid"]}
    return {field: value for field, value in doc.items() if value is not None}


def _moment(value: Any, zone: tzinfo, write: Callable[[datetime], str]) -> str | None:
    """A column of any type as a date's text: a timestamp (ms) by `write`, in `zone`; anything else as it is.

    None for null, for an empty text, which old rows have, and for a timestamp beyond the years that a date can have.
    """
    if isinstance(value, int):
        try:
            return write(from_ms(value).astimezone(zone))
        except OverflowError:
            return None
    return str(value) if value is not None and str(value).strip() else None


def _time(when: datetime) -> str:
    """``yyyy-MM-dd HH:mm:ss:SSSZ``, in Java's letters."""
    return f"{when.date()} {when:%H:%M:%S}:{when.microsecond // 1000:03d}{f'{when:%z}'[:5]}"


def _date(when: datetime) -> str:
    """``yyyy-MM-dd``."""
    return when.date().isoformat()


def _template(fields: Mapping[str, str | None]) -> dict[str, Any]:
    return {
        name: _from_json(value) if name in _JSON_IN_TEMPLATES and value else value
        for name, value in fields.items()
    }


def _from_json(text: str) -> Any:
    """The object or list that `text` spells; the text itself if that is none which the index could take."""
    try:
        value = json.loads(text)
        # What Python reads and the index refuses, with the whole document: NaN, 1e999, half a surrogate pair.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict | list) else text


def _plain(value: Any) -> Any:
    """A collection of the driver's as a plain list."""
    return list(value) if isinstance(value, list | tuple | set) else value
