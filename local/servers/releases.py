"""Which release of each server a stack runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

from local.servers import cassandra, kafka, search

KNOWN: Final[Mapping[str, Mapping[str, Any]]] = {
    "search": search.RELEASES,
    "rows": cassandra.RELEASES,
    "kafka": kafka.RELEASES,
}


@dataclass(frozen=True)
class Releases:
    """One release of each server, by the name that its variable takes; without a variable, these."""

    search: str = "elasticsearch717"  # SEARCH_SERVER
    rows: str = "cassandra5"  # ROWS_SERVER
    kafka: str = "kafka4"  # KAFKA_SERVER

    @classmethod
    def from_environment(cls) -> Self:
        """The releases that the environment asks for. Raises ValueError, which lists the known ones, for any other."""
        asked = {
            field.name: value
            for field in fields(cls)
            if (value := os.environ.get(f"{field.name.upper()}_SERVER"))
        }
        for name, value in asked.items():
            if value not in KNOWN[name]:
                raise ValueError(
                    f"{name.upper()}_SERVER={value} is not known here; set it to {' or '.join(KNOWN[name])}."
                )
        return cls(**asked)
