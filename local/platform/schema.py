"""The platform's own schema on local servers: keyspace and table, the two indexes, the topics.

Names, columns and mappings are the platform's (reference: Sunbird's `lms-service` and `userorg-service`);
replication is cut down to what the local nodes can hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import stamina
from cassandra import ConsistencyLevel
from cassandra.cluster import (
    EXEC_PROFILE_DEFAULT,
    Cluster,
    ExecutionProfile,
    Session,
)
from cassandra.policies import ConstantReconnectionPolicy, RoundRobinPolicy
from cassandra.query import dict_factory
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from elastic_transport import HttpHeaders, Urllib3HttpNode
from elastic_transport.client_utils import DEFAULT, DefaultType
from elasticsearch import Elasticsearch

TIMEOUT_SECONDS: Final = 30.0
_VENDOR_TYPE: Final = re.compile(r"application/vnd\.elasticsearch\+([a-z-]+);\s*compatible-with=\d+")

KEYSPACE: Final = "sunbird_courses"
TABLE: Final = "course_batch"
BATCH_INDEX: Final = "course-batch"
USER_INDEX: Final = "user"
COURSE_INDEX: Final = "compositesearch"
"""Of the content search."""

COLUMNS: Final[Mapping[str, str]] = {
    "courseid": "text",
    "batchid": "text",
    "cert_templates": "map<text, frozen<map<text, text>>>",
    "createdby": "text",
    "createddate": "text",
    "createdfor": "list<text>",
    "description": "text",
    "enddate": "text",
    "enrollmentenddate": "text",
    "enrollmenttype": "text",
    "mentors": "list<text>",
    "name": "text",
    "startdate": "text",
    "status": "int",
    "updateddate": "text",
    # Of newer installations: the same dates as timestamps.
    "created_date": "timestamp",
    "end_date": "timestamp",
    "enrollment_enddate": "timestamp",
    "start_date": "timestamp",
    "updated_date": "timestamp",
}

_BATCH_TEXTS: Final = (
    "batchId",
    "courseId",
    "id",
    "identifier",
    "name",
    "description",
    "createdBy",
    "createdDate",
    "createdFor",
    "mentors",
    "enrollmentType",
    "startDate",
    "endDate",
    "enrollmentEndDate",
    "updatedDate",
)
_USER_TEXTS: Final = ("identifier", "id", "userId", "rootOrgId", "userName", "firstName", "lastName")
_COURSE_TEXTS: Final = ("identifier", "name", "channel", "primaryCategory", "status")


def input_topic(env: str) -> str:
    """The topic on which the platform announces transfers."""
    return f"{env}.user.ownership.transfer"


def failed_topic(env: str) -> str:
    """The dead-letter topic of the transfer job."""
    return f"{env}.user.ownership.transfer.failed"


@dataclass(frozen=True)
class Copies:
    """On how many nodes each row, document and message is."""

    rows: int = 1
    documents: int = 1
    messages: int = 1


ONE_COPY = Copies()


def create_platform(
    copies: Copies = ONE_COPY, /, *, cassandra: str, elasticsearch: str, kafka: str, env: str = "dev"
) -> None:
    """Create the platform's table, indexes and topics where they are missing; existing ones are left unchanged.

    `cassandra` and `kafka` are `host:port`, `elasticsearch` is a URL, for several nodes as in `local.stack.Addresses`.
    Raises the client libraries' errors when a server does not answer within 30 seconds or rejects the request.
    """
    cluster = connect_cassandra(cassandra)
    try:
        _create_table(cluster.connect(), copies.rows)
    finally:
        cluster.shutdown()
    with connect_elasticsearch(elasticsearch) as client:
        create_batch_index(client, BATCH_INDEX, copies=copies.documents)
        _create_index(client, USER_INDEX, _USER_TEXTS, copies=copies.documents)
        _create_index(client, COURSE_INDEX, _COURSE_TEXTS, copies=copies.documents)
    _create_topics(kafka, env, copies.messages)


def connect_cassandra(address: str) -> Cluster:
    """A driver for the nodes at `address` (`host:port` or `host,host:port`); rows are dictionaries; connects lazily."""
    hosts, _, port = address.rpartition(":")
    profile = ExecutionProfile(
        load_balancing_policy=RoundRobinPolicy(),
        consistency_level=ConsistencyLevel.QUORUM,
        request_timeout=TIMEOUT_SECONDS,
        row_factory=dict_factory,
    )
    return Cluster(
        hosts.split(","),
        port=int(port),
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        protocol_version=4,  # which 3.11 to 5 speak
        connect_timeout=TIMEOUT_SECONDS,
        control_connection_timeout=TIMEOUT_SECONDS,
        # The driver would look again ever later, up to minutes: longer than the job needs to be done.
        reconnection_policy=ConstantReconnectionPolicy(0.5, max_attempts=None),
    )


class PlainNode(Urllib3HttpNode):
    """Sends plain media types, and gives answers the product header: 7.10 and OpenSearch know neither mark of the client."""

    def perform_request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: HttpHeaders | None = None,
        request_timeout: DefaultType | float | None = DEFAULT,
    ) -> Any:  # the parent's type is not public
        """As the parent's."""
        plain = HttpHeaders(
            {name: _VENDOR_TYPE.sub(r"application/\1", value) for name, value in (headers or {}).items()}
        )
        answer = super().perform_request(method, target, body, plain, request_timeout)
        answer.meta.headers["X-Elastic-Product"] = "Elasticsearch"
        return answer


def connect_elasticsearch(url: str) -> Elasticsearch:
    """A client for the server at `url` (`http://host:port`, or with several hosts `http://host,host:port`).

    It may be Elasticsearch from 7.10 on, or OpenSearch.
    """
    scheme, _, rest = url.partition("://")
    hosts, _, port = rest.rpartition(":")
    urls = [f"{scheme}://{host}:{port}" for host in hosts.split(",")]
    return Elasticsearch(
        urls, node_class=PlainNode, request_timeout=TIMEOUT_SECONDS, dead_node_backoff_factor=30
    )


def _create_table(session: Session, copies: int) -> None:
    session.execute(
        f"CREATE KEYSPACE IF NOT EXISTS {KEYSPACE} "
        f"WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': {copies}}}"
    )
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    session.execute(
        f"CREATE TABLE IF NOT EXISTS {KEYSPACE}.{TABLE} ({columns}, PRIMARY KEY (courseid, batchid))"
    )


def create_batch_index(client: Elasticsearch, name: str, *, shards: int = 1, copies: int = 1) -> None:
    """Create an index of course batches, unless it exists."""
    _create_index(client, name, _BATCH_TEXTS, shards, copies=copies)


def _create_index(
    client: Elasticsearch, name: str, texts: tuple[str, ...], shards: int = 1, *, copies: int
) -> None:
    if client.indices.exists(index=name):
        return
    # The platform's `.raw` is a text field with the keyword tokenizer and a lower-casing filter. That
    # tokenizer is not in an embedded server; a keyword with a lower-casing normalizer matches the same.
    text = {"type": "text", "fields": {"raw": {"type": "keyword", "normalizer": "lower"}}}
    client.indices.create(
        index=name,
        settings={
            "number_of_shards": shards,  # production has 5; here they would only cost memory and start-up time
            "number_of_replicas": copies - 1,
            "analysis": {"normalizer": {"lower": {"type": "custom", "filter": ["lowercase"]}}},
        },
        mappings={
            "dynamic": False,
            "properties": {"status": {"type": "long"}, **dict.fromkeys(texts, text)},
        },
        wait_for_active_shards="all",
    )


def _create_topics(kafka: str, env: str, copies: int) -> None:
    # 2 MiB on the input, so that a message too big for the job can be put there: the broker's own limit
    # ends a few bytes before a payload of 1 MiB. Failed messages carry their original and a reason.
    topics = [
        NewTopic(input_topic(env), 2, copies, config={"max.message.bytes": str(2 << 20)}),
        NewTopic(failed_topic(env), 1, copies, config={"max.message.bytes": str(4 << 20)}),
    ]
    admin = AdminClient({"bootstrap.servers": kafka, "socket.timeout.ms": 10_000})
    for created in admin.create_topics(topics, request_timeout=TIMEOUT_SECONDS).values():
        try:
            created.result(timeout=TIMEOUT_SECONDS)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
    # The broker answers a creation before it shows the topic to others.
    for attempt in stamina.retry_context(on=KeyError, attempts=None, timeout=TIMEOUT_SECONDS, wait_max=0.5):
        with attempt:
            known = admin.list_topics(timeout=TIMEOUT_SECONDS).topics
            for topic in topics:
                known[topic.topic]
