"""Courses by a part of their name. The answers are those of Knowlg's search-service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ownership.domain.errors import Unavailable
from ownership.platform.content_search import SEARCH_PATH, Courses
from ownership.platform.http_service import Service
from ownership.platform.name_search import FoundNames, Named
from tests.unit.conftest import Server


@pytest.fixture
def courses(server: Server) -> Iterator[Courses]:
    with Service("content search", lambda: server.url, tries=1) as service:
        yield Courses(service)


def answers(server: Server, *found: dict[str, Any], count: int | None = None) -> None:
    """As the service does it: collections are among the content, and without hits there is no list."""
    content = {"content": list(found)} if found else {}
    body = {
        "id": "api.v1.search",
        "ver": "3.0",
        "params": {"err": None, "status": "successful", "errmsg": None},
        "responseCode": "OK",
        "result": {"count": len(found) if count is None else count, **content},
    }
    server.answer = lambda _request, _handler: (200, body)


def course(course_id: str, name: str | None, channel: str | None = "O") -> dict[str, Any]:
    made = {"identifier": course_id, "name": name, "channel": channel, "objectType": "Content"}
    return {k: v for k, v in made.items() if v is not None}


def test_courses_are_found_by_a_part_of_their_name(server: Server, courses: Courses) -> None:
    answers(server, course("do_1", "Intro to Java"), course("do_2", "\u202eJAVA", None), count=7)
    found = courses.named(" Java ", None, limit=2)
    assert found == FoundNames(
        [Named("do_1", "Intro to Java", "O"), Named("do_2", "\ufffdJAVA", "")], more=True
    )
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", SEARCH_PATH)
    asked = request.body["request"]
    assert (asked["filters"]["name"], asked["limit"]) == ({"contains": ["java"]}, 2)
    assert asked["filters"]["primaryCategory"] == ["Course"]
    assert "channel" not in asked["filters"]
    answers(server)
    assert courses.named("java", None, limit=2) == FoundNames([], more=False)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        pytest.param("Class 10 - Maths", "class 10 - maths", id="words and a dash as they are"),
        pytest.param("C++ (basics", "basics", id="operators part it"),
        pytest.param('.*|"a-z"', "a-z", id="wildcards and quotes"),
        pytest.param("आशा", "आशा", id="not ASCII"),
        pytest.param("a" * 256, "a" * 256, id="longer than a name is shown"),
        *(pytest.param(t, None, id=repr(t)) for t in ("", " ", "a", "李", ".*", "C++", "--", "a.b")),
    ],
)
def test_no_operator_of_the_service_s_expressions_is_sent_to_it(
    server: Server, courses: Courses, text: str, asked: str | None
) -> None:
    answers(server, course("do_1", f"The {text}!"), course("do_2", "Basics a-z"))
    found = courses.named(text, None, limit=20)
    if asked is None:
        assert (found.hits, server.requests) == ([], [])
    else:
        assert [c.id for c in found.hits] == ["do_1"]
        assert server.requests[0].body["request"]["filters"]["name"] == {"contains": [asked]}


def test_courses_of_other_organisations_are_neither_asked_for_nor_shown(
    server: Server, courses: Courses
) -> None:
    answers(server, course("do_1", "Java"), course("do_2", "Java", "P"), course("do_3", "Java", None))
    assert [c.id for c in courses.named("java", {"O"}, limit=20).hits] == ["do_1"]
    assert server.requests[0].body["request"]["filters"]["channel"] == ["O"]
    assert courses.named("java", frozenset(), limit=20) == FoundNames([], more=False)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(200, {"result": {}}, id="out of contract"),
        pytest.param(200, {"result": {"count": 1, "content": [{"name": "Java"}]}}, id="a course without id"),
        pytest.param(400, {"responseCode": "CLIENT_ERROR", "result": {"count": 0}}, id="a client error"),
        pytest.param(500, {"responseCode": "SERVER_ERROR", "result": {}}, id="an outage"),
    ],
)
def test_a_search_that_fails_is_an_outage_and_no_absence(
    server: Server, courses: Courses, status: int, body: Any
) -> None:
    server.answer = lambda _request, _handler: (status, body)
    with pytest.raises(Unavailable):
        courses.named("java", None, limit=20)
