"""The trend of the last runs as a picture: an SVG of plain elements and attributes. Pure.

It has neither script nor style, so a page of the strictest content policy may hold it. The same numbers are in its
description, for readers who do not see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from ownership.domain.reconciliation import MAX_TEXT, Point
from ownership.domain.text import one_line

WIDTH, HEIGHT = 480, 160
MAX_BARS = 30
"""Bars that are drawn, of the newest runs."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 30, 24
LEFT, REPAIRED, FLIGHT = "#b42318", "#2e7d32", "#7a8699"
"""Fills: dark enough on white, light enough on black."""
_SERIES: Final = (("left", LEFT), ("repaired", REPAIRED), ("in_flight", FLIGHT))
_WORDS: Final = {"left": "left", "repaired": "repaired", "in_flight": "in flight"}


def trend_svg(points: Sequence[Point], *, name: str = "reconcile-trend") -> str:
    """A bar for each run, the oldest first: differences left, repaired, in flight, one on top of the other.

    `name` begins the ids of its title and description: a page with two charts gives two names.
    """
    shown = list(points)[-MAX_BARS:]
    highest = max((_sum(p) for p in shown), default=0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" aria-labelledby={quoteattr(f"{name}-title {name}-desc")}>',
        f"<title id={quoteattr(f'{name}-title')}>Differences between rows and index, by run</title>",
        f"<desc id={quoteattr(f'{name}-desc')}>{escape(described(shown))}</desc>",
        *_legend(),
    ]
    if not shown:
        parts.append(_text(WIDTH / 2, HEIGHT / 2, "no run yet", anchor="middle"))
    else:
        parts += _axis(highest)
        parts += [bar for n, p in enumerate(shown) for bar in _bar(p, n, len(shown), highest)]
        parts.append(_text(_LEFT, HEIGHT - 8, _day(shown[0].at_ms)))
        if len(shown) > 1:
            parts.append(_text(WIDTH - _RIGHT, HEIGHT - 8, _day(shown[-1].at_ms), anchor="end"))
    return "".join([*parts, "</svg>"])


def described(points: Sequence[Point]) -> str:
    """The chart in words."""
    if not points:
        return "No run yet."
    return " ".join(f"{_day(p.at_ms)}: {_said(p)}." for p in points)


def _said(p: Point) -> str:
    unfinished = "" if p.complete else ", not ended"
    return ", ".join(f"{getattr(p, s)} {_WORDS[s]}" for s, _ in _SERIES) + unfinished


def _sum(p: Point) -> int:
    return p.left + p.repaired + p.in_flight


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d")


def _legend() -> list[str]:
    made = []
    for n, (series, fill) in enumerate(_SERIES):
        x = _LEFT + n * 110
        made.append(f'<rect x="{x}" y="8" width="10" height="10" fill="{fill}"/>')
        made.append(_text(x + 15, 17, _WORDS[series]))
    return made


def _axis(highest: int) -> list[str]:
    floor = HEIGHT - _BOTTOM
    return [
        f'<line x1="{_LEFT}" y1="{floor}" x2="{WIDTH - _RIGHT}" y2="{floor}" stroke="currentColor"/>',
        _text(_LEFT - 6, _TOP + 9, f"{highest:,}", anchor="end"),
        _text(_LEFT - 6, floor, "0", anchor="end"),
    ]


def _bar(p: Point, n: int, of: int, highest: int) -> list[str]:
    room = (WIDTH - _LEFT - _RIGHT) / of
    width = min(room * 0.7, 40)
    x = _LEFT + n * room + (room - width) / 2
    tall, y = HEIGHT - _BOTTOM - _TOP, float(HEIGHT - _BOTTOM)
    made = [f"<g><title>{escape(one_line(f'{p.run_id}: {_said(p)}', MAX_TEXT))}</title>"]
    for series, fill in _SERIES:
        if value := getattr(p, series):
            height = max(tall * value / highest, 1)  # one of a million is still to be seen
            y -= height
            made.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"'
                f"{'' if p.complete else ' fill-opacity=' + quoteattr('0.5')}/>"
            )
    return [*made, "</g>"]


def _text(x: float, y: float, words: str, *, anchor: str = "start") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="11" font-family="sans-serif" text-anchor="{anchor}" '
        f'fill="currentColor">{escape(words)}</text>'
    )
