"""SIGTERM as an exception, so that a task releases its claims before it ends.

Airflow's own handler calls the operator's ``on_kill`` and lets the task's code go on until SIGKILL, 5 s later
(Airflow 3.3.2, ``task_runner`` and ``supervisor``). A stage may be cut off at any point, so this may raise at any point.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ownership.domain.errors import Stopped


class Interrupted(BaseException):
    """The process got SIGTERM. No `Exception`, like KeyboardInterrupt: code on the way must not handle it as an error."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside the block the first SIGTERM raises `Interrupted` in the main thread; further ones are ignored.

    :raises Stopped: at the end of the block, if one came: Airflow is to try the task again.
    """
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    except Interrupted:
        raise Stopped from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(_: int, __: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Interrupted
