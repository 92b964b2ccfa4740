"""The ring of Cassandra's Murmur3 partitioner, cut into ranges. Pure.

The cut knows nothing of nodes: every row is in exactly one range, with one node or with many.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from cassandra.metadata import murmur3

MIN_TOKEN: Final = -(2**63)
MAX_TOKEN: Final = 2**63 - 1


class TokenRange(NamedTuple):
    """Tokens above `after`, up to and with `upto`; the first range has its lower end too."""

    number: int
    """From 0."""
    after: int
    upto: int

    @property
    def first(self) -> bool:
        """True for the range that begins with the ring's smallest token."""
        return self.number == 0

    @property
    def halves(self) -> tuple[TokenRange, TokenRange]:
        """Two ranges that have all of it."""
        middle = self.after + (self.upto - self.after) // 2
        return self._replace(upto=middle), self._replace(after=middle, number=max(self.number, 1))

    def holds(self, token: int) -> bool:
        """True if the range has `token`."""
        return (self.after < token <= self.upto) or (self.first and token == self.after)


def token_range(number: int, of: int) -> TokenRange:
    """One of `of` ranges of even size, from 0.

    :raises ValueError: if there is no such range.
    """
    if not 0 <= number < of:
        raise ValueError(f"there is no range {number} of {of}")
    return TokenRange(number, _bound(number, of), _bound(number + 1, of))


def range_of(course_id: str, of: int) -> int:
    """Number of the range, of `of`, that has the rows of a course."""
    past = token(course_id) - MIN_TOKEN
    return max(0, -(-past * of // (MAX_TOKEN - MIN_TOKEN)) - 1)


def token(course_id: str) -> int:
    """A course's place in the ring, as Cassandra's Murmur3Partitioner has it."""
    if not course_id:
        return MIN_TOKEN
    place = int(murmur3(course_id.encode()))
    return MAX_TOKEN if place == MIN_TOKEN else place


def _bound(number: int, of: int) -> int:
    return MIN_TOKEN + (MAX_TOKEN - MIN_TOKEN) * number // of
