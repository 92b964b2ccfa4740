"""The ring of Cassandra's Murmur3 partitioner, cut into ranges. Pure.

The cut knows nothing of nodes: every row is in exactly one range, with one node or with many.
"""

from __future__ import annotations

from typing import Final, NamedTuple

MIN_TOKEN: Final = -(2**63)
MAX_TOKEN: Final = 2**63 - 1


class TokenRange(NamedTuple):
    """Tokens above `after`, up to and with `upto`; the first range has its lower end too."""

    number: int
    """From 0."""
    of: int
    after: int
    upto: int

    @property
    def first(self) -> bool:
        """True for the range that begins with the ring's smallest token."""
        return self.number == 0

    def holds(self, token: int) -> bool:
        """True if the range has `token`."""
        return (self.after < token <= self.upto) or (self.first and token == self.after)


def token_range(number: int, of: int) -> TokenRange:
    """One of `of` ranges of even size, from 0.

    :raises ValueError: if there is no such range.
    """
    if not 0 <= number < of:
        raise ValueError(f"there is no range {number} of {of}")
    return TokenRange(number, of, _bound(number, of), _bound(number + 1, of))


def _bound(number: int, of: int) -> int:
    return MIN_TOKEN + (MAX_TOKEN - MIN_TOKEN) * number // of
