"""The page for people who read it otherwise than by mouse on a wide screen: WCAG 2.2 AA, as far as a browser can tell.

axe-core looks at every page, light and dark, wide and on a phone. Keys alone reach everything, and it is seen where
they are. Nothing moves for those who do not want it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

from local.demo.screenshots import ARGUMENTS, log_in
from local.servers.airflow import OPERATOR
from ownership.domain.plan import BatchId
from ownership.page.app import app
from ownership.page.views.links import batch_href, detail_href, import_href, user_href
from tests.e2e.airflow_world import ORGANISATION, Airflow, Story, form, opened_story, until
from tests.needs import needed

WIDE, PHONE, ZOOMED = 1280, 360, 640
"""CSS pixels; `ZOOMED` is what 200 % leaves of `WIDE`."""
RULES = {
    "resultTypes": ["violations"],
    "runOnly": {
        "type": "tag",
        "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    },
}
NO_PAGES = {"/act", "/static/{name}", "/report"}
"""Routes that answer with something else than a page."""


class Seen(NamedTuple):
    """A logged-in browser, and addresses of every page by the name of its kind."""

    page: Page
    root: str
    addresses: dict[str, str]

    def open(self, name: str, width: int) -> None:
        """Show a page."""
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.goto(self.root + self.addresses[name])


@pytest.fixture(scope="module")
def seen(airflow: Airflow) -> Iterator[Seen]:
    """With a transfer, a rejected message and a stale document to look at."""
    with opened_story(airflow.stack) as story, sync_playwright() as playwright:
        addresses = prepared(airflow, story)
        browser = playwright.chromium.launch(executable_path=needed("chromium"), args=list(ARGUMENTS))
        page = browser.new_page(color_scheme="light", reduced_motion="reduce", locale="en-GB")
        log_in(page, airflow.stack.addresses)
        yield Seen(page, f"{airflow.stack.addresses.airflow}/ownership-transfers/", addresses)
        browser.close()


def prepared(airflow: Airflow, story: Story) -> dict[str, str]:
    """What there is to look at, by the name of its kind."""
    old, new = story.user("old"), story.user("new")
    batch, stale = story.batches(old, 2)
    story.platform.add_course(batch.course_id, ORGANISATION, f"Course {story.name}")
    run_id, _ = airflow.done(form(old, new))
    story.platform.put_document(stale.batch_id, createdBy="somebody-else")
    place = story.platform.emit(b"no event")
    rejected = f"rejected:{story.platform.input_topic}:{place.partition}:{place.offset}"
    until("the message is rejected", lambda: story.state(rejected) == "rejected")
    mid = f"manual:{run_id}:0"
    whole, differs = (BatchId(b.course_id, b.batch_id) for b in (batch, stale))
    return {
        "list": "./", "empty list": "./?user=nobody", "request": "./?request=no-such-request",
        "transfer": detail_href(mid), "rejected message": detail_href(rejected), "absent": detail_href("absent"),
        "confirm": f"confirm?action=undo&mid={quote(mid)}", "error": f"confirm?action=none&mid={quote(mid)}",
        "refused": "batch?batch=", "reconciliations": "reconciliations", "proven": "proven", "api": "api",
        "find": f"find?q={batch.batch_id}", "nothing found": "find?q=nothing-at-all",
        "found by name": f"find?q={quote(f'Course {story.name}')}", "batch": batch_href(whole),
        "stale batch": batch_href(differs), "user": user_href(new),
        "imports": "imports", "import": import_href(imported(airflow, old, new)),
    }  # fmt: skip


def imported(airflow: Airflow, old: str, new: str) -> str:
    """A file with a good row and a wrong one: the id of its import."""
    content = f"from_user,to_user,organisation_id\n{old},{new},{ORGANISATION}\n,{new},{ORGANISATION}\n"
    with airflow.page_api(OPERATOR) as api:
        answer = api.post("imports", content=content, headers={"content-type": "text/csv"})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_axe_finds_nothing_on_any_page_and_none_scrolls_sideways(seen: Seen):
    found: dict[str, Any] = {}
    for name in seen.addresses:
        for scheme, width in (("light", WIDE), ("dark", PHONE)):
            seen.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # one of its literals
            seen.open(name, width)
            for v in Axe().run(seen.page, options=RULES).response["violations"]:
                where = [n["target"] for n in v["nodes"]]
                found[f"{name}, {scheme}, {width} px: {v['id']}"] = (v["help"], where)
        for width in (PHONE, ZOOMED):
            seen.page.set_viewport_size({"width": width, "height": 900})
            wide = seen.page.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                found[f"{name} at {width} px"] = wide
    assert found == {}


def test_every_route_that_shows_a_page_is_among_them(seen: Seen):
    visited = {"/" + a.lstrip("./").partition("?")[0] for a in seen.addresses.values()}
    pages = {r.path for r in app.routes if "GET" in getattr(r, "methods", ()) and r.path not in NO_PAGES}  # type: ignore[attr-defined]  # routes with methods have a path
    assert pages <= visited


FOCUSABLE = """() => [...document.querySelectorAll(
    "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']"
)].filter(e => e.checkVisibility())"""
MARK = f"""() => {{
    const e = document.activeElement;
    e.dataset.reached = getComputedStyle(e).outlineStyle === "none" ? "unseen" : "seen";
    return ({FOCUSABLE})().every(e => e.dataset.reached);
}}"""
LEFT = f"() => ({FOCUSABLE})().filter(e => e.dataset.reached !== 'seen').map(e => e.outerHTML.slice(0, 120))"


@pytest.mark.parametrize("name", ["list", "transfer", "confirm", "find", "user", "import"])
def test_tab_reaches_everything_and_it_is_seen_where_it_is(seen: Seen, name: str):
    seen.open(name, WIDE)
    seen.page.evaluate("document.activeElement.blur()")
    # A field for a date and time has a stop for each of its parts.
    for _ in range(seen.page.evaluate(f"({FOCUSABLE})().length") + 20):
        seen.page.keyboard.press("Tab")
        if seen.page.evaluate(MARK):
            break
    assert seen.page.evaluate(LEFT) == []


def test_nothing_moves_for_those_who_do_not_want_it(seen: Seen):
    seen.open("list", WIDE)
    moving = "document.body.classList.add('busy'); document.getAnimations().length"
    assert seen.page.evaluate(moving) == 0
    seen.page.emulate_media(reduced_motion="no-preference")
    assert seen.page.evaluate(moving) == 1
    seen.page.emulate_media(reduced_motion="reduce")
