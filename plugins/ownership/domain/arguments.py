"""Values of command lines, checked. Pure; an error is the end of a sentence that begins with the option."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Final

LIMIT: Final = 1_000_000_000


def words(text: str) -> str:
    """A text that says something: an option whose variable is not set means nothing."""
    if not text.strip():
        raise ArgumentTypeError("is empty; leave it out if nothing is meant")
    return text


def above_zero(text: str) -> float:
    """A number above 0, up to `LIMIT`: neither nan nor inf."""
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number <= LIMIT:
        raise ArgumentTypeError(f"is not a number above 0, {LIMIT:,} at most")
    return number


def whole(limit: int = LIMIT) -> Callable[[str], int]:
    """A whole number from 1 to `limit`."""

    def number(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text[:20]) <= limit:
            raise ArgumentTypeError(f"is not a whole number from 1 to {limit:,}")
        return int(text)

    return number
