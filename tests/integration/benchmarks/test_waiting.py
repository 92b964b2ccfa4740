"""The benchmark's view of waiting messages: in the topic, in the queue, and gone with the final state."""

from __future__ import annotations

from benchmarks.waiting import Waiting
from ownership.domain.clock import now_ms
from tests.integration.stages.transfer_world import World

AGE_MS = 5_000


def test_a_message_waits_from_its_time_in_kafka_until_its_event_is_final(own_world: World):
    old, new = own_world.users("old", "new")
    own_world.batches(3, created_by=old)
    with Waiting(own_world.ledger, own_world.platform.input_topic) as waiting:
        nothing = waiting.look()
        at = now_ms() - AGE_MS
        event = own_world.event(old, new)
        waiting.sent(own_world.platform.emit_all([event], timestamp=at), timestamp=at)
        unread = waiting.look()
        run = own_world.run().pull()
        accepted = waiting.look()
        unapplied = waiting.unapplied([event["mid"]])
        run.finish()
        final = waiting.look()
        applied = waiting.unapplied([event["mid"]]) == 0

    assert [look.messages for look in (nothing, unread, accepted, final)] == [0, 1, 1, 0]
    assert unapplied == 1
    assert applied
    assert AGE_MS / 1000 <= unread.age_s < accepted.age_s
    assert nothing.age_s == final.age_s == 0


def test_a_message_that_is_sent_later_waits_although_others_are_final(own_world: World):
    old, new, third = own_world.users("old", "new", "third")
    with Waiting(own_world.ledger, own_world.platform.input_topic) as waiting:
        for giver, taker in ((old, new), (new, third)):
            at = now_ms()
            sent = own_world.platform.emit_all([own_world.event(giver, taker)], timestamp=at)
            waiting.sent(sent, timestamp=at)
            assert waiting.look().messages == 1
            own_world.whole_run()
            assert waiting.look().messages == 0
