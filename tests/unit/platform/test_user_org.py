from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest

from ownership.domain.errors import Unavailable
from ownership.platform.http_service import Service
from ownership.platform.user_org import Unknown, User, Users, same_id
from tests.unit.conftest import Server

PATH = "/private/user/v1/read/"


def known(identifier: Any = "A", organisation: Any = "O") -> dict[str, Any]:
    return {
        "id": "api.user.read",
        "responseCode": "OK",
        "result": {"response": {"identifier": identifier, "rootOrgId": organisation}},
    }


def refusal(code: str = "CLIENT_ERROR", *, err: str | None = None, status: str = "FAILED") -> dict[str, Any]:
    return {"responseCode": code, "params": {"err": err, "status": status}, "result": {}}


@pytest.fixture
def users(server: Server) -> Iterator[Users]:
    with Service("User-Org", lambda: server.url, tries=1) as service:
        yield Users(service, PATH)


def answers(server: Server, status: int, body: Any) -> None:
    server.answer = lambda _request, _handler: (status, body)


def test_a_known_user_is_told_with_the_organisation(server: Server, users: Users) -> None:
    answers(server, 200, known())
    assert users.read("A") == User("A", "O")
    assert server.requests[0].path == f"{PATH}A?identifier,rootOrgId"
    assert server.requests[0].method == "GET"


def test_the_answer_may_spell_the_id_in_another_case(server: Server, users: Users) -> None:
    answers(server, 200, known("ABC-def"))
    assert users.read("abc-DEF") == User("abc-DEF", "O")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(404, refusal("RESOURCE_NOT_FOUND"), id="404"),
        pytest.param(400, refusal(err="USER_NOT_FOUND"), id="400 with an error of its own"),
        pytest.param(400, refusal(status="USER_NOT_FOUND"), id="400 with the error as status"),
        pytest.param(404, refusal(err="UOS_USER_NOT_FOUND"), id="404 with an older code"),
        pytest.param(400, refusal(err="userNotFound"), id="another spelling"),
    ],
)
def test_a_user_is_unknown_on_the_services_own_word(
    server: Server, users: Users, status: int, body: Any
) -> None:
    answers(server, status, body)
    assert users.read("A") == Unknown("A")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(500, known(), id="500"),
        pytest.param(503, refusal("RESOURCE_NOT_FOUND"), id="503 that says not found"),
        pytest.param(429, known(), id="429"),
        pytest.param(404, b"<html>not found</html>", id="a proxy's 404"),
        pytest.param(404, {"message": "no route"}, id="a gateway's 404 in JSON"),
        pytest.param(404, refusal(), id="a 404 without a reason"),
        pytest.param(400, refusal(), id="a 400 without a reason"),
        pytest.param(400, refusal("RESOURCE_NOT_FOUND"), id="a 400 with a 404's code"),
        pytest.param(401, refusal(err="USER_NOT_FOUND"), id="401"),
        pytest.param(403, known(), id="403"),
        pytest.param(201, known(), id="another success"),
        pytest.param(200, {}, id="200 and nothing"),
        pytest.param(200, refusal("RESOURCE_NOT_FOUND"), id="200 that says not found"),
        pytest.param(200, {"result": None}, id="result null"),
        pytest.param(200, {"result": {"response": []}}, id="response a list"),
        pytest.param(200, known(organisation=None), id="no organisation"),
        pytest.param(200, known(organisation=["O"]), id="organisations in a list"),
        pytest.param(200, known(identifier=None), id="no identifier"),
        pytest.param(200, known("B"), id="another user"),
        pytest.param(200, known(organisation=""), id="an organisation without a name"),
        pytest.param(400, refusal(err={"code": "USER_NOT_FOUND"}), id="an error that is an object"),  # type: ignore[arg-type]
        pytest.param(400, refusal(status=["USER_NOT_FOUND"]), id="a status that is a list"),  # type: ignore[arg-type]
        pytest.param(404, {"responseCode": ["RESOURCE_NOT_FOUND"]}, id="codes in a list"),
    ],
)
def test_everything_else_is_an_outage_and_no_absence(
    server: Server, users: Users, status: int, body: Any
) -> None:
    answers(server, status, body)
    with pytest.raises(Unavailable, match=r"^User-Org unavailable"):
        users.read("A")


def test_an_answer_that_is_no_http_is_not_repeated_in_the_error(server: Server, users: Users) -> None:
    def answer(_: Any, handler: Any) -> None:
        handler.wfile.write(b'{"firstName": "Jane", "phone": "+99-1234"}\r\n\r\n')

    server.answer = answer
    with pytest.raises(Unavailable) as caught:
        users.read("A")
    assert "Jane" not in str(caught.value)


def test_headers_that_only_drip_are_given_up(
    server: Server, users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drip(_: Any, handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        server.drip(handler.wfile.write, b"x")  # for 2 s

    monkeypatch.setattr("ownership.platform.http_service.CALL_SECONDS", 0.2)
    server.answer = drip
    began = time.monotonic()
    with pytest.raises(Unavailable):
        users.read("A")
    assert time.monotonic() - began < 1.5


@pytest.mark.parametrize("user_id", ["a/b", "a?b", "a#b", "%2e%2e", "../x", "a b", "é中", "a;b&c=d", "..."])
def test_an_id_is_one_segment_of_the_path(server: Server, users: Users, user_id: str) -> None:
    answers(server, 200, known(user_id))
    assert users.read(user_id) == User(user_id, "O")
    path, _, query = server.requests[0].path.partition("?")
    assert path.startswith(PATH)
    assert "/" not in path.removeprefix(PATH)
    assert unquote(path.removeprefix(PATH)) == user_id
    assert query == "identifier,rootOrgId"


def test_a_path_without_its_last_slash_is_mended(server: Server) -> None:
    answers(server, 200, known())
    with Service("User-Org", lambda: server.url, tries=1) as service:
        Users(service, "/read").read("A")
    assert server.requests[0].path.startswith("/read/A?")


def test_a_base_path_stays_before_the_path(server: Server) -> None:
    answers(server, 200, known())
    with Service("User-Org", lambda: f"{server.url}/base", tries=1) as service:
        Users(service, PATH).read("A")
    assert server.requests[0].path.startswith(f"/base{PATH}A?")


def test_many_users_are_read_each_with_its_own_outcome(server: Server, users: Users) -> None:
    def answer(request: Any, _: Any) -> tuple[int, Any]:
        user = unquote(request.path.removeprefix(PATH).partition("?")[0])
        if user.startswith("bad"):
            return 503, {}
        return (404, refusal("RESOURCE_NOT_FOUND")) if user.startswith("no") else (200, known(user))

    server.answer = answer
    found = dict(users.read_all({"A", "B", "no-1", "bad-1"}))
    assert set(found) == {"A", "B", "no-1", "bad-1"}
    assert (found["A"], found["B"], found["no-1"]) == (User("A", "O"), User("B", "O"), Unknown("no-1"))
    assert isinstance(found["bad-1"], Unavailable)
    assert users.answered == 3


def test_reading_nobody_asks_nobody(server: Server, users: Users) -> None:
    assert list(users.read_all([])) == []
    assert server.requests == []


def test_ids_differ_in_more_than_case() -> None:
    assert same_id("0126A", "0126a")
    assert not same_id("0126A", "0126B")
