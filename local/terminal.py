"""What starting and stopping looks like on the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

console = Console(highlight=False)


def report(part: str, state: str, seconds: float) -> None:
    """One line on the terminal for each part that has become ready, was given, or has stopped."""
    if state == "starting":
        return
    mark, took = {
        "ready": ("[green]ready[/]  ", f"{seconds:5.1f} s"),
        "given": ("[cyan]given[/]  ", "       "),
        "stopped": ("[dim]stopped[/]", f"{seconds:5.1f} s"),
    }[state]
    console.print(f"  {mark} {took}  {part}")


def print_addresses(addresses: Mapping[str, str]) -> None:
    """Print addresses by the names that they have in the file."""
    for name, value in addresses.items():
        console.print(f"  [bold]{name}[/]={value}", soft_wrap=True)
