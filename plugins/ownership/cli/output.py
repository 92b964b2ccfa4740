"""Tables, JSON and progress. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ownership.cli.client import Json
from ownership.domain.text import one_line

WIDE: Final = 1000
"""Columns where nobody looks: a program wants whole ids."""


class _Console(Console):
    """A console whose reader may have enough."""

    def on_broken_pipe(self) -> None:
        """Leave the exit code to the command; rich's own is the one of a refusal."""
        raise BrokenPipeError


class Output:
    """Where a command writes."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._ascii = sys.stdout.encoding.lower() != "utf-8"
        if isinstance(sys.stdout, io.TextIOWrapper):  # names have letters that a terminal may not have
            sys.stdout.reconfigure(errors="backslashreplace")
        self._out = _Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
        self._err = _Console(stderr=True, highlight=False)

    def value(self, value: Any) -> None:
        """A result as JSON."""
        sys.stdout.write(json.dumps(value, ensure_ascii=self._ascii) + "\n")
        sys.stdout.flush()  # what cannot be written is to be known before the exit code

    def facts(self, value: Json, names: Iterable[str]) -> None:
        """Some fields of a result, one a line; with `--json` all of it."""
        if self.as_json:
            self.value(value)
            return
        table = Table(box=None, show_header=False, pad_edge=False)
        for name in names:
            if (shown := _cell(value.get(name))) != "":
                table.add_row(Text(name.replace("_", " "), style="bold"), Text(shown, overflow="fold"))
        self._out.print(table)

    def table(self, rows: Iterable[Json], columns: Sequence[str], empty: str) -> None:
        """A result of several; with `--json` an array with all fields."""
        found = list(rows)
        if self.as_json:
            self.value(found)
            return
        if not found:
            self.note(empty)
            return
        table = Table(*(c.replace("_", " ") for c in columns), box=None, pad_edge=False)
        for row in found:
            table.add_row(*(Text(_cell(row.get(c)), overflow="fold") for c in columns))
        self._out.print(table)

    def note(self, text: str) -> None:
        """A remark for people."""
        self._say(one_line(text))

    def error(self, text: str, errors: Iterable[Mapping[str, Any]] = ()) -> None:
        """Why a command failed, and with which field."""
        self._say(f"ownership: {one_line(text)}")
        for e in errors:
            self._say(f"  {one_line(e.get('field') or 'body')}: {one_line(e.get('detail'))}")

    def _say(self, line: str) -> None:
        self._err.print(Text(line), soft_wrap=True)  # a line of a log stays one, and an id whole

    def followed(self, looks: Iterable[Json], what: str) -> Json:
        """The last of several looks at something, with a bar while they come."""
        last: Json = {}
        with self._progress(BarColumn()) as progress:
            task = progress.add_task(_bare(what), total=100)
            for look in looks:
                last = look
                progress.update(task, completed=percent(look), description=_bare(_words(look) or what))
        return last

    def written(self, parts: Iterator[bytes], to: Any, what: str) -> None:
        """Write parts as they come."""
        size = 0
        with self._progress() as progress:
            task = progress.add_task(_bare(what), total=None)
            for part in parts:
                to.write(part)
                size += len(part)
                progress.update(task, description=_bare(f"{what}: {size / 1e6:,.1f} MB"))
        to.flush()

    def _progress(self, *columns: ProgressColumn) -> Progress:
        return Progress(
            TextColumn("{task.description}"), *columns, TimeElapsedColumn(),
            console=self._err, transient=True, disable=not self._err.is_terminal,
        )  # fmt: skip


def percent(look: Json) -> int:
    """How far something is."""
    if look.get("final"):
        return 100
    return int((look.get("progress") or {}).get("percent", 0))


def _words(look: Json) -> str:
    return str((look.get("progress") or {}).get("text") or look.get("sentence") or "")


def _bare(text: str) -> str:
    """Without what would be markup."""
    return one_line(text, 80).replace("[", "\\[")


def _cell(value: Any) -> str:
    if value is None or value in ({}, []):
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_cell(v)}" for name, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return one_line(value)
