from __future__ import annotations

import os
import signal
import threading

import pytest

from ownership.domain.errors import Stopped, Transient
from ownership.edge.interruption import Interrupted, interruptible


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_ends_what_waits_and_asks_for_another_try() -> None:
    never = threading.Event()
    with pytest.raises(Stopped, match="was stopped"), interruptible():  # noqa: PT012  # it comes in the wait
        threading.Timer(0.05, terminate).start()
        never.wait(20)
    assert issubclass(Stopped, Transient)


def test_nothing_takes_it_for_an_error_and_it_comes_once() -> None:
    seen: list[object] = []
    with pytest.raises(Stopped), interruptible():  # noqa: PT012  # what is in between is what is tested
        try:
            try:
                terminate()
            except Exception as e:  # noqa: BLE001  # that it catches nothing is what is tested
                seen.append(e)
        except Interrupted:
            terminate()  # what is let go of is let go of to the end
            seen.append("let go")
            raise
    assert seen == ["let go"]


def test_the_handler_of_before_is_back_afterwards() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        with interruptible():
            pass
        terminate()
        with pytest.raises(Stopped), interruptible():
            terminate()
        terminate()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [signal.SIGTERM] * 2
