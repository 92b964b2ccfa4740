"""A server as a process: start, wait, stop, kill, freeze, restart, with no process left behind.

Each server leads a session, so that all its descendants can be found, even when their parent has died or a child
has left the process group (as the worker of Airflow's API server does). Each started process is recorded in a file,
so that another command can end it later.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

_POLL_S = 0.05


class NotReadyError(RuntimeError):
    """A server ended while it was starting, or did not answer in time."""


def await_condition(
    condition: Callable[[], bool], *, timeout_s: float, what: str, poll_s: float = _POLL_S
) -> None:
    """Return as soon as `condition()` holds.

    Raises NotReadyError after `timeout_s` seconds; `what` names the condition in its message.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            raise NotReadyError(f"Waited {timeout_s:.0f} s for {what}, in vain.")
        time.sleep(poll_s)


@dataclass(frozen=True)
class ProcessRecord:
    """Identifies a process that we started, even after the kernel has reused its pid."""

    pid: int
    started: int  # clock ticks since boot, field 22 of /proc/<pid>/stat
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessRecord:
        """The record of a running process. Raises ProcessLookupError when there is none."""
        return cls(pid=pid, started=_start_ticks(pid), boot=_boot_id())

    @classmethod
    def load(cls, file: Path) -> ProcessRecord | None:
        """The record in `file`; None when there is none or it cannot be read."""
        try:
            return cls(**json.loads(file.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def save(self, file: Path) -> None:
        """Write the record to `file`, in one step."""
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps({"pid": self.pid, "started": self.started, "boot": self.boot}))
        part.replace(file)

    @property
    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        try:
            return (
                self.boot == _boot_id()
                and _start_ticks(self.pid) == self.started
                and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
            )
        except (ProcessLookupError, psutil.Error):
            return False

    def family(self) -> set[psutil.Process]:
        """The running processes among this one, its session, and all their descendants."""
        if self.boot != _boot_id():
            return set()
        with suppress(ProcessLookupError):
            if _start_ticks(self.pid) != self.started:
                return set()  # the kernel has reused the pid
        found: set[psutil.Process] = set()
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError, PermissionError):
                if os.getsid(process.pid) == self.pid or process.pid == self.pid:
                    found.add(process)
                    found.update(process.children(recursive=True))
        return {process for process in found if _runs(process)}


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_ticks(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(pid) from None
    return int(stat.rpartition(")")[2].split()[19])  # the name in parentheses may hold spaces


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _signal(processes: set[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)


def end(
    record: ProcessRecord, *, stop_signal: signal.Signals = signal.SIGTERM, grace_s: float = 20.0
) -> None:
    """End a process and everything that it started.

    The process itself gets `stop_signal` and `grace_s` seconds to shut down; then its session and descendants
    are killed. Raises RuntimeError when one of them survives SIGKILL.
    """
    family = record.family()
    if record.alive:
        with suppress(ProcessLookupError):
            os.kill(record.pid, stop_signal)
            os.kill(record.pid, signal.SIGCONT)  # a frozen process would never see it
        with suppress(NotReadyError):
            await_condition(lambda: not record.alive, timeout_s=grace_s, what="its end")
    leftovers = {process for process in family | record.family() if _runs(process)}
    _signal(leftovers, signal.SIGKILL)
    _, alive = psutil.wait_procs(list(leftovers), timeout=10)
    if any(_runs(process) for process in alive):
        raise RuntimeError(f"Processes {sorted(p.pid for p in alive)} outlived SIGKILL; end them by hand.")


def child_environment(**more: str) -> dict[str, str]:
    """This process's environment, with Python's bytecode cache on: without it a start takes twice as long."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **more}


@dataclass
class Server:
    """One server process: its command, its readiness check, its files.

    `directory` holds its data, `log_file` its output, `pid_file` the record of the process. Clients connect to
    `address`. `prepare` runs before every start and must be idempotent. Methods may be called in any state and
    from any thread, but not concurrently. As a context manager it starts, answers, and is stopped.
    """

    name: str
    command: tuple[str, ...]
    directory: Path
    log_file: Path
    pid_file: Path
    address: str
    answers: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=child_environment)
    prepare: Callable[[], None] = lambda: None
    ports: tuple[int, ...] = ()
    user: str | None = None
    ready_within_s: float = 120.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_grace_s: float = 20.0
    _child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def record(self) -> ProcessRecord | None:
        """Record of the process that was started last; it may have ended."""
        return ProcessRecord.load(self.pid_file)

    @property
    def pid(self) -> int | None:
        """Pid of the running process; None when it does not run."""
        record = self.record
        return record.pid if record is not None and record.alive else None

    @property
    def running(self) -> bool:
        """Whether the process runs (a frozen one does)."""
        return self.pid is not None

    def start(self) -> None:
        """Start the process and return at once. Raises RuntimeError when it is already running."""
        if self.running:
            raise RuntimeError(f"{self.name} runs already (process {self.pid}); stop it first.")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self.prepare()
        with self.log_file.open("ab") as log:
            self._child = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self.user,
                group=None if self.user is None else _group_of(self.user),
                extra_groups=None if self.user is None else (),
            )
        ProcessRecord.of(self._child.pid).save(self.pid_file)

    def wait_ready(self, timeout_s: float | None = None) -> None:
        """Return as soon as the server answers.

        Raises NotReadyError, with the end of its log, when the process ends or does not answer within `timeout_s`
        seconds (default: `ready_within_s`).
        """
        limit = self.ready_within_s if timeout_s is None else timeout_s

        def ready() -> bool:
            if not self.running:
                raise NotReadyError(f"{self.name} ended while starting. {self._last_words()}")
            return self.answers()

        try:
            await_condition(ready, timeout_s=limit, what=f"{self.name} to answer at {self.address}")
        except NotReadyError as error:
            if self._last_words() in str(error):
                raise
            raise NotReadyError(f"{error} {self._last_words()}") from None

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process and its descendants: with its stop signal, then with SIGKILL. No effect when it has ended."""
        record = self.record
        if record is None:
            return
        end(record, stop_signal=self.stop_signal, grace_s=self.stop_grace_s)
        self._reap()
        self.pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """Send SIGKILL to the process and its descendants, as in a crash of the machine."""
        record = self.record
        if record is not None:
            family = record.family()
            _signal(family, signal.SIGKILL)
            psutil.wait_procs(list(family), timeout=10)
            self._reap()

    def freeze(self) -> None:
        """Send SIGSTOP: connections stay open, requests get no answer. `thaw` undoes it."""
        _signal(self._family(), signal.SIGSTOP)

    def thaw(self) -> None:
        """Send SIGCONT, which ends `freeze`."""
        _signal(self._family(), signal.SIGCONT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Frozen inside the block."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def restart(self, timeout_s: float | None = None) -> None:
        """Stop it if it runs, start it with the same data on the same port, wait until it answers."""
        self.stop()
        self.start()
        self.wait_ready(timeout_s)

    def _family(self) -> set[psutil.Process]:
        record = self.record
        if record is None or not record.alive:
            raise RuntimeError(f"{self.name} does not run; start it first.")
        return record.family()

    def _reap(self) -> None:
        if self._child is not None:
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(timeout=10)

    def _last_words(self) -> str:
        try:
            lines = self.log_file.read_text(errors="replace").splitlines()[-15:]
        except OSError:
            lines = []
        return f"The end of {self.log_file}:\n" + "\n".join(lines)


def _group_of(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid
