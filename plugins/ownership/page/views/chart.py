"""Stacked bars as a picture: an SVG of plain elements and attributes. Pure.

It has neither script nor style, so a page of the strictest content policy may hold it. The same numbers are in its
description, for readers who do not see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from ownership.domain.clock import from_ms
from ownership.domain.text import one_line

WIDTH, HEIGHT = 480, 160
MAX_BARS = 30
"""Bars that are drawn, of the newest."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 30, 24
MAX_TITLE: Final = 200
"""Characters of a bar's title."""


class Series(NamedTuple):
    """What a part of each bar counts. The fill must be seen on white and on black."""

    word: str
    fill: str


class Bar(NamedTuple):
    """One bar."""

    at_ms: int
    """Its day is written below the first bar and the last."""
    values: tuple[int, ...]
    """One of each series."""
    name: str = ""
    """Of what it is about, shown under the pointer; the day without it."""
    note: str = ""
    """A bar with a note is paler."""


class Chart(NamedTuple):
    """A chart, and what is said where it has no bar."""

    title: str
    series: tuple[Series, ...]
    empty: str

    def svg(self, bars: Sequence[Bar], *, name: str) -> str:
        """The parts of each bar one on top of the other, the oldest bar first.

        `name` begins the ids of title and description: a page with two charts gives two names.
        """
        shown = list(bars)[-MAX_BARS:]
        highest = max((sum(b.values) for b in shown), default=0)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" role="img" aria-labelledby={quoteattr(f"{name}-title {name}-desc")}>',
            f"<title id={quoteattr(f'{name}-title')}>{escape(self.title)}</title>",
            f"<desc id={quoteattr(f'{name}-desc')}>{escape(self.described(shown))}</desc>",
            *self._legend(),
        ]
        if not shown:
            parts.append(_text(WIDTH / 2, HEIGHT / 2, self.empty, anchor="middle"))
        else:
            parts += _axis(highest)
            parts += [part for n, b in enumerate(shown) for part in self._bar(b, n, len(shown), highest)]
            parts.append(_text(_LEFT, HEIGHT - 8, _day(shown[0].at_ms)))
            if len(shown) > 1:
                parts.append(_text(WIDTH - _RIGHT, HEIGHT - 8, _day(shown[-1].at_ms), anchor="end"))
        return "".join([*parts, "</svg>"])

    def described(self, bars: Sequence[Bar]) -> str:
        """The chart in words."""
        if not bars:
            return f"{self.empty.capitalize()}."
        return " ".join(f"{_day(b.at_ms)}: {self._said(b)}." for b in bars)

    def _said(self, b: Bar) -> str:
        counts = [f"{value} {s.word}" for s, value in zip(self.series, b.values, strict=True)]
        return ", ".join([*counts, b.note] if b.note else counts)

    def _legend(self) -> list[str]:
        made = []
        for n, series in enumerate(self.series):
            x = _LEFT + n * 110
            made.append(f'<rect x="{x}" y="8" width="10" height="10" fill="{series.fill}"/>')
            made.append(_text(x + 15, 17, series.word))
        return made

    def _bar(self, b: Bar, n: int, of: int, highest: int) -> list[str]:
        room = (WIDTH - _LEFT - _RIGHT) / of
        width = min(room * 0.7, 40)
        x = _LEFT + n * room + (room - width) / 2
        tall, y = HEIGHT - _BOTTOM - _TOP, float(HEIGHT - _BOTTOM)
        title = one_line(f"{b.name or _day(b.at_ms)}: {self._said(b)}", MAX_TITLE)
        pale = f" fill-opacity={quoteattr('0.5')}" if b.note else ""
        made = [f"<g><title>{escape(title)}</title>"]
        for series, value in zip(self.series, b.values, strict=True):
            if value:
                height = max(tall * value / highest, 1)  # one of a million is still to be seen
                y -= height
                made.append(
                    f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
                    f'fill="{series.fill}"{pale}/>'
                )
        return [*made, "</g>"]


def _day(at_ms: int) -> str:
    return f"{from_ms(at_ms):%Y-%m-%d}"


def _axis(highest: int) -> list[str]:
    floor = HEIGHT - _BOTTOM
    return [
        f'<line x1="{_LEFT}" y1="{floor}" x2="{WIDTH - _RIGHT}" y2="{floor}" stroke="currentColor"/>',
        _text(_LEFT - 6, _TOP + 9, f"{highest:,}", anchor="end"),
        _text(_LEFT - 6, floor, "0", anchor="end"),
    ]


def _text(x: float, y: float, words: str, *, anchor: str = "start") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="11" font-family="sans-serif" text-anchor="{anchor}" '
        f'fill="currentColor">{escape(words)}</text>'
    )
