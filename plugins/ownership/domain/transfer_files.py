"""Transfers in a CSV file: the columns of the form, or the platform's report of deleted users' assets. Pure.

Either form is read to at most `MAX_ROWS` rows. Blank rows are left out, but count as a spreadsheet counts them: the
header is row 1. A file as a whole is refused for what concerns all of it; else each row has its own error, or none.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter, ValidationError

from ownership.domain.conf import Reason
from ownership.domain.csv_text import csv_lines, is_formula
from ownership.domain.event import Identifier, folded, listed
from ownership.domain.id_text import trimmed
from ownership.domain.text import one_line, printable

MAX_ROWS: Final = 10_000
"""Rows of a file below its header."""
MAX_BYTES: Final = 8 * 1024 * 1024
MAX_BLANK: Final = 10_000
"""Blank rows above a row: a run brings a thousand numbers of rows, however few rows have them."""
MAX_CELL: Final = 500
"""Characters of a bad cell that are kept."""

COLUMNS: Final = ("from_user", "to_user", "organisation_id", "reason")
"""The columns of the form. `to_user` may be given beside the file, `reason` may be left out."""
REPORT_COLUMNS: Final = (
    "userId", "username", "organisationId", "roles", "assetIdentifier", "assetName", "assetStatus", "objectType",
)  # fmt: skip
"""The platform's report of deleted users' assets: a row an asset. `to_user` and `reason` may be added."""
ERROR_COLUMNS: Final = ("error_row", "error")
"""Of a file with the rows that failed; ignored when it comes back."""

_COLUMN_NAMES: Final = {c.lower(): c for c in (*COLUMNS, *REPORT_COLUMNS, *ERROR_COLUMNS)}
"""By the name in any case."""
_REPORT_NAMES: Final = {"from_user": "userId", "organisation_id": "organisationId"}
_IDS: Final = ("from_user", "to_user", "organisation_id")
_ID: TypeAdapter[str] = TypeAdapter(Identifier)
_REASON: TypeAdapter[str] = TypeAdapter(Reason)
_ROUNDED: Final = re.compile(r"\d[.,]?\d*E\+\d+", re.IGNORECASE)
"""What a spreadsheet makes of an id of digits that is longer than its numbers, `1.2679E+17`: other digits are lost."""
_PACKED: Final = (
    (b"PK\x03\x04", "a ZIP archive or a workbook"),
    (b"PK\x05\x06", "a ZIP archive"),
    (b"\x1f\x8b", "packed by gzip"),
    (b"BZh", "packed by bzip2"),
    (b"\xfd7zXZ\x00", "packed by xz"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\xd0\xcf\x11\xe0", "an old workbook"),
)
_OTHER_ENCODINGS: Final = ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))


class FileRefused(ValueError):
    """The file cannot be read as a whole; the text says why, and in which row."""


class RowError(NamedTuple):
    """What is wrong with a row, and in which of its columns (empty: the row itself)."""

    column: str
    text: str


class FileRow(NamedTuple):
    """A transfer that a file asks for, or a row that cannot be one."""

    number: int
    """As a spreadsheet counts; of a report the first row of the user."""
    from_user: str = ""
    to_user: str = ""
    organisation_id: str = ""
    reason: str = ""
    assets: int | None = None
    """Rows that a report has of the user; None for a file of the other form."""
    error: RowError | None = None


def read_rows(content: bytes, *, to_user: str = "") -> list[FileRow]:
    """The transfers of a file, in order. `to_user` is the new owner wherever the file names none.

    Of several rows with one old user the first counts; the others have an error (in a report they are more of the
    user's assets). So has a row that gives to a user who gives away in the same file.

    :raises FileRefused: if the file is packed, not UTF-8, too large, or has other columns.
    """
    records = _records(_decoded(content))
    header = _header(next(records, (1, []))[1], to_user)
    report = "userId" in header
    rows = [_row(number, cells, header, to_user, report=report) for number, cells in records]
    if not rows:
        raise FileRefused("The file has no row below its header.")
    return _without_contradictions(_by_user(rows) if report else rows)


def good_rows(rows: Sequence[FileRow]) -> list[FileRow]:
    """The rows without an error.

    :raises FileRefused: if there is none; the text has the first row's error.
    """
    if good := [r for r in rows if r.error is None]:
        return good
    why = ": ".join(filter(None, rows[0].error or ()))
    raise FileRefused(f"No row can be a transfer. Row {rows[0].number}: {why}.")


def template() -> str:
    """An empty file to fill in."""
    return csv_lines([COLUMNS])


def failed_file(rows: Iterable[FileRow]) -> Iterator[str]:
    """Rows with errors, as a file to mend and send again: a line each, the header first."""
    yield csv_lines([(*COLUMNS, *ERROR_COLUMNS)])
    for row in rows:
        why = ": ".join(filter(None, row.error)) if row.error else ""
        yield csv_lines([(row.from_user, row.to_user, row.organisation_id, row.reason, row.number, why)])


def _decoded(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise FileRefused(f"The file has more than {MAX_BYTES} bytes.")
    for magic, what in _PACKED:
        if content.startswith(magic):
            raise FileRefused(f"The file is {what}: send the CSV itself.")
    for magic, what in _OTHER_ENCODINGS:
        if content.startswith(magic):
            raise FileRefused(f"The file is {what}: save it as UTF-8.")
    if (nul := content.find(0)) >= 0:
        line = content.count(b"\n", 0, nul) + 1
        raise FileRefused(
            f"Line {line}: has a NUL byte, which is in no text of UTF-8; save the file as UTF-8."
        )
    try:
        return content.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as e:
        line = e.object.count(b"\n", 0, e.start) + 1
        raise FileRefused(
            f"Line {line}: the byte 0x{e.object[e.start]:02X} is not UTF-8; save the file as UTF-8."
        ) from None


def _records(text: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, with their numbers; it stops at the first one too many."""
    number = filled = 0
    try:
        lines = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
        for number, cells in enumerate(lines, 1):
            # The first condition alone is quick: a spreadsheet may save a million empty rows.
            if not any(cells) or not any(map(trimmed, cells)):
                continue
            filled += 1
            if filled > MAX_ROWS + 1:
                raise FileRefused(f"The file has more than {MAX_ROWS} rows: send it in parts.")
            if number - filled > MAX_BLANK:
                raise FileRefused(
                    f"Row {number}: more than {MAX_BLANK} blank rows are above it: delete them."
                )
            yield number, cells
    except csv.Error as e:
        raise FileRefused(f"Row {number + 1}: is not CSV: {e}.") from None


def _header(cells: Sequence[str], to_user: str) -> list[str]:
    """The names of the columns."""
    names = [_COLUMN_NAMES.get(trimmed(cell).lower(), trimmed(cell)) for cell in cells]
    while names and not names[-1]:  # columns that a spreadsheet saves although they are empty
        names.pop()
    if not names:
        raise FileRefused(f"The file is empty: its first row must name the columns {', '.join(COLUMNS)}.")
    if repeated := {n for n, count in Counter(names).items() if count > 1}:
        raise FileRefused(f"Row 1: names {listed(repeated)} more than once.")
    wanted = REPORT_COLUMNS if "userId" in names else COLUMNS
    if unknown := set(names) - {*wanted, "to_user", "reason", *ERROR_COLUMNS}:
        hint = "; separate the columns by commas" if len(names) == 1 else ""
        raise FileRefused(f"Row 1: unknown column {listed(unknown)}; known are {', '.join(wanted)}{hint}.")
    needed = {*wanted, "to_user"} - {"reason"} - ({"to_user"} if trimmed(to_user) else set())
    if missing := needed - set(names):
        beside = "; or give one new owner beside the file" if "to_user" in missing else ""
        raise FileRefused(f"Row 1: column {listed(missing)} is missing{beside}.")
    return names


def _row(number: int, cells: list[str], header: Sequence[str], to_user: str, *, report: bool) -> FileRow:
    given = dict(zip(header, cells, strict=False))
    names = _REPORT_NAMES if report else {}
    fields: dict[str, str] = {c: given.get(names.get(c, c), "") for c in COLUMNS}
    fields["to_user"] = fields["to_user"] if trimmed(fields["to_user"]) else to_user
    assets = 1 if report else None
    if len(cells) < len(header) or any(map(trimmed, cells[len(header) :])):
        error: RowError | None = RowError("", f"has {len(cells)} cells, the header {len(header)}")
    else:
        error = _first_error(fields, names)
    if error:
        kept = {c: printable(v)[:MAX_CELL] for c, v in fields.items()}
        return FileRow(number, **kept, assets=assets, error=error)
    reason = _REASON.validate_python(fields["reason"]) if fields["reason"].strip() else ""
    from_user, new_owner, organisation_id = (trimmed(fields[c]) for c in _IDS)
    return FileRow(number, from_user, new_owner, organisation_id, reason, assets)


def _first_error(fields: dict[str, str], names: dict[str, str]) -> RowError | None:
    for column in _IDS:
        if why := _why_no_id(fields[column]):
            return RowError(names.get(column, column), why)
    if fields["reason"].strip() and (why := _why_not(_REASON, fields["reason"])):
        return RowError("reason", why)
    if folded(trimmed(fields["from_user"])) == folded(trimmed(fields["to_user"])):
        return RowError("to_user", "is the old user")
    return None


def _why_no_id(cell: str) -> str:
    """Why a cell is no id; empty if it is one."""
    if is_formula(cell) or is_formula(trimmed(cell)):
        return "begins like a formula of a spreadsheet"
    if _ROUNDED.fullmatch(trimmed(cell)):
        return "was rounded by a spreadsheet: format the column as text, type the id again"
    return _why_not(_ID, cell)


def _why_not(kind: TypeAdapter[Any], value: str) -> str:
    """Why a cell does not fit; empty if it does."""
    if not trimmed(value):
        return "is empty"
    try:
        kind.validate_python(value)
    except ValidationError as e:
        return one_line(e.errors(include_url=False)[0]["msg"].removeprefix("Value error, "))
    return ""


def _by_user(rows: Iterable[FileRow]) -> list[FileRow]:
    """The rows of a report, one for each user."""
    found: dict[str, FileRow] = {}
    for row in rows:
        key = folded(trimmed(row.from_user))
        first = found.setdefault(key, row)
        if first is row:
            continue
        both = first._replace(assets=(first.assets or 0) + 1)
        differs = next(
            (c for c in ("organisation_id", "to_user") if getattr(row, c) != getattr(first, c)), None
        )
        error = row.error
        if error is None and differs:
            error = RowError(
                _REPORT_NAMES.get(differs, differs), f"is another one than in row {first.number}"
            )
        if both.error is None and error is not None:
            both = both._replace(error=RowError(error.column, f"row {row.number}: {error.text}"))
        found[key] = both
    return list(found.values())


def _without_contradictions(rows: Iterable[FileRow]) -> list[FileRow]:
    """The rows, with an error where an earlier one has the same old user, or any gives the new one's batches away."""
    first: dict[str, FileRow] = {}
    checked: list[FileRow] = []
    for row in rows:
        if row.error is None and (before := first.setdefault(folded(row.from_user), row)) is not row:
            same = row._replace(number=before.number) == before
            text = f"is in row {before.number} already" + ("" if same else ", with another transfer")
            checked.append(row._replace(error=RowError("from_user", text)))
        else:
            checked.append(row)
    return [
        row._replace(error=RowError("to_user", f"gives away itself, in row {giver.number}"))
        if row.error is None and (giver := first.get(folded(row.to_user)))
        else row
        for row in checked
    ]
