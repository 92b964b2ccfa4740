"""The disk of the only broker is full, and the broker ends itself: an outage for the job, and nothing is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from local.servers import kafka
from local.servers.layout import Layout
from local.stack import Stack
from ownership.domain.errors import Unavailable
from tests.integration.small_disk import full, small_disk
from tests.integration.stages.transfer_world import opened_world


def test_a_full_disk_of_kafka_is_an_outage_and_nothing_is_lost(stack: Stack):
    with small_disk("64m") as disk, kafka.server(Layout.of(disk), stack.releases.kafka) as broker:
        addresses = replace(stack.addresses, kafka=broker.address)
        with opened_world(addresses) as world:
            old, new = world.users("old", "new")
            batch = world.batch(created_by=old)
            world.transfer(old, new)
            world.platform.emit(b"no event")

            with full(disk), pytest.raises(Unavailable):
                world.run().pull()  # the dead letter finds no space
            broker.restart()
            run = world.run().pull()

            assert (run.pulled.received + run.pulled.known, run.pulled.rejected) == (1, 1)
            assert run.finish().events == {"completed": 1}
            assert world.owners(batch) == (new, ())
            assert [body for _, body in world.dead_letters()] == [b"no event"]
