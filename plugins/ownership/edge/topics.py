"""Creates the job's topics: ``python -m ownership.edge.topics`` in Airflow's environment.

It may be repeated at every deployment. A topic that is there keeps its partitions, and a retention that is longer; a
shorter one becomes the wanted one. Exit code 0: both topics are ready. 1: something is wrong; stderr has one sentence.
"""

from __future__ import annotations

import argparse
import sys
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.cimpl import NewTopic

from ownership.domain.arguments import above_zero, whole
from ownership.domain.clock import DAY_MS
from ownership.domain.errors import OwnershipError
from ownership.edge.connections import read_as_airflow_s_commands_do
from ownership.edge.hooks import load_settings
from ownership.edge.kafka_hook import KafkaHook
from ownership.platform.kafka_errors import SECONDS, admin_errors

RETENTION = "retention.ms"
FOR_EVER = -1
DEAD_LETTERS_DAYS = 30
BROKERS_DEFAULT = -1
MAX_PARTITIONS, MAX_REPLICATION = 100_000, 10_000
"""What Kafka's client takes."""


class WantedTopic(NamedTuple):
    """A topic as it is to be."""

    name: str
    partitions: int
    retention_ms: int


def create(admin: AdminClient, wanted: WantedTopic, replication: int) -> str:
    """Create a topic, or make its retention long enough. Returns what was done.

    :raises Unavailable: if the broker does not answer, or refuses.
    """
    config = {RETENTION: str(wanted.retention_ms)}
    new = NewTopic(wanted.name, wanted.partitions, replication, config=config)
    with admin_errors():
        try:
            admin.create_topics([new], request_timeout=SECONDS)[wanted.name].result(timeout=SECONDS)
        except KafkaException as e:
            if e.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            return _lengthened(admin, wanted)
    return f"{wanted.name}: created, keeps messages for {_days(wanted.retention_ms)}"


def _lengthened(admin: AdminClient, wanted: WantedTopic) -> str:
    topic = ConfigResource(ConfigResource.Type.TOPIC, wanted.name)
    config = admin.describe_configs([topic], request_timeout=SECONDS)[topic].result(timeout=SECONDS)
    kept_ms = int(config[RETENTION].value)
    if kept_ms == FOR_EVER or kept_ms >= wanted.retention_ms:
        return f"{wanted.name}: exists, keeps messages for {_days(kept_ms)}"
    longer = ConfigEntry(RETENTION, str(wanted.retention_ms), incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ConfigResource.Type.TOPIC, wanted.name, incremental_configs=[longer])
    admin.incremental_alter_configs([change], request_timeout=SECONDS)[change].result(timeout=SECONDS)
    return (
        f"{wanted.name}: existed, keeps messages for {_days(wanted.retention_ms)} instead of {_days(kept_ms)}"
    )


def _days(milliseconds: int) -> str:
    return "ever" if milliseconds == FOR_EVER else f"{milliseconds / DAY_MS:g} days"


def main(arguments: list[str] | None = None) -> int:
    """Create both topics of the settings. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ownership.edge.topics", description=__doc__)
    parser.add_argument(
        "--partitions",
        type=whole(MAX_PARTITIONS),
        default=2,
        help="of a new input topic; default: %(default)s",
    )
    parser.add_argument(
        "--replication",
        type=whole(MAX_REPLICATION),
        default=BROKERS_DEFAULT,
        help="of a new topic; default: the broker's own",
    )
    parser.add_argument(
        "--retention-days",
        type=above_zero,
        default=14,
        help="of the input topic, at least; default: %(default)s",
    )
    chosen = parser.parse_args(arguments)
    try:
        settings = load_settings()
        admin = KafkaHook(settings).admin()
        for wanted in (
            WantedTopic(settings.input_topic, chosen.partitions, int(chosen.retention_days * DAY_MS)),
            WantedTopic(settings.failed_topic, 1, DEAD_LETTERS_DAYS * DAY_MS),
        ):
            print(create(admin, wanted, chosen.replication))
    except OwnershipError as e:
        print(f"topics: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    read_as_airflow_s_commands_do()
    sys.exit(main())
