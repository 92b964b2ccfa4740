"""The page as a person meets it: in a browser, inside Airflow's own frame, by mouse and by keyboard alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    FilePayload,
    FrameLocator,
    Page,
    expect,
    sync_playwright,
)

from local.demo.screenshots import ARGUMENTS, log_in
from tests.e2e.airflow_world import ORGANISATION, UNDO, Airflow, Story, form
from tests.needs import needed

WAIT_MS = 30_000
NAME = "Transfers"
HEADING = "Ownership transfers"
# Airflow's own frame is told about by the browser; it is not ours to change.
KNOWN = "allow-scripts and allow-same-origin"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=needed("chromium"), args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="module")
def logged_in(browser: Browser, airflow: Airflow) -> BrowserContext:
    """Logged in once: what one test leaves there is a login, and files that the next one need not fetch."""
    context = browser.new_context(
        viewport={"width": 1500, "height": 1000}, color_scheme="light", locale="en-GB"
    )
    context.set_default_timeout(WAIT_MS)
    expect.set_options(timeout=WAIT_MS)
    page = context.new_page()
    log_in(page, airflow.stack.addresses)
    page.close()
    return context


@pytest.fixture
def page(logged_in: BrowserContext, airflow: Airflow) -> Iterator[Page]:
    """Airflow's first page; nothing may have complained in the console when the test is over."""
    page = logged_in.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda m: (
            complaints.append(m.text) if m.type in ("error", "warning") and KNOWN not in m.text else None
        ),
    )
    page.goto(airflow.stack.addresses.airflow)
    complaints.clear()  # those of its first page are Airflow's own
    try:
        yield page
        assert complaints == []
    finally:
        page.evaluate("localStorage.removeItem('theme')")
        page.close()


def framed(page: Page) -> FrameLocator:
    """Inside Airflow's frame."""
    return page.frame_locator(f"iframe[title='{NAME}']")


def opened(page: Page) -> FrameLocator:
    """The page, by Airflow's own navigation."""
    page.get_by_role("link", name=NAME, exact=True).first.click()
    frame = framed(page)
    expect(frame.get_by_role("heading", name=HEADING)).to_be_visible()
    return frame


@pytest.fixture
def transfer(airflow: Airflow, story: Story) -> tuple[str, str, str, list[Any], str]:
    """A completed one: its mid, both users, its batches, its run."""
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 3)
    run_id, _ = airflow.done(form(old, new))
    return f"manual:{run_id}:0", old, new, batches, run_id


def test_a_transfer_is_found_by_its_user_rehearsed_undone_and_followed_to_its_end(
    airflow: Airflow, story: Story, page: Page, transfer: Any
):
    _, old, new, batches, _ = transfer
    frame = opened(page)
    frame.get_by_label("Course").fill(batches[0].course_id)
    frame.get_by_label("Batch").fill(batches[0].batch_id)
    frame.get_by_label("User").fill(old)
    frame.get_by_role("button", name="Filter").click()
    rows = frame.locator("table.transfers tbody tr")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("completed")
    rows.first.get_by_role("link", name=old).click()
    expect(frame.get_by_text("Finished: 3 batches moved, and proven in both stores.")).to_be_visible()
    expect(frame.locator("table.changes tbody tr")).to_have_count(3)

    frame.get_by_role("link", name="Dry-run undo").click()
    expect(frame.get_by_role("heading", name="See what an undo would do?")).to_be_visible()
    frame.get_by_role("button", name="Start the dry run").click()
    # It follows by itself until the plan is there.
    expect(frame.get_by_text("A dry run: 3 batches would change. Nothing has changed.")).to_be_visible()
    assert story.owners(batches) == {(new, new)}

    frame.get_by_role("link", name=transfer[0]).first.click()
    frame.get_by_role("link", name="Undo…").click()
    expect(frame.get_by_text("What its newest dry run found")).to_be_visible()
    expect(frame.get_by_role("row", name=batches[0].batch_id)).to_be_visible()
    frame.get_by_label("Reason").fill("wrong person")
    frame.get_by_role("button", name="Undo it").click()
    expect(frame.get_by_text("Finished: 3 batches moved, and proven in both stores.")).to_be_visible()
    expect(frame.get_by_role("definition").filter(has_text="wrong person")).to_be_visible()
    assert story.owners(batches) == {(old, old)}


def test_the_navigation_shows_the_whole_name_of_its_entry(page: Page) -> None:
    entry = page.get_by_role("link", name=NAME, exact=True).first
    expect(entry).to_be_visible()
    cut = "e => [e, ...e.querySelectorAll('*')].filter(x => x.clientWidth && x.scrollWidth > x.clientWidth).length"
    assert entry.evaluate(cut) == 0


def test_who_is_signed_out_comes_back_to_the_same_place(airflow: Airflow, browser: Browser) -> None:
    a = airflow.stack.addresses
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        log_in(page, a)
        frame = opened(page)
        context.clear_cookies()
        # Airflow itself asks every few seconds, and would go to the login by itself.
        page.route(
            "**/*", lambda r: r.abort() if r.request.resource_type in ("xhr", "fetch") else r.continue_()
        )
        frame.get_by_role("link", name="Imports").click()
        frame.get_by_role("link", name="Sign in").click()
        page.unroute_all()
        frame.get_by_label("Username").fill(a.airflow_user)
        frame.get_by_label("Password").fill(a.airflow_password)
        frame.get_by_role("button", name="Sign in").click()
        expect(frame.get_by_role("heading", name="Imports")).to_be_visible()


def test_everything_can_be_done_by_keyboard(airflow: Airflow, story: Story, page: Page, transfer: Any):
    _, old, _, batches, _ = transfer
    address = f"{airflow.stack.addresses.airflow}/ownership-transfers/"
    page.goto(address)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    tab_to(page, "input[name=user]")
    page.keyboard.type(old)
    page.keyboard.press("Enter")
    expect(page.locator("table.transfers tbody tr")).to_have_count(1)
    tab_to(page, "a.row")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Undo…")).to_be_visible()
    tab_to(page, "a.danger")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Undo it")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Finished: 3 batches moved")).to_be_visible()
    assert story.owners(batches) == {(old, old)}


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until an element has the focus, which must be seen."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement?.matches(s)", selector):
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
            return
    pytest.fail(f"{selector} cannot be reached by Tab")


def test_a_run_and_its_task_lead_to_each_other_across_the_frame(airflow: Airflow, page: Page, transfer: Any):
    _, old, _, _, run_id = transfer
    frame = opened(page)
    frame.get_by_label("User").fill(old)
    frame.get_by_role("button", name="Filter").click()
    frame.locator("a.run").first.click()
    page.wait_for_url(lambda url: "/dags/user_ownership_transfer/runs/" in url)
    details = f"/dags/user_ownership_transfer/runs/{run_id}/tasks/settle/details"
    page.goto(f"{airflow.stack.addresses.airflow}{details}")
    page.locator("a[href*='one=1']").click()
    expect(framed(page).get_by_text("Finished: 3 batches moved")).to_be_visible()
    # The address of what is shown is one that can be sent to somebody.
    page.wait_for_url(lambda url: "plugin/ownership-transfers" in url and "transfer?mid=" in url)
    page.reload()
    expect(framed(page).get_by_text("Finished: 3 batches moved")).to_be_visible()


def test_the_page_is_dark_where_airflow_is_and_follows_when_it_changes(page: Page):
    frame = opened(page)
    background = "getComputedStyle(document.documentElement).backgroundColor"
    inside = next(f for f in page.frames if f.parent_frame)
    light = inside.evaluate(background)
    page.emulate_media(color_scheme="dark")
    assert inside.evaluate(background) != light
    # What was chosen in Airflow's menu wins over the system.
    page.evaluate(
        "localStorage.setItem('theme', 'light');"
        "document.querySelector('iframe').contentWindow.dispatchEvent(new StorageEvent('storage'))"
    )
    assert inside.evaluate(background) == light
    expect(frame.get_by_role("heading", name=HEADING)).to_be_visible()


def test_a_user_without_transfers_and_a_run_without_any_have_a_page_that_says_so(
    airflow: Airflow, page: Page
):
    frame = opened(page)
    frame.get_by_label("User").fill("nobody-at-all")
    frame.get_by_role("button", name="Filter").click()
    expect(frame.get_by_text("The ledger has no transfer from or to this user that fits.")).to_be_visible()
    frame.get_by_role("link", name="Clear").click()
    expect(frame.locator("table.transfers")).to_be_visible()
    assert airflow.of(UNDO)


def test_the_last_reconciliations_are_shown_as_a_chart_and_a_table(
    airflow: Airflow, story: Story, page: Page
):
    story.platform.delete_batches()  # of what other tests left much differs, and only some is shown
    stale, *_ = story.batches(story.user("owner"), 2, prefix="stale")
    story.platform.put_document(stale.batch_id, createdBy="somebody-else")
    reconcile = airflow.of("ownership_reconcile")
    run_id = reconcile.trigger({"rows_per_second": 0, "ranges": 4, "days": 0})
    assert reconcile.ended(run_id) == "failed"

    frame = opened(page)
    frame.get_by_role("link", name="between rows and index").click()

    expect(frame.get_by_role("heading", name="Rows and index", exact=True)).to_be_visible()
    expect(frame.get_by_role("img", name="Differences between rows and index, by run")).to_be_visible()
    newest = frame.locator("table.compared tbody tr").first
    expect(newest).to_contain_text("differ")
    expect(newest).to_contain_text("stale owner")
    expect(frame.locator(".samples")).to_contain_text(stale.batch_id)
    newest.locator("a.run").click()
    page.wait_for_url(lambda url: f"/dags/ownership_reconcile/runs/{quote(run_id, safe='')}" in url)


def test_a_file_is_sent_checked_carried_out_and_its_failed_rows_are_downloaded(story: Story, page: Page):
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 2)
    lines = ("from_user,to_user,organisation_id", f"{old},{new},{ORGANISATION}", f",{new},{ORGANISATION}")
    frame = opened(page)
    frame.get_by_role("link", name="Imports", exact=True).click()
    sent = FilePayload(name="leavers.csv", mimeType="text/csv", buffer="\r\n".join(lines).encode())
    frame.get_by_label("File").set_input_files(sent)
    frame.get_by_role("button", name="Check the file").click()
    expect(frame.get_by_text("Checked: 1 row would move 2 batches. 1 row cannot")).to_be_visible()
    with page.expect_download() as download:
        frame.get_by_role("link", name="Download the rows that failed").click()
    assert "3,from_user: is empty" in download.value.path().read_text()
    frame.get_by_role("button", name="Carry out the 1 good row").click()
    expect(frame.get_by_text("Done: 1 row moved 2 batches, proven in both stores.")).to_be_visible()
    assert story.owners(batches) == {(new, new)}
