"""What a verdict may ask for beyond its own window: the launch's other windows, and other launches."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["Launches", "RecordedBy", "SingleWindow"]


class RecordedBy(NamedTuple):
    """A baseline that this run has recorded: for whom, and whether with times."""

    who: str
    times: bool


class Launches(Protocol):
    """Given to a trace by whoever takes captures."""

    @property
    def baselines(self) -> Path:
        """Root of the baselines."""

    @property
    def saved(self) -> int | None:
        """How many launches there are and can be (a replay), None where more can be taken."""

    @property
    def no_more(self) -> str:
        """Why no further launch can be taken, "" if one can."""

    @property
    def launch_s(self) -> float:
        """Wall time that a launch and its windows take, as far as is known."""

    def windows(self, launch: int) -> Sequence[TraceView]:
        """The windows of a launch; 1 is the one that every check shares, others are taken if need be.

        Raises:
            InfraError: it cannot be taken.

        """

    def command(self, mode: str) -> str:
        """The command line that records baselines, with ``--atom-update-baselines=<mode>``."""

    @property
    def lasting_command(self) -> str:
        """The command for the file: by spec and case, without the places of this run, so that it stays the same."""

    def say(self, text: str) -> None:
        """A progress line."""

    def write(self, path: Path, data: bytes) -> None:
        """Write a file, whole or not at all."""

    @property
    def times_wanted(self) -> bool:
        """Whether a baseline of this case is to have times, whoever of the run's checks records it."""

    def recording(self) -> AbstractContextManager[RecordedBy | None]:
        """Hold the case's recording, one check at a time over all processes of the run; gives what they recorded."""

    def recorded(self, *, times: bool) -> None:
        """Tell all processes of the run that the case is recorded now."""


class SingleWindow:
    """A trace read from a file: one window, no server behind it."""

    saved = 1
    no_more = "a trace read from a file has no server behind it"
    launch_s = 0.0

    def __init__(self, trace: TraceView, baselines: Path) -> None:
        self._trace = trace
        self.baselines = baselines

    def windows(self, launch: int) -> Sequence[TraceView]:
        """The trace itself, for every launch there is."""
        return [self._trace] if launch == 1 else []

    def command(self, mode: str) -> str:
        """The general form: there is no test to name."""
        return f"pytest --atom-update-baselines={mode}"

    @property
    def lasting_command(self) -> str:
        """As general."""
        return self.command("all")

    def say(self, text: str) -> None:
        """Nobody listens."""

    def write(self, path: Path, data: bytes) -> None:
        """Not from here: recording is the plugin's."""
        raise NotImplementedError(f"{len(data)} bytes for {path}: baselines are recorded in a run of pytest")

    times_wanted = False

    def recording(self) -> AbstractContextManager[RecordedBy | None]:
        """Nobody else is there."""
        return contextlib.nullcontext()

    def recorded(self, *, times: bool) -> None:
        """Nobody is told."""
