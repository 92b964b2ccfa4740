"""Kafka's clients from their Connection, with the guarantees that the inbox needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from typing import Any, TypeVar

from airflow.providers.apache.kafka.hooks.base import KafkaBaseHook
from airflow.sdk import Connection
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from ownership.domain.errors import SettingsError
from ownership.domain.settings import Settings
from ownership.edge.connections import KAFKA, Extra, connection
from ownership.platform.backlog import BacklogGauge
from ownership.platform.dead_letters import DeadLetters
from ownership.platform.kafka import Topic
from ownership.platform.kafka_errors import ClientErrors

T = TypeVar("T")


_CONSUMER_ONLY = frozenset(
    {
        "allow.auto.create.topics",
        "auto.commit.interval.ms",
        "auto.offset.reset",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.partition.eof",
        "fetch.max.bytes",
        "fetch.min.bytes",
        "fetch.wait.max.ms",
        "group.id",
        "group.instance.id",
        "group.protocol",
        "group.remote.assignor",
        "heartbeat.interval.ms",
        "isolation.level",
        "max.poll.interval.ms",
        "partition.assignment.strategy",
        "session.timeout.ms",
    }
)
"""What a connection may say that a producer or an admin client has no use for."""


class KafkaHook(KafkaBaseHook):
    """The clients of one connection."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(kafka_config_id=KAFKA)  # type: ignore[no-untyped-call]  # the provider's has no types
        self._settings = settings

    @cached_property
    def _connection(self) -> Connection:
        return connection(KAFKA)

    def get_connection(self, conn_id: str) -> Connection:  # type: ignore[override]  # noqa: ARG002  # of this hook alone
        """The hook's own connection, read once: the provider's methods ask for it again."""
        return self._connection

    @cached_property
    def config(self) -> dict[str, Any]:
        """The connection's configuration.

        :raises SettingsError: if it commits offsets by itself, has to do with transactions, or names no broker.
        """
        extra = Extra.of(KAFKA, self._connection).values
        for lossy in ("enable.auto.commit", "enable.auto.offset.store"):
            if str(extra.get(lossy, "false")).lower() in ("true", "1"):
                raise self._refused(
                    f"{lossy}=true, which loses events: offsets are committed only after the ledger has the message"
                )
        if str(extra.get("isolation.level", "")).strip().lower() == "read_uncommitted":
            raise self._refused(
                "isolation.level=read_uncommitted, which carries out transfers of transactions that their producer aborts"
            )
        if extra.get("transactional.id"):
            raise self._refused(
                "a transactional.id, with which dead letters could be sent in transactions only"
            )
        servers = extra.get("bootstrap.servers")
        if not isinstance(servers, str) or not servers:
            raise SettingsError(
                f"Connection '{KAFKA}' has no text as bootstrap.servers in its extra: write host:port, several "
                "separated by commas."
            )
        try:
            return dict(self._build_config())
        except ValueError as e:  # a callback that Airflow's configuration does not allow
            raise SettingsError(f"Connection '{KAFKA}': {e}") from None

    def topic(self) -> Topic:
        """The input topic, read for the consumer group of the settings."""
        return self._topic("read_committed")

    def backlog_gauge(self, topic: Topic, stack: ExitStack) -> BacklogGauge:
        """What measures the backlog of `topic`; `stack` closes its clients."""
        uncommitted = self._topic("read_uncommitted")
        stack.callback(uncommitted.close)
        return BacklogGauge(topic, uncommitted, self.admin())

    def admin(self) -> AdminClient:
        """What reads and changes topics themselves."""
        return _client(lambda: AdminClient(self._shared_config()))

    def dead_letters(self) -> DeadLetters:
        """The dead-letter topic, acknowledged by all in-sync replicas."""
        client_errors: ClientErrors = deque(maxlen=16)
        config = {
            "error_cb": client_errors.append,
            **self._shared_config(),
            "acks": "all",
            "enable.idempotence": True,
            "message.max.bytes": 10_000_000,
            "message.timeout.ms": 10_000,
        }
        return DeadLetters(_client(lambda: Producer(config)), self._settings.failed_topic, client_errors)

    def _topic(self, isolation: str) -> Topic:
        client_errors: ClientErrors = deque(maxlen=16)
        config = {
            "error_cb": client_errors.append,
            # Partitions are assigned, no client joins the group: this only bounds how long a commit waits for a
            # coordinator. The protocol by which members would join makes no difference, but the client refuses some
            # settings together with the newer one.
            "session.timeout.ms": 10_000,
            # A fetch at the end of a partition waits there, and every other request to that broker behind it. The
            # client's 500 ms held up the look that follows a read.
            "fetch.wait.max.ms": 50,
            **self.config,
            "group.protocol": "classic",
            "group.id": self._settings.group_id,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # Each read begins at an offset that the topic had a moment ago. Where retention was faster, the client would
            # go on behind the gap without a word; so it is an error, and the next look counts what is lost.
            "auto.offset.reset": "error",
            "allow.auto.create.topics": False,
            "enable.partition.eof": False,
            "isolation.level": isolation,
        }
        return Topic(_client(lambda: Consumer(config)), self._settings.input_topic, client_errors)

    def _shared_config(self) -> dict[str, Any]:
        return {k: v for k, v in self.config.items() if k not in _CONSUMER_ONLY}

    def _refused(self, what: str) -> SettingsError:
        return SettingsError(f"Connection '{KAFKA}' has {what}. Remove it from the connection's extra.")


def _client(make: Callable[[], T]) -> T:
    try:
        return make()
    except (KafkaException, ValueError, TypeError) as e:
        raise SettingsError(
            f"Connection '{KAFKA}' has a configuration that Kafka's client refuses: {e}"
        ) from None
