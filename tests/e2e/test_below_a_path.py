"""An API server below a path, as behind a proxy that serves other things, too: every link and form of the page leads there."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpx
import pytest

from local.servers.airflow import OPERATOR, token
from local.servers.ports import HOST
from tests.e2e.airflow_world import UNDO, Airflow, Story, form, opened_story

PATH = "/intranet/airflow"
PAGE = f"{PATH}/ownership-transfers/"


@pytest.fixture(scope="module")
def below(airflow: Airflow) -> Iterator[str]:
    """The URL of a second API server over the same database, below a path."""
    layout, first = airflow.stack.layout, airflow.stack.servers["api-server"]
    port = layout.port("airflow-below-a-path")
    url = f"http://{HOST}:{port}{PATH}"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/api/v2/version", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    server = replace(
        first,
        name="api-server-below-a-path",
        log_file=layout.log("airflow-api-server-below-a-path"),
        pid_file=layout.pid("airflow-api-server-below-a-path"),
        address=url,
        answers=answers,
        environment={**first.environment, "AIRFLOW__API__BASE_URL": url, "AIRFLOW__API__PORT": str(port)},
        ports=(port,),
    )
    with server:
        yield url


@pytest.fixture
def browser(airflow: Airflow, below: str) -> Iterator[httpx.Client]:
    """Signed in as an operator, with absolute addresses."""
    password = airflow.stack.addresses.airflow_password
    with httpx.Client(cookies={"_token": token(below, OPERATOR, password)}, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def transfer(airflow: Airflow) -> Iterator[tuple[str, Story, list[Any]]]:
    """A completed one: its mid, its people, its batches."""
    with opened_story(airflow.stack) as story:
        old, new = story.user("old"), story.user("new")
        batches = story.batches(old, 2)
        run_id, _ = airflow.done(form(old, new))
        yield f"manual:{run_id}:0", story, batches


def opened(browser: httpx.Client, url: str) -> str:
    answer = browser.get(url)
    assert answer.status_code == 200, f"{url}: {answer.status_code} {answer.text[:300]}"
    return answer.text


def addresses(page: str, url: str) -> set[str]:
    """Every address that a page leads to or loads, absolute."""
    found = re.findall(r'(?:href|src|action)="([^"#]+)[^"]*"', page)
    return {urljoin(url, html.unescape(address)) for address in found}


def test_every_link_of_the_page_stays_below_the_path_and_leads_somewhere(
    below: str, browser: httpx.Client, transfer: tuple[str, Story, list[Any]]
) -> None:
    first = urljoin(below, PAGE)
    to_visit, seen = {first}, set[str]()
    for _ in range(2):  # the list, what it leads to, and what that loads
        pages = {
            url: opened(browser, url)
            for url in sorted(to_visit - seen)
            if urlsplit(url).path.startswith(PAGE)
        }
        seen |= to_visit
        to_visit = {link for url, page in pages.items() for link in addresses(page, url)}
        assert to_visit
        assert [link for link in to_visit if not urlsplit(link).path.startswith(f"{PATH}/")] == []
    assert any("transfer?mid=" in url for url in seen)
    for link in sorted(to_visit):
        if not link.endswith("/act"):
            opened(browser, link)


def test_a_form_starts_its_run_and_leads_back_below_the_path(
    airflow: Airflow, below: str, browser: httpx.Client, transfer: tuple[str, Story, list[Any]]
) -> None:
    mid, story, batches = transfer
    confirm = urljoin(below, f"{PAGE}confirm?action=undo&mid={quote(mid)}")
    page = opened(browser, confirm)
    (form_token,) = re.findall(r'name="token" value="([^"]+)"', page)
    (action,) = re.findall(r'<form[^>]*action="([^"]+)"', page)

    answer = browser.post(
        urljoin(confirm, action), data={"token": html.unescape(form_token), "reason": "tried"}
    )

    assert answer.status_code == 303, answer.text
    there = urljoin(str(answer.url), answer.headers["location"])
    assert urlsplit(there).path.startswith(PAGE)
    opened(browser, there)
    started = httpx.URL(there).params["started"]
    assert airflow.of(UNDO).ended(started) == "success"
    (old,) = {batch.created_by for batch in batches}
    assert story.owners(batches) == {(old, old)}
