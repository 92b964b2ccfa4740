"""The platform and the sample world for docker-compose's `demo` profile.

    python -m deploy.docker.seed platform         keyspace, table, indexes, topics, where they are missing
    python -m deploy.docker.seed world            that, the sample world, and its events: once
    python -m deploy.docker.seed world --again    every batch back to where it began, and new events

It writes to the stores of docker-compose.yml, or to those of its options.
"""

# ruff: noqa: INP001, T201  # a script of the image; it talks to `docker compose logs`

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, TopicPartition

from local.demo.sample import SampleWorld, sample_world
from local.platform.schema import create_platform, input_topic
from local.platform.world import Platform, User, transfer_event

LOOK_SECONDS: Final = 30.0


def sample_events(world: SampleWorld) -> Iterator[Mapping[str, Any] | bytes]:
    """Transfers of the sample world: good ones, a chain, two that are skipped, two that are rejected."""

    def transfer(source: User | str, target: User | str, **fields: Any) -> dict[str, Any]:
        asked = {"actionBy": {"userId": administrator.user_id, "userName": administrator.user_name}}
        return transfer_event(source, target, world.organisation, edata=asked, **fields)

    administrator = world.administrator
    first, second, third = world.chain
    yield transfer(world.owner, world.owner_successor, reason="User Deletion")
    yield transfer(world.mentor, world.mentor_successor)
    yield b"this is not JSON"
    yield transfer(first, second)
    yield transfer(second, third)
    yield transfer(world.outsider, world.owner_successor)  # of another organisation
    yield transfer(world.unknown_user, world.owner_successor)
    yield b'{"eid": "BE_JOB_REQUEST"}'


def has_messages(kafka: str, topic: str) -> bool:
    """Whether anything was ever sent to `topic`. Raises KafkaException when the broker does not answer."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "sample-world", "enable.auto.commit": False})
    try:
        partitions = consumer.list_topics(topic, timeout=LOOK_SECONDS).topics[topic].partitions
        return any(
            consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=LOOK_SECONDS)[1] > 0
            for partition in partitions
        )
    finally:
        consumer.close()


def main(arguments: list[str] | None = None) -> None:
    """Run one of the commands above."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.docker.seed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("platform", "world"))
    parser.add_argument("--again", action="store_true", help="seed a world that is there already")
    parser.add_argument("--kafka", default="kafka:9092", metavar="HOST:PORT")
    parser.add_argument("--cassandra", default="cassandra:9042", metavar="HOST:PORT")
    parser.add_argument("--elasticsearch", default="http://elasticsearch:9200", metavar="URL")
    parser.add_argument("--env", default="dev", help="as in the job's settings")
    chosen = parser.parse_args(arguments)
    stores = {name: getattr(chosen, name) for name in ("kafka", "cassandra", "elasticsearch", "env")}

    create_platform(**stores)
    print("The platform's keyspace, table, indexes and topics are there.")
    if chosen.what == "platform":
        return
    # Every `docker compose up` comes by here; what the job has moved since must stay moved.
    if not chosen.again and has_messages(chosen.kafka, input_topic(chosen.env)):
        print(
            "So is the sample world: its events were sent before. `--again` puts it back and sends new ones."
        )
        return
    with Platform(**stores) as platform:
        world = sample_world(platform)
        # One partition: read in the order in which they were sent, so that a log tells the story in order.
        sent = platform.emit_all(sample_events(world), partition=0)
    print(f"{len(world.people)} people, {len(world.batches)} course batches; {len(sent)} events sent.")


if __name__ == "__main__":
    main()
