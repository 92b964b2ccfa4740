"""What the platform and its people do while something is broken: producers, the LMS and operators try again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import psycopg
from cassandra import DriverException
from cassandra.cluster import NoHostAvailable
from elastic_transport import TransportError
from elasticsearch import ApiError
from httpx import HTTPError

AGAIN_WITHIN_S = 180.0
_BROKEN = (
    RuntimeError,
    DriverException,
    NoHostAvailable,
    TransportError,
    ApiError,
    OSError,
    HTTPError,
    psycopg.Error,
)

T = TypeVar("T")


def again(action: Callable[[], T]) -> T:
    """Try until it works: what was half done is simply done twice."""
    deadline = time.monotonic() + AGAIN_WITHIN_S
    while True:
        try:
            return action()
        except _BROKEN:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
