"""Files in and out by the API, on a real ledger and an Airflow that only remembers its runs."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from ownership.domain.organisations import EVERYTHING, VisibleOrganisations
from ownership.domain.transfer_files import MAX_BYTES
from ownership.ledger.arrivals import Arrivals
from ownership.ledger.database import Database
from ownership.ledger.events import RejectedMessage
from ownership.ledger.reads import Reads
from ownership.page import airflow_facts, forms, importing
from ownership.page import app as module
from ownership.page.actions import TRANSFER_DAG
from ownership.page.api.app import api
from ownership.page.api.requests import MAX_BODY
from ownership.page.views.links import RunLink
from tests.integration.page.conftest import opened
from tests.unit.page.api.service import Service, opened_service

FILE = "from_user,to_user,organisation_id,reason\na1,b,O,left\na2,b,O,\n,b,O,\n"


class Imported:
    """The API with its ledger, and what a run would do to its events."""

    def __init__(self, service: Service, ledger: Database) -> None:
        self.service, self.ledger = service, ledger
        self.states: dict[str, str] = {}

    @contextmanager
    def reads(self, visible: VisibleOrganisations) -> Iterator[Reads]:
        yield Reads(self.ledger, visible)

    def send(self, content: str | bytes = FILE, key: str = "", **how: Any) -> httpx.Response:
        headers = {"content-type": "text/csv", **how.pop("headers", {})}
        if key:
            headers["idempotency-key"] = key
        return self.service.ask("POST", "/imports", content=content, headers=headers, **how)

    def send_form(
        self, content: str | bytes = FILE, *, file_name: str = "leavers.csv", **how: Any
    ) -> httpx.Response:
        """As `curl -F file=@leavers.csv` does."""
        headers = {"authorization": "Bearer t", **how.pop("headers", {})}
        files = {"file": (file_name, content, "text/csv")}
        return self.service.ask("POST", "/imports", files=files, headers=headers, **how)

    def post(self, import_id: str, what: str, **body: Any) -> httpx.Response:
        return self.service.ask("POST", f"/imports/{import_id}/{what}", json=body)

    def runs_of(self, ids: Iterable[str], *_: Any) -> dict[str, RunLink]:
        wanted = set(ids)
        return {
            r: RunLink(r, d, self.states.get(r, "running"), "") for d, r in self.service.runs if r in wanted
        }

    def press(self, address: str, **form: Any) -> httpx.Response:
        """A form of the page, as a browser sends it."""

        async def answered() -> httpx.Response:
            transport = httpx.ASGITransport(module.page)
            async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
                return await client.post(address, data=form)

        return asyncio.run(answered())

    def token(self, import_id: str) -> str:
        """Of a form about an import that was opened just now."""
        user: Any = SimpleNamespace(get_id=lambda: self.service.user)
        return forms.import_token(user, import_id)

    def get(self, address: str) -> Any:
        answer = self.service.ask("GET", f"/{address}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def confs(self) -> list[dict[str, Any]]:
        return [conf for (dag, _), conf in self.service.runs.items() if dag == TRANSFER_DAG]

    def mids(self) -> list[str]:
        return [e["mid"] for conf in self.confs() for e in conf["events"]]

    def event(self, mid: str, state: str) -> None:
        """The event of a run, in its last state."""
        self.events([mid], state)

    def events(self, mids: list[str], state: str) -> None:
        """The events of runs, in their last state."""
        with_end = "now()" if state != "failed" else "NULL"
        completed = "now()" if state == "completed" else "NULL"
        statement = text(
            "INSERT INTO event (mid, order_ms, kafka_partition, kafka_offset, from_user, to_user, source_user, "
            "target_user, origin, topic, kafka_ms, state, counts, reason, ended_at, completed_at) SELECT mid, 1, -1, "
            f"0, 'a', 'b', 'a', 'b', 'manual', 't', 1, :state, '{{\"moved\": 3}}', 'why', {with_end}, {completed} "
            "FROM unnest(CAST(:mids AS text[])) AS mid"
        )
        self.ledger.run(lambda c: c.execute(statement, {"mids": mids, "state": state}))


@pytest.fixture(scope="module")
def ledger(server: dict[str, Any]) -> Iterator[Database]:
    database = opened(server, "imports")
    yield database
    database.close()


@pytest.fixture
def imported(ledger: Database, monkeypatch: pytest.MonkeyPatch) -> Imported:
    service = opened_service(monkeypatch)
    made = Imported(service, ledger)
    monkeypatch.setattr(service, "reads", made.reads)
    monkeypatch.setattr(importing, "trigger", service.trigger)
    monkeypatch.setattr(module.app, "dependency_overrides", api.dependency_overrides)
    monkeypatch.setenv("AIRFLOW__API__SECRET_KEY", "a key of this test")
    monkeypatch.setattr(airflow_facts, "runs_of", made.runs_of)
    return made


def problem(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["detail"])


def test_a_file_is_checked_carried_out_and_what_failed_comes_back(imported: Imported) -> None:
    answer = imported.send()
    assert answer.status_code == 202, answer.text
    made = answer.json()
    name = made["id"]
    assert answer.headers["location"] == f"imports/{name}"
    assert (made["state"], made["by_state"]) == ("checking", {"checking": 2, "wrong": 1})
    (conf,) = imported.confs()
    assert conf == {
        "events": [
            {"mid": f"import:{name}:2:check", "from_user": "a1", "to_user": "b", "organisation_id": "O", "reason": "left"},
            {"mid": f"import:{name}:3:check", "from_user": "a2", "to_user": "b", "organisation_id": "O"},
        ],
        "dry_run": True,
    }  # fmt: skip
    assert "still being checked" in problem(imported.post(name, "go", only_good=True), 409)
    for n in (2, 3):
        imported.event(f"import:{name}:{n}:check", "rehearsed")
    assert imported.get(f"imports/{name}")["would_move"] == 6
    assert "1 rows cannot be carried out" in problem(imported.post(name, "go"), 409)
    assert len(imported.confs()) == 1
    for _ in range(2):  # pressed twice
        assert imported.post(name, "go", only_good=True).json()["state"] == "started"
    assert imported.confs()[1:] == [
        {
            "events": [{**event, "mid": event["mid"].removesuffix(":check")} for event in conf["events"]],
            "dry_run": False,
        }
    ]
    imported.event(f"import:{name}:2", "completed")
    imported.event(f"import:{name}:3", "failed")
    done = imported.get(f"imports/{name}")
    assert (done["state"], done["moved"], done["failures"]) == ("done", 6, 2)
    rows = imported.get(f"imports/{name}/rows")
    assert [(r["row"], r["state"], r["error_column"], r["error"]) for r in rows["rows"]] == [
        (2, "done", None, None),
        (3, "failed", "", "why"),
        (4, "wrong", "from_user", "is empty"),
    ]
    failed = imported.service.ask("GET", f"/imports/{name}/failed.csv").text
    assert [r["error"] for r in csv.DictReader(io.StringIO(failed))] == ["why", "from_user: is empty"]
    assert imported.get("imports")["imports"][0]["id"] == name


def test_the_same_key_takes_a_file_in_once_and_another_file_is_refused(imported: Imported) -> None:
    first, again = (imported.send(key="k") for _ in range(2))
    assert first.json()["id"] == again.json()["id"]
    assert len(imported.confs()) == 1
    assert "Idempotency-Key" in problem(imported.send(FILE + "c,b,O,\n", key="k"), 422)
    imported.service.user = "somebody-else"
    assert imported.send(FILE + "c,b,O,\n", key="k").json()["id"] != first.json()["id"]


def test_what_a_crash_left_out_is_started_when_it_is_asked_for_again(imported: Imported) -> None:
    imported.service.airflow_says = 500
    assert "Airflow refused the run" in problem(imported.send(key="crash"), 502)
    (made, *_) = imported.get("imports")["imports"]
    assert imported.get(f"imports/{made['id']}")["stalled"]
    imported.service.airflow_says = 200
    assert not imported.post(made["id"], "check").json()["stalled"]
    assert len(imported.mids()) == 2
    # The run ends before it brings the second row.
    imported.event(f"import:{made['id']}:2:check", "rehearsed")
    assert imported.post(made["id"], "check").status_code == 202
    assert len(imported.confs()) == 1
    ((_, run_id),) = imported.service.runs
    imported.states[run_id] = "failed"
    assert imported.get(f"imports/{made['id']}")["stalled"]
    imported.send(key="crash")
    assert imported.mids()[2:] == [f"import:{made['id']}:3:check"]


def test_the_button_for_runs_that_do_not_come_starts_what_was_asked_for_and_no_more(
    imported: Imported,
) -> None:
    name = imported.send().json()["id"]
    opened_form = {"token": imported.token(name), "what": "again"}
    for n in (2, 3):
        imported.event(f"import:{name}:{n}:check", "rehearsed")
    # The form was opened while the dry runs did not come; by now they have.
    assert imported.press("/import", **opened_form).status_code == 303
    assert imported.get(f"imports/{name}")["state"] == "checked"
    assert len(imported.confs()) == 1
    assert imported.press("/import", **opened_form | {"what": "good"}).status_code == 303
    assert [conf["dry_run"] for conf in imported.confs()] == [True, False]
    imported.states |= {run: "failed" for _, run in imported.service.runs}
    assert imported.press("/import", **opened_form).status_code == 303
    assert [conf["dry_run"] for conf in imported.confs()] == [True, False, False]


@pytest.mark.parametrize("address", ["/import", "/act"])
def test_a_form_beyond_the_limit_is_refused_before_it_is_read(imported: Imported, address: str) -> None:
    answer = imported.press(address, token="x" * MAX_BODY)
    assert answer.status_code == 413
    assert "more than 1,000,000 bytes" in answer.text


def test_ten_thousand_rows_are_so_many_runs_as_their_confs_need(imported: Imported) -> None:
    lines = "".join(f"x{n},b,O,\n" for n in range(10_000))
    made = imported.send("from_user,to_user,organisation_id,reason\n" + lines).json()
    assert made["by_state"] == {"checking": 10_000}
    assert len(imported.mids()) == len(set(imported.mids())) == 10_000
    assert all(len(conf["events"]) <= 1000 for conf in imported.confs())
    checks = imported.mids()
    imported.events(checks[:9_900], "rehearsed")
    imported.events(checks[9_900:], "skipped")
    assert imported.post(made["id"], "go", only_good=True).json()["by_state"] == {
        "moving": 9_900,
        "refused": 100,
    }
    transfers = imported.mids()[10_000:]
    assert transfers == [mid.removesuffix(":check") for mid in checks[:9_900]]
    imported.events(transfers[50:], "completed")
    imported.events(transfers[:50], "failed")
    done = imported.get(f"imports/{made['id']}")
    assert (done["state"], done["moved"], done["failures"]) == ("done", 3 * 9_900, 150)
    failed = imported.service.ask("GET", f"/imports/{made['id']}/failed.csv").text
    assert [r["from_user"] for r in csv.DictReader(io.StringIO(failed))] == [
        f"x{n}" for n in (*range(50), *range(9_900, 10_000))
    ]
    page = imported.get(f"imports/{made['id']}/rows?after=9990")
    assert ([r["row"] for r in page["rows"]], page["next"]) == ([*range(9991, 10_002)], None)


def test_a_file_may_come_as_a_form_and_is_the_same_file(imported: Imported) -> None:
    key = {"idempotency-key": "form"}
    made = imported.send_form(headers=key).json()
    assert (made["file_name"], made["by_state"]) == ("leavers.csv", {"checking": 2, "wrong": 1})
    assert imported.send(headers=key).json() == made
    given = imported.send_form("from_user,organisation_id\na7,O\n", data={"to_user": "n"}).json()
    (row,) = imported.get(f"imports/{given['id']}/rows")["rows"]
    assert (row["from_user"], row["to_user"], row["state"]) == ("a7", "n", "checking")
    beside = "from_user,organisation_id\na8,O\n"
    assert imported.send_form(beside, params={"to_user": "n", "name": "other"}).json()["file_name"] == "other"


def form_of(*parts: tuple[str, bytes]) -> bytes:
    """A form with these parts, each with its header."""
    return b"".join(b"--b\r\n%b\r\n\r\n%b\r\n" % (h.encode(), c) for h, c in parts) + b"--b--\r\n"


AS_FILE = 'content-disposition: form-data; name="file"; filename="f.csv"'


@pytest.mark.parametrize(
    ("content", "headers", "status", "words"),
    [
        pytest.param(form_of((AS_FILE, FILE.encode())), {"authorization": ""}, 415, "Authorization", id="a cookie alone"),
        pytest.param(form_of((AS_FILE, FILE.encode())), {"authorization": "Basic dTpw"}, 415, "Bearer", id="a password"),
        pytest.param(form_of((AS_FILE, FILE.encode())), {"content-encoding": "gzip"}, 415, "unpacked", id="packed"),
        pytest.param(form_of((AS_FILE, gzip.compress(FILE.encode()))), {}, 422, "packed by gzip", id="packed in secret"),
        pytest.param(form_of((AS_FILE, b"x" * (MAX_BYTES + 1))), {}, 413, "more than", id="a file too large"),
        pytest.param(form_of((AS_FILE, b"x" * 2 * MAX_BYTES)), {}, 413, "more than", id="a body too large"),
        pytest.param(form_of((AS_FILE, b"a;b")), {}, 422, "unknown column", id="other columns"),
        pytest.param(form_of((AS_FILE, b"")), {}, 422, "file is empty", id="an empty file"),
        pytest.param(form_of(('content-disposition: form-data; name="file"', FILE.encode())), {}, 422, "Choose a file",
                     id="a text, no file"),
        pytest.param(form_of((AS_FILE.replace("file", "csv", 1), FILE.encode())), {}, 422, "Choose a file",
                     id="another name"),
        pytest.param(form_of((AS_FILE, b"a"), (AS_FILE, b"b")), {}, 400, "Too many files", id="two files"),
        pytest.param(b"--b--\r\n", {}, 422, "Choose a file", id="nothing"),
        pytest.param(b"", {}, 422, "Choose a file", id="no body"),
        pytest.param(b"x", {}, 400, "", id="no form"),
        pytest.param(form_of((AS_FILE, b"a"))[:-9], {}, 422, "Choose a file", id="cut off",
                     marks=pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")),
        pytest.param(b"x", {"content-type": "multipart/form-data"}, 400, "boundary", id="no boundary"),
        pytest.param(form_of((AS_FILE, b"a"), ("content-disposition: form-data", b"")), {}, 400, "name", id="no name"),
        pytest.param(form_of((AS_FILE, b"a"), ('content-disposition: form-data; name="to_user"', b"u" * 30_000)), {}, 400,
                     "maximum size", id="a field too large"),
        pytest.param(form_of(('content-disposition: form-data; name="to_user"', b"--\xc3\xa9-")),
                     {"content-type": "multipart/form-data; boundary=b; charset=punycode"}, 400, "UTF-8", id="punycode"),
        pytest.param(
            form_of((AS_FILE, FILE.replace("a1,b", "a1,").encode()),
                    ('content-disposition: form-data; name="to_user"', rb"\ud800")),
            {"content-type": "multipart/form-data; boundary=b; charset=unicode_escape"}, 202, "", id="half a character",
        ),
    ],
)  # fmt: skip
def test_a_form_that_cannot_be_taken_in_starts_nothing(
    imported: Imported, content: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    given = {"content-type": "multipart/form-data; boundary=b", "authorization": "Bearer t"}
    answer = imported.send(content, headers=given | headers)
    assert answer.status_code == status, answer.text
    if status != 202:
        assert words in problem(answer, status)
        assert imported.confs() == []


def test_a_form_of_a_user_who_may_not_start_is_not_read(imported: Imported) -> None:
    imported.service.allowed = set()
    problem(imported.send_form(b"x" * 2 * MAX_BYTES), 403)


async def in_chunks() -> AsyncIterator[bytes]:
    """A body whose length no header says."""
    while True:
        yield b"x" * 65_536


@pytest.mark.parametrize(
    ("content", "headers", "status", "words"),
    [
        pytest.param(FILE, {"content-type": "application/json"}, 415, "Content-Type text/csv", id="another type"),
        pytest.param(gzip.compress(FILE.encode()), {"content-encoding": "gzip"}, 415, "nothing is unpacked", id="packed"),
        pytest.param(gzip.compress(FILE.encode()), {}, 422, "packed by gzip", id="packed in secret"),
        pytest.param(b"x" * (MAX_BYTES + 1), {}, 413, "more than", id="10 MB"),
        pytest.param(in_chunks, {}, 413, "more than", id="without an end"),
        pytest.param("from_user;to_user\n", {}, 422, "unknown column", id="other columns"),
        pytest.param(FILE.encode() + b"\xe9", {}, 422, "Line 5: the byte 0xE9 is not UTF-8", id="not UTF-8"),
        pytest.param(
            "from_user,to_user,organisation_id\n,b,O\n",
            {},
            422,
            "No row can be a transfer. Row 2: from_user: is empty.",
            id="no good row",
        ),
        pytest.param(FILE + "a,b,O,\n" * 10_000, {}, 422, "more than 10000 rows", id="too many rows"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_taken_in_starts_nothing(
    imported: Imported, content: Any, headers: dict[str, str], status: int, words: str
) -> None:
    answer = imported.send(content() if callable(content) else content, headers=headers)
    assert answer.status_code == status, answer.text
    if status != 202:
        assert words in problem(answer, status)
        assert imported.confs() == []


@pytest.mark.parametrize("what", ["transfers", "changes"])
def test_an_export_is_what_the_filters_leave(imported: Imported, what: str) -> None:
    mid = f"exported-{what}"
    imported.event(mid, "completed")
    answer = imported.service.ask("GET", f"/exports/{what}?format=jsonl&mid={mid}")
    assert answer.headers["content-type"] == "application/x-ndjson"
    count = len(answer.text.splitlines()) - 1
    assert (count, answer.text.splitlines()[-1]) == (
        int(what == "transfers"),
        f'{{"end": true, "rows": {count}}}',
    )
    named = imported.service.ask("GET", f"/exports/{what}?state=completed&user=A&before=1970-01-02T00:00")
    assert named.headers["content-type"] == "text/csv; charset=utf-8"
    assert (mid in named.text) == (what == "transfers")
    assert imported.service.ask("GET", f"/exports/{what}?user=nobody").text.count("\n") == 1
    problem(imported.service.ask("GET", f"/exports/{what}?format=xlsx"), 422)


def rejected(ledger: Database, mid: str, kafka_ms: int, body: bytes = b"{") -> None:
    message = RejectedMessage(mid, "kafka", "topic", 0, 77, kafka_ms, None, body, "no JSON", None)
    Arrivals(ledger).store([], [message])


def test_a_message_of_a_time_beyond_the_calendar_is_exported_without_it(imported: Imported) -> None:
    """As a producer sets it that counts microseconds."""
    rejected(imported.ledger, "rejected:far", 1_764_316_800_000_000)
    answer = imported.service.ask("GET", "/exports/transfers?format=jsonl&state=rejected")
    *rows, end = map(json.loads, answer.text.splitlines())
    assert end == {"end": True, "rows": len(rows)}
    assert {r["mid"]: r["sent_at"] for r in rows}["rejected:far"] is None


def test_an_export_reads_no_more_of_a_row_than_it_shows(imported: Imported) -> None:
    """A rejected message has up to 2 MiB, and each event of a large lane names all of it."""
    size = 10_000_000
    for n in range(10):
        rejected(imported.ledger, f"rejected:large-{n}", n, b"x" * (size // 10))
    imported.event("of-a-lane", "completed")
    statement = text("UPDATE event SET planned_with = :lane, report = :report WHERE mid = 'of-a-lane'")
    given = {"lane": ["y" * 100] * (size // 100), "report": "z" * size}
    imported.ledger.run(lambda c: c.execute(statement, given))
    for query, mid in (("state=rejected", "rejected:large-9"), ("mid=of-a-lane", "of-a-lane")):
        tracemalloc.start()
        try:
            answer = imported.service.ask("GET", f"/exports/transfers?format=jsonl&{query}")
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert mid in [json.loads(line).get("mid") for line in answer.text.splitlines()]
        assert most < size, query


def test_a_user_who_may_not_start_transfers_imports_nothing(imported: Imported) -> None:
    made = imported.send().json()
    imported.service.allowed = set()
    runs = len(imported.confs())
    problem(imported.send(FILE.replace("a1", "a9")), 403)
    for what in ("go", "check"):
        problem(imported.post(made["id"], what), 403)
    assert len(imported.confs()) == runs


def test_an_import_that_is_not_there_is_not_found(imported: Imported) -> None:
    for address in ("", "/rows", "/failed.csv"):
        problem(imported.service.ask("GET", f"/imports/{'0' * 20}{address}"), 404)
    problem(imported.post("0" * 20, "go"), 404)
    assert imported.service.ask("GET", "/imports/%00").status_code == 422
    assert imported.service.ask("GET", "/imports/template.csv").text.startswith("from_user,to_user")


def test_an_import_is_its_organisation_s_and_a_row_of_another_one_is_wrong(imported: Imported) -> None:
    imported.service.visible = VisibleOrganisations(frozenset({"mine"}))
    both = "from_user,to_user,organisation_id,reason\norg1,b,mine,\norg2,b,theirs,\n"
    made = imported.send(both, key="of-mine").json()
    assert made["by_state"] == {"checking": 1, "wrong": 1}
    rows = imported.get(f"imports/{made['id']}/rows")["rows"]
    assert [r["error_column"] for r in rows] == [None, "organisation_id"]
    assert all(e["organisation_id"] == "mine" for conf in imported.confs() for e in conf["events"])
    assert "No row can be a transfer" in problem(imported.send(both.replace("mine", "theirs")), 422)
    for visible in (frozenset({"theirs"}), frozenset[str]()):
        imported.service.visible = VisibleOrganisations(visible)
        assert made["id"] not in [i["id"] for i in imported.get("imports")["imports"]]
        for address in ("", "/rows", "/failed.csv"):
            assert imported.service.ask("GET", f"/imports/{made['id']}{address}").status_code == 404
        assert imported.post(made["id"], "go", only_good=True).status_code == 404
        assert imported.post(made["id"], "check").status_code == 404
    imported.service.visible = EVERYTHING
    assert made["id"] in [i["id"] for i in imported.get("imports")["imports"]]
