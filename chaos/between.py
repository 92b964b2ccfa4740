"""What stands between the job and two of its servers, to lose and to spoil answers: a TCP relay and an HTTP relay."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from random import Random
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response

from local.ports import HOST
from local.processes import await_condition

PIECE = 1 << 16
TIMEOUT_S = 60.0


class Relay:
    """Hands bytes on, between clients and the server at `host:port`; answers can be lost.

    A request whose answer is lost was carried out: that is how a write times out after it applied.
    """

    def __init__(self, server: str) -> None:
        host, _, port = server.rpartition(":")
        self._server = (host, int(port))
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
        """Requests arrive, answers do not; connections with gaps in their answers are closed at the end."""
        self._losing = True
        try:
            yield
        finally:
            self._losing = False
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
                await asyncio.gather(
                    self._pump(reader, up[1], answers=False), self._pump(up[0], writer, answers=True)
                )
        finally:
            for one in both:
                one.close()
            self._writers -= both

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        with suppress(OSError):
            while piece := await reader.read(PIECE):
                if not (answers and self._losing):
                    writer.write(piece)
                    await writer.drain()
        writer.close()


class SearchRelay:
    """Hands requests on to Elasticsearch; some items of a bulk can be rejected as a full queue rejects them."""

    def __init__(self, url: str) -> None:
        self._rejects: Random | None = None
        self.rejected = 0
        """Items that were kept from Elasticsearch."""
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
        """Half of the items of each bulk are rejected meanwhile."""
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
            rejected, body = _without_some(body, self._rejects)
            self.rejected += sum(r is not None for r in rejected)
        if rejected and not body:
            answer = httpx.Response(200, json={"took": 0, "errors": True, "items": []})
        else:
            answer = await self._handed_on(request, path, body)
        content = _with_rejections(answer.content, rejected) if rejected else answer.content
        kept = ("content-type", "x-elastic-product", "warning")
        headers = {k: v for k, v in answer.headers.items() if k in kept}
        if rejected:
            headers |= {"content-type": "application/json", "x-elastic-product": "Elasticsearch"}
        return Response(content, answer.status_code, headers)

    async def _handed_on(self, request: Request, path: str, body: bytes) -> httpx.Response:
        headers = {k: v for k, v in request.headers.items() if k in ("content-type", "accept")}
        try:
            return await self._client.request(
                request.method, f"/{path}", params=request.query_params, content=body, headers=headers
            )
        except httpx.HTTPError:
            return httpx.Response(502, json={"error": "Elasticsearch does not answer the relay"})


def _without_some(body: bytes, rng: Random) -> tuple[list[dict[str, Any] | None], bytes]:
    """For each operation of a bulk its rejection, None where it is handed on; and the rest of the bulk."""
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
    """The answer to the rest of a bulk, with the rejections in their places."""
    answer = json.loads(content)
    done = iter(answer["items"])
    answer["items"] = [r or next(done) for r in rejected]
    answer["errors"] = True
    return json.dumps(answer).encode()
