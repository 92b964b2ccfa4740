"""The picture and the table of a soak."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import asdict

from chaos.soak import Point, Soak
from chaos.soak_chart import ROWS, panels, soak_svg, table

SVG = "{http://www.w3.org/2000/svg}"


def points(count: int) -> list[Point]:
    return [
        Point(
            n,
            fault="cassandra <frozen>" if n == 5 else "",
            oldest_s=float(n % 7),
            memory_mb={"scheduler": 200.0, **({"task": 180.0 + n} if n % 2 else {})},
            runs=n % 3,
            run_s=4.0,
            longest_run_s=9.0,
        )
        for n in range(1, count + 1)
    ]


def test_a_panel_has_a_gap_where_nothing_was_measured():
    by_title = {p.title: p.series for p in panels(points(4))}
    assert by_title["resident memory, MB"]["task"] == [181.0, None, 183.0, None]
    assert by_title["seconds of a run"]["median"] == [4.0, 4.0, None, 4.0]


def test_the_picture_has_a_line_for_each_series_and_each_fault():
    svg = ET.fromstring(soak_svg(points(20), "20 minutes & a fault"))  # noqa: S314  # our own
    series = sum(len(p.series) for p in panels(points(20)))
    assert len(svg.findall(f"{SVG}polyline")) == series
    assert len(svg.findall(f"{SVG}line")) == len(panels(points(20)))
    assert svg.findall(f"{SVG}text")[0].text == "20 minutes & a fault"


def test_a_soak_without_a_minute_has_a_picture():
    ET.fromstring(soak_svg([], "nothing"))  # noqa: S314  # our own


def test_the_table_has_a_few_rows_however_long_it_took():
    assert table(points(480)).row_count == ROWS
    assert table(points(3)).row_count == 3


def test_what_there_is_so_far_can_be_written_as_json():
    done = Soak(7, hours=0.1, states={"completed": 3}, points=points(2))
    assert json.loads(json.dumps(asdict(done)))["points"][1]["memory_mb"]["scheduler"] == 200.0
