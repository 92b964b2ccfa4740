"""The folders and files of one stack, and the ports of its servers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from local.servers.ports import HOST, PortBook


@dataclass(frozen=True)
class Layout:
    """A stack's directory: data per server, `logs/`, `pids/`, `ports.json`."""

    directory: Path
    ports: PortBook

    @classmethod
    def of(cls, directory: Path) -> Layout:
        """The layout of a stack in `directory` (made when it is missing)."""
        directory = directory.resolve()
        directory.mkdir(parents=True, exist_ok=True)
        return cls(directory, PortBook(directory / "ports.json"))

    def data(self, name: str) -> Path:
        """The directory of the server `name`."""
        return self.directory / name

    def log(self, name: str) -> Path:
        """The log file of `name`."""
        return self.directory / "logs" / f"{name}.log"

    def pid(self, name: str) -> Path:
        """The file with the record of the process `name`."""
        return self.directory / "pids" / f"{name}.json"

    def port(self, name: str) -> int:
        """A free TCP port for `name`: last time's if it is still free."""
        return self.ports.port(name)

    def url(self, name: str) -> str:
        """The HTTP URL of `name`, on its port."""
        return f"http://{HOST}:{self.port(name)}"
