"""The local broker's own bookkeeping."""

from __future__ import annotations

import base64
from pathlib import Path

from local.servers.kafka import cluster_id


def test_a_cluster_id_is_never_taken_for_an_option_of_kafkas_command_line() -> None:
    ids = [cluster_id(Path(f"stacks/{n}")) for n in range(1000)]

    assert {i[0] for i in ids} & {"-", "_"} == set()
    assert {len(base64.urlsafe_b64decode(f"{i}==")) for i in ids} == {16}
    assert len(set(ids)) == len(ids)


def test_a_directory_keeps_its_cluster_id() -> None:
    assert cluster_id(Path("a")) == cluster_id(Path("a")) != cluster_id(Path("b"))
