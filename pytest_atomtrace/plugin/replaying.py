"""A case's capture from what was saved: a skip where another case is there, an error where nothing is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.errors import InfraError

if TYPE_CHECKING:
    from pytest_atomtrace.capture.record import Capture
    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.settings import Settings

__all__ = ["replayed_capture"]


def replayed_capture(settings: Settings, case: Case) -> Capture:
    """The capture of `case` in the directory that ``--atom-replay`` names.

    Raises:
        InfraError: there is no such directory, nothing in it, a broken capture, or (with ``--atom-require-gpu``) none
            of this case.
        pytest.skip.Exception: it has captures, of other cases.

    """
    from pytest_atomtrace.capture.broken_replay import refuse_broken
    from pytest_atomtrace.capture.replay import explain_missing, find_capture, list_captures

    directory = Path(settings.replay)
    if not directory.exists():
        raise InfraError(f"--atom-replay: {directory} does not exist")
    refuse_broken(directory, case)
    capture = find_capture(directory, case)
    if capture is not None:
        return capture
    reason = f"--atom-replay: {explain_missing(directory, case)}"
    if not list_captures(directory):  # a replay that has nothing at all proves nothing about any case
        raise InfraError(reason)
    if settings.require_gpu:
        raise InfraError(f"--atom-require-gpu: {reason}")
    pytest.skip(reason)
