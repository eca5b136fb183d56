"""Where in a spec a check was asked: what an annotation points to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

__all__ = ["asked_at", "raised_at"]


def asked_at(spec: Path) -> dict[str, int]:
    """``{"line": n}``, the line of `spec` that is being run; empty where no Python code of `spec` is.

    One test may ask several questions, and the place that pytest knows is the test's first line. An entry of a YAML
    spec is one question, and its first line is what pytest knows.
    """
    if spec.suffix != ".py":
        return {}
    wanted = str(spec)
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if frame.f_code.co_filename == wanted:
            return {"line": frame.f_lineno}
        frame = frame.f_back
    return {}


def raised_at(spec: Path, error: pytest.ExceptionInfo[BaseException]) -> dict[str, int]:
    """``{"line": n}``, the last line of `spec` that led to `error`; empty where none did."""
    lines = [entry.lineno + 1 for entry in error.traceback if spec.suffix == ".py" and entry.path == spec]
    return {"line": lines[-1]} if lines else {}
