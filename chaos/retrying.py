"""Retries of the platform's producers, the LMS and operators while a server is down."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import psycopg
from cassandra import DriverException
from cassandra.cluster import NoHostAvailable
from confluent_kafka import KafkaException
from elastic_transport import TransportError
from elasticsearch import ApiError
from elasticsearch.helpers import BulkIndexError
from httpx import HTTPError

MAX_RETRYING_S = 180.0
_BROKEN = (
    RuntimeError,
    DriverException,
    NoHostAvailable,
    TransportError,
    ApiError,
    BulkIndexError,
    OSError,
    HTTPError,
    KafkaException,
    psycopg.Error,
)

T = TypeVar("T")


def retried(action: Callable[[], T]) -> T:
    """Retry until it succeeds, at most for MAX_RETRYING_S seconds; an action may be carried out twice."""
    deadline = time.monotonic() + MAX_RETRYING_S
    while True:
        try:
            return action()
        except _BROKEN:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
