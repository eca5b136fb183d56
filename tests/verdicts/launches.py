"""Launches without a server: small traces whose kernels are as slow as a test says."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

from pytest_atomtrace import Case, Trace
from pytest_atomtrace.errors import LeaseError
from pytest_atomtrace.settings import Settings
from pytest_atomtrace.trace.load import load
from pytest_atomtrace.verdicts.launches import RecordedBy
from tests.traces import Recipe, write_ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pytest_atomtrace.trace.finding import Finding
    from pytest_atomtrace.verdicts.outcome import Verdict
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["CASE", "Bench", "slower"]

CASE = Case(model="org/model", tp=2)
# 40 layers of three kernels of 10 us: a step of 1.2 ms, so that the absolute floors of the rule are small beside it.
USUAL = Recipe(layers=40, decode_steps=28)


def slower(factor: float = 1.0, **kernels: float) -> Recipe:
    """The usual recipe with all kernels slower by `factor`, some by more."""
    return dataclasses.replace(USUAL, duration_us=10.0 * factor, times=dict(kernels))


class Bench:
    """Traces of launches, each of one window, in a directory; what is asked for beyond them is refused."""

    def __init__(self, directory: Path, *, settings: Settings | None = None) -> None:
        self.directory = directory
        self.settings = settings or Settings()
        self.baselines = directory / "perf_specs" / "baselines"
        self.verdicts: list[Verdict] = []
        self.said: list[str] = []
        self.asked: list[int] = []
        self.launch_s = 60.0
        self.no_more = ""
        self.saved: int | None = None
        self.findings: dict[int, Finding] = {}
        self._recipes: list[Sequence[Recipe]] = []
        self.times_wanted = False
        self.device: dict[str, object] = {}
        self._recorded: RecordedBy | None = None
        self._number = 0

    def trace(self, *launches: Recipe | Sequence[Recipe], **settings: object) -> Trace:
        """The trace of the first launch; the others are there for whoever asks. A launch is a recipe or one a rank."""
        self.settings = Settings(**settings)
        self._recipes = [[one, one] if isinstance(one, Recipe) else one for one in launches]
        self._number += 1
        self._recorded = None
        self.asked.clear()
        return self._window(1, Trace)

    def record(self, *launches: Recipe) -> None:
        """Record a baseline of these launches."""
        self.trace(*launches, update_baselines="all").assert_no_regression()

    def _window(self, launch: int, kind: Callable[..., Trace]) -> Trace:
        place = self.directory / f"run-{self._number}" / str(launch)
        if not place.exists():
            write_ranks(place, *self._recipes[launch - 1])
        data = load(place)
        if launch in self.findings:
            data = dataclasses.replace(data, findings=(*data.findings, self.findings[launch]))
        return kind(
            data,
            case=CASE,
            directory=place,
            engine="atom",
            settings=self.settings,
            manifest={"environment": {"deviceProperties": [self.device]}} if self.device else None,
            record=self.verdicts.append,
            launches=self,
        )

    def windows(self, launch: int) -> Sequence[TraceView]:
        self.asked.append(launch)
        if launch > len(self._recipes):
            raise LeaseError("the GPUs were not free within 3 h: held by somebody")
        return [self._window(launch, Trace)]

    def command(self, mode: str) -> str:
        return f"pytest test_it.py --atom-update-baselines={mode}"

    @property
    def lasting_command(self) -> str:
        return f"pytest test_it.py -k {CASE.slug} --atom-update-baselines=all"

    def say(self, text: str) -> None:
        self.said.append(text)

    def write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    @contextlib.contextmanager
    def recording(self) -> Iterator[RecordedBy | None]:
        yield self._recorded

    def recorded(self, *, times: bool) -> None:
        self._recorded = RecordedBy("another check", times)
