"""One HTTP service of the platform: keep-alive, bounded time, size and tries."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Self, TypeVar
from weakref import WeakSet

import stamina
from pydantic import BaseModel
from urllib3 import HTTPConnectionPool, Timeout, connection_from_url, disable_warnings
from urllib3.exceptions import HTTPError, InsecureRequestWarning, LocationValueError, ProtocolError
from urllib3.util import parse_url

from ownership.domain.errors import SettingsError, Unavailable

MAX_BYTES = 32 * 1024 * 1024
"""An answer larger than this is refused: 1,000 batches have less than 1 MiB."""
CALL_SECONDS = 20.0
"""Bound on a whole call, however slowly the bytes of its answer drip."""
IDLE_SECONDS = 10.0
"""Longest wait for the next bytes of an answer."""
CONNECT_SECONDS = 3.0
_CHUNK = 65_536
CONCURRENT = 16
"""Calls under way at once to one service."""


class Answer(NamedTuple):
    """Status and decoded JSON object of an answer."""

    status: int
    body: dict[str, Any]


R = TypeVar("R")


class _Result(BaseModel, Generic[R]):
    response: R


class Envelope(BaseModel, Generic[R]):
    """What the platform's services put an answer in."""

    result: _Result[R]


@dataclass(frozen=True)
class Endpoint:
    """Address of a service, and the job's credentials for it. Its repr shows no secret."""

    url: str
    login: tuple[str, str] | None = field(default=None, repr=False)
    """Name and password, sent as HTTP Basic."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every call."""
    tls: ssl.SSLContext | None = None
    """The authorities that the job trusts, and its own certificate; None trusts the public authorities."""
    advice: str = ""
    """What an operator checks when the service is out of reach or refuses the job."""


class _Opened(NamedTuple):
    """The connections to an endpoint, and the path that its URL has."""

    pool: HTTPConnectionPool
    base: str


class Service:
    """A JSON service at an endpoint. Use as a context manager."""

    def __init__(
        self,
        name: str,
        endpoint: Callable[[], str | Endpoint],
        *,
        tries: int = 3,
        call_seconds: float = CALL_SECONDS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """`name` stands in messages; `tries` counts calls, a second or two apart.

        `endpoint` returns the address, or a URL alone, at the first call: two of three stages call no service, and
        need no Connection and no TLS context.
        """
        self.name = name
        self._endpoint = endpoint
        self._advice = ""
        self._tries = tries
        self._call_seconds = call_seconds
        self._max_bytes = max_bytes
        self._opening = threading.Lock()
        self._opened: _Opened | None = None
        self._connections: WeakSet[Any] = WeakSet()
        """Of urllib3, which lets go of those that are in use."""
        self._calls = ThreadPoolExecutor(CONCURRENT)

    def connect(self) -> None:
        """Make the client, which else the first call does."""
        self._client()

    def _client(self) -> _Opened:
        """The client, opened at the first call.

        :raises SettingsError: if the URL is invalid.
        """
        with self._opening:
            if self._opened is None:
                found = self._endpoint()
                self._opened = self._open(found if isinstance(found, Endpoint) else Endpoint(found))
            return self._opened

    def _open(self, endpoint: Endpoint) -> _Opened:
        self._advice = endpoint.advice and f"; {endpoint.advice}"
        url = endpoint.url
        if holds_login(url):
            raise SettingsError(
                f"The URL of {self.name} holds a login: put it into the fields of its Connection."
            )
        try:
            parsed = parse_url(url)
        except LocationValueError as e:
            raise SettingsError(f"The URL of {self.name}, {url!r}, is no URL: {e}") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise SettingsError(
                f"The URL of {self.name}, {url!r}, does not begin with http:// or https:// and a host."
            )
        # Without TLS no context: it takes 30 ms to make.
        tls = parsed.scheme == "https" and (endpoint.tls or ssl.create_default_context())
        if tls and tls.verify_mode == ssl.CERT_NONE:
            # Whoever set `verify` to false knows; it comes with each call.
            disable_warnings(InsecureRequestWarning)
        pool = connection_from_url(
            url,
            maxsize=CONCURRENT,
            block=True,
            timeout=Timeout(connect=CONNECT_SECONDS, read=IDLE_SECONDS),
            retries=False,
            headers=_headers(endpoint),
            **({"ssl_context": tls} if tls else {}),
        )
        made = pool.ConnectionCls

        def connection(**given: Any) -> Any:
            new = made(**given)
            with self._opening:
                self._connections.add(new)
            return new

        pool.ConnectionCls = connection  # type: ignore[assignment]  # it is called, and nothing else
        return _Opened(pool, (parsed.path or "").rstrip("/"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A call that was given up may still run: its thread ends with its connection.
        self._calls.shutdown(wait=False, cancel_futures=True)
        with self._opening:
            connections = list(self._connections)
        for connection in connections:
            if connection.sock:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
        if self._opened:
            self._opened.pool.close()

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        """Send one request, and again while the service is unavailable.

        :raises Unavailable: no answer in time, a 5xx, 408 or 429, a refusal (401, 403), or an answer that is no
            JSON object. A refusal counts as an outage: it says something about the job, not about a user.
        """
        retrying = stamina.RetryingCaller(attempts=self._tries, wait_initial=0.3, wait_max=3.0, timeout=45.0)
        return retrying(Unavailable, self._once, method, path, body)

    def _once(self, method: str, path: str, body: dict[str, Any] | None) -> Answer:
        # The client's own time-outs are for the next bytes, also while an answer's headers come.
        exchange = self._calls.submit(self._exchange, method, path, body)
        try:
            status, content = exchange.result(timeout=self._call_seconds)
        except TimeoutError:
            exchange.cancel()
            raise Unavailable(
                self.name, f"did not finish its answer within {self._call_seconds:g} s{self._advice}"
            ) from None
        except ProtocolError as e:
            # Its text quotes the answer, and what a service says about a person is no matter of a log.
            raise Unavailable(
                self.name, f"{type(e).__name__}: sends no whole HTTP answer{self._advice}"
            ) from None
        except HTTPError as e:
            raise Unavailable(self.name, f"{type(e).__name__}: {e}{self._advice}") from None
        if status in (401, 403):
            raise Unavailable(self.name, f"refuses access (HTTP {status}){self._advice}")
        if status >= 500 or status in (408, 429):
            raise Unavailable(self.name, f"HTTP {status}")
        # What sends a page or a redirect is seldom the service itself: its address is wrong.
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            raise Unavailable(self.name, f"HTTP {status} without a JSON body{self._advice}") from None
        if not isinstance(value, dict):
            raise Unavailable(self.name, f"HTTP {status} with a JSON body that is no object{self._advice}")
        return Answer(status, value)

    def _exchange(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        """Status and body of an answer."""
        deadline = time.monotonic() + self._call_seconds
        pool, base = self._client()
        content = bytearray()
        with pool.urlopen(
            method,
            f"{base}/{path.lstrip('/')}",
            body=None if body is None else json.dumps(body).encode(),
            headers=pool.headers if body is None else {**pool.headers, "Content-Type": "application/json"},
            redirect=False,
            preload_content=False,
        ) as response:
            while chunk := response.read1(_CHUNK):
                content += chunk
                if len(content) > self._max_bytes:
                    raise Unavailable(self.name, f"answers with more than {self._max_bytes} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError
            return response.status, bytes(content)


def _headers(endpoint: Endpoint) -> dict[str, str]:
    headers = {"Accept": "application/json", "Accept-Encoding": "gzip", **endpoint.headers}
    if endpoint.login:
        headers["Authorization"] = f"Basic {basic_auth(*endpoint.login)}"
    return headers


def basic_auth(login: str, password: str) -> str:
    """A login as HTTP Basic sends it; the letters beyond ASCII in UTF-8, as servers read them."""
    return base64.b64encode(f"{login}:{password}".encode()).decode()


def holds_login(url: str) -> bool:
    """True if a URL has a login or anything else before an ``@``, which would be sent and appear in messages."""
    return "@" in url.partition("://")[2].partition("/")[0]
