"""A stand-in for the streaming job that this one replaces: it does what that one does, its known faults included.

It asks the LMS once for the batches that a user created and once for those they mentor, without a limit, so it gets 30.
It writes into rows what it makes of the answer, whatever the rows hold, and mentors as the index has them. Like Flink it
assigns its partitions, so its consumer group has no members.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import httpx
from confluent_kafka import Consumer, TopicPartition

from local.platform.standins import BATCH_SEARCH_PATH, USER_READ_PATH
from local.platform.world import LIVE, Platform

POLL_SECONDS: Final = 0.2
WAIT_SECONDS: Final = 30.0


class OldJob:
    """The job over one topic, in a thread; as a context manager it starts and stops."""

    def __init__(self, platform: Platform, *, kafka: str, lms: str, userorg: str) -> None:
        """`kafka` is host:port; the two services are URLs."""
        self.group = f"{platform.env}-user-ownership-transfer-group"
        self.carried_out: list[str] = []
        """Mids, in the order in which it took them."""
        self._platform = platform
        self._lms, self._userorg = lms, userorg
        self._consumer = Consumer(
            {
                "bootstrap.servers": kafka,
                "group.id": self.group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="old-job", daemon=True)

    def __enter__(self) -> Self:
        """Assign the topic's partitions where the group stands, and begin."""
        topic = self._platform.input_topic
        partitions = self._consumer.list_topics(topic, timeout=WAIT_SECONDS).topics[topic].partitions
        self._consumer.assign([TopicPartition(topic, p) for p in partitions])
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop after the message under way."""
        self._ended.set()
        self._thread.join(WAIT_SECONDS)
        self._consumer.close()

    def _run(self) -> None:
        with httpx.Client(timeout=WAIT_SECONDS) as http:
            while not self._ended.is_set():
                message = self._consumer.poll(POLL_SECONDS)
                if message is None or message.error():
                    continue
                event = json.loads(message.value() or b"")
                self._transfer(http, event["edata"])
                self.carried_out.append(event["mid"])
                self._consumer.commit(message=message, asynchronous=False)

    def _transfer(self, http: httpx.Client, edata: Mapping[str, Any]) -> None:
        source, target = edata["fromUserProfile"]["userId"], edata["toUserProfile"]["userId"]
        if all(self._belongs(http, user, edata["organisationId"]) for user in (source, target)):
            for batch in self._found(http, "createdBy", source):
                self._write(batch, createdBy=target)
            for batch in self._found(http, "mentors", source):
                mentors = list(batch["mentors"])
                mentors[mentors.index(source)] = target  # the first one: of a repeat a copy stays
                self._write(batch, mentors=mentors)

    def _belongs(self, http: httpx.Client, user: str, organisation: str) -> bool:
        answer = http.get(f"{self._userorg}{USER_READ_PATH}{user}", params={"fields": "rootOrgId"})
        return answer.is_success and answer.json()["result"]["response"]["rootOrgId"] == organisation

    def _found(self, http: httpx.Client, field: str, user: str) -> list[dict[str, Any]]:
        wanted = {"request": {"filters": {field: [user], "status": [*LIVE]}}}
        answer = http.post(f"{self._lms}{BATCH_SEARCH_PATH}", json=wanted)
        answer.raise_for_status()
        content: list[dict[str, Any]] = answer.json()["result"]["response"]["content"]
        return content

    def _write(self, batch: Mapping[str, Any], **fields: Any) -> None:
        columns = {name.lower(): value for name, value in fields.items()}
        self._platform.update_row(batch["courseId"], batch["batchId"], **columns)
        self._platform.put_document(batch["batchId"], **{**batch, **fields})
