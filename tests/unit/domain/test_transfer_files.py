from __future__ import annotations

import csv
import gzip
import io
import zipfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownership.domain.conf import manual_events
from ownership.domain.csv_text import csv_lines
from ownership.domain.transfer_files import (
    COLUMNS,
    MAX_BYTES,
    MAX_ROWS,
    REPORT_COLUMNS,
    FileRefused,
    FileRow,
    RowError,
    failed_file,
    read_rows,
    template,
)

HEADER = "from_user,to_user,organisation_id,reason"
REPORT = ",".join(REPORT_COLUMNS)


def rows_of(*lines: str, to_user: str = "") -> list[FileRow]:
    return read_rows("\r\n".join(lines).encode(), to_user=to_user)


def refusal(content: bytes) -> str:
    with pytest.raises(FileRefused) as caught:
        read_rows(content)
    return str(caught.value)


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.csv", content)
    return packed.getvalue()


def test_a_row_is_a_transfer() -> None:
    assert rows_of(HEADER, "A, B ,O,moves on", "C,D,O,") == [
        FileRow(2, "A", "B", "O", "moves on"),
        FileRow(3, "C", "D", "O"),
    ]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(["\ufeff" + HEADER, "A,B,O,r"], [FileRow(2, "A", "B", "O", "r")], id="a byte order mark"),
        pytest.param([HEADER, "", ",,,", "A,B,O,r", ""], [FileRow(4, "A", "B", "O", "r")], id="blank rows count"),
        pytest.param(["organisation_id,to_user,from_user", "O,B,A"], [FileRow(2, "A", "B", "O")], id="any order"),
        pytest.param([HEADER, 'A,B,O,"two\r\nlines"', "C,D,O,"],
                     [FileRow(2, "A", "B", "O", "two  lines"), FileRow(3, "C", "D", "O")], id="a cell of two lines"),
        pytest.param([HEADER, "A,B,O,r,,"], [FileRow(2, "A", "B", "O", "r")], id="blank cells beyond the header"),
        pytest.param([f"{HEADER}, ,", "A,B,O,r,,", "C,D,O,"], [FileRow(2, "A", "B", "O", "r"), FileRow(3, "C", "D", "O")],
                     id="blank columns beyond the last"),
        pytest.param(["from_user, to_user, organisation_id, reason", 'A, "B", O, "moves, on"'],
                     [FileRow(2, "A", "B", "O", "moves, on")], id="blanks before quotes"),
        pytest.param([f"{HEADER},error_row,error", "A,B,O,r,7,to_user: is empty"], [FileRow(2, "A", "B", "O", "r")],
                     id="a mended file"),
        pytest.param(["From_User, TO_USER ,Organisation_ID", "A,B,O"], [FileRow(2, "A", "B", "O")], id="another case"),
        pytest.param(['"from_user","to_user","organisation_id"', '"A","B","O"'], [FileRow(2, "A", "B", "O")], id="quotes"),
        pytest.param([f"{HEADER}\rA,B,O,r\r"], [FileRow(2, "A", "B", "O", "r")], id="lines that end in CR"),
        pytest.param([HEADER, "A,B,O,", *[",,,"] * 1_048_574], [FileRow(2, "A", "B", "O")], id="all rows of a sheet"),
        pytest.param([HEADER, "ä,\u0915\u094d,O,"], [FileRow(2, "ä", "\u0915\u094d", "O")], id="other scripts"),
    ],
)  # fmt: skip
def test_what_a_spreadsheet_makes_of_a_file_is_read(lines: list[str], expected: list[FileRow]) -> None:
    assert rows_of(*lines) == expected


def test_the_new_owner_beside_the_file_is_for_rows_that_name_none() -> None:
    assert [r.to_user for r in rows_of("from_user,organisation_id", "A,O", to_user="N")] == ["N"]
    assert [r.to_user for r in rows_of(HEADER, "A,,O,", "C,D,O,", to_user="N")] == ["N", "D"]


def test_the_platforms_report_is_a_transfer_for_each_user() -> None:
    assert rows_of(
        REPORT,
        "u1,Asha,O,CONTENT_CREATOR,b1,Batch 1,1,Course Batch",
        "u2,Ravi,O,COURSE_MENTOR,b3,Batch 3,1,Course Batch",
        'U1,Asha,O,CONTENT_CREATOR,b2,"Batch, 2",0,Course Batch',
        to_user="N",
    ) == [FileRow(2, "u1", "N", "O", assets=2), FileRow(3, "u2", "N", "O", assets=1)]  # fmt: skip


def test_a_report_may_name_the_new_owners_itself() -> None:
    lines = (f"{REPORT},to_user,reason", "u1,,O,,b1,,,,N,left", "u1,,O,,b2,,,,N,left")
    assert rows_of(*lines) == [FileRow(2, "u1", "N", "O", "left", assets=2)]


@pytest.mark.parametrize(
    ("second", "error"),
    [
        pytest.param(
            "u1,,P,,b2,,,,N", ("organisationId", "row 3: is another one than in row 2"), id="organisation"
        ),
        pytest.param("u1,,O,,b2,,,,M", ("to_user", "row 3: is another one than in row 2"), id="new owner"),
        pytest.param("u1,,,,b2,,,,N", ("organisationId", "row 3: is empty"), id="a row of its own error"),
    ],
)
def test_rows_of_a_report_that_contradict_each_other_are_an_error_of_the_user(
    second: str, error: tuple[str, str]
) -> None:
    (row,) = rows_of(f"{REPORT},to_user", "u1,,O,,b1,,,,N", second)
    assert (row.error, row.assets) == (RowError(*error), 2)


@pytest.mark.parametrize(
    ("line", "column", "words"),
    [
        pytest.param(",B,O,", "from_user", "is empty", id="no old user"),
        pytest.param("A, ,O,", "to_user", "is empty", id="blank new user"),
        pytest.param("A,B,,", "organisation_id", "is empty", id="no organisation"),
        pytest.param("A,a,O,", "to_user", "is the old user", id="to oneself"),
        pytest.param("A\u200b,B,O,", "from_user", "contains U+200B, ZERO WIDTH SPACE", id="zero width"),
        pytest.param("A,..,O,", "to_user", "is a step in a path, not an id", id="a step in a path"),
        pytest.param(f"{'A' * 257},B,O,", "from_user", "at most 256", id="too long"),
        pytest.param(f"A,B,O,{'x' * 501}", "reason", "at most 500", id="a reason too long"),
        pytest.param("A,B", "", "has 2 cells, the header 4", id="cells missing"),
        pytest.param("A,B,O,r,more", "", "has 5 cells, the header 4", id="a cell too many"),
        pytest.param('A,B, "O", r, " more"', "", "has 5 cells, the header 4", id="a cell too many in quotes"),
        *(pytest.param(f'"{sign}cmd",B,O,', "from_user", "begins like a formula", id=f"formula {sign!r}")
          for sign in ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\n", " =")),
        pytest.param("A,B,1.26796E+17,", "organisation_id", "rounded by a spreadsheet", id="a number of a spreadsheet"),
        pytest.param('A,"1,2679e+17",O,', "to_user", "rounded by a spreadsheet", id="with a decimal comma"),
    ],
)  # fmt: skip
def test_a_bad_row_names_its_column_and_the_others_stay_good(line: str, column: str, words: str) -> None:
    bad, good = rows_of(HEADER, line, "C,D,O,")
    assert bad.error is not None
    assert bad.error.column == column
    assert words in bad.error.text
    assert good == FileRow(3, "C", "D", "O")


@pytest.mark.parametrize(
    ("lines", "errors"),
    [
        pytest.param(["A,B,O,r", "a,B,O,r"], {3: ("from_user", "is in row 2 already, with another transfer")},
                     id="in another case"),
        pytest.param(["A,B,O,r", "A,B,O,r"], {3: ("from_user", "is in row 2 already")}, id="a row twice"),
        pytest.param(["A,B,O,r", "A,C,O,r"], {3: ("from_user", "is in row 2 already, with another transfer")},
                     id="two new owners"),
        pytest.param(["A,B,O,r", "B,C,O,r"], {2: ("to_user", "gives away itself, in row 3")}, id="a chain"),
        pytest.param(["A,B,O,r", "b,A,O,r"], {2: ("to_user", "gives away itself, in row 3"),
                                             3: ("to_user", "gives away itself, in row 2")}, id="a circle"),
        pytest.param(["A,A,O,r", "A,C,O,r"], {2: ("to_user", "is the old user")}, id="only the first is bad"),
    ],
)  # fmt: skip
def test_rows_that_contradict_each_other_are_told_by_their_numbers(
    lines: list[str], errors: dict[int, tuple[str, str]]
) -> None:
    assert {r.number: tuple(r.error) for r in rows_of(HEADER, *lines) if r.error} == errors


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "first row must name the columns from_user, to_user", id="empty"),
        pytest.param(b"\r\n , \r\n", "first row must name the columns", id="blank"),
        pytest.param(HEADER.encode(), "no row below its header", id="a header alone"),
        pytest.param(f"{HEADER}\nA,B,O,caf\xe9".encode("latin-1"), "Line 2: the byte 0xE9 is not UTF-8", id="Latin-1"),
        pytest.param(HEADER.encode("utf-16"), "is UTF-16: save it as UTF-8", id="UTF-16"),
        pytest.param(HEADER.encode("utf-16-le"), "Line 1: has a NUL byte", id="UTF-16 without its mark"),
        pytest.param(f"{HEADER}\nA,B,O\0,".encode(), "Line 2: has a NUL byte", id="NUL"),
        pytest.param(b"A,B,O,r\nC,D,O,r", "unknown column 'A', 'B'", id="no header"),
        pytest.param(HEADER.encode().replace(b",", b"\t"), "separate the columns by commas", id="tabs"),
        pytest.param(b"sep=;\nfrom_user;to_user", "separate the columns by commas", id="a spreadsheet's own first line"),
        pytest.param(b"<!DOCTYPE html><html></html>", "unknown column '<!DOCTYPE", id="a page of a login"),
        pytest.param(",".join(map(str, range(50_000))).encode(), "unknown column '0', '1'", id="too many columns"),
        pytest.param(HEADER.encode() + b"\n" * 1_000_000, "no row below", id="blank lines alone"),
        pytest.param(HEADER.encode() + (b"\n" * 500 + b"A,B,O,") * 30, "Row 10501: more than 10000 blank rows are above it",
                     id="a row in each thousand"),
        pytest.param(b"from_user;to_user\nA;B", "unknown column 'from_user;to_user'", id="semicolons"),
        pytest.param(b"from_user,to_user,org\nA,B,O", "unknown column 'org'; known are from_user", id="unknown column"),
        pytest.param(b"from_user,to_user\nA,B", "column 'organisation_id' is missing", id="missing column"),
        pytest.param(b"from_user,organisation_id\nA,O", "'to_user' is missing; or give one new owner", id="no new owner"),
        pytest.param(b"from_user,,to_user,organisation_id", "Row 1: unknown column ''", id="a blank column between"),
        pytest.param(b",\nA,B", "unknown column 'A', 'B'", id="a blank line before a row"),
        pytest.param(b"from_user,to_user,organisation_id,to_user\n", "names 'to_user' more than once", id="a column twice"),
        pytest.param(f"{REPORT}x\n".encode(), "unknown column 'objectTypex'; known are userId", id="another report"),
        pytest.param(f'{HEADER}\nA,B,O,"open'.encode(), "Row 2: is not CSV", id="an open quote"),
        pytest.param(f'{HEADER}\n"A"B,B,O,'.encode(), "Row 2: is not CSV", id="text after a quote"),
        pytest.param(f"{HEADER}\n{'x' * 200_000},B,O,".encode(), "Row 2: is not CSV: field larger", id="a huge cell"),
        pytest.param(gzip.compress(HEADER.encode() * 10_000), "is packed by gzip", id="gzip"),
        pytest.param(zipped(b"\0" * 10_000_000), "is a ZIP archive or a workbook", id="zip bomb"),
        pytest.param(b"x" * (MAX_BYTES + 1), f"more than {MAX_BYTES} bytes", id="too large"),
        pytest.param(HEADER.encode() + b"\nA,B,O," * 1_000_000, f"more than {MAX_ROWS} rows", id="a million rows"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(content: bytes, words: str) -> None:
    assert words in refusal(content)


def test_as_many_rows_as_allowed_are_read() -> None:
    rows = rows_of(HEADER, *(f"A{n},B,O,r" for n in range(MAX_ROWS)))
    assert (len(rows), rows[-1].number) == (MAX_ROWS, MAX_ROWS + 1)
    assert not any(r.error for r in rows)


def test_the_template_is_the_header() -> None:
    assert template() == ",".join(COLUMNS) + "\r\n"


def test_rows_that_failed_can_be_mended_and_sent_again() -> None:
    bad = rows_of(HEADER, "A,,O,=1+1", "C,..,O,r")
    text = "".join(failed_file(bad))
    assert list(csv.reader(io.StringIO(text))) == [
        [*COLUMNS, "error_row", "error"],
        ["A", "", "O", "'=1+1", "2", "to_user: is empty"],
        ["C", "..", "O", "r", "3", "to_user: is a step in a path, not an id"],
    ]
    mended = read_rows(text.replace("..", "D").encode(), to_user="N")
    assert [(r.from_user, r.to_user, r.error) for r in mended] == [("A", "N", None), ("C", "D", None)]


@pytest.mark.parametrize(
    "sign", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"]
)
def test_a_cell_that_a_spreadsheet_would_carry_out_becomes_text(sign: str) -> None:
    (record,) = csv.reader(io.StringIO(csv_lines([[f"{sign}HYPERLINK(1)", -7, None, "a=b"]]), newline=""))
    assert record == [f"'{sign}HYPERLINK(1)", "-7", "", "a=b"]


cells = st.text(alphabet=st.sampled_from('A =+\u200b"\r\n,;\0é'), max_size=6)


@given(st.lists(st.lists(cells, max_size=6), max_size=8))
def test_whatever_a_file_has_it_is_read_or_refused_and_good_rows_fit_the_conf(table: list[list[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([COLUMNS, *table])
    try:
        rows = read_rows(text.getvalue().encode())
    except FileRefused:
        return
    for row in rows:
        if row.error is None:
            item: dict[str, Any] = {c: getattr(row, c) for c in COLUMNS}
            (request,) = manual_events({"events": [item]}, run_id="r", at_ms=1)
            assert (request.event.from_user, request.event.to_user) == (row.from_user, row.to_user)
