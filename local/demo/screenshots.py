"""Takes the screenshots of the README and the docs from a running demo: `python -m local.demo.screenshots`.

It needs Debian's `chromium` (`apt-get install chromium`) and a `make demo` in another terminal; `--addresses`
names another stack's file of addresses. Screenshots: the grid of the run with the most mapped instances, the page
of transfers in light and dark, its largest transfer, the confirmation of that transfer's undo, and an import.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any, Final

import httpx
from playwright.sync_api import Browser, FilePayload, Page, sync_playwright

from local.demo.runs import opened_api, run_url
from local.demo.sample import ORGANISATION
from local.paths import DEMO, REPOSITORY
from local.stack import Addresses
from local.tools import programs

PICTURES: Final = REPOSITORY / "docs" / "images"
CHROMIUM: Final = programs.TOOLS["chromium"].path
ARGUMENTS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
SIZE: Final = (1500, 900)
LEAVERS: Final = f"""from_user,to_user,organisation_id,reason
fa410001-0000-4000-8000-000000064065,ad100001-0000-4000-8000-000000044304,{ORGANISATION},has left
90fa0001-0000-4000-8000-000000037114,ad100001-0000-4000-8000-000000044304,{ORGANISATION},has left
,ad100001-0000-4000-8000-000000044304,{ORGANISATION},has left
00000000-dead-4000-8000-000000000000,ad100001-0000-4000-8000-000000044304,{ORGANISATION},
"""
"""Two users of the sample world, a row without an id, and a user that User-Org does not know."""
MAPPED_TASK: Final = "transfer.reindex_course_batches"


def best_run(api: httpx.Client) -> str:
    """The id of the run with the most mapped instances. Raises RuntimeError when no run moved anything."""
    runs = api.get("/dagRuns", params={"order_by": "-start_date", "limit": 50}).json()["dag_runs"]
    mapped = {run["dag_run_id"]: _instances(api, run["dag_run_id"]) for run in runs}
    best = max(mapped, key=lambda run_id: mapped[run_id], default="")
    if not best or not mapped[best]:
        raise RuntimeError("No run has moved anything yet; wait until the demo has printed its outcome.")
    return best


def _instances(api: httpx.Client, run_id: str) -> int:
    found = api.get(f"/dagRuns/{run_id.replace('+', '%2B')}/taskInstances", params={"limit": 500}).json()
    return sum(
        one["task_id"] == MAPPED_TASK and one["map_index"] >= 0 for one in found.get("task_instances", ())
    )


def take(addresses: Addresses, folder: Path, *, chromium: str = CHROMIUM) -> list[Path]:
    """Log in, open the run and the page of transfers, save the screenshots."""
    with opened_api(addresses) as api:
        run_id = best_run(api)
    folder.mkdir(parents=True, exist_ok=True)
    taken: list[Path] = []

    def save(page: Page, name: str) -> None:
        taken.append(folder / f"{name}.png")
        page.screenshot(path=taken[-1])

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        try:
            page = _opened(browser, addresses)
            page.goto(f"{run_url(addresses, run_id)}/tasks/{MAPPED_TASK}/mapped")
            _unfold(page)
            save(page, "run-grid")
            _transfers(page)
            save(page, "transfers")
            page.emulate_media(color_scheme="dark")
            _settled(page)
            save(page, "transfers-dark")
            page.emulate_media(color_scheme="light")
            frame = page.frame_locator("iframe")
            frame.locator(
                "tr",
                has_not=frame.locator(".kind"),
                has=frame.locator("td", has_text=re.compile(r"^\s*45\b")),
            ).locator("a.row").first.click()
            frame.get_by_role("heading", name="Timeline").wait_for()
            _settled(page)
            save(page, "transfer")
            frame.get_by_role("link", name="Undo…").click()
            frame.get_by_role("heading", name="What will happen").wait_for()
            _settled(page)
            save(page, "undo")
            _import(page)
            save(page, "import")
        finally:
            browser.close()
    return taken


def _opened(browser: Browser, addresses: Addresses) -> Page:
    page = browser.new_page(
        viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="light", locale="en-GB"
    )
    log_in(page, addresses)
    return page


def _transfers(page: Page) -> None:
    """Open the page of transfers by Airflow's navigation."""
    page.get_by_role("link", name="Transfers", exact=True).first.click()
    page.frame_locator("iframe").locator("table.transfers").wait_for()
    _settled(page)


def _import(page: Page) -> None:
    """Send a file whose rows would take the demo's transfers back, and a wrong one; wait for its dry runs."""
    frame = page.frame_locator("iframe")
    frame.get_by_role("link", name="Ownership transfers").click()
    frame.get_by_role("link", name="Imports", exact=True).click()
    frame.get_by_label("File").set_input_files(
        FilePayload(name="leavers.csv", mimeType="text/csv", buffer=LEAVERS.encode())
    )
    frame.get_by_role("button", name="Check the file").click()
    frame.get_by_role("button", name="good rows").wait_for(timeout=120_000)
    _settled(page)


def _settled(page: Page) -> None:
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)  # for colour transitions, which have no event to wait for


def log_in(page: Page, addresses: Addresses) -> None:
    """Log in as the stack's administrator."""
    page.goto(f"{addresses.airflow}/auth/login")
    page.get_by_label("Username").fill(addresses.airflow_user)
    page.get_by_label("Password").fill(addresses.airflow_password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/auth/" not in url)


def _unfold(page: Page) -> None:
    """Open the task group in the grid, and wait until everything is drawn."""
    page.get_by_role("button", name="Expand all groups").or_(page.get_by_label("Expand all")).first.click()
    page.get_by_text("lookup_users").first.wait_for()
    page.get_by_text("→").first.wait_for()
    page.mouse.move(0, 0)
    page.wait_for_timeout(1000)  # for the animation of the rows, which has no event to wait for


def main(arguments: list[str] | None = None) -> int:
    """Take the screenshots; the exit code is 1 when there is no demo or no finished run."""
    parser = argparse.ArgumentParser(prog="python -m local.demo.screenshots", description=__doc__)
    parser.add_argument("--addresses", type=Path, default=DEMO / "addresses.env")
    parser.add_argument("--folder", type=Path, default=PICTURES)
    parser.add_argument("--chromium", default=CHROMIUM)
    options: Any = parser.parse_args(arguments)
    if not options.addresses.exists():
        print(f"There is no {options.addresses}; start `make demo` in another terminal.")
        return 1
    try:
        taken = take(Addresses.read(options.addresses), options.folder, chromium=options.chromium)
    except RuntimeError as error:
        print(error)
        return 1
    for picture in taken:
        print(f"{picture}: {picture.stat().st_size // 1024} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
