"""A TCP relay that puts both stores MS milliseconds away: `python -m benchmarks.relay MS PORT=HOST:PORT …`.

MS is the whole round trip, as a ping would show it. A request passes at once, and every byte of its answer is held
back for MS: a client cannot tell on which way the time passes. Bytes are delayed, not throttled: any number of
answers may be under way. A connect is not delayed; over a real network it takes one round trip more.

Cassandra announces its own address, which is not the relay's. The driver does not dial it: it keeps the address that
it was given for the node it is connected to, and there is no other node.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Self
from urllib.parse import urlsplit

from local.paths import REPOSITORY
from local.servers import airflow
from local.servers.ports import HOST, accepts, host_and_port
from local.servers.processes import Server, child_environment
from local.stack import Stack

NAME = "relay"


class Relay:
    """A running relay before both stores of a stack, which ends with the stack."""

    def __init__(self, cassandra: str, elasticsearch: str, round_trip_ms: float) -> None:
        self.cassandra = cassandra
        self.elasticsearch = elasticsearch
        self.round_trip_ms = round_trip_ms

    @classmethod
    def started(cls, stack: Stack, round_trip_ms: float) -> Self:
        """Start it as a process of the stack. Raises NotReadyError."""
        layout, known = stack.layout, stack.addresses
        ports = layout.port("relay-cassandra"), layout.port("relay-elasticsearch")
        behind = known.cassandra, urlsplit(known.elasticsearch).netloc
        ways = (f"{port}={server}" for port, server in zip(ports, behind, strict=True))
        server = Server(
            name=NAME,
            command=(sys.executable, "-m", "benchmarks.relay", str(round_trip_ms), *ways),
            directory=layout.data(NAME),
            log_file=layout.log(NAME),
            pid_file=layout.pid(NAME),
            address=f"{HOST}:{ports[0]}",
            answers=lambda: all(map(accepts, ports)),
            environment=child_environment(PYTHONPATH=str(REPOSITORY)),
            ports=ports,
        )
        stack.servers[NAME] = server
        server.start()
        server.wait_ready()
        return cls(f"{HOST}:{ports[0]}", f"http://{HOST}:{ports[1]}", round_trip_ms)

    @contextmanager
    def between(self, stack: Stack) -> Iterator[None]:
        """Lead the job's Connections through the relay meanwhile; no run may be active."""
        _connect(stack, self.cassandra, self.elasticsearch)
        try:
            yield
        finally:
            _connect(stack, stack.addresses.cassandra, stack.addresses.elasticsearch)


def _connect(stack: Stack, cassandra: str, elasticsearch: str) -> None:
    known = stack.addresses
    connections = airflow.connections(
        kafka=known.kafka,
        cassandra=cassandra,
        elasticsearch=elasticsearch,
        ledger=known.ledger,
        lms=known.lms,
        userorg=known.userorg,
    )
    airflow.store(known.airflow, known.airflow_password, connections)


class _Requests(asyncio.Protocol):
    """A client's connection. What it sends passes at once."""

    def __init__(self, host: str, port: int, delay_s: float) -> None:
        self._host, self._port, self._delay_s = host, port, delay_s
        self._client: Any = None
        self._server: asyncio.WriteTransport | None = None
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._client = transport
        self._client.pause_reading()
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._server, _ = await loop.create_connection(
                lambda: _Answers(self._client, self._delay_s), self._host, self._port
            )
        except OSError:
            self._client.abort()
        else:
            self._client.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._server:
            self._server.write(data)

    def connection_lost(self, _: Exception | None) -> None:
        if self._server:
            self._server.close()


class _Answers(asyncio.Protocol):
    """The connection to the server. What it sends passes after the delay, in its order."""

    def __init__(self, client: asyncio.WriteTransport, delay_s: float) -> None:
        self._client, self._delay_s = client, delay_s
        self._held: deque[tuple[float, bytes]] = deque()
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._held.append((self._loop.time() + self._delay_s, data))
        if len(self._held) == 1:
            self._loop.call_at(self._held[0][0], self._pass)

    def _pass(self) -> None:
        # A timer may fire a tick of the clock early, so its own piece passes in any case.
        self._client.write(self._held.popleft()[1])
        now = self._loop.time()
        while self._held and self._held[0][0] <= now:
            self._client.write(self._held.popleft()[1])
        if self._held:
            self._loop.call_at(self._held[0][0], self._pass)

    def connection_lost(self, _: Exception | None) -> None:
        self._loop.call_later(self._delay_s, self._client.close)


async def serve(ways: Mapping[int, str], delay_s: float) -> list[asyncio.Server]:
    """Listen on each port for the server (host:port) behind it, until the returned listeners are closed."""
    loop = asyncio.get_running_loop()
    return [
        await loop.create_server(partial(_Requests, *host_and_port(server), delay_s), HOST, port)
        for port, server in ways.items()
    ]


async def _serve_for_ever(ways: Mapping[int, str], delay_s: float) -> None:
    listening = await serve(ways, delay_s)
    await asyncio.gather(*(server.serve_forever() for server in listening))


def main() -> None:
    """Relay until the process is ended."""
    round_trip_ms, *ways = sys.argv[1:]
    pairs = (way.split("=") for way in ways)
    # `select` waits in microseconds; `epoll` would round each wait up to a whole millisecond.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(
            _serve_for_ever({int(port): server for port, server in pairs}, float(round_trip_ms) / 1000)
        )


if __name__ == "__main__":
    main()
