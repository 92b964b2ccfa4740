"""What goes wrong between the job and the broker, in the job's words; and bounds for calls that may not return."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

import stamina
from confluent_kafka import KafkaError, KafkaException

from ownership.domain.errors import SettingsError, Unavailable

T = TypeVar("T")

PART = "Kafka"
SECONDS = 10.0
"""Bound of one call to the broker."""

_UNKNOWN = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)
_DENIED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
)
_UNREACHED = (KafkaError._SSL, KafkaError._RESOLVE, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)
_SAYS_NOTHING = (
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._FATAL,
)
"""The client gave up after its time-out. The reason is among its `ClientErrors`."""
_PASSING = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError._DESTROY_BROKER,
)
"""A coordinator is being elected, as on a new broker; or the client just exchanged a bootstrap address for a broker."""
_ADVICE = "is 'bootstrap.servers' of Connection 'kafka_default' right? Are its security.protocol and ssl.*?"

ClientErrors = deque[KafkaError]
"""Errors of its connections that a client reports by callback; give the queue a bound."""


class KafkaErrors:
    """Translates the client's exceptions into the job's."""

    def __init__(self, topic: str, serve: Callable[[], None], client_errors: ClientErrors) -> None:
        self._topic = topic
        self._serve = serve
        self._client_errors = client_errors

    def __enter__(self) -> None:
        self._serve()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, KafkaException):
            return
        cause = error.args[0]
        if isinstance(cause, KafkaError) and cause.code() in (*_SAYS_NOTHING, *_UNKNOWN):
            self._serve()
            said = list(self._client_errors)
            self._client_errors.clear()  # none is reported twice
            # A client that is not let in any more knows no topic, either. One that lost a connection for a moment does.
            for codes in (_DENIED, _UNREACHED) if cause.code() in _SAYS_NOTHING else (_DENIED,):
                cause = next((e for e in said if e.code() in codes), cause)
                if cause.code() in codes:
                    break
        if isinstance(cause, KafkaError) and cause.code() in _UNKNOWN:
            raise no_topic(self._topic) from None
        if isinstance(cause, KafkaError) and cause.code() in _DENIED:
            raise SettingsError(
                f"Kafka refuses access to '{self._topic}': {cause.str()}. Check credentials and ACLs of "
                "Connection 'kafka_default'."
            ) from None
        if isinstance(cause, KafkaError) and cause.code() in _UNREACHED:
            raise Unavailable(PART, f"{cause.str()}; {_ADVICE}") from None
        raise Unavailable(PART, cause.str() if isinstance(cause, KafkaError) else error) from None


def patiently(call: Callable[[], T]) -> T:
    """The result of a call to the broker, which is tried again while it fails for a reason that passes by itself."""
    caller = stamina.RetryingCaller(attempts=10, wait_initial=0.2, wait_max=2.0, timeout=SECONDS)
    return caller.on(_passes)(call)


def _passes(error: Exception) -> bool:
    cause = error.args[0] if isinstance(error, KafkaException) else None
    return isinstance(cause, KafkaError) and cause.code() in _PASSING


@contextmanager
def admin_errors() -> Iterator[None]:
    """Translate what goes wrong while a result of an admin client is waited for.

    :raises Unavailable: if the broker does not answer, or refuses.
    """
    try:
        yield
    except KafkaException as e:
        cause = e.args[0]
        if cause.code() in (*_SAYS_NOTHING, *_UNREACHED):  # the client's own time-out may be the first to end
            raise Unavailable(PART, f"{cause.str()}; {_ADVICE}") from None
        raise Unavailable(PART, cause.str()) from None
    except TimeoutError:
        raise Unavailable(PART, f"no answer within {SECONDS:.0f} s; {_ADVICE}") from None


def no_topic(name: str) -> SettingsError:
    """What a run says of a topic that the broker does not have."""
    return SettingsError(
        f"Kafka has no topic '{name}': create it, or set 'env', 'kafka.input.topic' or 'kafka.failed.topic'."
    )


def within(seconds: float, what: str, call: Callable[[], T]) -> T:
    """The result of a call of the client that may never return.

    :raises Unavailable: if it takes longer; its thread is left behind, and does not keep the process.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as e:  # noqa: BLE001  # it is the caller's
            future.set_exception(e)

    threading.Thread(target=run, name=f"Kafka: {what}", daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError:
        raise Unavailable(PART, f"no answer to {what} within {seconds:.0f} s") from None
