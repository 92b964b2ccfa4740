"""Charts: stacked bars as a picture that a page of the strictest content policy may hold."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from ownership.domain.reconciliation import Point
from ownership.page.views.chart import HEIGHT, WIDTH, Bar, Chart, Series
from ownership.page.views.reconciliations import TREND, bar

SVG = "{http://www.w3.org/2000/svg}"
CHART = Chart("Two things", (Series("red", "#f00"), Series("blue", "#00f")), "nothing yet")
bars = st.builds(
    Bar,
    at_ms=st.integers(0, 4_000_000_000_000),
    values=st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)),
    name=st.text(max_size=20),
    note=st.sampled_from(["", "not ended"]),
)


@given(st.lists(bars, max_size=40))
def test_any_chart_is_a_well_formed_picture_whose_bars_stay_inside(shown: list[Bar]) -> None:
    root = ET.fromstring(CHART.svg(shown, name="x"))  # noqa: S314  # our own
    for rect in root.iter(f"{SVG}rect"):
        x, y, width, height = (float(rect.attrib[n]) for n in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= -2  # each part is at least a pixel
        assert x + width <= WIDTH
        assert y + height <= HEIGHT + 0.1


@given(st.lists(bars, max_size=5))
def test_a_picture_has_nothing_that_a_strict_policy_refuses(shown: list[Bar]) -> None:
    hostile = [b._replace(name="<script>&\"'") for b in shown]
    root = ET.fromstring(CHART.svg(hostile, name="x"))  # noqa: S314  # our own
    for element in root.iter():
        assert element.tag.removeprefix(SVG) in {"svg", "title", "desc", "rect", "line", "text", "g"}
        assert not any(name == "style" or name.startswith("on") or "href" in name for name in element.attrib)


def test_the_picture_is_named_and_says_its_numbers_for_readers_who_do_not_see_it() -> None:
    trend = [
        Point(run_id="r1", at_ms=0, left=3, repaired=0, in_flight=1),
        Point(run_id="r2", at_ms=86_400_000, left=0, repaired=3, in_flight=0, complete=False),
    ]
    root = ET.fromstring(TREND.svg([bar(p) for p in trend], name="x"))  # noqa: S314  # our own
    assert root.attrib["role"] == "img"
    named = {e.attrib["id"]: e.text for e in root.iter() if "id" in e.attrib}
    assert root.attrib["aria-labelledby"].split() == list(named)
    assert named["x-desc"] == (
        "1970-01-01: 3 left, 0 repaired, 1 in flight. 1970-01-02: 0 left, 3 repaired, 0 in flight, not ended."
    )
    groups = list(root.iter(f"{SVG}g"))
    assert [len(list(g.iter(f"{SVG}rect"))) for g in groups] == [2, 1]
    assert groups[0].findtext(f"{SVG}title") == "r1: 3 left, 0 repaired, 1 in flight"
    assert CHART.described([]) == "Nothing yet."
    assert "nothing yet" in CHART.svg([], name="x")
