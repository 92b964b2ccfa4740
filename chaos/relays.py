"""Relays between the job and three of its servers, which lose or change answers.

A TCP relay, one that parses enough of PostgreSQL's protocol to cut commits, and an HTTP relay.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from enum import StrEnum
from random import Random
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response

from local.servers.ports import HOST, host_and_port
from local.servers.processes import await_condition

PIECE = 1 << 16
TIMEOUT_S = 60.0
HELD_UP_S = 3.0
"""How long a request waits at most for what is to happen before it."""


class Relay:
    """Forwards bytes between clients and the server at `host:port`, and can lose answers.

    A request whose answer is lost was still carried out: a write that times out after it was applied.
    """

    def __init__(self, server: str) -> None:
        self._server = host_and_port(server)
        self._losing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, HOST, 0), self._loop)
        self._listener = listening.result(timeout=10)
        self.address = f"{HOST}:{self._listener.sockets[0].getsockname()[1]}"

    @contextmanager
    def answers_lost(self) -> Iterator[None]:
        """Forward requests but drop answers; at the end close the connections whose answers were dropped."""
        self._losing = True
        try:
            yield
        finally:
            self._losing = False
            self._loop.call_soon_threadsafe(self._close_all)

    def point_to(self, server: str) -> None:
        """Close every connection; new ones go to the server at this `host:port`."""
        self._server = host_and_port(server)
        self._loop.call_soon_threadsafe(self._close_all)

    def close(self) -> None:
        """End the listener and every connection."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    async def _end(self) -> None:
        self._listener.close()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    def _close_all(self) -> None:
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up = await asyncio.open_connection(*self._server)
        except OSError:
            writer.close()
            return
        both = {writer, up[1]}
        self._writers |= both
        try:
            # Only `close` cancels, and Python 3.11 reports a cancelled handler as an error.
            with suppress(asyncio.CancelledError):
                await asyncio.gather(self._requests(reader, up[1], writer), self._answers(up[0], writer))
        finally:
            for one in both:
                one.close()
            self._writers -= both

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        server: asyncio.StreamWriter,
        client: asyncio.StreamWriter,  # noqa: ARG002  # used by a subclass
    ) -> None:
        with suppress(OSError):
            while piece := await reader.read(PIECE):
                server.write(piece)
                await server.drain()
        server.close()

    async def _answers(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(PIECE):
                if not self._losing:
                    client.write(piece)
                    await client.drain()
        client.close()


class StatementRelay(Relay):
    """Forwards bytes to Cassandra, and lets something happen directly before the n-th request that names a row."""

    def __init__(self, server: str) -> None:
        self._awaited: dict[str, tuple[int, Callable[[], object]]] = {}
        super().__init__(server)

    def before_request(self, name: str, nth: int, action: Callable[[], object]) -> None:
        """Call `action` once, in a thread, when the n-th request from now on has `name` in it.

        The request waits for it, at most HELD_UP_S.
        """
        self._loop.call_soon_threadsafe(self._awaited.__setitem__, name, (nth, action))

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        server: asyncio.StreamWriter,
        client: asyncio.StreamWriter,  # noqa: ARG002
    ) -> None:
        with suppress(OSError):
            while piece := await reader.read(PIECE):
                if due := self._due(piece):
                    await asyncio.wait([self._loop.run_in_executor(None, a) for a in due], timeout=HELD_UP_S)
                server.write(piece)
                await server.drain()
        server.close()

    def _due(self, piece: bytes) -> list[Callable[[], object]]:
        """What has to happen before these bytes are forwarded."""
        due = []
        for name, (nth, action) in list(self._awaited.items()):
            if name.encode() in piece:
                self._awaited[name] = (nth - 1, action)
                if nth == 1:
                    due.append(self._awaited.pop(name)[1])
        return due


class Cut(StrEnum):
    """When a connection is cut, relative to its commit. The client cannot tell the three apart."""

    BEFORE = "before the commit arrives"
    DURING = "while the commit is carried out"
    AFTER = "after the commit, before its answer"


class CommitRelay(Relay):
    """Forwards bytes to PostgreSQL or pgbouncer, and can cut connections during a commit."""

    def __init__(self, server: str) -> None:
        self._rng: Random | None = None
        self._share = 0.0
        self._unanswered: set[asyncio.StreamWriter] = set()
        self.cuts = Counter[Cut]()
        """Number of cut connections by moment."""
        super().__init__(server)

    @contextmanager
    def commits_cut(self, rng: Random, share: float) -> Iterator[None]:
        """Cut the connections of this share of the commits, each at a random moment of `Cut`."""
        self._share, self._rng = share, rng
        try:
            yield
        finally:
            self._rng = None

    async def _requests(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        sent = Statements()
        with suppress(OSError):
            while piece := await reader.read(PIECE):
                cut = self._drawn() if sent.commits(piece) else None
                if cut is Cut.AFTER:
                    self._unanswered.add(client)
                if cut is not Cut.BEFORE:
                    server.write(piece)
                    await server.drain()
                if cut in (Cut.BEFORE, Cut.DURING):
                    client.close()
                    break
        server.close()

    async def _answers(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(PIECE):
                if client in self._unanswered:
                    break
                client.write(piece)
                await client.drain()
        self._unanswered.discard(client)
        client.close()

    def _drawn(self) -> Cut | None:
        rng = self._rng
        if rng is None or rng.random() >= self._share:
            return None
        cut = rng.choice(list(Cut))
        self.cuts[cut] += 1
        return cut


class Statements:
    """Parses what one client sends in PostgreSQL's protocol 3 without TLS, split into pieces at any byte."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._started = False

    def commits(self, piece: bytes) -> bool:
        """True if a COMMIT ends in this piece."""
        self._rest += piece
        found = False
        while (message := self._next()) is not None:
            found = found or _is_commit(message)
        return found

    def _next(self) -> bytes | None:
        """The next complete message: type, four bytes of length, body; b"" for one of the start-up, None if incomplete."""
        kind = 1 if self._started else 0
        length = kind + int.from_bytes(self._rest[kind : kind + 4])
        if len(self._rest) < max(kind + 4, length):
            return None
        message = bytes(self._rest[:length])
        del self._rest[:length]
        if self._started:
            return message
        # A request for TLS may come first; it does not have version 3.
        self._started = int.from_bytes(message[4:6]) == 3
        return b""


def _is_commit(message: bytes) -> bool:
    """True for a Query or Parse message whose statement is COMMIT."""
    body = message[5:].split(b"\0")
    statement = {b"Q": body[:1], b"P": body[1:2]}.get(message[:1], [])
    return b"".join(statement).strip(b" ;\n").upper() == b"COMMIT"


class SearchRelay:
    """Forwards requests to Elasticsearch, and can reject items of a bulk as a full queue does."""

    def __init__(self, url: str) -> None:
        self._rejects: Random | None = None
        self.rejected = 0
        """Number of items that were not forwarded."""
        self._client = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False)
        app = FastAPI(openapi_url=None, lifespan=self._living)
        methods = ["GET", "HEAD", "POST", "PUT", "DELETE"]
        app.add_api_route("/{path:path}", self._answer, methods=methods, response_model=None)
        config = uvicorn.Config(app, host=HOST, port=0, log_level="error", ws="none", loop="asyncio")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="search relay", daemon=True)
        self._thread.start()
        await_condition(lambda: self._server.started, timeout_s=20, what="the relay")
        self.address = f"http://{HOST}:{self._server.servers[0].sockets[0].getsockname()[1]}"

    @contextmanager
    def items_rejected(self, rng: Random) -> Iterator[None]:
        """Reject half of the items of each bulk, at random."""
        self._rejects = rng
        try:
            yield
        finally:
            self._rejects = None

    def close(self) -> None:
        """End the server."""
        self._server.should_exit = True
        self._thread.join(timeout=10)

    @asynccontextmanager
    async def _living(self, _: FastAPI) -> AsyncIterator[None]:
        async with self._client:
            yield

    async def _answer(self, request: Request, path: str) -> Response:
        body = await request.body()
        rejected: list[dict[str, Any] | None] = []
        if path.endswith("_bulk") and self._rejects:
            rejected, body = _rejections(body, self._rejects)
            self.rejected += sum(r is not None for r in rejected)
        if rejected and not body:
            answer = httpx.Response(200, json={"took": 0, "errors": True, "items": []})
        else:
            answer = await self._forwarded(request, path, body)
        content = _with_rejections(answer.content, rejected) if rejected else answer.content
        kept = ("content-type", "x-elastic-product", "warning")
        headers = {k: v for k, v in answer.headers.items() if k in kept}
        if rejected:
            headers |= {"content-type": "application/json", "x-elastic-product": "Elasticsearch"}
        return Response(content, answer.status_code, headers)

    async def _forwarded(self, request: Request, path: str, body: bytes) -> httpx.Response:
        headers = {k: v for k, v in request.headers.items() if k in ("content-type", "accept")}
        try:
            return await self._client.request(
                request.method, f"/{path}", params=request.query_params, content=body, headers=headers
            )
        except httpx.HTTPError:
            return httpx.Response(502, json={"error": "Elasticsearch does not answer the relay"})


def _rejections(body: bytes, rng: Random) -> tuple[list[dict[str, Any] | None], bytes]:
    """For each operation of a bulk its rejection, or None if it is forwarded; and the bulk to forward."""
    lines = body.splitlines()
    rejected: list[dict[str, Any] | None] = []
    kept: list[bytes] = []
    for head, source in zip(lines[::2], lines[1::2], strict=True):
        ((action, of),) = json.loads(head).items()
        if rng.random() < 0.5:
            error = {"type": "es_rejected_execution_exception", "reason": "rejected execution: queue is full"}
            rejected.append({action: {"_id": of["_id"], "status": 429, "error": error}})
        else:
            rejected.append(None)
            kept += (head, source)
    return rejected, b"".join(line + b"\n" for line in kept)


def _with_rejections(content: bytes, rejected: Sequence[dict[str, Any] | None]) -> bytes:
    """The answer to the forwarded part of a bulk, with the rejections inserted in order."""
    answer = json.loads(content)
    done = iter(answer["items"])
    answer["items"] = [r or next(done) for r in rejected]
    answer["errors"] = True
    return json.dumps(answer).encode()
