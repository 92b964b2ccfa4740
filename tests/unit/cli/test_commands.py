"""The command line: over the API itself in this process, and before a server that does not do as it should."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from local.paths import REPOSITORY
from ownership.cli import client as client_module
from ownership.cli.client import Client, Credentials, Unreachable, is_left
from ownership.cli.commands import Exit, main
from ownership.cli.output import percent
from ownership.domain.states import EventState
from ownership.page.actions import TRANSFER_DAG, UNDO_DAG
from tests.unit.page.api.service import Service, looked
from tests.unit.page.rows import EVENT

LOGIN = {"OWNERSHIP_USER": "u", "OWNERSHIP_PASSWORD": "p"}
HERE = {"OWNERSHIP_URL": "http://airflow/", "OWNERSHIP_TOKEN": "t"}
MID = EVENT.mid
DIGEST = "0f" * 10
Shell = Callable[..., int]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAUSE_S", 0)


@pytest.fixture
def shell(service: Service) -> Shell:  # the fixture
    """A command against the API."""

    def passed_on(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer t"
        address = request.url.raw_path.decode().removeprefix("/ownership-transfers/api/v1")
        answer = service.ask(request.method, address, content=request.read(), headers=dict(request.headers))
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    return lambda *words: main(words, HERE, httpx.MockTransport(passed_on))


def against(handler: Callable[[httpx.Request], httpx.Response], *words: str, **environment: str) -> int:
    return main(words, {**HERE, **environment}, httpx.MockTransport(handler))


def answers(
    *given: httpx.Response | Exception,
) -> tuple[Callable[[httpx.Request], httpx.Response], list[httpx.Request]]:
    """A server that gives these answers one after the other, the last again and again; and what it was asked."""
    asked: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        answer = given[min(len(asked), len(given)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handler, asked


def state_is(service: Service, state: EventState) -> None:  # the fixture
    service.events[MID] = EVENT._replace(state=state, digest=DIGEST, counts={"moved": 1})


# -- what it asks for


@pytest.mark.parametrize(
    ("words", "conf"),
    [
        ((), {}),
        (("--dry-run",), {"dry_run": True}),
        (
            ("--reason", "moves on", "--role", "created", "--course", "c1", "--course", "c2", "--requested-by", "u"),
            {"reason": "moves on", "roles": ["created"], "course_ids": ["c1", "c2"], "requested_by": "u"},
        ),
    ],
)  # fmt: skip
def test_a_transfer_is_asked_for_with_its_options(
    shell: Shell,
    service: Service,
    capsys: pytest.CaptureFixture[str],
    words: Sequence[str],
    conf: dict[str, Any],
) -> None:
    assert shell("transfer", "old", "new", "org", "--json", *words) == Exit.DONE
    (((dag, run_id), given),) = service.runs.items()
    assert dag == TRANSFER_DAG
    assert given == {"from_user": "old", "to_user": "new", "organisation_id": "org", **conf}
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["mid"] == f"manual:{run_id}:0"


@pytest.mark.parametrize(
    ("words", "state", "dag", "conf"),
    [
        (("undo", MID), EventState.COMPLETED, UNDO_DAG, {"mids": [MID], "dry_run": True}),
        (("undo", MID, "--apply", "--reason", "r"), EventState.COMPLETED, UNDO_DAG,
         {"mids": [MID], "dry_run": False, "reason": "r"}),
        (("approve", MID, DIGEST), EventState.AWAITING_APPROVAL, TRANSFER_DAG, {"approve": {"mid": MID, "digest": DIGEST}}),
        (("execute", MID, DIGEST), EventState.REHEARSED, TRANSFER_DAG, {"execute_plan": MID, "digest": DIGEST}),
        (("decline", MID, "--reason", "r"), EventState.AWAITING_APPROVAL, TRANSFER_DAG,
         {"decline": {"mid": MID, "reason": "r"}}),
        (("abandon", MID, "--reason", "r"), EventState.FAILED, TRANSFER_DAG, {"abandon": {"mids": [MID], "reason": "r"}}),
        (("redrive", MID), EventState.FAILED, TRANSFER_DAG, {"redrive": {"mids": [MID]}}),
    ],
)  # fmt: skip
def test_each_action_is_a_command(
    shell: Shell, service: Service, words: Sequence[str], state: EventState, dag: str, conf: dict[str, Any]
) -> None:
    state_is(service, state)
    assert shell(*words) == Exit.DONE
    assert {d: c for (d, _), c in service.runs.items()} == {dag: conf}


def test_a_key_starts_one_run_and_none_is_another_each_time(shell: Shell, service: Service) -> None:
    for key in (["--key", "k"], ["--key", "k"], [], []):
        assert shell("transfer", "old", "new", "org", *key) == Exit.DONE
    assert len(service.runs) == 3


def test_a_list_reads_as_many_pages_as_it_needs(
    shell: Shell, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell("list", "--json", "--limit", "3", "--user", "u", "--state", "open") == Exit.DONE
    assert [t["state"] for t in json.loads(capsys.readouterr().out)] == ["completed", "rejected", "completed"]
    assert [f.user for f, _ in service.asked_for] == ["u", "u"]


def test_tables_have_whole_ids_and_no_markup(
    shell: Shell, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    long = f"[red]{'u' * 240}"
    service.events[MID] = EVENT._replace(
        transfer=EVENT.transfer._replace(from_user=long), request_reason="[/]"
    )
    assert shell("show", MID) == Exit.DONE
    printed = capsys.readouterr().out
    assert long in printed
    assert "[/]" in printed
    assert shell("show", MID, "--changes") == Exit.DONE
    assert "created_by b, mentors m" in capsys.readouterr().out
    assert shell("list", "--limit", "2") == Exit.DONE
    assert MID in capsys.readouterr().out


@pytest.mark.parametrize(
    ("found", "code"), [(None, Exit.REFUSED), ({}, Exit.DONE), ({"overdue": ["m"]}, Exit.REFUSED)]
)
def test_health_is_an_exit_code(shell: Shell, service: Service, found: Any, code: Exit) -> None:
    service.look = looked(found)
    assert shell("health") == code


# -- what goes wrong


def test_a_refusal_names_the_field(
    shell: Shell, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell("transfer", "old", "a\u200bb", "org") == Exit.REFUSED
    printed = capsys.readouterr()
    assert "to_user: contains U+200B" in printed.err
    assert not printed.out
    assert shell("show", "nothing") == Exit.REFUSED
    assert shell("redrive", MID) == Exit.REFUSED
    assert not service.runs


@pytest.mark.parametrize(
    "environment",
    [
        {"OWNERSHIP_URL": ""}, {"OWNERSHIP_URL": "airflow:8080"}, {"OWNERSHIP_TOKEN": ""},
        {"OWNERSHIP_TOKEN": "", "OWNERSHIP_USER": "u"},
    ],
)  # fmt: skip
def test_without_address_or_credentials_nothing_is_sent(environment: dict[str, str]) -> None:
    handler, asked = answers(httpx.Response(200))
    assert against(handler, "health", **environment) == Exit.USAGE
    assert not asked


@pytest.mark.parametrize(
    "words", [(), ("fly",), ("decline", "m"), ("export", "users"), ("list", "--limit", "x")]
)
def test_a_command_that_there_is_not_is_wrong_usage(words: Sequence[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words, HERE)
    assert ended.value.code == Exit.USAGE


GONE = httpx.ConnectError("refused")


@pytest.mark.parametrize(
    "answer",
    [
        GONE,
        httpx.ReadTimeout(""),
        httpx.Response(503),
        httpx.Response(502, text="<html>"),
        httpx.Response(429),
    ],
)
def test_a_server_that_does_not_answer_is_asked_three_times(
    answer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    handler, asked = answers(answer)
    assert against(handler, "transfer", "a", "b", "o") == Exit.NO_ANSWER
    assert len(asked) == client_module.TRIES
    assert len({r.headers["idempotency-key"] for r in asked}) == 1
    assert "ownership: " in capsys.readouterr().err


@pytest.mark.parametrize("errors", [["a"], {"a": "b"}, None, 1])
def test_a_problem_of_another_service_is_reported_all_the_same(
    errors: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    handler, _ = answers(httpx.Response(422, json={"detail": "no", "errors": errors}))
    assert against(handler, "health") == Exit.REFUSED
    assert capsys.readouterr().err.startswith("ownership: ")


@pytest.mark.parametrize(("status", "code"), [(302, 1), (404, 1), (418, 1), (500, 1), (504, 3)])
def test_an_answer_that_is_no_problem_is_reported_all_the_same(status: int, code: int) -> None:
    handler, _ = answers(httpx.Response(status, text="<html>"))
    assert against(handler, "health") == code


PAGE = httpx.Response(200, text="<html>sign in", headers={"content-type": "text/html"})


@pytest.mark.parametrize("answer", [PAGE, httpx.Response(200, text="no JSON"), httpx.Response(200, json=[1]),
                                    httpx.Response(200, json=None), httpx.Response(200, json={"other": 1})])  # fmt: skip
@pytest.mark.parametrize(
    "words",
    [("health",), ("list",), ("transfer", "a", "b", "o"), ("import", "--id", "ab"), ("approve", "m", DIGEST)],
)
def test_an_answer_of_another_service_is_a_refusal(
    answer: httpx.Response, words: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    handler, _ = answers(answer)
    assert against(handler, *words) == Exit.REFUSED
    assert "is the address right?" in " ".join(capsys.readouterr().err.split())
    assert against(handler, *words, **{**LOGIN, "OWNERSHIP_TOKEN": ""}) == Exit.REFUSED


def test_a_page_to_sign_in_is_no_export(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    handler, _ = answers(PAGE)
    assert against(handler, "export", "changes") == Exit.REFUSED
    assert capsysbinary.readouterr().out == b""
    assert against(handler, "export", "changes", "--output", str(tmp_path / "out.csv")) == Exit.REFUSED
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        (("--url", "http://airflow:port"), {}),
        (("--url", "http://"), {}),
        ((), {"HTTP_PROXY": "proxy:port"}),
        ((), {"ALL_PROXY": "socks5://proxy"}),
        ((), {"ALL_PROXY": "ftp://proxy"}),
    ],
)
def test_an_address_that_cannot_be_one_is_wrong_usage(
    words: Sequence[str],
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["health", *words], {**HERE, "OWNERSHIP_URL": "http://127.0.0.1:1"}) == Exit.USAGE
    assert "ownership: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("show", "\udcff"),
        ("transfer", "a", "\udcff", "o"),
        ("list", "--user", "\udcff"),
        ("import", "--id", "\udcff"),
        ("show", "m" * 70_000),
    ],
)
def test_an_argument_that_is_no_text_is_wrong_usage(
    words: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    handler, asked = answers(httpx.Response(200, json={}))
    assert against(handler, *words) == Exit.USAGE
    assert not asked
    assert "no text" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["../transfer", "a?b#c", "a\r"])
def test_the_id_of_an_import_is_one_step_of_the_address(given: str) -> None:
    handler, asked = answers(httpx.Response(422, json={"detail": "no"}))
    assert against(handler, "import", "--id", given) == Exit.REFUSED
    assert unquote(asked[0].url.raw_path.decode().rpartition("/imports/")[2]) == given
    assert b"?" not in asked[0].url.raw_path


def test_an_answer_that_cannot_be_unpacked_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(_request: httpx.Request) -> httpx.Response:
        packed = {"content-encoding": "gzip", "content-type": "application/json"}
        return httpx.Response(200, headers=packed, stream=httpx.ByteStream(b"{}"))

    assert against(broken, "health") == Exit.NO_ANSWER
    assert "ownership: " in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--user", "--state", "--run", "--before"])
@pytest.mark.parametrize("command", [["list"], ["export", "transfers"]])
@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_filter_is_no_wish_for_everything(
    option: str, command: list[str], value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a script gives it whose variable is not set."""
    with pytest.raises(SystemExit) as ended:
        main([*command, option, value], HERE)
    assert ended.value.code == Exit.USAGE
    assert f"argument {option}: is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["redrive", MID, "--key", ""], "argument --key: is empty"),
        (["transfer", "a", "b", "o", "--course", ""], "argument --course: is empty"),
        (["import", "--id", "0" * 20, "--to-user", ""], "argument --to-user: is empty"),
    ],
)
def test_an_option_of_no_text_is_wrong_usage(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words, HERE)
    assert ended.value.code == Exit.USAGE
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["redrive", MID, "--timeout", "5"], "--timeout has no effect without --wait"),
        (["import", "--id", "0" * 20, "--to-user", "u"], "--to-user has no effect with --id"),
        (["import", "--id", "0" * 20, "--go", "all", "--key", "k"], "--key has no effect with --id"),
    ],
)
def test_an_option_without_effect_is_refused_before_anything_is_sent(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    handler, asked = answers(httpx.Response(500))
    assert against(handler, *words) == Exit.USAGE
    assert (asked, said in capsys.readouterr().err) == ([], True)


@pytest.mark.parametrize("timeout", ["nan", "inf", "1e999", "0", "-1", "soon", ""])
def test_a_timeout_that_would_never_or_always_be_over_is_wrong_usage(
    timeout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        against(
            answers(httpx.ConnectError("is not asked"))[0], "redrive", MID, "--wait", f"--timeout={timeout}"
        )
    assert ended.value.code == Exit.USAGE
    assert "argument --timeout: is not a number above 0" in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["-1", "0", "x"])
def test_a_list_of_less_than_one_is_wrong_usage(limit: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["list", "--limit", limit], HERE)
    assert ended.value.code == Exit.USAGE


def test_a_token_and_a_key_of_any_text_are_sent_and_refused_by_the_server() -> None:
    handler, asked = answers(httpx.Response(422, json={"detail": "no"}))
    environment = {"OWNERSHIP_TOKEN": "tök\n"}
    assert against(handler, "redrive", "m", "--key", "clé", **environment) == Exit.REFUSED
    headers = dict(asked[0].headers.raw)
    assert (headers[b"Idempotency-Key"], headers[b"Authorization"]) == ("clé".encode(), "Bearer tök".encode())


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("words", [("show", "m"), ("show", "m", "--json")])
def test_a_terminal_without_the_letters_gets_their_numbers(
    encoding: str, words: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding=encoding))
    handler, _ = answers(httpx.Response(200, json={"mid": "m", "sentence": "हि 😀"}))
    assert against(handler, *words) == Exit.DONE
    sys.stdout.flush()
    text = printed.getvalue().decode(encoding)
    if "--json" in words:
        assert json.loads(text)["sentence"] == "हि 😀"
    assert ("हि 😀" if encoding == "utf-8" else "\\u0939") in text


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("export", "changes"), httpx.Response(200, content=b"x" * 1_000_000)),
        (("export", "changes"), httpx.Response(200, content=b"x")),
        (("show", "m"), httpx.Response(200, json={"mid": "m"})),
        (("show", "m", "--json"), httpx.Response(200, json={"mid": "m"})),
        (("list",), httpx.Response(200, json={"transfers": [{"mid": "m"}], "next": None})),
    ],
)
def test_a_reader_that_has_enough_ends_the_command_in_silence(
    words: Sequence[str],
    answer: httpx.Response,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        handler, _ = answers(answer)
        assert against(handler, *words) == 141
        assert capsys.readouterr().err == ""


def test_a_narrow_terminal_shows_ids_whole_and_a_log_has_an_error_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed, mid = io.BytesIO(), "x" * 150
    terminal = io.TextIOWrapper(printed, encoding="utf-8")
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    handler, _ = answers(httpx.Response(200, json={"mid": mid}), httpx.Response(404, json={"detail": mid}))
    assert against(handler, "show", mid) == Exit.DONE
    assert printed.getvalue().count(b"x") == len(mid)
    assert against(handler, "show", mid) == Exit.REFUSED
    assert capsys.readouterr().err == f"ownership: {mid}\n"


def test_a_password_gets_a_token_and_another_when_it_has_expired() -> None:
    token = httpx.Response(201, json={"access_token": "new"})
    healthy = httpx.Response(200, json={"healthy": True})
    handler, asked = answers(token, httpx.Response(401), token, healthy)
    code = against(handler, "health", **{**LOGIN, "OWNERSHIP_TOKEN": ""})
    assert code == Exit.REFUSED  # the first token was never good
    handler, asked = answers(httpx.Response(401), token, healthy)
    assert against(handler, "health", **LOGIN) == Exit.DONE
    assert [r.url.path for r in asked][1] == "/auth/token"
    assert json.loads(asked[1].content) == {"username": "u", "password": "p"}
    assert asked[2].headers["authorization"] == "Bearer new"


# -- waiting

STARTED = {"dag_id": TRANSFER_DAG, "run_id": "r", "paused": False, "transfers": [{"mid": "m", "href": "x"}]}


def seen(state: str, run: str = "running", *, final: bool = False) -> httpx.Response:
    return httpx.Response(
        200, json={"mid": "m", "state": state, "final": final, "started": {"state": run}, "sentence": "."}
    )


@pytest.mark.parametrize(
    ("looks", "code"),
    [
        ([httpx.Response(202, json={"mid": "m", "started": {"state": "queued"}}), seen("planned"),
          seen("completed", final=True)], Exit.DONE),
        ([GONE, GONE, GONE, GONE, seen("rehearsed", final=True)], Exit.DONE),
        ([seen("failed"), seen("failed", "failed")], Exit.REFUSED),
        ([seen("received", "success"), seen("skipped", final=True)], Exit.REFUSED),
        ([seen("awaiting_approval"), seen("awaiting_approval", "success")], Exit.AWAITS_APPROVAL),
        ([httpx.Response(404, json={"detail": "The ledger has no such transfer; the run is failed."})], Exit.REFUSED),
    ],
)  # fmt: skip
def test_to_wait_is_to_look_until_the_run_has_left_the_transfer(looks: Any, code: Exit) -> None:
    handler, asked = answers(httpx.Response(202, json=STARTED), *looks)
    assert against(handler, "transfer", "a", "b", "o", "--wait", "--json") == code
    assert len(asked) == len(looks) + 1
    assert asked[-1].url.params["run"] == "r"


def test_a_decline_is_done_when_it_is_declined() -> None:
    handler, _ = answers(httpx.Response(202, json=STARTED), seen("declined", final=True))
    assert against(handler, "decline", "m", "--reason", "no", "--wait") == Exit.DONE


def test_waiting_ends_in_time_and_says_where_to_look() -> None:
    handler, _ = answers(seen("planned"))
    clock = iter(range(100))
    with (
        Client(
            "http://a", Credentials("t"), transport=httpx.MockTransport(handler), clock=lambda: next(clock)
        ) as client,
        pytest.raises(Unreachable, match="m is not final after 3 s; its run is r"),
    ):
        list(client.watch(STARTED, timeout=3))


def test_an_interrupted_wait_ends_as_a_shell_expects() -> None:
    def pressed(_: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    assert against(pressed, "transfer", "a", "b", "o", "--wait") == 130


def test_what_is_still_coming_is_not_left() -> None:
    assert not is_left({"mid": "m", "started": {"state": "failed"}})
    assert percent({"progress": {"percent": 40}}) == 40


# -- files


def test_an_export_is_written_as_it_comes_and_a_refusal_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    handler, asked = answers(
        httpx.Response(200, content=b"a,b\n"), httpx.Response(422, json={"detail": "state: no"})
    )
    assert against(handler, "export", "transfers", "--state", "open", "--output", str(file)) == Exit.DONE
    assert dict(asked[0].url.params) == {"format": "csv", "state": "open"}
    assert against(handler, "export", "changes", "--output", str(file)) == Exit.REFUSED
    assert file.read_bytes() == b"a,b\n"
    assert against(handler, "export", "changes", "--output", str(tmp_path / "no" / "such")) == Exit.REFUSED


def imported(state: str, failures: int = 0, *, stalled: bool = False, **by_state: int) -> httpx.Response:
    found = {
        "id": "ab",
        "state": state,
        "rows": 3,
        "by_state": by_state,
        "failures": failures,
        "stalled": stalled,
    }
    return httpx.Response(202, json=found)


@pytest.mark.parametrize(
    ("words", "looks", "asked_for", "code"),
    [
        ([], [], [], Exit.DONE),
        (
            ["--wait"],
            [imported("checking", checking=3), imported("checked", 1, wrong=1)],
            ["ab"] * 2,
            Exit.REFUSED,
        ),
        (["--go", "good"], [imported("checked", ready=3), imported("started")], ["ab", "go"], Exit.DONE),
        (
            ["--go", "all", "--wait"],
            [
                imported("checked"),
                imported("started"),
                imported("started", moving=1),
                imported("done", done=3),
            ],
            ["ab", "go", "ab", "ab"],
            Exit.DONE,
        ),
        (
            ["--go", "all", "--wait"],
            [
                imported("checking", stalled=True),
                imported("checking"),
                imported("checked"),
                imported("started"),
                imported("started", stalled=True),
                imported("started"),
                imported("done"),
            ],
            ["ab", "check", "ab", "go", "ab", "go", "ab"],
            Exit.DONE,
        ),
        (
            ["--go", "all"],
            [imported("checked"), httpx.Response(409, json={"detail": "no"})],
            ["ab", "go"],
            Exit.REFUSED,
        ),
    ],
)
def test_a_file_is_sent_looked_at_and_carried_out(
    tmp_path: Path, words: list[str], looks: Any, asked_for: list[str], code: Exit
) -> None:
    file = tmp_path / "leavers.csv"
    file.write_bytes(b"from_user\n")
    handler, asked = answers(imported("checking", checking=3), *looks)
    assert against(handler, "import", str(file), "--to-user", "new", *words) == code
    sent = asked[0]
    assert (sent.content, sent.headers["content-type"]) == (b"from_user\n", "text/csv")
    assert dict(sent.url.params) == {"name": "leavers.csv", "to_user": "new"}
    assert [r.url.path.rpartition("/")[2] for r in asked[1:]] == asked_for


def test_to_wait_for_an_import_outlasts_a_server_that_starts_again() -> None:
    away = [GONE] * (client_module.TRIES + 1)
    handler, _ = answers(imported("checking"), *away, imported("checked"))
    assert against(handler, "import", "--id", "ab", "--wait") == Exit.DONE


def test_a_file_of_any_name_is_sent(tmp_path: Path) -> None:
    file = tmp_path / ("\udcff" + "x" * 220)
    file.write_bytes(b"from_user\n")
    handler, asked = answers(imported("checking"))
    assert against(handler, "import", str(file)) == Exit.DONE
    assert asked[0].url.params["name"] == "\ufffd" + "x" * 198 + "…"


def test_rows_that_failed_are_written_to_be_mended(tmp_path: Path) -> None:
    failed = tmp_path / "failed.csv"
    handler, asked = answers(imported("done", 1), httpx.Response(200, content=b"row\n"))
    assert against(handler, "import", "--id", "ab", "--failed", str(failed)) == Exit.REFUSED
    assert failed.read_bytes() == b"row\n"
    assert asked[1].url.path.endswith("/imports/ab/failed.csv")
    assert against(handler, "import", str(tmp_path / "none.csv")) == Exit.USAGE


def test_rows_that_failed_are_written_also_where_the_others_are_not_carried_out(tmp_path: Path) -> None:
    failed = tmp_path / "failed.csv"
    refusal = httpx.Response(409, json={"detail": "No row can be carried out."})
    handler, asked = answers(*[imported("checked", 3)] * 2, refusal, httpx.Response(200, content=b"row\n"))
    words = ("--go", "good", "--failed", str(failed))
    assert against(handler, "import", "--id", "ab", *words) == Exit.REFUSED
    assert failed.read_bytes() == b"row\n"
    assert [r.url.path.rpartition("/")[2] for r in asked] == ["ab", "ab", "go", "failed.csv"]


def test_an_export_is_asked_for_again_and_signs_in_again_as_any_read(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    busy = httpx.Response(503, json={"detail": "4 other exports are being sent"})
    token = httpx.Response(201, json={"access_token": "new"})
    handler, asked = answers(busy, GONE, httpx.Response(401), token, httpx.Response(200, content=b"a,b\n"))
    assert against(handler, "export", "changes", **LOGIN) == Exit.DONE
    assert capsysbinary.readouterr().out == b"a,b\n"
    assert asked[-1].headers["authorization"] == "Bearer new"
    handler, asked = answers(busy)
    assert against(handler, "export", "changes") == Exit.NO_ANSWER
    assert len(asked) == client_module.TRIES


@pytest.mark.parametrize(
    ("words", "given"), [((), "csv"), (("--json",), "jsonl"), (("--json", "--format", "csv"), "csv")]
)
def test_an_export_as_json_is_one_of_lines(words: Sequence[str], given: str) -> None:
    handler, asked = answers(httpx.Response(200, content=b"{}\n"))
    assert against(handler, "export", "transfers", *words) == Exit.DONE
    assert asked[0].url.params["format"] == given


@pytest.mark.parametrize("url", ["http://a/x", "http://a/x/ownership-transfers/api/v1/"])
def test_the_address_of_the_api_is_as_good_as_airflow_s(url: str) -> None:
    handler, asked = answers(httpx.Response(200, json={"healthy": True}))
    assert against(handler, "health", OWNERSHIP_URL=url) == Exit.DONE
    assert str(asked[0].url) == "http://a/x/ownership-transfers/api/v1/health"


@pytest.mark.parametrize("kind", ["a pipe", "a link"])
def test_an_export_goes_through_what_is_no_file_of_its_own(tmp_path: Path, kind: str) -> None:
    to, read = tmp_path / "to", tmp_path / "read"
    if kind == "a pipe":
        os.mkfifo(to)
    else:
        read.write_bytes(b"before")
        to.symlink_to(read)
    handler, _ = answers(httpx.Response(200, content=b"a,b\n"))
    command = ["cat", str(to)] if kind == "a pipe" else ["true"]
    with (
        read.open("ab" if kind == "a link" else "wb") as written,
        subprocess.Popen(command, stdout=written) as reader,
    ):
        assert against(handler, "export", "changes", "--output", str(to)) == Exit.DONE
        assert reader.wait(10) == 0
    assert to.is_fifo() if kind == "a pipe" else to.is_symlink()
    assert read.read_bytes() == b"a,b\n"
    assert {p.name for p in tmp_path.iterdir()} == {"to", "read"}


def test_an_export_that_breaks_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise httpx.RemoteProtocolError("closed")

    file = tmp_path / "out.csv"
    file.write_bytes(b"before")
    handler, _ = answers(httpx.Response(200, content=broken()))
    assert against(handler, "export", "changes", "--output", str(file)) == Exit.NO_ANSWER
    assert file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [file]


def test_the_installed_command_is_this_one() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["ownership"].partition(":")
    assert getattr(import_module(module), name) is main
