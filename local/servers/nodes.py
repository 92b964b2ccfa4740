"""Which node of a store a server is: most stores here have one, those of `make cluster` several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LOOPBACK: Final = "127.0.0"


@dataclass(frozen=True)
class Node:
    """One of the `of` nodes of a store, counted from 1. The nodes have one port, and an address each."""

    number: int = 1
    of: int = 1
    network: str = LOOPBACK
    """The first three numbers of its address."""

    @property
    def host(self) -> str:
        """Where it listens."""
        return f"{self.network}.{self.number}"

    @property
    def hosts(self) -> list[str]:
        """Where all nodes of the store listen."""
        return [each.host for each in nodes(self.of, self.network)]

    @property
    def alone(self) -> bool:
        """Whether it is the store's only node."""
        return self.of == 1

    def named(self, store: str) -> str:
        """The name of this node of `store`."""
        return store if self.alone else f"{store}-{self.number}"


def nodes(count: int, network: str = LOOPBACK) -> list[Node]:
    """All nodes of a store that has `count`."""
    return [Node(number, count, network) for number in range(1, count + 1)]


ONLY = Node()
"""The node of a store that has no other."""
