"""The simulator's own record of server lifetimes, for tests that count launches and windows."""

from __future__ import annotations

import json
import os
import time

__all__ = ["Ledger"]


class Ledger:
    """Append-only JSON lines; O_APPEND keeps the lines of many servers whole."""

    def __init__(self, path: str, *, argv: list[str], model: str, port: int) -> None:
        self._path = path
        self._facts = {"pid": os.getpid(), "argv": argv, "model": model, "port": port}

    def write(self, event: str, **more: object) -> None:
        """Append one line with the event's name, the time and the server's facts."""
        if not self._path:
            return
        line = json.dumps({"event": event, "time": time.time(), **self._facts, **more}) + "\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
