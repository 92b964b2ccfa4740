"""A file of leavers on a real Airflow: dry runs, then transfers, proven in both stores; and what failed comes back."""

from __future__ import annotations

import csv
import html
import io
import re
from typing import Any

import httpx

from local.servers.airflow import OPERATOR, VIEWER
from tests.e2e.airflow_world import ORGANISATION, Airflow, Story, until


def form_token(page: httpx.Client, address: str) -> str:
    found = re.search(r'name="token" value="([^"]+)"', page.get(address).text)
    assert found
    return html.unescape(found[1])


def in_state(page: httpx.Client, name: str, state: str) -> dict[str, Any]:
    def seen() -> dict[str, Any] | None:
        found: dict[str, Any] = page.get(f"/api/v1/imports/{name}").json()
        return found if found["state"] == state else None

    return until(f"the import is {state}", seen, seconds=120)


def test_a_file_of_leavers_is_checked_carried_out_and_proven(airflow: Airflow, story: Story) -> None:
    leavers, new = [story.user(f"leaver-{n}") for n in range(2)], story.user("new")
    batches = [story.batches(leaver, 2, leaver) for leaver in leavers]
    lines = [
        "userId,username,organisationId,roles,assetIdentifier,assetName,assetStatus,objectType",
        *(f"{leaver},,{ORGANISATION},,{b.batch_id},,1,Course Batch" for leaver, of in zip(leavers, batches, strict=True)
          for b in of),
        f"nobody-{story.name},,{ORGANISATION},,b,,1,Course Batch",
        f"=cmd,,{ORGANISATION},,b,,1,Course Batch",
    ]  # fmt: skip
    with airflow.page(OPERATOR) as page, airflow.page(VIEWER) as viewer:
        upload = {"file": ("leavers.csv", "\r\n".join(lines).encode(), "text/csv")}
        sent = {"token": form_token(page, "/imports"), "to_user": new}
        assert viewer.post("/imports", data=sent, files=upload).status_code == 403
        answers = [page.post("/imports", data=sent, files=upload) for _ in range(2)]
        assert [a.status_code for a in answers] == [303, 303], answers[0].text
        assert len({a.headers["location"] for a in answers}) == 1
        name = httpx.URL(answers[0].headers["location"]).params["id"]

        checked = in_state(page, name, "checked")
        assert (checked["by_state"], checked["would_move"]) == ({"ready": 2, "refused": 1, "wrong": 1}, 4)
        assert [story.owners(of) for of in batches] == [{(leaver, leaver)} for leaver in leavers]
        shown = page.get("/import", params={"id": name})
        assert "Carry out the 2 good rows" in shown.text

        go = {"token": form_token(page, f"/import?id={name}"), "what": "good"}
        assert viewer.post("/import", data=go).status_code == 403
        assert page.post("/import", data={**go, "what": "all"}).status_code == 409
        assert page.post("/import", data=go).status_code == 303
        done = in_state(page, name, "done")
        assert (done["moved"], done["by_state"]["done"], done["failures"]) == (4, 2, 2)
        assert [story.owners(of) for of in batches] == [{(new, new)}] * 2

        failed = list(csv.DictReader(io.StringIO(page.get(f"/api/v1/imports/{name}/failed.csv").text)))
        assert [(r["from_user"], r["error_row"]) for r in failed] == [
            (f"nobody-{story.name}", "6"),
            ("'=cmd", "7"),
        ]

        exported = csv.DictReader(
            io.StringIO(viewer.get("/api/v1/exports/changes", params={"user": new}).text)
        )
        assert {(r["batch_id"], r["before_created_by"], r["after_created_by"]) for r in exported} == {
            (b.batch_id, leaver, new) for leaver, of in zip(leavers, batches, strict=True) for b in of
        }


def test_a_form_that_is_too_large_is_refused(airflow: Airflow) -> None:
    with airflow.page(OPERATOR) as page:
        sent = {"token": form_token(page, "/imports")}
        big = {"file": ("big.csv", b"a,b,c\n" * 2_000_000, "text/csv")}
        assert page.post("/imports", data=sent, files=big).status_code == 413
        none = page.post("/imports", data=sent, files={"file": ("a.csv", b"a;b\n", "text/csv")})
        assert (none.status_code, "unknown column" in none.text) == (400, True)
        assert page.post("/imports", data={"token": "forged"}, files=big).status_code in (403, 413)
