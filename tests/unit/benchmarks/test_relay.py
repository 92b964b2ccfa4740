"""The benchmark's relay: answers come later by the delay, complete, in order, and as many at once as there are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from benchmarks.relay import serve
from local.servers.ports import HOST

DELAY_S = 0.05


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Work = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[float | bytes]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(1 << 16):
        writer.write(piece)


async def goodbye(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"goodbye")


def relayed(work: Work, *, server: Handler = echo) -> float | bytes:
    """What `work` returns, over a connection through the relay to a server that does `server` for each."""
    ended: list[asyncio.Event] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(asyncio.Event())
        try:
            await server(reader, writer)
        finally:
            await closed(writer)
            ended[-1].set()

    async def run() -> float | bytes:
        behind = await asyncio.start_server(handle, HOST, 0)
        try:
            result = await connected(f"{HOST}:{behind.sockets[0].getsockname()[1]}", work)
            await asyncio.gather(*(end.wait() for end in ended))
        finally:
            behind.close()
        return result

    return asyncio.run(run())


async def connected(server: str, work: Work) -> float | bytes:
    """What `work` returns, over a connection to a relay before `server`."""
    (relay,) = await serve({0: server}, DELAY_S)
    reader, writer = await asyncio.open_connection(HOST, relay.sockets[0].getsockname()[1])
    try:
        return await work(reader, writer)
    finally:
        await closed(writer)
        relay.close()


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def all_of(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> bytes:
    with suppress(ConnectionError):
        return await reader.read()
    return b""


def test_an_answer_comes_later_by_the_delay():
    async def ping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
        begun = time.monotonic()
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"
        return time.monotonic() - begun

    assert relayed(ping) >= DELAY_S


def test_many_answers_are_under_way_at_once_and_keep_their_order():
    pieces = [b"%08d" % n * 1000 for n in range(200)]

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
        begun = time.monotonic()
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        assert await reader.readexactly(sum(map(len, pieces))) == b"".join(pieces)
        return time.monotonic() - begun

    assert relayed(pour) < DELAY_S * len(pieces) / 2


def test_what_a_server_sends_before_it_ends_the_connection_arrives():
    assert relayed(all_of, server=goodbye) == b"goodbye"


def test_a_server_that_is_down_ends_the_connection():
    nowhere = f"{HOST}:9"  # nothing listens on the discard port
    assert asyncio.run(connected(nowhere, all_of)) == b""
