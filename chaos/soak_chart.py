"""A soak as a picture and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple
from xml.sax.saxutils import escape

from rich import box
from rich.table import Table

from chaos.soak import Point
from local.tools import programs

WIDTH, PANEL, LEFT, RIGHT, TOP, GAP = 960, 130, 64, 210, 40, 46
COLOURS = ("#1f6feb", "#b42318", "#2e7d32", "#9a6700", "#8250df", "#57606a")
FAULT = "#d0d7de"
ROWS = 12
"""Most rows of the table."""


class Panel(NamedTuple):
    """A picture of some series over the minutes."""

    title: str
    series: Mapping[str, Sequence[float | None]]


def panels(points: Sequence[Point]) -> list[Panel]:
    """What is drawn: a panel for each measure; None where a series has no value."""
    made = [
        Panel("age of the oldest event that is not final, s", {"oldest": [p.oldest_s for p in points]}),
        Panel(
            "seconds of a run",
            {
                "median": [p.run_s if p.runs else None for p in points],
                "longest": [p.longest_run_s if p.runs else None for p in points],
            },
        ),
    ]
    for title, kind in (
        ("resident memory, MB", "memory_mb"),
        ("open files and sockets", "files"),
        ("connections to PostgreSQL", "connections"),
    ):
        names = sorted({name for p in points for name in getattr(p, kind)})
        made.append(Panel(title, {name: [getattr(p, kind).get(name) for p in points] for name in names}))
    return made


def soak_svg(points: Sequence[Point], title: str) -> str:
    """The panels one below the other, with a line where a fault struck."""
    shown = panels(points)
    height = TOP + len(shown) * (PANEL + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(LEFT, 22, title, size=15),
    ]
    for n, panel in enumerate(shown):
        parts += _drawn(panel, points, TOP + 20 + n * (PANEL + GAP))
    return "\n".join([*parts, "</svg>"])


def _drawn(panel: Panel, points: Sequence[Point], top: float) -> list[str]:
    values = [v for series in panel.series.values() for v in series if v is not None]
    highest = max([*values, 1.0])
    bottom, last = top + PANEL, max(len(points) - 1, 1)
    step = (WIDTH - LEFT - RIGHT) / last
    parts = [_text(LEFT, top - 6, panel.title)]
    parts += [
        f'<line x1="{LEFT + n * step:.1f}" x2="{LEFT + n * step:.1f}" y1="{top}" y2="{bottom}" stroke="{FAULT}"/>'
        for n, p in enumerate(points)
        if p.fault
    ]
    parts.append(f'<path d="M{LEFT} {top}V{bottom}H{WIDTH - RIGHT}" fill="none" stroke="#57606a"/>')
    parts += [_text(LEFT - 6, y, f"{v:.0f}", anchor="end") for y, v in ((top + 10, highest), (bottom, 0))]
    parts.append(_text(WIDTH - RIGHT, bottom + 14, f"{len(points)} min", anchor="end"))
    for n, (name, series) in enumerate(panel.series.items()):
        colour = COLOURS[n % len(COLOURS)]
        line = " ".join(
            f"{LEFT + at * step:.1f},{bottom - value / highest * PANEL:.1f}"
            for at, value in enumerate(series)
            if value is not None
        )
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        known = [v for v in series if v is not None]
        label = f"{name}: {known[-1]:.0f}, at most {max(known):.0f}" if known else name
        parts.append(_text(WIDTH - RIGHT + 12, top + 12 + 16 * n, label, fill=colour))
    return parts


def _text(
    x: float, y: float, words: str, *, size: int = 12, anchor: str = "start", fill: str = "#1f2328"
) -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="{fill}">{escape(words)}</text>'


def save(svg: str, file: Path) -> list[Path]:
    """Write the picture, and where Chromium is installed a PNG of it. Returns what was written."""
    file.write_text(svg + "\n")
    chromium = programs.found("chromium")
    if chromium is None:
        return [file]
    from playwright.sync_api import sync_playwright

    from local.demo.screenshots import ARGUMENTS

    picture = file.with_suffix(".png")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        try:
            page = browser.new_page(viewport={"width": WIDTH, "height": 200})
            page.set_content(f'<body style="margin:0">{svg}</body>')
            page.screenshot(path=picture, full_page=True)
        finally:
            browser.close()
    return [file, picture]


def table(points: Sequence[Point]) -> Table:
    """The minutes in at most ROWS parts: of each the highest values, of the run times the median."""
    made = Table(title="Soak", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    names = sorted({name for p in points for name in p.memory_mb})
    columns = ["minutes", "fault", "events checked", "oldest s", "run s", "longest run s"]
    for column in (*columns, *(f"{n} MB" for n in names), "files", "connections"):
        made.add_column(column, justify="left" if column == "fault" else "right")
    size = -(-len(points) // ROWS) or 1
    for start in range(0, len(points), size):
        part = points[start : start + size]
        made.add_row(
            f"{part[0].minute}-{part[-1].minute}",
            ", ".join(p.fault for p in part if p.fault),
            str(part[-1].checked),
            f"{max(p.oldest_s for p in part):.0f}",
            f"{median([p.run_s for p in part if p.runs] or [0]):.1f}",
            f"{max(p.longest_run_s for p in part):.1f}",
            *(f"{max((p.memory_mb.get(n, 0) for p in part), default=0):.0f}" for n in names),
            f"{max((sum(p.files.values()) for p in part), default=0):.0f}",
            f"{max((sum(p.connections.values()) for p in part), default=0):.0f}",
        )
    return made
