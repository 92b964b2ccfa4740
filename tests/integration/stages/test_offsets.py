"""Kafka forgets, the ledger does not: offsets that are lost or wrong, messages that the topic has deleted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from local.servers.processes import await_condition
from ownership.domain.errors import Unavailable
from ownership.platform.kafka import Message, Span
from tests.integration.stages.transfer_world import Faults, World

SECONDS = 30


class Broker:
    """What the broker's operator does, and what the broker tells of topic and group."""

    def __init__(self, world: World) -> None:
        self.topic = world.platform.input_topic
        self.group = world.job.settings.group_id
        self._bootstrap = world.kafka
        self._admin = AdminClient({"bootstrap.servers": world.kafka})
        self._consumer = Consumer({"bootstrap.servers": world.kafka, "group.id": self.group})

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def _each(self, offset: int = -1) -> list[TopicPartition]:
        return [TopicPartition(self.topic, p, offset) for p in range(2)]

    def committed(self) -> list[int | None]:
        """The group's offset in each partition; None where it has none."""
        found = self._consumer.committed(self._each(), timeout=SECONDS)
        return [at.offset if at.offset >= 0 else None for at in found]

    def ends(self) -> list[tuple[int, int]]:
        """The oldest offset of each partition and the one that the next message gets."""
        return [self._consumer.get_watermark_offsets(at, timeout=SECONDS) for at in self._each()]

    def highs(self) -> list[int]:
        """The offset that the next message of each partition gets."""
        return [high for _, high in self.ends()]

    def forget_the_group(self) -> None:
        """The group's offsets are gone."""
        self._admin.delete_consumer_groups([self.group])[self.group].result(SECONDS)
        assert self.committed() == [None, None]

    def delete_messages(self, before: int = OFFSET_END) -> None:
        """Retention takes what is on the first partition: all, or what lies before an offset."""
        at = TopicPartition(self.topic, 0, before)
        (deleted,) = self._admin.delete_records([at]).values()
        deleted.result(SECONDS)
        low, high = self.ends()[0]
        assert low == (high if before == OFFSET_END else before)

    def add_partition(self, *messages: bytes) -> None:
        """The topic has a third partition, with these messages; a producer that is there already does not know of it."""
        added = self._admin.create_partitions([NewPartitions(self.topic, 3)])[self.topic]
        added.result(SECONDS)
        producer = Producer({"bootstrap.servers": self._bootstrap})
        for message in messages:
            producer.produce(self.topic, message, partition=2)
        assert producer.flush(SECONDS) == 0

    def create_the_topic_again(self) -> None:
        """Another topic of the same name, without messages."""
        self._admin.delete_topics([self.topic])[self.topic].result(SECONDS)

        def created() -> bool:
            try:
                self._admin.create_topics([NewTopic(self.topic, 2, 1)])[self.topic].result(SECONDS)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # its deletion is under way
                    raise
                return False
            return True

        await_condition(created, timeout_s=SECONDS, what="the topic to be created again")
        await_condition(self._is_empty, timeout_s=SECONDS, what="the new topic to answer")

    def _is_empty(self) -> bool:
        try:
            return self.ends() == [(0, 0), (0, 0)]
        except KafkaException:
            return False


@pytest.fixture
def broker(own_world: World) -> Iterator[Broker]:
    broker = Broker(own_world)
    yield broker
    broker.close()


def everything(world: World) -> dict[str, Any]:
    """What a second move would change: the ledger, and each row and document with the time of its last write."""
    return {
        "events": world.execute("SELECT * FROM event ORDER BY id"),
        "rejected": world.execute("SELECT * FROM rejected_message ORDER BY mid"),
        "changes": [
            *world.execute("SELECT * FROM plan ORDER BY event_id, course_id, batch_id"),
            *world.execute("SELECT * FROM change ORDER BY event_id, course_id, batch_id, image"),
        ],
        "batches": world.platform.as_written(world.made),
        "dead letters": world.dead_letters(),
    }


# --- offsets


def lost(world: World, broker: Broker) -> None:
    broker.forget_the_group()


def beyond_the_end(world: World, broker: Broker) -> None:
    world.job.topic.commit([Span(p, 0, high + 40) for p, high in enumerate(broker.highs())])
    assert broker.committed() == [high + 40 for high in broker.highs()]


@pytest.mark.parametrize("harm", [lost, beyond_the_end])
def test_offsets_that_are_lost_or_beyond_the_end_begin_at_the_oldest_message_and_nothing_moves_twice(
    own_world: World, broker: Broker, harm: Callable[[World, Broker], None]
) -> None:
    world = own_world
    a, b, c = world.users("a", "b", "c")
    batches = [*world.batches(3, created_by=a, mentors=("x", a)), world.batch(created_by=b)]
    world.platform.emit_all([world.event(a, b), world.event(c, "nobody"), b"no json"], partition=0)
    world.platform.emit(world.event(b, c), partition=1)
    world.job.drain()
    assert world.creators(batches) == [c] * 4
    world.batch(created_by=a)  # A works on
    before = everything(world)

    harm(world, broker)
    again = world.run().pull()

    assert (again.pulled.received, again.pulled.known, again.pulled.rejected) == (0, 3, 0)
    assert (again.pulled.claimed, again.pulled.slices) == (0, ())
    assert everything(world) == before
    assert broker.committed() == broker.highs()
    assert world.run().pull().pulled.known == 0
    # What comes now is read once, as ever.
    later = world.transfer(a, c)
    assert world.whole_run().batches == {"moved": 1}
    assert len(world.trail(later)) == 1


def test_an_event_that_is_open_when_the_offsets_are_lost_is_carried_out_once(
    own_world: World, broker: Broker
) -> None:
    world = own_world
    a, b, c = world.users("a", "b", "c")
    batches = world.batches(3, created_by=a)
    first = world.transfer(a, b)
    died = world.run().pull().lookup().update()  # rows moved, nothing proven
    assert died.pulled.claimed == 1
    broker.forget_the_group()
    second = world.transfer(b, c)

    held = world.run().pull()

    assert (held.pulled.received, held.pulled.known, held.pulled.claimed) == (1, 1, 0)
    assert broker.committed() == broker.highs()
    world.expire(first)
    assert world.whole_run().events == {"completed": 2}
    assert world.creators(batches) == [c] * 3
    for mid, hop in ((first, (a, b)), (second, (b, c))):
        assert {
            name: [(before[0], after[0]) for before, after in steps]
            for name, steps in world.trail(mid).items()
        } == {batch.batch_id: [hop] for batch in batches}


def test_a_topic_that_was_created_again_is_read_from_its_oldest_message(
    own_world: World, broker: Broker
) -> None:
    world = own_world
    a, b, c, d = world.users("a", "b", "c", "d")
    batches = [world.batch(created_by=a), world.batch(created_by=c)]
    old, new = world.event(a, b), world.event(c, d)
    world.platform.emit_all([old] * 5, partition=0)
    world.whole_run()
    before = everything(world)

    broker.create_the_topic_again()
    beyond_the_end(world, broker)
    # The producer sends again what it sent before, at other places; and something new.
    world.platform.emit_all([new, old], partition=0)
    run = world.run().pull()

    assert (run.pulled.received, run.pulled.known, run.pulled.claimed) == (1, 1, 1)
    assert broker.committed() == broker.highs() == [2, 0]
    assert run.finish().events == {"completed": 1}
    assert world.creators(batches) == [b, d]
    moved_before = batches[0].batch_id
    assert everything(world)["batches"][moved_before] == before["batches"][moved_before]
    assert len(world.trail(old["mid"])) == len(world.trail(new["mid"])) == 1


def test_messages_that_an_offset_set_too_far_skips_are_taken_by_the_run_of_their_hour(
    own_world: World, broker: Broker
) -> None:
    world = own_world
    a, b, c, d = world.users("a", "b", "c", "d")
    batches = [world.batch(created_by=a), world.batch(created_by=c)]
    skipped = world.transfer(a, b)
    world.job.topic.commit([Span(p, 0, high) for p, high in enumerate(broker.highs())])
    world.transfer(c, d)
    assert world.whole_run().events == {"completed": 1}
    assert world.creators(batches) == [a, d]

    run = world.run().pull(window=world.window(), patient=False)

    assert (run.pulled.received, run.pulled.known, run.pulled.claimed) == (1, 1, 1)
    assert run.finish().events == {"completed": 1}
    assert world.state(skipped) == "completed"
    assert world.creators(batches) == [b, d]
    assert broker.committed() == broker.highs()


def test_an_offset_that_was_set_forward_is_named_and_not_followed(own_world: World, broker: Broker) -> None:
    world = own_world
    a, b, c = world.users("a", "b", "c")
    batches = [world.batch(created_by=a), world.batch(created_by=b)]
    world.platform.emit(world.event(a, "nobody"), partition=0)
    world.whole_run()
    world.platform.emit_all([world.event(a, c), world.event(b, c)], partition=0)
    world.job.topic.commit([Span(0, 0, 3)])

    run = world.run().pull()

    assert run.pulled.notes == {
        "partition 0": f"of '{broker.topic}': the consumer group stands at offset 3, the ledger at 1; an offset that "
        "was set forward is not followed, because it would skip messages"
    }
    assert (run.pulled.received, run.pulled.claimed) == (2, 2)
    assert run.finish().events == {"completed": 2}
    assert world.creators(batches) == [c, c]
    assert world.run().pull().pulled.notes == {}


def test_an_offset_that_was_set_back_is_followed_and_what_is_read_again_is_known(
    own_world: World, broker: Broker
) -> None:
    world = own_world
    a, b = world.users("a", "b")
    world.batch(created_by=a)
    world.platform.emit_all([world.event(a, b), world.event(b, "nobody"), b"no json"], partition=0)
    world.job.drain()
    before = everything(world)
    world.job.topic.commit([Span(0, 0, 1)])

    again = world.run().pull()

    assert (again.pulled.received, again.pulled.known, again.pulled.rejected, again.pulled.notes) == (
        0,
        1,
        0,
        {},
    )
    assert everything(world) == before
    assert broker.committed()[0] == 3
    assert world.job.inbox.arrivals.consumed(broker.topic)[0].next_offset == 3


@pytest.mark.parametrize("messages", [4, 3], ids=["grown further", "just as long"])
def test_a_topic_created_again_that_has_grown_past_the_ledgers_offset_is_recognised_by_its_message(
    own_world: World, broker: Broker, messages: int
) -> None:
    world = own_world
    a, b, c, d = world.users("a", "b", "c", "d")
    batches = [world.batch(created_by=a), world.batch(created_by=c)]
    world.platform.emit_all([world.event(a, b), b"bad before", world.event(b, "nobody")], partition=0)
    world.job.drain()

    broker.create_the_topic_again()
    new: list[dict[str, Any] | bytes] = [
        world.event(c, d),
        b"bad since",
        *(world.event(d, f"nobody{n}") for n in range(messages - 2)),
    ]
    world.platform.emit_all(new, partition=0)
    run = world.run().pull(window=world.window())

    assert "was created again after the ledger had read up to offset 3" in run.pulled.notes["partition 0"]
    assert (run.pulled.received, run.pulled.rejected) == (messages - 1, 1)
    run.finish()
    assert world.creators(batches) == [b, d]
    # At one place two messages lay, one after the other: each has a row and a dead letter.
    rows = world.execute("SELECT mid, body FROM rejected_message ORDER BY received_at")
    place = f"rejected:{broker.topic}:0:1"
    assert [bytes(r.body) for r in rows] == [b"bad before", b"bad since"]
    assert rows[0].mid == place
    assert rows[1].mid.startswith(f"{place}:")
    assert [value for _, value in world.dead_letters()] == [b"bad before", b"bad since"]
    assert world.job.inbox.arrivals.consumed(broker.topic)[0].next_offset == messages
    assert world.run().pull(window=world.window()).pulled.notes == {}


# --- messages that are gone


def outage(world: World, userorg: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    """User-Org answers 503; it is asked once, so that a run does not take long."""
    monkeypatch.setattr(world.job.parts.users._service, "_tries", 1)
    userorg.set("503")


def committed_as_usual(world: World, patch: pytest.MonkeyPatch) -> None:
    pass


def not_committed(world: World, patch: pytest.MonkeyPatch) -> None:
    """The process dies between the ledger's rows and the offsets."""
    commit = world.job.topic.commit

    def dies(spans: Sequence[Span]) -> None:
        if any(s.start < s.end for s in spans):
            raise Unavailable("test", "the process died here")
        commit(spans)

    patch.setattr(world.job.topic, "commit", dies)


@pytest.mark.parametrize("commits", [committed_as_usual, not_committed])
def test_accepted_events_are_completed_from_the_ledger_alone_when_retention_was_shorter_than_the_outage(
    own_world: World,
    broker: Broker,
    userorg: Faults,
    monkeypatch: pytest.MonkeyPatch,
    commits: Callable[[World, pytest.MonkeyPatch], None],
) -> None:
    world = own_world
    a, b, c = world.users("a", "b", "c")
    batches = [*world.batches(3, created_by=a, mentors=(a, "x")), world.batch(created_by=b)]
    outage(world, userorg, monkeypatch)
    events = [world.event(a, b), world.event(b, c)]
    mids = [e["mid"] for e in events]
    world.platform.emit_all(events, partition=0)
    with monkeypatch.context() as patch:
        commits(world, patch)
        try:
            failed = world.run().pull().lookup()
        except Unavailable:
            assert broker.committed() == [0, None]
            assert world.job.states(mids) == ["received", "received"]
        else:
            assert failed.errors
            assert failed.update().reindex().settle().failed == 2
    broker.delete_messages()
    # Still down when the messages are gone.
    down = world.run().pull(patient=False).lookup()
    assert (down.pulled.received, down.pulled.known, down.pulled.claimed) == (0, 0, 2)
    assert down.update().reindex().settle().failed == 2
    assert [world.row(x) for x in batches] == [(a, (a, "x"))] * 3 + [(b, ())]
    assert broker.committed() == broker.highs()

    userorg.clear()
    healed = world.run().pull(window=world.window(), patient=False)

    assert (healed.pulled.received, healed.pulled.known, healed.pulled.claimed) == (0, 0, 2)
    summary = healed.finish()
    assert (summary.events, summary.failed) == ({"completed": 2}, 0)
    assert {world.owners(x) for x in batches} == {(c, (c, "x")), (c, ())}
    assert [{len(steps) for steps in world.trail(mid).values()} for mid in mids] == [{1}, {1}]
    assert [len(world.trail(mid)) for mid in mids] == [3, 4]
    # The same hour once more has nothing to do but its second proof.
    moved = everything(world)
    again = world.run().pull(window=world.window(), patient=False)
    assert (again.pulled.received, again.pulled.follow_ups, again.pulled.claimed) == (0, 0, 0)
    assert all(world.read(mid).reproved_at for mid in mids)
    assert {k: v for k, v in everything(world).items() if k != "events"} == {
        k: v for k, v in moved.items() if k != "events"
    }


@pytest.mark.parametrize("stage", ["pull", "update"])
def test_events_of_a_run_that_died_are_completed_by_the_hours_run_although_their_messages_are_gone(
    own_world: World, broker: Broker, stage: str
) -> None:
    world = own_world
    a, b = world.users("a", "b")
    batches = world.batches(3, created_by=a)
    event = world.event(a, b)
    mid = event["mid"]
    world.platform.emit(event, partition=0)
    died = world.run().pull()
    if stage == "update":
        died.lookup().update()
    broker.delete_messages()
    world.expire(mid)

    run = world.run().pull(window=world.window(), patient=False)

    assert (run.pulled.received, run.pulled.known, run.pulled.claimed) == (0, 0, 1)
    summary = run.finish()
    assert (summary.events, summary.failed) == ({"completed": 1}, 0)
    assert world.creators(batches) == [b] * 3
    assert {name: len(steps) for name, steps in world.trail(mid).items()} == {x.batch_id: 1 for x in batches}


@pytest.mark.parametrize("group", ["new", "behind"])
def test_messages_deleted_before_they_were_accepted_are_reported_and_the_run_goes_on_after_them(
    own_world: World, broker: Broker, group: str
) -> None:
    world = own_world
    a, b, c, d = world.users("a", "b", "c", "d")
    batches = [world.batch(created_by=a), world.batch(created_by=c)]
    if group == "behind":
        world.platform.emit(world.event(d, d), partition=0)
        assert world.whole_run().events == {"skipped": 1}
    gone = world.event(a, b)
    world.platform.emit(gone, partition=0)
    broker.delete_messages()
    later = world.event(c, d)
    world.platform.emit(later, partition=0)
    low, high = broker.ends()[0]
    assert broker.committed()[0] != low

    run = world.run().pull(window=world.window(), patient=False)

    assert high - low == 1
    # A group that never read this partition cannot know what it missed.
    why = f"of '{broker.topic}' lost 1 messages unread, offsets {low - 1} to {low - 1}: they were deleted "
    lost = {"partition 0": f"{why}before any run came; have them sent again"}
    assert run.pulled.notes == (lost if group == "behind" else {})
    assert (run.pulled.received, run.pulled.rejected, run.pulled.claimed) == (1, 0, 1)
    summary = run.finish()
    assert (summary.events, summary.failed, summary.waits) == ({"completed": 1}, 0, {})
    assert broker.committed() == broker.highs()
    assert world.job.parts.events.read([gone["mid"]]) == {}
    assert world.dead_letters() == []
    assert world.creators(batches) == [a, d]


def test_a_partition_that_is_added_is_read_from_its_first_message(own_world: World, broker: Broker) -> None:
    world = own_world
    a, b, c = world.users("a", "b", "c")
    batch = world.batch(created_by=a)
    first, second = world.event(a, b), world.event(b, c)
    world.platform.emit(first, partition=0)
    run = world.run().pull()
    broker.add_partition(json.dumps(second).encode(), b"no event")
    run.finish()

    run = world.run().pull()

    assert (run.pulled.received, run.pulled.rejected) == (1, 1)
    assert run.finish().events == {"completed": 1}
    assert world.creators([batch]) == [c]
    assert world.job.topic.partitions() == [0, 1, 2]


def deleted_when_read(
    world: World, broker: Broker, patch: pytest.MonkeyPatch, before: int = OFFSET_END
) -> None:
    """Retention comes between the look at the watermarks and the read."""
    read = world.job.topic.read

    def late(spans: Sequence[Span]) -> Iterator[Message]:
        broker.delete_messages(before)
        return read(spans)

    patch.setattr(world.job.topic, "read", late)


def test_a_read_whose_first_messages_are_deleted_under_it_is_begun_again_and_counts_them(
    own_world: World, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = own_world
    a, b, c, d = world.users("a", "b", "c", "d")
    batches = [world.batch(created_by=a), world.batch(created_by=c)]
    world.platform.emit_all([world.event(a, b), world.event(c, d)], partition=0)
    with monkeypatch.context() as patch:
        deleted_when_read(world, broker, patch, before=1)
        with pytest.raises(
            Unavailable, match="fetch failed due to requested offset not available on the broker"
        ):
            world.run().pull()
    run = world.run().pull()
    assert (run.pulled.received, run.pulled.claimed, run.pulled.lost) == (1, 1, 1)
    assert "lost 1 messages unread, offsets 0 to 0" in run.pulled.notes["partition 0"]
    assert run.finish().events == {"completed": 1}
    assert world.creators(batches) == [a, d]
    assert broker.committed() == broker.highs()


def test_a_read_whose_messages_are_all_deleted_under_it_ends_as_an_outage_and_the_next_run_goes_on(
    own_world: World, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = own_world
    a, b, c, d = world.users("a", "b", "c", "d")
    batches = [world.batch(created_by=a), world.batch(created_by=c)]
    world.platform.emit(world.event(a, b), partition=0)
    with monkeypatch.context() as patch:
        deleted_when_read(world, broker, patch)
        with pytest.raises(
            Unavailable, match="fetch failed due to requested offset not available on the broker"
        ):
            world.run().pull()

    world.platform.emit(world.event(c, d), partition=0)
    run = world.run().pull()
    assert run.pulled.lost == 1
    assert run.finish().events == {"completed": 1}
    assert world.creators(batches) == [a, d]
    assert broker.committed() == broker.highs()


def test_a_wait_ends_with_the_first_message_behind_what_was_read(own_world: World) -> None:
    world, topic = own_world, own_world.job.topic
    world.platform.emit(b"before", partition=0)
    spans = topic.backlog({})

    topic.await_message(spans, 0)  # nothing has come
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(topic.await_message, spans, 600)
        world.platform.emit(b"after", partition=1)
        waiting.result()

    assert [m.value for m in topic.read(topic.backlog({}))] == [b"before", b"after"]
