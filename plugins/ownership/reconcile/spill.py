"""The index's documents on disk, by the range of the ring that has their rows.

Neither store can be read in the other's order without a look-up for each document, which costs three times as much
as reading on. So the index is read once in its own order, and put where each range finds its part.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any, Self

from ownership.domain.compare import owners_hash
from ownership.platform.ring import range_of
from ownership.platform.search_documents import row_key
from ownership.platform.search_index import Seen

IN_MEMORY = 20_000
"""Documents that wait in memory to be written."""

NO_OWNERS = 0
"""A hash that no row has."""

Kept = tuple[str, str, int]
"""Of a document: batch, course (empty if it names none), and the hash of its owners."""


class Spill:
    """Documents of some ranges, in a temporary file: about 70 bytes each. The file is deleted when the process ends."""

    def __init__(self, of: int, wanted: Collection[int]) -> None:
        """`wanted` are the numbers of the ranges, of `of`, whose documents are kept."""
        self._of, self._wanted = of, frozenset(wanted)
        self._waiting: dict[int, list[Kept]] = defaultdict(list)
        self._waits = 0
        self._places: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self._file = tempfile.TemporaryFile(prefix="ownership-reconcile-")  # noqa: SIM115  # closed by `__exit__`
        self._courses: dict[str, int] = {}

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, which deletes it."""
        self._file.close()

    def add(self, documents: Iterable[Seen]) -> None:
        """Keep the documents that belong to the wanted ranges. One without a course goes to the first range."""
        for batch, course, created_by, mentors in documents:
            name = row_key(course)
            if (number := self._range(name)) in self._wanted:
                self._waiting[number].append((batch, name, owners_hash(created_by, mentors)))
                self._waits += 1
        if self._waits > IN_MEMORY:
            self._write()

    def take(self, number: int) -> dict[str, tuple[str, int]]:
        """The documents of a range, by batch: course and hash of the owners."""
        found: list[Any] = list(self._waiting.pop(number, ()))
        self._waits -= len(found)
        for at, length in self._places.pop(number, ()):
            self._file.seek(at)
            found += json.loads(self._file.read(length))
        kept: dict[str, tuple[str, int]] = {}
        for batch, course, owners in found:
            # Of two documents of a batch that differ, one is not as the row: the look at both tells.
            same = kept.get(batch, (course, owners)) == (course, owners)
            kept[batch] = (course, owners if same else NO_OWNERS)
        return kept

    def _range(self, course: str) -> int:
        # Documents of a course often come together.
        number = self._courses.get(course)
        if number is None:
            if len(self._courses) > IN_MEMORY:
                self._courses.clear()
            number = self._courses[course] = range_of(course, self._of)
        return number

    def _write(self) -> None:
        self._file.seek(0, 2)
        for number, kept in self._waiting.items():
            at = self._file.tell()
            self._file.write(json.dumps(kept).encode())
            self._places[number].append((at, self._file.tell() - at))
        self._waiting.clear()
        self._waits = 0
