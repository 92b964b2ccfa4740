"""Text from outside, made fit for logs, the ledger, XCom, mails and the page. Pure."""

from __future__ import annotations

import re

MAX_LINE = 2000
MAX_FILE_NAME = 200

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls of terminals, lines and the direction of writing, and lone surrogates."""


def one_line(value: object, limit: int = MAX_LINE) -> str:
    """`value` as one printable line of at most `limit` characters.

    Nothing in it breaks a line, a mail's header or the direction of writing.
    """
    text = str(value)
    cut = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in cut)


def printable(text: str) -> str:
    """`text` without control characters and lone surrogates: stores refuse some, others turn the text around them.

    White space becomes a blank, anything else U+FFFD. Joiners stay: names in Indic scripts need them.
    """
    return _CONTROL.sub(lambda c: " " if c[0].isspace() else "\ufffd", text)
