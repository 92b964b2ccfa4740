"""Stand-ins for services of the platform, the LMS and User-Org, which read the local Elasticsearch.

The LMS's is also Knowlg's content search, so that this needs no process of its own.

    python -m local.platform.standins lms     --port 9001 --elasticsearch http://127.0.0.1:9200
    python -m local.platform.standins userorg --port 9002 --elasticsearch http://127.0.0.1:9200

They answer as the real services do (default limit of 30, the 10,000 window, lower-cased terms, 404 for an
unknown user, 400 for a deleted one) and fail on demand:

    PUT    /_faults    {"mode": "503", "user": null, "seconds": 0, "times": 3}   adds a fault
    GET    /_faults    the active faults, oldest first; the first that matches a request is applied
    DELETE /_faults    clears them
    GET    /_requests  how often each path of the platform's API was called; DELETE resets the counts
    GET    /health     200 once the service listens

`user` limits a fault to requests that name this user (User-Org: in the path; LMS: in the `createdBy` or
`mentors` filter); null means every request. `times` is how many requests it hits; null means until cleared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

DEFAULT_LIMIT: Final = 30
RESULT_WINDOW: Final = 10_000
ELASTICSEARCH_TIMEOUT_SECONDS: Final = 10.0
DEFAULT_SLOW_SECONDS: Final = 10.0

BATCH_SEARCH_PATH: Final = "/v1/course/batch/search"
USER_READ_PATH: Final = "/private/user/v1/read/"
USER_SEARCH_PATH: Final = "/private/user/v1/search"
BATCH_SEARCH_ID: Final = "api.course.batch.search"
CONTENT_SEARCH_PATH: Final = "/v3/search"
CONTENT_SEARCH_ID: Final = "api.v1.search"
USER_READ_ID: Final = "api.user.read"
USER_SEARCH_ID: Final = "api.user.search"

ACCOUNT_BLOCKED: Final = "UOS_USRRED0006"
NOT_FOUND: Final = "UOS_USRRED0013"
"""Service, object, operation and number of an error, as releases since 4.7 give it."""

TRANSPORT: Final = "local.platform.standins.transport"
"""Key under which `Connection` stores the socket's transport in an ASGI scope."""


class BadRequest(ValueError):
    """The request violates the API's schema."""


class SearchUnavailable(RuntimeError):
    """Elasticsearch did not answer, or rejected the query."""


# --- faults -----------------------------------------------------------------------------------------------


class Mode(StrEnum):
    """How a request fails."""

    UNAVAILABLE = "503"
    SERVER_ERROR = "500"
    """The service's own error, in its envelope: what a record answers that it cannot read."""
    SLOW = "slow"
    """A correct answer, after `seconds`."""
    DROP = "drop"
    """The connection is closed without an answer."""
    GARBAGE = "garbage"
    """200 with JSON that violates the contract."""
    HALF = "half"
    """200, then the connection ends in the middle of the body."""
    CAPPED_COUNT = "capped-count"
    """LMS: the total stops at 10,000, as where the service does not ask Elasticsearch for an exact one."""


@dataclass(frozen=True)
class Fault:
    """An active fault: its mode, the user it is limited to, its delay in seconds, and its remaining requests."""

    mode: Mode
    user: str | None = None
    seconds: float = DEFAULT_SLOW_SECONDS
    times: int | None = None

    @classmethod
    def parse(cls, body: object) -> Fault:
        """Read a fault from the JSON of `PUT /_faults`. Raises BadRequest."""
        if not isinstance(body, dict):
            raise BadRequest("a fault is a JSON object")
        unknown = body.keys() - {"mode", "user", "seconds", "times"}
        if unknown:
            raise BadRequest(f"unknown field of a fault: {', '.join(sorted(unknown))}")
        modes = [mode.value for mode in Mode]
        if body.get("mode") not in modes:
            raise BadRequest(f"mode must be one of {', '.join(modes)}")
        user, times, seconds = body.get("user"), body.get("times"), body.get("seconds")
        if user is not None and not isinstance(user, str):
            raise BadRequest("user must be a user id or null")
        if times is not None and (not _is_whole(times) or times < 1):
            raise BadRequest("times must be a positive whole number or null")
        if seconds is None:
            seconds = DEFAULT_SLOW_SECONDS
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0:
            raise BadRequest("seconds must be a number that is not negative")
        return cls(Mode(body["mode"]), user, float(seconds), times)


class Faults:
    """The active faults, oldest first."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Activate a fault."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Deactivate all faults."""
        self._faults.clear()

    def take(self, users: frozenset[str]) -> Fault | None:
        """The first fault that applies to a request naming `users` (lower-cased); counts down its `times`."""
        for position, fault in enumerate(self._faults):
            if fault.user is None or fault.user.lower() in users:
                if fault.times == 1:
                    del self._faults[position]
                elif fault.times is not None:
                    self._faults[position] = replace(fault, times=fault.times - 1)
                return fault
        return None

    def describe(self) -> list[dict[str, Any]]:
        """The faults as `GET /_faults` shows them."""
        return [asdict(fault) for fault in self._faults]


class BrokenResponse(Response):
    """Writes `prefix` (may be empty) to the socket unchanged and closes the connection."""

    def __init__(self, prefix: bytes = b"") -> None:
        super().__init__()
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        """Answer below ASGI, which cannot express an incomplete answer."""
        transport: asyncio.Transport = scope[TRANSPORT]
        if self._prefix:
            transport.write(self._prefix)
        transport.close()
        # Wait until uvicorn has noticed the disconnect: before, it would send a 500, since the app sent nothing.
        while (await receive())["type"] != "http.disconnect":
            pass


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP connection, which also passes its transport to the app, so that a fault can close it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # no other transport comes
        """Wrap the app of this connection."""
        super().connection_made(transport)
        app: ASGIApp = self.app

        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            scope[TRANSPORT] = transport
            await app(scope, receive, send)

        self.app = with_transport


async def _apply(fault: Fault | None) -> Response | None:
    """The response of a fault, which replaces the service's; None when the service shall answer."""
    if fault is not None and fault.mode is Mode.SLOW:
        await asyncio.sleep(fault.seconds)
    return _FAULTY[fault.mode]() if fault is not None and fault.mode in _FAULTY else None


_FAULTY: Final[Mapping[Mode, Callable[[], Response]]] = {
    # A gateway's words, not JSON.
    Mode.UNAVAILABLE: lambda: PlainTextResponse("Service Unavailable", status_code=503),
    Mode.SERVER_ERROR: lambda: _envelope(
        "api.error", 500, "SERVER_ERROR", {}, "Process failed, please try again."
    ),
    Mode.GARBAGE: lambda: JSONResponse({"result": ["not", "what", "the", "contract", "says"]}),
    Mode.HALF: lambda: BrokenResponse(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4096\r\n\r\n"
        b'{"id": "api.half", "responseCode": "OK", "result": {"response": {"cou'
    ),
    Mode.DROP: BrokenResponse,
}


# --- the platform's envelope ------------------------------------------------------------------------------


def _envelope(
    api_id: str, status: int, code: str, result: Mapping[str, Any], error: str = "", number: str = ""
) -> Response:
    """The platform's envelope. `number` is the error's own code; releases before 4.7 have the class there, too."""
    message_id = str(uuid.uuid4())
    failed = status != 200
    return JSONResponse(
        {
            "id": api_id,
            "ver": "v1",
            "ts": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S:%f")[:-3] + "+0000",
            "params": {
                "resmsgid": message_id,
                "msgid": message_id,
                "err": (number or code) if failed else None,
                "status": "FAILED" if failed else "success",
                "errmsg": error or None,
            },
            "responseCode": code,
            "result": dict(result),
        },
        status_code=status,
    )


def _success(api_id: str, response: Mapping[str, Any]) -> Response:
    return _envelope(api_id, 200, "OK", {"response": response})


def _client_error(api_id: str, error: BadRequest) -> Response:
    return _envelope(api_id, 400, "CLIENT_ERROR", {}, str(error))


def _server_error(api_id: str, error: SearchUnavailable) -> Response:
    return _envelope(api_id, 500, "SERVER_ERROR", {}, str(error))


async def _json(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body must be JSON") from error


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# --- Elasticsearch ----------------------------------------------------------------------------------------


class Search:
    """A minimal Elasticsearch client by plain REST, for 7.17 and 9.x alike."""

    def __init__(self, url: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=ELASTICSEARCH_TIMEOUT_SECONDS,
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=64),
            trust_env=False,  # no proxy: the server is on this machine
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST JSON and return the answer's JSON. Raises SearchUnavailable."""
        try:
            answer = await self._client.post(path, json=body)
            if answer.status_code != 200:
                reason = f"Elasticsearch answered {answer.status_code}: {answer.text[:300]}"
                raise SearchUnavailable(reason)
            content: dict[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise SearchUnavailable(f"Elasticsearch is unreachable: {error!r}") from error
        return content


class UserReads:
    """Reads user documents; concurrent reads share one request to Elasticsearch.

    The real service has its own database and machine. Here, one request to Elasticsearch for each user would cost
    more than the job's own work.
    """

    def __init__(self, search: Callable[[], Search]) -> None:
        """`search` is called at the first read: the client exists only once the service has started."""
        self._search = search
        self._wanted: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def read(self, user_id: str) -> dict[str, Any]:
        """One user's entry of the `_mget` response. Raises SearchUnavailable."""
        answer = self._wanted.get(user_id)
        if answer is None:
            answer = self._wanted[user_id] = asyncio.get_running_loop().create_future()
            if self._reading is None:
                self._reading = asyncio.create_task(self._read_all())
        doc = await asyncio.shield(answer)
        if "error" in doc:
            raise SearchUnavailable(f"Elasticsearch: {doc['error'].get('reason')}")
        return doc

    async def _read_all(self) -> None:
        while self._wanted:
            wanted, self._wanted = self._wanted, {}
            try:
                # In the body, not in the path: an id may contain any character.
                docs = (await self._search().post("/user/_mget", {"ids": list(wanted)}))["docs"]
            except SearchUnavailable as error:
                for answer in wanted.values():
                    answer.set_exception(error)
            else:
                for answer, doc in zip(wanted.values(), docs, strict=True):
                    answer.set_result(doc)
        self._reading = None


# --- LMS: batch search ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BatchSearch:
    """A batch search as an Elasticsearch query, and the users that its filters name."""

    query: dict[str, Any]
    users: frozenset[str]

    @classmethod
    def parse(cls, body: object) -> BatchSearch:
        """Read the request of the batch search API. Raises BadRequest."""
        request = body.get("request") if isinstance(body, dict) else None
        if not isinstance(request, dict):
            raise BadRequest("request must be an object")
        filters = request.get("filters")
        if not isinstance(filters, dict):
            raise BadRequest("request.filters must be an object")
        offset = _whole(request, "offset", 0)
        # Clamped to the window, not rejected: the last page is short, a page beyond the window is empty.
        limit = max(0, min(_whole(request, "limit", DEFAULT_LIMIT), RESULT_WINDOW - offset))
        # As in the real service, an empty list does not filter; callers must not rely on it.
        terms = [_filter(field, value) for field, value in filters.items() if value not in (None, [])]
        query: dict[str, Any] = {
            "query": {"bool": {"filter": terms}},
            "track_total_hits": True,
            "size": limit,
            "from": offset if limit else 0,
        }
        fields = request.get("fields")
        if fields is not None:
            if not isinstance(fields, list) or not all(isinstance(field, str) for field in fields):
                raise BadRequest("request.fields must be a list of names")
            query["_source"] = fields or True
        sort_by = request.get("sort_by")
        if sort_by is not None:
            query["sort"] = _sort(sort_by)
        named = [value for field in ("createdBy", "mentors") for value in _listed(filters.get(field))]
        return cls(query, frozenset(value.lower() for value in named if isinstance(value, str)))


def _whole(request: Mapping[str, Any], name: str, default: int) -> int:
    value = request.get(name, default)
    if not _is_whole(value) or value < 0:
        raise BadRequest(f"request.{name} must be a whole number that is not negative")
    return int(value)


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _filter(field: str, value: object) -> dict[str, Any]:
    """A terms query; the first value's type decides for all, as in the service."""
    values = _listed(value)
    if all(isinstance(item, str) for item in values):
        return {"terms": {f"{field}.raw": [item.lower() for item in values]}}
    if all(_is_whole(item) for item in values):
        return {"terms": {field: values}}
    raise BadRequest(f"request.filters.{field} must be text, a whole number or a list of one of them")


def _sort(sort_by: object) -> list[dict[str, Any]]:
    if not isinstance(sort_by, dict) or not all(isinstance(order, str) for order in sort_by.values()):
        raise BadRequest('request.sort_by must be an object like {"createdDate": "desc"}')
    return [
        {
            field if field == "status" else f"{field}.raw": {
                "order": "asc" if order.lower() == "asc" else "desc",  # anything else is descending there
                "unmapped_type": "keyword",
            }
        }
        for field, order in sort_by.items()
    ]


def lms_app(elasticsearch: str) -> FastAPI:
    """The LMS: `POST /v1/course/batch/search` over the index `course-batch`."""
    service = _Service("LMS stand-in", elasticsearch)

    @service.app.post(BATCH_SEARCH_PATH)
    async def search_batches(request: Request) -> Response:
        service.requests[BATCH_SEARCH_PATH] += 1
        try:
            search = BatchSearch.parse(await _json(request))
        except BadRequest as error:
            fault = service.faults.take(frozenset())
            return await _apply(fault) or _client_error(BATCH_SEARCH_ID, error)
        fault = service.faults.take(search.users)
        if (failure := await _apply(fault)) is not None:
            return failure
        try:
            found = (await service.search.post("/course-batch/_search", search.query))["hits"]
        except SearchUnavailable as error:
            return _server_error(BATCH_SEARCH_ID, error)
        count = found["total"]["value"]
        if fault is not None and fault.mode is Mode.CAPPED_COUNT:
            count = min(count, RESULT_WINDOW)
        content = [hit["_source"] for hit in found["hits"]]
        return _success(BATCH_SEARCH_ID, {"count": count, "content": content})

    @service.app.post(CONTENT_SEARCH_PATH)
    async def search_content(request: Request) -> Response:
        service.requests[CONTENT_SEARCH_PATH] += 1
        if (failure := await _apply(service.faults.take(frozenset()))) is not None:
            return failure
        try:
            query = _content_search(await _json(request))
            found = (await service.search.post("/compositesearch/_search", query))["hits"]
        except BadRequest as error:
            return _client_error(CONTENT_SEARCH_ID, error)
        except SearchUnavailable as error:
            return _server_error(CONTENT_SEARCH_ID, error)
        # In lists by kind of object; collections are among the content. Without hits there is no list.
        content = [{**hit["_source"], "objectType": "Content"} for hit in found["hits"]]
        result = {"count": found["total"]["value"], **({"content": content} if content else {})}
        return _envelope(CONTENT_SEARCH_ID, 200, "OK", result)

    return service.app


def _content_search(body: object) -> dict[str, Any]:
    """The request of the content search as an Elasticsearch query: one of several values fits. Raises BadRequest."""
    request = body.get("request") if isinstance(body, dict) else None
    if not isinstance(request, dict) or not isinstance(request.get("filters"), dict):
        raise BadRequest("request.filters must be an object")
    terms: list[dict[str, Any]] = []
    for field, value in request["filters"].items():
        if not isinstance(value, dict):
            terms.append(_filter(field, value))
            continue
        if value.keys() != {"contains"}:
            raise BadRequest("Unsupported operation")
        # As releases before 2026 have it: whatever is given is a part of the expression.
        parts = [{"regexp": {f"{field}.raw": f".*{v.lower()}.*"}} for v in value["contains"]]
        terms.append({"bool": {"should": parts, "minimum_should_match": 1}})
    return {
        "query": {"bool": {"filter": terms}},
        "track_total_hits": True,
        "size": _whole(request, "limit", 100),
        "_source": [*request["fields"], "objectType", "identifier"],
        "sort": [{"name.raw": "asc"}],
    }


# --- User-Org: read a user, search for users by name ------------------------------------------------------


def _user_search(body: object) -> dict[str, Any]:
    """The request of the user search API as an Elasticsearch query. Raises BadRequest.

    The real index has n-grams, for which the local one has no analysis; a wildcard finds the same parts of words.
    """
    request = body.get("request") if isinstance(body, dict) else None
    if not isinstance(request, dict) or not isinstance(request.get("filters"), dict):
        raise BadRequest("request.filters must be an object")
    terms = [_filter(field, value) for field, value in request["filters"].items()]
    fields = [f"{field}.raw" for field in request["queryFields"]]
    for word in request["query"].split(" + "):
        parts = [{"wildcard": {field: f"*{word.lower()}*"}} for field in fields]
        terms.append({"bool": {"should": parts, "minimum_should_match": 1}})
    return {
        "query": {"bool": {"filter": terms}},
        "track_total_hits": True,
        "size": _whole(request, "limit", DEFAULT_LIMIT),
        "_source": request["fields"],
    }


def userorg_app(elasticsearch: str) -> FastAPI:
    """User-Org over the index `user`: `GET /private/user/v1/read/{userId}`, `POST /private/user/v1/search`."""
    service = _Service("User-Org stand-in", elasticsearch)
    users = UserReads(lambda: service.search)

    # `:path`, because a user id may hold an (encoded) slash.
    @service.app.get(USER_READ_PATH + "{user_id:path}")
    async def read_user(user_id: str) -> Response:
        service.requests[USER_READ_PATH + user_id] += 1
        fault = service.faults.take(frozenset({user_id.lower()}))
        if (failure := await _apply(fault)) is not None:
            return failure
        if not user_id:
            return _client_error(USER_READ_ID, BadRequest("the path must end in a user id"))
        try:
            found = await users.read(user_id.lower())
        except SearchUnavailable as error:
            return _server_error(USER_READ_ID, error)
        if not found["found"]:
            words = "Requested user not found."
            return _envelope(USER_READ_ID, 404, "RESOURCE_NOT_FOUND", {}, words, NOT_FOUND)
        if found["_source"].get("isDeleted"):
            words = "User account has been blocked ."
            return _envelope(USER_READ_ID, 400, "CLIENT_ERROR", {}, words, ACCOUNT_BLOCKED)
        return _success(USER_READ_ID, found["_source"])

    @service.app.post(USER_SEARCH_PATH)
    async def search_users(request: Request) -> Response:
        service.requests[USER_SEARCH_PATH] += 1
        if (failure := await _apply(service.faults.take(frozenset()))) is not None:
            return failure
        try:
            query = _user_search(await _json(request))
            found = (await service.search.post("/user/_search", query))["hits"]
        except BadRequest as error:
            return _client_error(USER_SEARCH_ID, error)
        except SearchUnavailable as error:
            return _server_error(USER_SEARCH_ID, error)
        content = [hit["_source"] for hit in found["hits"]]
        return _success(USER_SEARCH_ID, {"count": found["total"]["value"], "content": content})

    return service.app


# --- serving ----------------------------------------------------------------------------------------------


class _Service:
    """The common part of both services: app, fault switches, request counts, Elasticsearch client."""

    def __init__(self, title: str, elasticsearch: str) -> None:
        self.faults = Faults()
        self.requests: Counter[str] = Counter()
        self.search: Search

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            self.search = Search(elasticsearch)
            yield
            await self.search.close()

        self.app = FastAPI(title=title, lifespan=lifespan, redirect_slashes=False)
        self._add_switches()

    def _add_switches(self) -> None:
        @self.app.get("/health")
        async def health() -> dict[str, bool]:
            return {"healthy": True}

        @self.app.get("/_requests")
        async def show_requests() -> dict[str, int]:
            return dict(self.requests)

        @self.app.delete("/_requests")
        async def reset_requests() -> dict[str, int]:
            self.requests.clear()
            return {}

        @self.app.get("/_faults")
        async def show_faults() -> list[dict[str, Any]]:
            return self.faults.describe()

        @self.app.put("/_faults")
        async def add_fault(request: Request) -> Response:
            try:
                self.faults.add(Fault.parse(await _json(request)))
            except BadRequest as error:
                return _client_error("api.faults", error)
            return JSONResponse(self.faults.describe())

        @self.app.delete("/_faults")
        async def clear_faults() -> list[dict[str, Any]]:
            self.faults.clear()
            return self.faults.describe()


APPS: Final = {"lms": lms_app, "userorg": userorg_app}


def main(arguments: list[str] | None = None) -> None:
    """Serve one of the stand-ins until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m local.platform.standins", description=__doc__.splitlines()[0]
    )
    parser.add_argument("service", choices=sorted(APPS))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--elasticsearch", required=True, metavar="URL", help="such as http://127.0.0.1:9200")
    parser.add_argument("--host", default="127.0.0.1")
    options = parser.parse_args(arguments)
    uvicorn.run(
        APPS[options.service](options.elasticsearch),
        host=options.host,
        port=options.port,
        http=Connection,
        access_log=False,
        log_level="warning",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
