"""The helpers put into the stores what the platform would have put there, and read it back."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from local.demo.sample import sample_world
from local.paths import REPOSITORY
from local.platform.schema import COLUMNS
from local.platform.world import COMPLETED, Batch, Offset, Owned, Platform, create_platform, transfer_event


@pytest.fixture(scope="module")
def addresses(stack: Any) -> dict[str, str]:
    return {name: getattr(stack.addresses, name) for name in ("cassandra", "elasticsearch", "kafka")}


@pytest.fixture(scope="module")
def platform(addresses: dict[str, str]) -> Iterator[Platform]:
    create_platform(**addresses)
    with Platform(**addresses) as opened:
        yield opened


@pytest.fixture
def user() -> str:
    return f"User-{uuid.uuid4()}"


def message_at(addresses: dict[str, str], where: Offset) -> Any:
    consumer = Consumer({"bootstrap.servers": addresses["kafka"], "group.id": str(uuid.uuid4())})
    try:
        consumer.assign([TopicPartition(where.topic, where.partition, where.offset)])
        message = consumer.poll(15)
        assert message is not None
        assert message.error() is None
        return message
    finally:
        consumer.close()


def test_the_platform_can_be_created_again(addresses: dict[str, str], platform: Platform, user: str) -> None:
    platform.add_batches([Batch("course", user, created_by=user)])
    create_platform(**addresses)
    assert platform.row("course", user)
    assert platform.document(user)


def test_a_batch_is_a_row_and_a_document(platform: Platform, user: str) -> None:
    batch = Batch(
        "course",
        user,
        created_by=user,
        mentors=["m1", "m2", "m1"],
        status=0,
        name="A name",
        description=f"by {user}",
        created_for=["org-1"],
        cert_templates={"t1": {"name": "A certificate"}},
    )
    platform.add_batches([batch])
    row = platform.row("course", user)
    assert row is not None
    assert row.keys() == COLUMNS.keys()
    assert row["createdby"] == user
    assert row["mentors"] == ["m1", "m2", "m1"]
    assert {key: dict(value) for key, value in row["cert_templates"].items()} == batch.cert_templates
    # Midnight in India; the driver's timestamps are UTC, without a zone.
    assert row["start_date"] == datetime(2026, 1, 4, 18, 30)  # noqa: DTZ001  # as the driver gives it
    assert platform.document(user) == batch.document()
    assert batch.document()["identifier"] == user


def test_stores_can_be_made_to_disagree(platform: Platform, user: str) -> None:
    platform.add_batches([Batch("course", user, created_by=user, mentors=None)])
    platform.update_row("course", user, createdby="x", mentors=[user])
    platform.put_document(user, mentors=[user, "y"])
    row, document = platform.row("course", user), platform.document(user)
    assert row is not None
    assert (row["createdby"], row["mentors"]) == ("x", [user])
    assert document is not None
    assert (document["createdBy"], document["mentors"]) == (user, [user, "y"])
    assert platform.owned(user) == Owned(0, 1, 1, 1)

    platform.delete_document(user)
    platform.delete_document(user)
    assert platform.document(user) is None
    assert platform.owned(user) == Owned(0, 1, 0, 0)
    platform.delete_row("course", user)
    assert platform.row("course", user) is None
    assert platform.owned(user).nothing
    with pytest.raises(ValueError, match="not columns"):
        platform.update_row("course", user, nonsense=1)


def test_one_store_can_be_left_out(platform: Platform, user: str) -> None:
    platform.add_batches([Batch("course", f"{user}-r", created_by=user)], documents=False)
    platform.add_batches([Batch("course", f"{user}-d", created_by=user, mentors=[user])], rows=False)
    assert platform.owned(user.upper()) == Owned(1, 0, 1, 1)


def test_owned_counts_live_batches_unless_asked(platform: Platform, user: str) -> None:
    platform.add_batches(
        [
            Batch(f"course-{user}", "one", created_by=user, mentors=[user, user]),
            Batch(f"course-{user}", "two", created_by=user, status=COMPLETED),
        ]
    )
    assert platform.owned(user) == Owned(1, 1, 1, 1)
    assert platform.owned(user, live_only=False) == Owned(2, 1, 2, 1)
    assert [row["batchid"] for row in platform.rows(f"course-{user}")] == ["one", "two"]


def test_an_event_has_the_shape_of_the_platforms_own() -> None:
    event = transfer_event("from-user", "to-user", "org-1")
    assert event["mid"].startswith(f"LP.{event['ets']}.")
    assert re.fullmatch(r"LP\.\d{13}\.[0-9a-f-]{36}", event["mid"])
    edata = event["edata"]
    assert (edata["fromUserProfile"]["userId"], edata["toUserProfile"]["userId"]) == ("from-user", "to-user")
    assert (edata["organisationId"], edata["assetInformation"]) == ("org-1", {})
    again = transfer_event("from-user", "to-user", "org-1")
    assert again["mid"] != event["mid"]
    assert again["ets"] > event["ets"]


def test_an_event_can_be_changed_anywhere() -> None:
    event = transfer_event(
        "a", "b", "org-1", ets=7, mid="m", reason="User Deletion", asset={"identifier": "do_1"},
        eid="OTHER", edata={"iteration": 2, "fromUserProfile": {"userId": "c"}},
    )  # fmt: skip
    assert (event["ets"], event["mid"], event["eid"]) == (7, "m", "OTHER")
    edata = event["edata"]
    assert (edata["context"], edata["iteration"]) == ("User Deletion", 2)
    assert edata["assetInformation"] == {"identifier": "do_1"}
    assert edata["fromUserProfile"]["userId"] == "c"
    assert edata["fromUserProfile"]["roles"]


def test_messages_are_where_emit_says(platform: Platform, addresses: dict[str, str], user: str) -> None:
    event = platform.event(user, "to", "org-1")
    where = platform.emit(event, partition=1, timestamp=1_767_225_600_000)
    assert (where.topic, where.partition) == ("dev.user.ownership.transfer", 1)
    message = message_at(addresses, where)
    assert json.loads(message.value()) == event
    assert message.key() is None
    assert message.timestamp()[1] == 1_767_225_600_000

    raw: list[Any] = [b"\xff\xfe not utf-8", b"", None, b"x" * (1 << 20), platform.event("a", "b", "org-1")]
    places = platform.emit_all(raw, partition=0)
    assert [place.offset for place in places] == list(range(places[0].offset, places[0].offset + 5))
    assert [len(message_at(addresses, place).value() or b"") for place in places[:4]] == [12, 0, 0, 1 << 20]


def test_the_sample_world_is_what_it_says_twice(platform: Platform) -> None:
    for _ in range(2):
        world = sample_world(platform)
        platform.update_row(
            world.batches[0].course_id, world.batches[0].batch_id, createdby=world.owner_successor.user_id
        )
        world = sample_world(platform)
        owned = platform.owned_by(person.user_id for person in world.people)
        assert owned[world.owner.user_id] == Owned(45, 0, 45, 0)
        assert owned[world.mentor.user_id] == Owned(0, 8, 0, 8)
        assert owned[world.owner_successor.user_id].nothing
        assert owned[world.mentor_successor.user_id] == Owned(0, 1, 0, 1)
        assert [owned[person.user_id].rows_created for person in world.chain] == [6, 2, 0]
        assert owned[world.administrator.user_id] == Owned(3, 0, 3, 0)
        assert owned[world.outsider.user_id] == Owned(2, 0, 2, 0)
        assert platform.owned(world.owner.user_id, live_only=False).rows_created == 49


def test_every_person_has_an_id_and_a_name_of_their_own(platform: Platform) -> None:
    people = sample_world(platform).people
    assert len({person.user_id for person in people}) == len({person.user_name for person in people}) == 9
    assert all(uuid.UUID(person.user_id) for person in people)


def test_the_helpers_need_nothing_of_the_job() -> None:
    for module in (REPOSITORY / "local").rglob("*.py"):
        assert "import ownership" not in module.read_text()
        assert "from ownership" not in module.read_text()
