"""Ask for ownership transfers from a shell, over the API of the page in Airflow.

Credentials come from the environment: OWNERSHIP_URL (or --url), OWNERSHIP_TOKEN, or OWNERSHIP_USER and
OWNERSHIP_PASSWORD. Exit codes: 0 done as asked; 1 refused, or it ended otherwise; 2 wrong usage; 3 no answer, or not
final in time; 4 it waits for an approval.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import httpx

from ownership.cli.client import Client, ClientError, Credentials, Json, Refused, Unreachable
from ownership.cli.output import Output
from ownership.domain.arguments import above_zero, whole, words
from ownership.domain.text import MAX_FILE_NAME, one_line

LIST_COLUMNS = ("announced_at", "state", "kind", "from_user", "to_user", "counts", "mid")
CHANGE_COLUMNS = ("course_id", "batch_id", "role", "before", "after", "outcome", "proven_at")
SHOWN = (
    "mid", "state", "kind", "sentence", "from_user", "to_user", "organisation_id", "requested_by", "request_reason",
    "announced_at", "ended_at", "counts", "reason", "digest", "approved_by", "followed_by", "actions", "run_id",
)  # fmt: skip
IMPORTED = (
    "id", "state", "file_name", "rows", "by_state", "would_move", "moved", "failures", "created_by", "created_at",
)  # fmt: skip
FILTERS = ("user", "state", "run", "course", "batch", "request", "since", "before")
DONE = ("completed", "rehearsed")
TIMEOUT_S = 600


class Exit(IntEnum):
    """Exit codes."""

    DONE = 0
    REFUSED = 1
    """The server refused it, or it ended otherwise than asked."""
    USAGE = 2
    """Options or the environment are wrong; nothing was sent."""
    NO_ANSWER = 3
    """The server does not answer, or the transfer is not final in time."""
    AWAITS_APPROVAL = 4


Command = Callable[[argparse.Namespace, Client, Output], Exit]


# -- commands -------------------------------------------------------------------------------------------------


def transfer(given: argparse.Namespace, client: Client, output: Output) -> Exit:
    """Start a transfer."""
    form: Json = {
        "from_user": given.from_user,
        "to_user": given.to_user,
        "organisation_id": given.organisation_id,
        "reason": given.reason,
        "requested_by": given.requested_by,
        "roles": given.role,
        "course_ids": given.course,
        "dry_run": given.dry_run or None,
    }
    started = client.create({k: v for k, v in form.items() if v is not None}, given.key)
    return _started(given, client, output, started, DONE)


def show(given: argparse.Namespace, client: Client, output: Output) -> Exit:
    """Show a transfer, or its batches."""
    if given.changes:
        output.table(client.changes(given.mid), CHANGE_COLUMNS, "It concerns no batches.")
    else:
        output.facts(client.transfer(given.mid), SHOWN)
    return Exit.DONE


def list_(given: argparse.Namespace, client: Client, output: Output) -> Exit:
    """List transfers."""
    found = islice(client.transfers(**_filters(given)), given.limit)
    output.table(found, LIST_COLUMNS, "No transfer fits.")
    return Exit.DONE


def undo(given: argparse.Namespace, client: Client, output: Output) -> Exit:
    """Take a transfer back, or see what that would do."""
    started = client.act("undo", given.mid, given.key, dry_run=not given.apply, reason=given.reason)
    return _started(given, client, output, started, DONE)


def act(given: argparse.Namespace, client: Client, output: Output) -> Exit:
    """One of `ACTIONS`, with the fields that its command has."""
    fields = {name: getattr(given, name, None) for name in ("digest", "reason")}
    started = client.act(given.command, given.mid, given.key, **fields)
    return _started(given, client, output, started, ACTIONS[given.command].wanted)


class Action(NamedTuple):
    """What is asked of a transfer, and the states in which it is done as asked."""

    what: str
    wanted: Sequence[str] = DONE


ACTIONS: Mapping[str, Action] = {
    "approve": Action("Approve a transfer's plan."),
    "execute": Action("Apply the plan of a dry run."),
    "decline": Action("Decline a transfer that awaits its approval.", ("declined",)),
    "abandon": Action("Give up an open transfer.", ("abandoned",)),
    "redrive": Action("Try a transfer again."),
}


def import_(given: argparse.Namespace, client: Client, output: Output) -> Exit:
    """Send a CSV file of transfers in: a dry run of every row, then, with --go, the transfers."""
    if given.id:
        for option, value in (("--to-user", given.to_user), ("--key", given.key)):
            if value is not None:
                raise Usage(f"{option} has no effect with --id, whose file was sent before: leave it out")
        seen = client.imported(given.id)
    else:
        content = given.file.read_bytes()
        name = one_line(given.file.name, MAX_FILE_NAME)
        seen = client.import_file(content, name=name, to_user=given.to_user, key=given.key)
    import_id = str(seen["id"])

    def go() -> Json:
        return client.go(import_id, only_good=given.go == "good")

    def watched(again: Callable[[], Json], *states: str) -> Json:
        looks = client.watch_import(import_id, states, again, timeout=_patience(given))
        return output.followed(map(_import_look, looks), f"import {import_id}")

    if given.wait or given.go:
        seen = watched(partial(client.check, import_id), "checked", "started", "done")
    if given.go:
        try:
            seen = go()
        except Refused:
            _write_failed(client, seen, given.failed, output)
            raise
        seen = watched(go, "done") if given.wait else seen
    output.facts(seen, IMPORTED)
    _write_failed(client, seen, given.failed, output)
    return Exit.REFUSED if seen["failures"] else Exit.DONE


def _write_failed(client: Client, seen: Json, to: Path | None, output: Output) -> None:
    """The rows of an import that failed, if there are any and they are wanted."""
    if to and seen["failures"]:
        with client.failed_rows(str(seen["id"])) as parts:
            _written(parts, to, output)


def _import_look(seen: Json) -> Json:
    """An import as a bar shows it."""
    rows, waiting = seen["rows"], sum(seen["by_state"].get(s, 0) for s in ("checking", "moving"))
    done = rows - waiting
    return {
        **seen,
        "progress": {
            "percent": 100 * done // max(1, rows),
            "text": f"{seen['state']}: {done:,} of {rows:,} rows",
        },
    }


def export(given: argparse.Namespace, client: Client, output: Output) -> Exit:
    """Write transfers or changes to a file, or to stdout."""
    file_format = given.format or ("jsonl" if given.json else "csv")
    with client.export(given.what, file_format, **_filters(given)) as parts:
        _written(parts, given.output, output)
    return Exit.DONE


def _written(parts: Iterator[bytes], to: Path | None, output: Output) -> None:
    """Write to stdout, a pipe or a device; or to a file, which stays as it is until all is there."""
    if to is None:
        output.written(parts, sys.stdout.buffer, "stdout")
        return
    if to.exists() and not to.is_file():
        with to.open("wb") as stream:
            output.written(parts, stream, to.name)
        return
    to = to.resolve()  # a link stays one
    unfinished = to.with_name(f"{to.name}.part")
    try:
        with unfinished.open("wb") as file:
            output.written(parts, file, to.name)
        unfinished.replace(to)
    finally:
        unfinished.unlink(missing_ok=True)


def health(given: argparse.Namespace, client: Client, output: Output) -> Exit:  # noqa: ARG001  # a command's signature
    """The health of the job."""
    found = client.health()
    output.facts(found, ("healthy", "sentence", "open", "awaiting_approval", "checked_at"))
    return Exit.DONE if found["healthy"] else Exit.REFUSED


def _started(
    given: argparse.Namespace, client: Client, output: Output, started: Json, wanted: Sequence[str]
) -> Exit:
    """Say what was started; with `--wait`, what became of it. `wanted` are the states in which it is done as asked."""
    mid = started["transfers"][0]["mid"]
    if started["paused"]:
        output.note(f"The DAG {started['dag_id']} is paused: its run waits until it is unpaused.")
    if not given.wait:
        output.facts({"mid": mid, **started}, ("mid", "run_id"))
        return Exit.DONE
    last = output.followed(client.watch(started, timeout=_patience(given)), mid)
    output.facts(last, SHOWN)
    if last["state"] == "awaiting_approval":
        return Exit.AWAITS_APPROVAL
    return Exit.DONE if last["state"] in wanted else Exit.REFUSED


def _patience(given: argparse.Namespace) -> float:
    """Seconds to wait at most."""
    return TIMEOUT_S if given.timeout is None else float(given.timeout)


def _filters(given: argparse.Namespace) -> dict[str, str | None]:
    return {name: getattr(given, f"of_{name}") for name in FILTERS}


# -- options --------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="ownership", description=__doc__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--url", help="of Airflow's API server; OWNERSHIP_URL")
    common.add_argument("--json", action="store_true", help="all fields as JSON instead of a table")
    writes = argparse.ArgumentParser(add_help=False)
    writes.add_argument("--wait", action="store_true", help="until it is final")
    writes.add_argument(
        "--timeout", type=above_zero, metavar="SECONDS", help=f"of --wait; {TIMEOUT_S} if not given"
    )
    writes.add_argument(
        "--key", type=words, help="idempotency key: the same one starts one run; random if not given"
    )
    filters = _filter_options()
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, does: Command, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        what = ACTIONS[name].what if name in ACTIONS else does.__doc__
        made = commands.add_parser(name, help=what, description=what, parents=[common, *parents])
        made.set_defaults(does=does)
        return made

    def of_transfer(name: str, does: Command = act) -> argparse.ArgumentParser:
        made = command(name, does, writes)
        made.add_argument("mid")
        return made

    new = command("transfer", transfer, writes)
    for name in ("from_user", "to_user", "organisation_id"):
        new.add_argument(name)
    new.add_argument("--dry-run", action="store_true", help="plan only")
    new.add_argument("--reason", type=words)
    new.add_argument("--requested-by", type=words, metavar="USER")
    new.add_argument(
        "--role", action="append", choices=("created", "mentored"), help="only these; may be repeated"
    )
    new.add_argument("--course", type=words, action="append", help="only of this course; may be repeated")
    command("list", list_, filters).add_argument(
        "--limit", type=whole(), default=50, help="at most so many; 50 if not given"
    )
    one = command("show", show)
    one.add_argument("mid")
    one.add_argument("--changes", action="store_true", help="its batches")
    back = of_transfer("undo", undo)
    back.add_argument("--apply", action="store_true", help="without it, a dry run")
    back.add_argument("--reason", type=words)
    for name in ("approve", "execute"):
        of_transfer(name).add_argument("digest", help="of the plan as `show` has it")
    commands.choices["execute"].add_argument("--reason", type=words)
    for name in ("decline", "abandon"):
        of_transfer(name).add_argument("--reason", type=words, required=True)
    of_transfer("redrive")
    out = command("export", export, filters)
    out.add_argument("what", choices=("transfers", "changes"))
    out.add_argument("--format", choices=("csv", "jsonl"), help="csv if not given; jsonl with --json")
    out.add_argument("--output", type=Path, metavar="FILE", help="stdout if not given")
    file = command("import", import_, writes)
    given = file.add_mutually_exclusive_group(required=True)
    given.add_argument("file", type=Path, nargs="?", help="CSV")
    given.add_argument("--id", type=words, help="of an import that was sent before")
    file.add_argument("--to-user", type=words, metavar="USER", help="new owner where a row names none")
    file.add_argument("--go", choices=("all", "good"), help="then carry out all rows, or the good ones")
    file.add_argument("--failed", type=Path, metavar="FILE", help="where rows that failed go, to be mended")
    command("health", health)
    return top


def _filter_options() -> argparse.ArgumentParser:
    filters = argparse.ArgumentParser(add_help=False)
    helps = {
        "user": "old or new user", "state": "or `open`", "run": "id of a run", "request": "id of a call of the platform", "since": "as 2026-11-27T08:00:00Z",
        "before": "the same, not included",
    }  # fmt: skip
    for name in FILTERS:
        filters.add_argument(
            f"--{name}", type=words, dest=f"of_{name}", help=helps.get(name), metavar=name.upper()
        )
    return filters


def main(
    arguments: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    transport: httpx.BaseTransport | None = None,
) -> int:
    """Do what is asked. Returns the exit code."""
    given = parser().parse_args(arguments)
    output = Output(as_json=given.json)
    does: Command = given.does
    waits = getattr(given, "wait", False) or getattr(given, "go", None)
    try:
        if getattr(given, "timeout", None) is not None and not waits:
            raise Usage("--timeout has no effect without --wait")
        with _client(given, os.environ if environment is None else environment, transport) as client:
            return does(given, client, output)
    except ClientError as e:
        output.error(str(e), e.errors if isinstance(e, Refused) else ())
        return _CODES[type(e)]
    except BrokenPipeError:  # its reader has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
        return 141  # as a shell reports SIGPIPE
    except OSError as e:
        output.error(f"{e.filename or ''}: {e.strerror or e}")
        return Exit.USAGE
    except (UnicodeEncodeError, httpx.InvalidURL):
        output.error("an argument is no text that can be sent")
        return Exit.USAGE
    except KeyboardInterrupt:
        return 130  # as a shell reports SIGINT; what was started goes on


class Usage(ClientError):
    """Options or the environment are wrong."""


_CODES = {Refused: Exit.REFUSED, Usage: Exit.USAGE, Unreachable: Exit.NO_ANSWER}


def _client(
    given: argparse.Namespace, environment: Mapping[str, str], transport: httpx.BaseTransport | None
) -> Client:
    url = given.url or environment.get("OWNERSHIP_URL", "")
    credentials = Credentials(*(environment.get(f"OWNERSHIP_{n}", "") for n in ("TOKEN", "USER", "PASSWORD")))
    if not re.match("https?://[^/]", url):
        raise Usage("give the address of Airflow: --url https://…, or OWNERSHIP_URL")
    if not (credentials.token or (credentials.user and credentials.password)):
        raise Usage("set OWNERSHIP_TOKEN, or OWNERSHIP_USER and OWNERSHIP_PASSWORD")
    try:
        httpx.URL(url)
        return Client(url, credentials, transport=transport)
    except (httpx.InvalidURL, ValueError, ImportError) as e:
        raise Usage(f"the address, or a proxy's in the environment, cannot be used: {e}") from None
