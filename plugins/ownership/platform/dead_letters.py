"""The dead-letter topic: copies of rejected messages."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException, Producer

from ownership.domain.errors import Unavailable
from ownership.platform.kafka import Message, Place
from ownership.platform.kafka_errors import PART, SECONDS, ClientErrors, KafkaErrors


class DeadLetters:
    """Copies of rejected messages, on the dead-letter topic."""

    def __init__(self, producer: Producer, name: str, client_errors: ClientErrors | None = None) -> None:
        """`client_errors` is what the producer's ``error_cb`` fills."""
        self._producer = producer
        self._client_errors = deque() if client_errors is None else client_errors
        self.name = name

    def _errors(self) -> KafkaErrors:
        return KafkaErrors(self.name, self._serve, self._client_errors)

    def _serve(self) -> None:
        """Let the client call back: it reports errors, and renews an OAUTHBEARER token, only while it is polled."""
        try:
            self._producer.poll(0)
        except KafkaException as e:  # what ends an idempotent producer for good is thrown, once
            self._client_errors.append(e.args[0])

    def send(self, message: Message, *, error_class: str, reason: str) -> Place:
        """Produce a copy of `message` and wait until all in-sync replicas have it.

        Headers: topic, partition, offset, error_class, error_message. A message that the topic
        refuses for its size is cut, and says so in the header ``truncated`` (its full length).
        Returns where the copy lies.
        """
        headers = {
            "topic": message.topic,
            "partition": str(message.partition),
            "offset": str(message.offset),
            "error_class": error_class,
            "error_message": reason[:1000],
        }
        done = self._produce(message.value, headers)
        if isinstance(done, KafkaError) and done.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            headers["truncated"] = str(len(message.value))
            done = self._produce(message.value[: 64 * 1024], headers)
        if isinstance(done, KafkaError):
            with self._errors():
                raise KafkaException(done)
        return done

    def _produce(self, value: bytes, headers: Mapping[str, str]) -> Place | KafkaError:
        outcome: list[Place | KafkaError] = []
        encoded: list[tuple[str, str | bytes | None]] = [
            (k, v.encode("utf-8", "replace")) for k, v in headers.items()
        ]
        with self._errors():
            try:
                self._producer.produce(
                    self.name,
                    value=value,
                    headers=encoded,
                    on_delivery=lambda error, m: outcome.append(
                        error or Place(m.partition() or 0, m.offset() or 0)
                    ),
                )
            except KafkaException as e:  # librdkafka refuses what is above its own limit at once
                return e.args[0]  # type: ignore[no-any-return]  # a KafkaError
            deadline = time.monotonic() + SECONDS
            while not outcome and time.monotonic() < deadline:
                # Not `flush`: it goes on to the next callback with an exception of the last one.
                self._producer.poll(0.5)
        if not outcome:
            raise Unavailable(PART, f"dead letter for '{self.name}' not acknowledged within {SECONDS:.0f} s")
        return outcome[0]
