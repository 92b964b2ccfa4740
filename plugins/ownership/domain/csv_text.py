"""Lines of CSV that a spreadsheet can open without carrying anything out. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Final

FORMULA_SIGNS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""A spreadsheet takes a cell that begins with one of them for a formula (the last four are the full-width forms)."""


def is_formula(cell: str) -> bool:
    """True if a spreadsheet would take the text for a formula."""
    return cell.startswith(FORMULA_SIGNS)


def csv_lines(records: Iterable[Iterable[object]]) -> str:
    """Records as CSV, each ended by CR LF. None is an empty cell; a text that would be a formula begins with `'`."""
    text = io.StringIO()
    csv.writer(text).writerows([_harmless(cell) for cell in record] for record in records)
    return text.getvalue()


def _harmless(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and is_formula(cell) else cell
