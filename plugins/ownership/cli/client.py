"""A client of the API. It returns what the API answers, decoded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote
from uuid import uuid4

import httpx

API: Final = "/ownership-transfers/api/v1"
TRIES: Final = 3
"""Of a request that is not answered. A write may be sent again: its key starts one run."""
PAUSE_S: Final = 1.0
"""Between two tries, and between two looks while waiting."""
NO_ANSWER: Final = (429, 502, 503, 504)
"""What a proxy says for a server that does not answer or is asked too often, and the API for a ledger that does not."""
STAYS: Final = ("failed", "awaiting_approval")
"""States that are not final and in which a run leaves a transfer."""
RUN_ENDED: Final = ("success", "failed")

NOT_THE_API: Final = "instead of an answer of the API: is the address right?"
Json = dict[str, Any]
Parts = AbstractContextManager[Iterator[bytes]]
"""A file, in parts as they arrive."""


class ClientError(Exception):
    """The request has no good answer; the text says why."""


class Refused(ClientError):
    """The server refuses the request."""

    def __init__(self, status: int, detail: str, errors: list[Json] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.errors = errors or []
        """`field` and `detail` of each field that is wrong."""


class Unreachable(ClientError):
    """The server does not answer, or not within the time."""


class Answer(Json):
    """A decoded answer; one without a field that every answer of the API has is another service's."""

    def __missing__(self, name: str) -> Any:
        """Refuse the answer."""
        raise Refused(200, f"JSON without {name} {NOT_THE_API}")


class Credentials(NamedTuple):
    """A token of Airflow, or a name and a password to get one."""

    token: str = ""
    user: str = ""
    password: str = ""


class Client:
    """The API at one address, for one user."""

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`url` is of Airflow's API server, with its path if it is served below one."""
        self._base = url.rstrip("/").removesuffix(API)
        self._credentials = credentials
        self._token = credentials.token.strip()
        self._http = httpx.Client(timeout=30, transport=transport)
        self._sleep, self._clock = sleep, clock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    # -- reads

    def transfers(self, **filters: str | None) -> Iterator[Json]:
        """Transfers that fit, newest first; pages are read as they are needed."""
        return self._pages("/transfers", "transfers", filters)

    def transfer(self, mid: str, run: str = "") -> Json:
        """One transfer; with `run`, a dict without `state` until that run has brought it."""
        return self._get("/transfer", mid=mid, run=run)

    def changes(self, mid: str) -> Iterator[Json]:
        """The batches of a transfer."""
        return self._pages("/transfer/changes", "changes", {"mid": mid})

    def health(self) -> Json:
        """The health of the job."""
        return self._get("/health")

    def export(self, what: str, file_format: str, **filters: str | None) -> Parts:
        """`transfers` or `changes` that fit, as `csv` or `jsonl`."""
        return self._streamed(f"/exports/{what}", {"format": file_format, **_given(filters)})

    def imported(self, import_id: str) -> Json:
        """An import, and how far it is."""
        return self._get(f"/imports/{quote(import_id, safe='')}")

    def failed_rows(self, import_id: str) -> Parts:
        """The rows of an import that failed, as CSV."""
        return self._streamed(f"/imports/{import_id}/failed.csv", {})

    # -- writes

    def create(self, form: Mapping[str, Any], key: str | None = None) -> Json:
        """Start a transfer. Returns its run and where its outcome is."""
        return self._post("/transfers", dict(form), key)

    def act(self, action: str, mid: str, key: str | None = None, **fields: Any) -> Json:
        """Start an action (`undo`, `approve` and so on) on a transfer."""
        return self._post(f"/transfer/{action}", {"mid": mid, **_given(fields)}, key)

    def import_file(self, content: bytes, *, name: str, to_user: str | None, key: str | None) -> Json:
        """Send a CSV file in. Its rows are dry-run."""
        how = {"content": content, "params": _given({"name": name, "to_user": to_user})}
        headers = {**_key(key), "Content-Type": "text/csv"}
        return _decoded(self._answered("POST", "/imports", headers=headers, **how))

    def go(self, import_id: str, *, only_good: bool) -> Json:
        """Carry the rows of an import out. Asked again, it starts only what no run brings."""
        return self._post(f"/imports/{import_id}/go", {"only_good": only_good})

    def check(self, import_id: str) -> Json:
        """Dry-run the rows of an import that no run brings."""
        return self._post(f"/imports/{import_id}/check", {})

    def watch_import(
        self, import_id: str, until: Sequence[str], again: Callable[[], Json], *, timeout: float
    ) -> Iterator[Json]:
        """An import, at each look, until it is in one of the states. `again` starts rows that no run brings.

        :raises Unreachable: after `timeout` seconds.
        """
        too_late = f"import {import_id} is not {until[-1]} after {timeout:.0f} s"
        for seen in self._looks(lambda: self.imported(import_id), timeout, too_late):
            yield seen
            if seen["state"] in until:
                return
            if seen["stalled"]:
                again()

    def watch(self, started: Json, *, timeout: float) -> Iterator[Json]:
        """A transfer that was started, at each look, until its run has left it for good.

        :raises Unreachable: after `timeout` seconds.
        """
        mid, run = started["transfers"][0]["mid"], started["run_id"]
        too_late = f"{mid} is not final after {timeout:.0f} s; its run is {run}"
        for seen in self._looks(lambda: self.transfer(mid, run), timeout, too_late):
            yield seen
            if is_left(seen):
                return

    # -- how

    def _looks(self, look: Callable[[], Json], timeout: float, too_late: str) -> Iterator[Json]:
        """What `look` finds, again and again; a server that does not answer is asked again, too.

        :raises Unreachable: saying what is `too_late`, after `timeout` seconds.
        """
        deadline = self._clock() + timeout
        while True:
            with suppress(Unreachable):
                yield look()
            if self._clock() > deadline:
                raise Unreachable(too_late)
            self._sleep(PAUSE_S)

    def _pages(self, path: str, name: str, params: Mapping[str, str | None]) -> Iterator[Json]:
        after: str | None = ""
        while after is not None:
            page = self._get(path, **_given({**params, "after": after}))
            yield from page[name]
            after = page["next"]

    def _get(self, path: str, **params: str) -> Json:
        return _decoded(self._answered("GET", path, params=_given(params)))

    def _post(self, path: str, body: Json, key: str | None = None) -> Json:
        return _decoded(self._answered("POST", path, json=body, headers=_key(key)))

    def _answered(self, method: str, path: str, **how: Any) -> httpx.Response:
        for _ in range(TRIES - 1):
            with suppress(Unreachable):
                return self._asked(method, path, **how)
            self._sleep(PAUSE_S)
        return self._asked(method, path, **how)

    def _asked(self, method: str, path: str, **how: Any) -> httpx.Response:
        signed_in = bool(self._token)
        response = self._sent(method, f"{API}{path}", **self._signed(how))
        if response.status_code == 401 and signed_in and self._credentials.user:
            self._token = ""  # it has expired
            response = self._sent(method, f"{API}{path}", **self._signed(how))
        return _checked(response)

    @contextmanager
    def _streamed(self, path: str, params: Mapping[str, str]) -> Iterator[Iterator[bytes]]:
        with closing(self._answered("GET", path, params=params, stream=True)) as response:
            try:
                yield response.iter_bytes()
            except httpx.RequestError as e:
                raise self._unreachable(e) from None

    def _signed(self, how: Mapping[str, Any]) -> Json:
        """The request with the token."""
        if not self._token:
            given = {"username": self._credentials.user, "password": self._credentials.password}
            self._token = _decoded(_checked(self._sent("POST", "/auth/token", json=given)))["access_token"]
        # Bytes: what cannot be a token is for the server to refuse.
        return {
            **how,
            "headers": {**how.get("headers", {}), "Authorization": f"Bearer {self._token}".encode()},
        }

    def _sent(self, method: str, path: str, *, stream: bool = False, **how: Any) -> httpx.Response:
        request = self._http.build_request(method, f"{self._base}{path}", **how)
        try:
            response = self._http.send(request, stream=stream)
            if not _is_answer(response):
                response.read()
        except httpx.RequestError as e:
            raise self._unreachable(e) from None
        return response

    def _unreachable(self, error: httpx.RequestError) -> Unreachable:
        return Unreachable(f"{self._base}: {str(error) or type(error).__name__}")


def is_left(seen: Json) -> bool:
    """True if a run does no more with the transfer that it was started for."""
    run = (seen.get("started") or {}).get("state")
    return bool(seen.get("final")) or (run in RUN_ENDED and seen.get("state") in STAYS)


def _given(values: Mapping[str, Any]) -> Json:
    return {name: value for name, value in values.items() if value not in (None, "")}


def _key(key: str | None) -> dict[str, bytes]:
    return {"Idempotency-Key": (key or uuid4().hex).encode()}


def _is_answer(response: httpx.Response) -> bool:
    """True for what the API may answer: a proxy may answer 200 with a page to sign in."""
    return response.is_success and not response.headers.get("content-type", "").startswith("text/html")


def _decoded(response: httpx.Response) -> Json:
    """The object of a good answer.

    :raises Refused: if it is none.
    """
    try:
        return Answer(response.json())
    except (ValueError, TypeError):
        raise Refused(response.status_code, f"HTTP {response.status_code} {NOT_THE_API}") from None


def _checked(response: httpx.Response) -> httpx.Response:
    """The answer.

    :raises Refused: with the problem, if it is one.
    :raises Unreachable: if there is nobody to answer.
    """
    if _is_answer(response):
        return response
    try:
        problem = response.json()
        detail = str(problem["detail"])
        errors = [e for e in problem.get("errors") or () if isinstance(e, dict)]
    except (ValueError, KeyError, TypeError):
        detail, errors = response.reason_phrase, []
    if response.status_code in NO_ANSWER:
        raise Unreachable(f"HTTP {response.status_code}: {detail}")
    if not response.is_client_error:  # a redirect or a page: not the API
        detail = f"HTTP {response.status_code} {NOT_THE_API}"
    raise Refused(response.status_code, detail, errors)
