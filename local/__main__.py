"""`python -m local …`: the commands behind `make up`, `cluster`, `down`, `demo` and `rehearse-switch-over`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from local import stack
from local.paths import ADDRESSES_FILE, CLUSTER, DEMO, REPOSITORY, STACK, SWITCH_OVER, TEST_STACKS
from local.servers.releases import Releases
from local.stack import Addresses, Stack
from local.terminal import console, print_addresses, report


def up() -> int:
    """Start everything, leave it running, print the addresses."""
    if stack.running_parts(STACK):
        if ADDRESSES_FILE.exists():
            console.print("The stack runs already; `make down` ends it.")
            running = stack.running_parts(STACK)
            for name in sorted(set(stack.records(STACK)) - set(running)):
                console.print(f"  [red]{name} has ended[/]; see its log, then `make down` and `make up`.")
            print_addresses(Addresses.read(ADDRESSES_FILE).as_environment())
            return 0
        console.print("An earlier start was cut off; ending what it left.")
        stack.end_all(STACK)
    begun = time.monotonic()
    console.print(
        "Starting the local stack (the first time downloads the servers; logs in .local/stack/logs)"
    )
    started = Stack(
        STACK,
        airflow=True,
        releases=Releases.from_environment(),
        given=stack.given_from_environment(),
    )
    started.start(report)
    started.addresses.write(ADDRESSES_FILE)
    console.print(
        f"Ready after {time.monotonic() - begun:.0f} s. Addresses, also in {_short(ADDRESSES_FILE)}:"
    )
    print_addresses(started.addresses.as_environment())
    return 0


def down() -> int:
    """End stack and cluster, and what an interrupted demo or test session left: only what this checkout started."""
    ended = [*stack.end_all(STACK, report), *stack.end_all(CLUSTER, report)]
    ADDRESSES_FILE.unlink(missing_ok=True)
    for directory in (DEMO, SWITCH_OVER, *sorted(TEST_STACKS.glob("*"))):
        session = stack.owner(directory)
        if session is None or not session.alive:
            ended += stack.end_all(directory, report)
    console.print("Nothing runs any more." if ended else "Nothing was running.")
    return 0


def demo(*, once: bool = False) -> int:
    """The sample world, with events, on a stack of its own until Ctrl-C."""
    from local.demo.command import main

    return main(once=once)


def cluster() -> int:
    """Two of everything, left running."""
    from local.cluster.command import cluster as start

    return start()


def switch_over() -> int:
    """The steps from the old job to this one, on a stack of its own."""
    from local.demo.switch_over import main

    return main()


def _short(file: Path) -> str:
    return str(file.relative_to(REPOSITORY))


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code. Errors that the user can fix are printed as one sentence, no traceback."""
    commands: dict[str, Callable[[], int]] = {
        "up": up,
        "cluster": cluster,
        "down": down,
        "demo": demo,
        "rehearse-switch-over": switch_over,
    }
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    parser.add_argument("command", choices=sorted(commands))
    parser.add_argument("--once", action="store_true", help="demo: end after printing the outcome")
    options = parser.parse_args(arguments)
    chosen: str = options.command
    if options.once:
        commands["demo"] = partial(demo, once=True)
    try:
        return commands[chosen]()
    except (RuntimeError, ValueError) as error:
        console.print(f"[red]{chosen} failed:[/] {error}", markup=True)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
