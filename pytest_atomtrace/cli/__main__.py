"""``python -m pytest_atomtrace.cli``."""

from __future__ import annotations

from pytest_atomtrace.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
