"""The stand-ins keep the platform's contracts, and fail in each of the ways that they are told to."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from local.platform.world import COMPLETED, UPCOMING, Batch, Platform, create_platform

SEARCH = "/v1/course/batch/search"
READ = "/private/user/v1/read/"


@pytest.fixture(scope="module")
def platform(stack: Any) -> Iterator[Platform]:
    addresses = {name: getattr(stack.addresses, name) for name in ("cassandra", "elasticsearch", "kafka")}
    create_platform(**addresses)
    with Platform(**addresses) as opened:
        yield opened


def service(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=10, trust_env=False) as client:
        client.delete("/_faults")
        client.delete("/_requests")
        yield client
        client.delete("/_faults")


@pytest.fixture
def lms(stack: Any, platform: Platform) -> Iterator[httpx.Client]:
    yield from service(stack.addresses.lms)


@pytest.fixture
def userorg(stack: Any, platform: Platform) -> Iterator[httpx.Client]:
    yield from service(stack.addresses.userorg)


@pytest.fixture
def owner() -> str:
    return f"Owner-{uuid.uuid4()}"


def search(client: httpx.Client, filters: dict[str, Any], **request: Any) -> dict[str, Any]:
    answer = client.post(SEARCH, json={"request": {"filters": filters, **request}})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["id"] == "api.course.batch.search"
    assert body["responseCode"] == "OK"
    assert body["params"]["status"] == "success"
    found: dict[str, Any] = body["result"]["response"]
    return found


def batches(owner: str, count: int, **fields: Any) -> list[Batch]:
    return [
        Batch("course-standins", f"{owner.lower()}-{number:05d}", created_by=owner, **fields)
        for number in range(count)
    ]


# --- LMS


def test_a_search_without_a_limit_answers_thirty(lms: httpx.Client, platform: Platform, owner: str) -> None:
    platform.add_batches(batches(owner, 35), rows=False)
    found = search(lms, {"createdBy": [owner]})
    assert (found["count"], len(found["content"])) == (35, 30)


def test_pages_cover_everything_once(lms: httpx.Client, platform: Platform, owner: str) -> None:
    platform.add_batches(batches(owner, 45), rows=False)
    pages = [
        search(lms, {"createdBy": owner}, limit=20, offset=offset, sort_by={"batchId": "asc"})["content"]
        for offset in (0, 20, 40, 60)
    ]
    assert [len(page) for page in pages] == [20, 20, 5, 0]
    ids = [batch["batchId"] for page in pages for batch in page]
    assert ids == [batch.batch_id for batch in batches(owner, 45)]


@pytest.mark.parametrize(
    ("offset", "limit", "expected"), [(9_990, 50, 10), (10_000, 50, 0), (12_000, 1, 0), (0, 20_000, 10_000)]
)
def test_the_window_ends_at_ten_thousand(
    lms: httpx.Client, platform: Platform, wide_owner: str, offset: int, limit: int, expected: int
) -> None:
    found = search(lms, {"createdBy": [wide_owner]}, offset=offset, limit=limit, fields=["batchId"])
    assert (found["count"], len(found["content"])) == (10_050, expected)


def test_the_count_can_be_capped_as_without_an_exact_total(lms: httpx.Client, wide_owner: str) -> None:
    lms.put("/_faults", json={"mode": "capped-count"})
    assert search(lms, {"createdBy": [wide_owner]}, limit=1)["count"] == 10_000


@pytest.fixture(scope="module")
def wide_owner(platform: Platform) -> str:
    name = f"wide-{uuid.uuid4()}"
    platform.add_batches(batches(name, 10_050), rows=False)
    return name


def test_filters_ignore_case_and_combine(lms: httpx.Client, platform: Platform, owner: str) -> None:
    live, upcoming, done = batches(owner, 1), batches(f"{owner}-u", 1, status=UPCOMING), []
    done = batches(f"{owner}-d", 1, status=COMPLETED)
    platform.add_batches(live + upcoming + done, rows=False)
    users = [owner.upper(), f"{owner}-U", f"{owner}-D"]
    assert search(lms, {"createdBy": users})["count"] == 3
    assert search(lms, {"createdBy": users, "status": [0, 1]})["count"] == 2
    assert search(lms, {"createdBy": users, "status": 0})["count"] == 1
    assert search(lms, {"createdBy": users, "status": []})["count"] == 3
    assert search(lms, {"createdBy": users, "courseId": "elsewhere"})["count"] == 0


def test_mentors_are_found_whole_not_by_word(lms: httpx.Client, platform: Platform, owner: str) -> None:
    platform.add_batches(batches(owner, 2, mentors=["Someone", f"{owner}-m"]), rows=False)
    assert search(lms, {"mentors": f"{owner}-M"})["count"] == 2
    assert search(lms, {"mentors": owner})["count"] == 0


def test_fields_limit_what_a_batch_shows(lms: httpx.Client, platform: Platform, owner: str) -> None:
    platform.add_batches(batches(owner, 1, mentors=["m"]), rows=False)
    (some,) = search(lms, {"createdBy": owner}, fields=["batchId", "mentors"])["content"]
    assert some == {"batchId": f"{owner.lower()}-00000", "mentors": ["m"]}
    (whole,) = search(lms, {"createdBy": owner})["content"]
    assert whole == platform.document(f"{owner.lower()}-00000")


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        b"{}",
        b'{"request": []}',
        b'{"request": {"filters": []}}',
        b'{"request": {"filters": {"createdBy": {"a": 1}}}}',
        b'{"request": {"filters": {}, "limit": "10"}}',
        b'{"request": {"filters": {}, "offset": -1}}',
        b'{"request": {"filters": {}, "fields": "batchId"}}',
        b'{"request": {"filters": {}, "sort_by": ["createdDate"]}}',
        b"[" * 100_000,
    ],
)
def test_a_bad_search_is_a_client_error(lms: httpx.Client, body: bytes) -> None:
    answer = lms.post(SEARCH, content=body)
    assert answer.status_code == 400
    assert answer.json()["responseCode"] == "CLIENT_ERROR"
    assert answer.json()["params"]["errmsg"]


def test_a_question_that_elasticsearch_refuses_is_a_server_error(lms: httpx.Client) -> None:
    # More terms than the index allows in one query.
    filters = {"createdBy": [f"u{number}" for number in range(70_000)]}
    answer = lms.post(SEARCH, json={"request": {"filters": filters}})
    assert answer.status_code == 500
    assert answer.json()["responseCode"] == "SERVER_ERROR"


def test_sixteen_callers_are_served_at_once(stack: Any, platform: Platform, owner: str) -> None:
    platform.add_batches(batches(owner, 30), rows=False)

    async def call_all() -> None:
        async with httpx.AsyncClient(base_url=stack.addresses.lms, timeout=10, trust_env=False) as client:
            body = {"request": {"filters": {"createdBy": [owner]}, "limit": 100}}

            async def caller() -> None:
                for _ in range(10):
                    answer = await client.post(SEARCH, json=body)
                    assert len(answer.json()["result"]["response"]["content"]) == 30

            await asyncio.gather(*(caller() for _ in range(16)))

    asyncio.run(call_all())


# --- content search


def test_courses_are_found_by_a_part_of_their_name_in_any_case(
    lms: httpx.Client, platform: Platform, owner: str
) -> None:
    def find(part: str, **filters: Any) -> dict[str, Any]:
        given = {"name": {"contains": [part]}, "primaryCategory": ["Course"], "status": ["Live"], **filters}
        body = {"request": {"filters": given, "fields": ["identifier", "name"], "limit": 1}}
        answer = lms.post("/v3/search", json=body)
        assert (answer.status_code, answer.json()["id"]) == (200, "api.v1.search")
        found: dict[str, Any] = answer.json()["result"]
        return found

    for n, status in enumerate(("Live", "Live", "Draft")):
        platform.add_course(f"{owner}-{n}", "org-1", f"Course {n} of {owner}", status=status)
    platform.refresh()
    first = {"identifier": f"{owner}-0", "name": f"Course 0 of {owner}", "objectType": "Content"}
    assert find(f"OF {owner}") == {"count": 2, "content": [first]}
    assert find(owner, channel=["org-2"]) == {"count": 0}


# --- User-Org


@pytest.mark.parametrize("suffix", ["", "/with/slashes", " ünï?#%2F+&", "/..", "//"])
def test_a_user_is_found_under_any_case(
    userorg: httpx.Client, platform: Platform, owner: str, suffix: str
) -> None:
    user_id = owner + suffix
    platform.add_user(user_id, "org-1", user_name="o", first_name="O", last_name="W")
    for asked in (user_id, user_id.upper(), user_id.lower()):
        answer = userorg.get(f"{READ}{quote(asked, safe='')}?identifier,rootOrgId")
        assert answer.status_code == 200
        body = answer.json()
        assert (body["id"], body["responseCode"]) == ("api.user.read", "OK")
        response = body["result"]["response"]
        assert (response["identifier"], response["rootOrgId"]) == (user_id, "org-1")


def test_an_unknown_user_is_404(userorg: httpx.Client, owner: str) -> None:
    answer = userorg.get(READ + owner)
    assert answer.status_code == 404
    assert answer.json()["responseCode"] == "RESOURCE_NOT_FOUND"
    assert answer.json()["params"]["err"] == "UOS_USRRED0013"
    assert userorg.get(READ).json()["responseCode"] == "CLIENT_ERROR"


def test_a_deleted_user_is_400_with_the_number_of_a_blocked_account(
    userorg: httpx.Client, platform: Platform, owner: str
) -> None:
    platform.add_user(owner, "org-1", deleted=True)
    answer = userorg.get(READ + owner)
    assert answer.status_code == 400
    assert answer.json()["responseCode"] == "CLIENT_ERROR"
    assert answer.json()["params"]["err"] == "UOS_USRRED0006"
    assert answer.json()["result"] == {}


def test_an_old_record_names_no_organisation(userorg: httpx.Client, platform: Platform, owner: str) -> None:
    platform.add_user(owner, "")
    assert userorg.get(READ + owner).json()["result"]["response"]["rootOrgId"] is None


def test_requests_are_counted_by_path(userorg: httpx.Client, lms: httpx.Client, owner: str) -> None:
    userorg.get(READ + owner)
    userorg.get(READ + owner)
    userorg.get("/health").raise_for_status()
    assert userorg.get("/_requests").json() == {READ + owner: 2}
    search(lms, {"createdBy": owner})
    assert lms.get("/_requests").json() == {SEARCH: 1}


# --- faults


@pytest.mark.parametrize("which", ["lms", "userorg"])
def test_every_fault_hits_as_often_as_it_should(
    request: pytest.FixtureRequest, which: str, owner: str, platform: Platform
) -> None:
    client: httpx.Client = request.getfixturevalue(which)
    platform.add_user(owner, "org-1")

    def call() -> httpx.Response:
        if which == "userorg":
            return client.get(READ + owner)
        return client.post(SEARCH, json={"request": {"filters": {"mentors": [owner]}}})

    for mode in ("503", "500", "drop", "half", "garbage"):
        client.put("/_faults", json={"mode": mode, "times": 1}).raise_for_status()
    assert [fault["mode"] for fault in client.get("/_faults").json()] == [
        "503",
        "500",
        "drop",
        "half",
        "garbage",
    ]
    assert call().status_code == 503
    broken = call()
    assert (broken.status_code, broken.json()["responseCode"]) == (500, "SERVER_ERROR")
    for _ in ("drop", "half"):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            call()
    garbage = call()
    assert garbage.status_code == 200
    assert "responseCode" not in garbage.json()
    assert call().json()["responseCode"] == "OK"
    assert client.get("/_faults").json() == []

    client.put("/_faults", json={"mode": "slow", "seconds": 0.4})
    started = time.monotonic()
    assert call().json()["responseCode"] == "OK"
    assert time.monotonic() - started >= 0.4
    client.delete("/_faults")
    assert client.get("/_faults").json() == []


@pytest.mark.parametrize("filtered", ["createdBy", "mentors"])
def test_a_fault_can_be_limited_to_one_user(
    lms: httpx.Client, userorg: httpx.Client, platform: Platform, owner: str, filtered: str
) -> None:
    platform.add_users([platform.add_user(owner, "org-1"), platform.add_user(f"{owner}-2", "org-1")])
    for client in (lms, userorg):
        client.put("/_faults", json={"mode": "503", "user": owner.upper()})
    assert userorg.get(READ + owner).status_code == 503
    assert userorg.get(READ + owner + "-2").status_code == 200
    for users, expected in (([owner], 503), (["x", owner], 503), (owner, 503), ([f"{owner}-2"], 200)):
        body = {"request": {"filters": {filtered: users}}}
        assert lms.post(SEARCH, json=body).status_code == expected


@pytest.mark.parametrize(
    "fault", [{}, {"mode": "x"}, {"mode": "503", "times": 0}, {"mode": "slow", "seconds": -1}, {"a": 1}, []]
)
def test_a_fault_that_means_nothing_is_refused(lms: httpx.Client, fault: object) -> None:
    assert lms.put("/_faults", json=fault).status_code == 400
    assert lms.get("/_faults").json() == []
