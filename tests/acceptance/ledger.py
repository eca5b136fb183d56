"""What the simulator's own ledger says: which servers lived when, and which windows they opened."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Ledger", "Lifetime"]


@dataclass
class Lifetime:
    """One server process; `end_s` stays infinite for one that was killed."""

    pid: int
    argv: tuple[str, ...]
    start_s: float
    end_s: float = float("inf")
    windows: int = 0
    stops: int = 0


class Ledger:
    """The file as it is now; every property reads it again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def text(self) -> str:
        return self.path.read_text() if self.path.exists() else ""

    @property
    def servers(self) -> list[Lifetime]:
        """In the order of their starts."""
        found: list[Lifetime] = []
        running: dict[int, Lifetime] = {}
        for line in self.text.splitlines():
            row = json.loads(line)
            if row["event"] == "start":
                running[row["pid"]] = Lifetime(row["pid"], tuple(row["argv"]), row["time"])
                found.append(running[row["pid"]])
            elif row["event"] == "exit":
                running[row["pid"]].end_s = row["time"]
            elif row["action"] == "start":
                running[row["pid"]].windows += 1
            else:
                running[row["pid"]].stops += 1
        return found

    @property
    def launches(self) -> int:
        return len(self.servers)

    @property
    def windows(self) -> int:
        return sum(server.windows for server in self.servers)

    @property
    def overlaps(self) -> list[tuple[Lifetime, Lifetime]]:
        """Neighbours in time of which the second started before the first had ended."""
        ordered = sorted(self.servers, key=lambda server: server.start_s)
        return [(a, b) for a, b in itertools.pairwise(ordered) if b.start_s < a.end_s]
