from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, wait
from typing import Any
from urllib.parse import unquote

import pytest

from ownership.domain.errors import Unavailable
from ownership.platform import user_org
from ownership.platform.http_service import Service
from ownership.platform.name_search import FoundNames, Named, name_words
from ownership.platform.user_org import (
    SEARCH_PATH,
    Refusal,
    Standing,
    User,
    Users,
    same_id,
)
from tests.unit.conftest import Server

PATH = "/private/user/v1/read/"


def known(identifier: Any = "A", organisation: Any = "O") -> dict[str, Any]:
    return {
        "id": "api.user.read",
        "responseCode": "OK",
        "result": {"response": {"identifier": identifier, "rootOrgId": organisation}},
    }


def refusal(
    code: str = "CLIENT_ERROR", *, err: str | None = None, status: str = "FAILED", errmsg: str | None = None
) -> dict[str, Any]:
    return {"responseCode": code, "params": {"err": err, "status": status, "errmsg": errmsg}, "result": {}}


@pytest.fixture
def users(server: Server) -> Iterator[Users]:
    with Service("User-Org", lambda: server.url, tries=1) as service:
        yield Users(service, PATH)


def answers(server: Server, status: int, body: Any) -> None:
    server.answer = lambda _request, _handler: (status, body)


def test_a_known_user_is_reported_with_the_organisation(server: Server, users: Users) -> None:
    answers(server, 200, known())
    assert users.read("A") == User("A", "O")
    assert server.requests[0].path == f"{PATH}A?identifier,rootOrgId"
    assert server.requests[0].method == "GET"


def test_blanks_around_the_organisation_are_no_part_of_it(server: Server, users: Users) -> None:
    answers(server, 200, known(organisation=" O\n"))
    assert users.read("A") == User("A", "O")


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
    found = users.read("A")
    assert isinstance(found, Refusal)
    assert (found.user_id, found.standing) == ("A", Standing.UNKNOWN)


@pytest.mark.parametrize(
    ("status", "err"),
    [
        pytest.param(400, "UOS_USRRED0006", id="release 8"),
        pytest.param(400, "UOS_USRRED_0006", id="another spelling"),
        pytest.param(400, "0006", id="the number alone"),
        pytest.param(403 + 1, "UOS_USRUPD0006", id="another operation and status"),
        pytest.param(400, "USER_ACCOUNT_BLOCKED", id="before there were numbers"),
    ],
)
def test_a_deleted_or_blocked_user_is_reported_with_the_services_words(
    server: Server, users: Users, status: int, err: str
) -> None:
    answers(server, status, refusal(err=err, errmsg="User account has been blocked ."))
    words = f"{err}: User account has been blocked ."
    assert users.read("A") == Refusal("A", Standing.DELETED, words)


def test_an_older_release_says_it_in_the_status_of_its_error(server: Server, users: Users) -> None:
    answers(server, 400, refusal(status="USER_ACCOUNT_BLOCKED", errmsg="User account has been blocked ."))
    assert users.read("A") == Refusal("A", Standing.DELETED, "User account has been blocked .")


@pytest.mark.parametrize(
    "odd", [{"status": 400}, {"status": None}, {"status": {}}, {"errmsg": ["blocked"]}, {"errmsg": 7}]
)
def test_what_else_stands_beside_the_number_of_the_error_hides_it_not(
    server: Server, users: Users, odd: dict[str, Any]
) -> None:
    said = refusal(err="UOS_USRRED0006")
    answers(server, 400, {**said, "params": said["params"] | odd})
    found = users.read("A")
    assert isinstance(found, Refusal)
    assert found.standing is Standing.DELETED


@pytest.mark.parametrize("is_deleted", [True, "true", "TRUE"])
def test_a_deleted_user_whom_the_service_still_shows_is_deleted(
    server: Server, users: Users, is_deleted: Any
) -> None:
    shown = known()
    shown["result"]["response"]["isDeleted"] = is_deleted
    answers(server, 200, shown)
    assert users.read("A") == Refusal("A", Standing.DELETED, "isDeleted: true")


@pytest.mark.parametrize("is_deleted", [False, None, 0, "no"])
def test_a_user_who_is_not_deleted_is_known(server: Server, users: Users, is_deleted: Any) -> None:
    shown = known()
    shown["result"]["response"]["isDeleted"] = is_deleted
    answers(server, 200, shown)
    assert users.read("A") == User("A", "O")


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        pytest.param(400, {"err": "UOS_USRRED0028", "errmsg": "Invalid."}, "UOS_USRRED0028: Invalid.", id="another number"),
        pytest.param(400, {"err": "UOS_USRRED10006x"}, "UOS_USRRED10006x", id="a number that only begins like it"),
        pytest.param(422, {"code": "client_error", "err": "X"}, "X", id="another status and spelling"),
        pytest.param(400, {"code": "RESOURCE_NOT_FOUND", "err": "UOS_1"}, "UOS_1", id="a 400 with a 404's class"),
        pytest.param(404, {"err": "UOS_USRRED0099", "errmsg": "a\nb\ud800"}, "UOS_USRRED0099: a b\ufffd", id="odd words"),
    ],
)  # fmt: skip
def test_any_other_word_about_the_user_is_a_refusal_with_these_words(
    server: Server, users: Users, status: int, body: Any, words: str
) -> None:
    answers(server, status, refusal(**body))
    assert users.read("A") == Refusal("A", Standing.REFUSED, words)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(500, known(), id="500"),
        pytest.param(503, refusal("RESOURCE_NOT_FOUND"), id="503 that says not found"),
        pytest.param(429, refusal(err="UOS_USRRED0006"), id="429"),
        pytest.param(408, refusal(err="UOS_USRRED0006"), id="408"),
        pytest.param(403, refusal(err="UOS_USRRED0006"), id="a gateway's 403 in the envelope"),
        pytest.param(500, refusal(err="UOS_USRRED0006"), id="a 500 with a client error's words"),
        pytest.param(400, refusal("UNAUTHORIZED", err="UOS_USRRED0006"), id="another class of error"),
        pytest.param(400, refusal("SERVER_ERROR", err="USER_NOT_FOUND"), id="a server error as 400"),
        pytest.param(400, {"params": {"err": "UOS_USRRED0006"}}, id="a 400 without a class"),
        pytest.param(404, {"responseCode": "CLIENT_ERROR", "params": None}, id="params null"),
        pytest.param(404, {"responseCode": "CLIENT_ERROR", "params": ["0006"]}, id="params a list"),
        pytest.param(400, {"error": "0006"}, id="a proxy's own 400"),
        pytest.param(404, b"<html>not found</html>", id="a proxy's 404"),
        pytest.param(404, {"message": "no route"}, id="a gateway's 404 in JSON"),
        pytest.param(404, refusal(), id="a 404 without a reason"),
        pytest.param(400, refusal(), id="a 400 without a reason"),
        pytest.param(400, refusal("RESOURCE_NOT_FOUND"), id="a 400 with a 404's code"),
        pytest.param(401, refusal(err="USER_NOT_FOUND"), id="401"),
        pytest.param(403, known(), id="403"),
        pytest.param(201, known(), id="another success"),
        pytest.param(
            200, known() | {"responseCode": "SERVER_ERROR"}, id="200 with a server error beside the user"
        ),
        pytest.param(
            200, known() | {"responseCode": "CLIENT_ERROR"}, id="200 with a client error beside the user"
        ),
        pytest.param(200, {}, id="200 and nothing"),
        pytest.param(200, refusal("RESOURCE_NOT_FOUND"), id="200 that says not found"),
        pytest.param(200, {"result": None}, id="result null"),
        pytest.param(200, {"result": {"response": []}}, id="response a list"),
        pytest.param(200, known(organisation=None), id="no organisation"),
        pytest.param(200, known(organisation=["O"]), id="organisations in a list"),
        pytest.param(200, known(identifier=None), id="no identifier"),
        pytest.param(200, known("B"), id="another user"),
        pytest.param(200, known(organisation=""), id="an organisation without a name"),
        pytest.param(200, known(organisation=" \t"), id="a blank organisation"),
        pytest.param(400, refusal(err={"code": "USER_NOT_FOUND"}), id="an error that is an object"),  # type: ignore[arg-type]  # not as the service documents it
        pytest.param(400, refusal(status=["USER_NOT_FOUND"]), id="a status that is a list"),  # type: ignore[arg-type]  # not as the service documents it
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


def test_headers_that_only_drip_are_given_up(server: Server) -> None:
    def drip(_: Any, handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        server.drip(handler.wfile.write, b"x")

    server.answer = drip
    with (
        Service("User-Org", lambda: server.url, tries=1, call_seconds=0.1) as service,
        pytest.raises(Unavailable, match="did not finish its answer"),
    ):
        Users(service, PATH).read("A")


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
    assert (found["A"], found["B"]) == (User("A", "O"), User("B", "O"))
    assert isinstance(found["no-1"], Refusal)
    assert isinstance(found["bad-1"], Unavailable)
    assert users.answered == 3


def of_one(server: Server, bad: str, answer: Callable[[], tuple[int, Any] | None]) -> None:
    """The server answers `bad` in its own way, and everybody else."""

    def answers_each(request: Any, _: Any) -> tuple[int, Any] | None:
        user = unquote(request.path.removeprefix(PATH).partition("?")[0])
        return answer() if user == bad else (200, known(user))

    server.answer = answers_each


@pytest.mark.parametrize(
    ("status", "body", "what"),
    [
        pytest.param(500, {}, "HTTP 500 for user 'bad'", id="500"),
        pytest.param(200, known("bad", None), "shows no rootOrgId for user 'bad'", id="no organisation"),
        pytest.param(200, b"{", "HTTP 200 without a JSON body for user 'bad'", id="half an answer"),
    ],
)
def test_a_fault_of_one_user_is_reported_as_that_users_only_with_what_to_do(
    server: Server, users: Users, status: int, body: Any, what: str
) -> None:
    of_one(server, "bad", lambda: (status, body))
    found = dict(users.read_all({"bad", *(f"u{n}" for n in range(20))}))
    assert sum(isinstance(f, User) for f in found.values()) == 20
    assert isinstance(found["bad"], Unavailable)
    for words in (what, "this user only", "mended in User-Org", "abandon the event"):
        assert words in str(found["bad"])


def test_an_outage_of_everybody_is_not_reported_as_one_users(server: Server, users: Users) -> None:
    server.answer = lambda _request, _handler: (503, {})
    found = dict(users.read_all({"A", "B"}))
    assert {str(f) for f in found.values()} == {"User-Org unavailable: HTTP 503"}


def test_more_outages_than_answers_are_no_matter_of_single_users(server: Server, users: Users) -> None:
    server.answer = lambda request, _: (200, known("A")) if f"{PATH}A?" in request.path else (503, {})
    found = dict(users.read_all({"A", "B", "C"}))
    assert {str(found[u]) for u in "BC"} == {"User-Org unavailable: HTTP 503"}


def test_a_user_whose_answer_never_comes_holds_nobody_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def patience_is_over(futures: Collection[Future[Any]], seconds: float | None, when: str) -> Any:
        if len(futures) == 1 and seconds is not None:
            return wait((), 0, when)
        return wait(futures, None, when)

    of_one(server, "bad", lambda: (200, known("bad")) if server.stopping.wait() else None)
    with Service("User-Org", lambda: server.url, tries=1) as service:
        monkeypatch.setattr(user_org, "wait", patience_is_over)
        users = Users(service, PATH)
        found = dict(users.read_all({"bad", *(f"u{n}" for n in range(40))}))
    assert sum(isinstance(f, User) for f in found.values()) == 40
    assert "no answer for long after the others' for user 'bad': this user only" in str(found["bad"])


def test_reading_nobody_asks_nobody(server: Server, users: Users) -> None:
    assert list(users.read_all([])) == []
    assert server.requests == []


def test_ids_differ_in_more_than_case() -> None:
    assert same_id("0126A", "0126a")
    assert not same_id("0126A", "0126B")


# -- names


def test_names_are_those_of_the_users_who_are_shown(server: Server, users: Users) -> None:
    people = {
        "A": {"identifier": "a", "firstName": " Ada ", "lastName": None, "rootOrgId": " O "},
        "b/2": {"identifier": "b/2", "firstName": "\u202eB\x1b", "lastName": "C" * 500},
        "other": {"identifier": "someone-else", "firstName": "Eve"},
        "nameless": {"identifier": "nameless"},
    }

    def answer(request: Any, _handler: Any) -> tuple[int, Any]:
        user = unquote(request.path.removeprefix(PATH).partition("?")[0])
        if user == "down":
            return 503, {}
        if user == "gone":
            return 404, refusal("RESOURCE_NOT_FOUND")
        return 200, {"responseCode": "OK", "result": {"response": people[user]}}

    server.answer = answer
    found = users.names([*people, "down", "gone"])
    assert found.pop("b/2").name[:4] == "\ufffdB\ufffd "
    assert found.pop("A") == Named("a", "Ada", "O")
    assert found == {user: Named(user, "", "") for user in ("other", "nameless", "gone")}
    assert all(r.path.endswith("?identifier,firstName,lastName,rootOrgId") for r in server.requests)


# -- users by name


def candidates(*people: dict[str, Any], count: int | None = None) -> dict[str, Any]:
    response = {"count": len(people) if count is None else count, "content": list(people)}
    return {"responseCode": "OK", "result": {"response": response}}


def person(
    user_id: str, first: str, last: str | None = None, organisation: str | None = "O"
) -> dict[str, Any]:
    return {
        "identifier": user_id,
        "firstName": first,
        "lastName": last,
        "rootOrgId": organisation,
        "roles": [],
    }


def test_users_are_found_by_each_word_of_a_part_of_their_name(server: Server, users: Users) -> None:
    answers(server, 200, candidates(person("1", "Asha", "Rao"), person("2", "Rao", "Natasha", None), count=7))
    found = users.named(" ASHA (ra*", None, limit=2)
    assert found == FoundNames([Named("1", "Asha Rao", "O"), Named("2", "Rao Natasha", "")], more=True)
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", SEARCH_PATH)
    asked = request.body["request"]
    assert (asked["query"], asked["queryFields"]) == ("asha + ra", ["firstName", "lastName"])
    assert (asked["filters"], asked["limit"]) == ({}, 2)


def test_what_the_index_matches_less_strictly_is_left_out(server: Server, users: Users) -> None:
    answers(server, 200, candidates(person("1", "Asha"), person("2", "Rao"), person("3", "\u202eAsha rao")))
    found = users.named("asha rao", None, limit=20)
    assert [u.id for u in found.hits] == ["3"]
    assert not found.more
    assert "\u202e" not in found.hits[0].name


def test_users_of_other_organisations_are_neither_asked_for_nor_shown(server: Server, users: Users) -> None:
    answers(server, 200, candidates(person("1", "Asha"), person("2", "Asha", organisation="P")))
    assert [u.id for u in users.named("asha", {"O"}, limit=20).hits] == ["1"]
    assert server.requests[0].body["request"]["filters"] == {"rootOrgId": ["O"]}
    assert users.named("asha", frozenset(), limit=20) == FoundNames([], more=False)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("Anne-Marie O'Neil", ["anne", "marie", "o", "neil"], id="operators part words"),
        pytest.param("आशा", ["आशा"], id="vowel signs are of the word"),
        pytest.param("李", [], id="one character"),
        pytest.param("a", [], id="one letter"),
        pytest.param('+|-"*()~\\', [], id="operators alone"),
        pytest.param("李 明", ["李", "明"], id="two of one"),
    ],
)
def test_a_name_s_words_are_without_operators_of_the_service(text: str, words: list[str]) -> None:
    assert name_words(text) == words


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(200, {"result": {}}, id="out of contract"),
        pytest.param(400, refusal(err="UOS_USRSRH0001"), id="a client error"),
        pytest.param(404, candidates(person("1", "Asha")), id="not found"),
        pytest.param(503, {}, id="an outage"),
    ],
)
def test_a_search_that_fails_is_an_outage_and_no_absence(
    server: Server, users: Users, status: int, body: Any
) -> None:
    answers(server, status, body)
    with pytest.raises(Unavailable):
        users.named("asha", None, limit=20)
