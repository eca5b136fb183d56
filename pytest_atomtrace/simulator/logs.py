"""ATOM's log format: ``[atom HH:MM:SS] message`` on stderr, whole lines in one write."""

from __future__ import annotations

import os
import time

__all__ = ["log"]


def log(message: str) -> None:
    """Write one message (it may hold newlines). One write call, since all processes share the descriptor."""
    os.write(2, f"[atom {time.strftime('%H:%M:%S')}] {message}\n".encode("utf-8", "replace"))
