"""Ids are values: whatever they look like, they reach CQL, SQL, a URL, a query and a document as what they are.

The LMS and User-Org give ids to the platform, but an event can name anything that is printable.
"""

from __future__ import annotations

import uuid

import pytest

from local.platform.world import Batch, User
from tests.integration.stages.transfer_world import ORGANISATION, World

HOSTILE = [
    pytest.param("'; DROP TABLE sunbird_courses.course_batch; --", id="CQL"),
    pytest.param("' OR '1'='1", id="a condition"),
    pytest.param("'; DROP TABLE event CASCADE; --", id="SQL"),
    pytest.param("$$; SELECT pg_sleep(9); $$", id="SQL in dollars"),
    pytest.param("a\\tb\\N\\.", id="marks of COPY"),
    pytest.param('{a,"b",NULL}', id="an array"),
    pytest.param(":name %(name)s $1", id="parameters"),
    pytest.param("../../../etc/passwd", id="a path upwards"),
    pytest.param("a/b?x=1&identifier=other#end", id="parts of a URL"),
    pytest.param("%2e%2e%2f%00", id="parts of a URL, encoded"),
    pytest.param("//evil.example/", id="another host"),
    pytest.param("* OR createdBy:*", id="a query string"),
    pytest.param('{"match_all": {}}', id="a query"),
    pytest.param('"],"status":[0,1,2]', id="an end of a list"),
    pytest.param("_all,-x", id="names of indices"),
    pytest.param("{{ 7 * 7 }}${7*7}<%= 7 %>", id="templates"),
    pytest.param("<script>alert(1)</script>", id="HTML"),
    pytest.param("\\u0027\\n\\\\", id="escapes"),
    pytest.param("ünï-ßẞ-İı-漢字-🙂", id="letters whose case is not plain"),
    pytest.param("%s %d {0} ?", id="placeholders"),
    pytest.param("=1+1", id="a formula"),
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_transfer_between_ids_of_any_text_moves_theirs_and_nobody_elses(world: World, text: str) -> None:
    tag = uuid.uuid4().hex[:6]
    old, new, other = f"{text}{tag}", f"{tag}{text}", f"other-{tag}"
    world.platform.add_users([User(u, ORGANISATION) for u in (old, new, other)])
    theirs = [
        Batch(f"{text}-course-{tag}", f"{text}-{n}-{tag}", created_by=old, mentors=(other, old))
        for n in range(2)
    ]
    others = Batch(f"{text}-course-{tag}", f"other-{tag}", created_by=other, mentors=(text,))
    completed = Batch(f"{text}-course-{tag}", f"done-{tag}", created_by=old, status=2)
    world.platform.add_batches([*theirs, others, completed])
    before = world.platform.as_written([others, completed])

    mid = world.transfer(old, new, mid=f"{text}-{tag}")
    summary = world.whole_run()

    assert summary.events == {"completed": 1}
    assert {world.owners(b) for b in theirs} == {(new, (other, new))}
    assert world.platform.as_written([others, completed]) == before
    assert world.job.event(mid).counts["moved"] == 2

    _, undone = world.undo(mid)
    assert undone.batches == {"moved": 2}
    assert {world.owners(b) for b in theirs} == {(old, (other, old))}
    assert world.platform.as_written([others, completed]) == before


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\0", id="NUL"),
        pytest.param("\x1a0", id="what the ledger writes for NUL"),
        pytest.param("\u202e\u200b", id="what nobody sees"),
        pytest.param("", id="empty"),
        pytest.param(" \n", id="blank"),
    ],
)
def test_a_person_of_any_id_beside_the_old_user_stays_in_row_and_trail(world: World, text: str) -> None:
    old, new = world.users("old", "new")
    mentored = world.batch(created_by=text, mentors=(old,))
    created = world.batch(created_by=old, mentors=(f"m{text}", old, text))

    mid = world.transfer(old, new)
    assert world.whole_run().events == {"completed": 1}

    assert world.owners(mentored) == (text, (new,))
    assert world.owners(created) == (new, (f"m{text}", new, text))
    assert world.trail(mid)[created.batch_id][0][0] == (old, (f"m{text}", old, text))
    _, undone = world.undo(mid)
    assert undone.batches == {"moved": 2}
    assert world.owners(created) == (old, (f"m{text}", old, text))


@pytest.mark.parametrize("text", HOSTILE)
def test_an_id_that_nobody_has_is_unknown_whatever_it_looks_like(world: World, text: str) -> None:
    (old,) = world.users("old")
    batch = world.batch(created_by=old)
    nobody = f"{text}{uuid.uuid4().hex[:6]}"
    mid = world.transfer(old, nobody)
    summary = world.whole_run()
    assert summary.events == {"skipped": 1}
    row = world.read(mid)
    assert "is unknown to User-Org" in (row.reason or "")
    assert world.owners(batch) == (old, ())
