"""What an id may look like: nothing in it that people do not see, no blanks around it. Pure."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Final

_BLANKS: Final = "".join(map(chr, range(0x21)))
"""What Java's `String.trim()` takes off both ends: every character up to the blank."""
_INVISIBLE_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})
_INVISIBLE_OTHERS: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U0001d159\U000e0000-\U000e0fff]"
)
"""Fillers and variation selectors: of Unicode's default ignorables, those in other categories."""


def trimmed(value: Any) -> Any:
    """A text as the platform's producer checks it before it sends it with its blanks; another value as it is."""
    return value.strip(_BLANKS) if isinstance(value, str) else value


def as_id(value: Any) -> Any:
    """A trimmed text; a value that is no text as it is.

    :raises ValueError: naming the first character that people do not see.
    """
    text = trimmed(value)
    if not isinstance(text, str):
        return value
    if not visible(text):
        hidden = next(filter(_invisible, text))
        raise ValueError(f"contains U+{ord(hidden):04X}, {_name_of(hidden)}")
    if text in (".", ".."):
        raise ValueError("is a step in a path, not an id")
    return text


def visible(text: str) -> bool:
    """True if people see every character of the text; an ordinary blank counts as seen."""
    return (text.isascii() and text.isprintable()) or not any(map(_invisible, text))


def _invisible(c: str) -> bool:
    return c != " " and bool(unicodedata.category(c) in _INVISIBLE_CATEGORIES or _INVISIBLE_OTHERS.match(c))


def _name_of(c: str) -> str:
    """Unicode's name of a character, or what it is if it has none."""
    unnamed = "half a surrogate pair" if unicodedata.category(c) == "Cs" else "a control character"
    return unicodedata.name(c, unnamed)
