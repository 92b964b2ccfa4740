"""The trigger form and the approval as a person meets them: in a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from local.demo.screenshots import ARGUMENTS, log_in
from tests.e2e.airflow_world import DAG, ORGANISATION, UNDO, Airflow, Story, form, question, until
from tests.needs import needed

WAIT_MS = 30_000


@pytest.fixture(scope="module")
def page(airflow: Airflow) -> Iterator[Page]:
    """A browser that is logged in."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=needed("chromium"), args=list(ARGUMENTS))
        try:
            page = browser.new_page(viewport={"width": 1400, "height": 1600}, locale="en-GB")
            page.set_default_timeout(WAIT_MS)
            expect.set_options(timeout=WAIT_MS)
            log_in(page, airflow.stack.addresses)
            yield page
        finally:
            browser.close()


def opened_form(page: Page, airflow: Airflow, dag: str) -> None:
    page.goto(f"{airflow.stack.addresses.airflow}/dags/{dag}")
    page.get_by_role("button", name="Trigger").first.click()
    expect(page.get_by_role("heading", name=f"Trigger Dag - {dag}")).to_be_visible()


def submit(page: Page) -> None:
    page.get_by_role("dialog").get_by_role("button", name="Trigger", exact=True).click()
    expect(page.get_by_role("dialog")).to_be_hidden()


def the_new_run(airflow: Airflow, before: set[str]) -> str:
    def found() -> str | None:
        new = [r["dag_run_id"] for r in airflow.runs() if r["run_type"] == "manual"]
        return next((r for r in new if r not in before), None)

    return str(until("the run that the form started", found))


def test_the_form_opens_with_its_fields_and_starts_a_dry_run(airflow: Airflow, story: Story, page: Page):
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 2)
    before = story.platform.as_written(batches)
    known = {r["dag_run_id"] for r in airflow.runs()}
    opened_form(page, airflow, DAG)

    for field, value in (("from_user", old), ("to_user", new), ("organisation_id", ORGANISATION)):
        page.locator(f"[name=element_{field}]").fill(value)
    page.get_by_role("dialog").get_by_text("Dry run").first.scroll_into_view_if_needed()
    page.locator("label", has=page.locator("[name=element_dry_run]")).click()
    submit(page)

    run_id = the_new_run(airflow, known)
    assert airflow.ended(run_id) == "success"
    conf = airflow.run(run_id)["conf"]
    assert (conf["from_user"], conf["to_user"], conf["dry_run"]) == (old, new, True)
    assert story.state(f"manual:{run_id}:0") == "rehearsed"
    assert story.platform.as_written(batches) == before


def test_the_undo_s_form_opens_with_a_dry_run_chosen(airflow: Airflow, page: Page):
    opened_form(page, airflow, UNDO)
    expect(page.locator("[name=element_mids]")).to_be_visible()
    expect(page.locator("[name=element_dry_run]")).to_be_checked()


def test_an_approval_is_given_under_required_actions(airflow: Airflow, story: Story, page: Page):
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 3)
    with airflow.settings(approval_batches=2):
        run_id, _ = airflow.done(form(old, new))
        mid = f"manual:{run_id}:0"
        question(airflow, mid)
        subject = f"Approve: 3 course batches, {old} → {new}"
        page.goto(f"{airflow.stack.addresses.airflow}/required_actions")
        link = page.get_by_role("link", name=subject)
        expect(link).to_be_visible()
        link.click()
        # The plan is a table: a row for each of the first batches.
        expect(page.get_by_role("cell", name=f"created by {new}")).to_have_count(3)
        page.get_by_role("button", name="Approve", exact=True).click()
        story.completed(mid)
    assert story.owners(batches) == {(new, new)}
