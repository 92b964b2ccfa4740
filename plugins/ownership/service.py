"""One HTTP service of the platform: keep-alive, bounded time, size and tries."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Self, TypeVar

import httpx
import stamina

from ownership.errors import SettingsError, Unavailable

MAX_BYTES = 32 * 1024 * 1024
"""An answer larger than this is refused: 1,000 batches have less than 1 MiB."""
CALL_SECONDS = 20.0
"""Bound on the body of an answer, however slowly its bytes drip."""
CONCURRENT = 16
"""Calls under way at once to one service."""

A = TypeVar("A")
B = TypeVar("B")


class Answer(NamedTuple):
    """Status and decoded JSON object of an answer."""

    status: int
    body: dict[str, Any]


class Service:
    """A JSON service at `base_url`. Use as a context manager."""

    def __init__(self, name: str, base_url: Callable[[], str], *, tries: int = 3) -> None:
        """`name` is used in messages; `tries` counts calls, a second or two apart.

        `base_url` is asked at the first call: two of three stages call no service, and a client
        costs them a look at the Connection and a TLS context.
        """
        self.name = name
        self._base_url = base_url
        self._tries = tries
        self._opening = threading.Lock()
        self._opened: httpx.Client | None = None

    def _client(self) -> httpx.Client:
        """The client, opened at the first call.

        :raises SettingsError: if the URL is none.
        """
        with self._opening:
            if self._opened is None:
                self._opened = self._open(self._base_url())
            return self._opened

    def _open(self, base_url: str) -> httpx.Client:
        try:
            return httpx.Client(
                base_url=base_url,
                timeout=httpx.Timeout(10.0, connect=3.0),
                limits=httpx.Limits(max_connections=CONCURRENT, max_keepalive_connections=CONCURRENT),
                follow_redirects=False,
                trust_env=False,
                # A context for TLS takes 30 ms to make, also where there is nothing to verify.
                verify=not base_url.startswith("http:"),
            )
        except (httpx.InvalidURL, ValueError) as e:
            raise SettingsError(f"The URL of {self.name}, {base_url!r}, is no URL: {e}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._opened is not None:
            self._opened.close()

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        """One request, tried again while the service is unavailable.

        :raises Unavailable: no answer in time, a 5xx or 429, or an answer that is no JSON object.
        """
        for attempt in stamina.retry_context(
            on=Unavailable, attempts=self._tries, wait_initial=0.3, wait_max=3.0, timeout=45.0
        ):
            with attempt:
                return self._once(method, path, body)
        raise AssertionError("unreachable: stamina returns or raises")

    def _once(self, method: str, path: str, body: dict[str, Any] | None) -> Answer:
        deadline = time.monotonic() + CALL_SECONDS
        try:
            with self._client().stream(method, path, json=body) as response:
                content = bytearray()
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > MAX_BYTES:
                        raise Unavailable(self.name, f"answers with more than {MAX_BYTES} bytes")
                    if time.monotonic() > deadline:
                        raise Unavailable(self.name, f"did not finish its answer within {CALL_SECONDS:.0f} s")
        except httpx.HTTPError as e:
            raise Unavailable(self.name, f"{type(e).__name__}: {e}") from None
        if response.status_code >= 500 or response.status_code == 429:
            raise Unavailable(self.name, f"HTTP {response.status_code}")
        try:
            value = json.loads(bytes(content))
        except (ValueError, RecursionError):
            raise Unavailable(self.name, f"HTTP {response.status_code} without a JSON body") from None
        if not isinstance(value, dict):
            raise Unavailable(self.name, f"HTTP {response.status_code} with a JSON body that is no object")
        return Answer(response.status_code, value)


def at(value: Any, *path: str) -> Any:
    """The value at `path` in nested objects, None where there is none."""
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def concurrently(function: Callable[[A], B], items: Iterable[A]) -> Iterator[B | Unavailable]:
    """`function` over `items`, a few at a time, in their order; an outage of one item is its result."""

    def guarded(item: A) -> B | Unavailable:
        try:
            return function(item)
        except Unavailable as e:
            return e

    with ThreadPoolExecutor(CONCURRENT) as pool:
        yield from pool.map(guarded, items)
