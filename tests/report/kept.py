"""Kept runs as the plugin leaves them, without taking a capture: built traces, manifests, reports."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pytest_atomtrace import Case
from tests.traces import Recipe, write_ranks

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CASE", "MI355X", "KeptRun"]

CASE = Case(model="org/Some-Model", tp=2, isl=64, osl=40, conc=4)
MI355X: dict[str, str | int] = {
    "gfx": "gfx950",
    "pci_device_id": "0x75a3",
    "compute_units": 256,
    "power_cap_w": 1400,
    "count": 2,
}
DAY = 86_400.0
T0 = datetime(2026, 10, 31, 12).timestamp()


@dataclass
class KeptRun:
    """One run of one case; `write` makes its directory below ``<output>/runs``. `us` is the time of a kernel."""

    day: int
    us: float = 10.0
    engine: str = "atom"
    case: Case = CASE
    environment: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    recipes: tuple[Recipe, ...] = ()
    bench: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] | None = None
    capture: bool = True

    @property
    def name(self) -> str:
        return f"202611{self.day:02d}-120000-77-00ff"

    @property
    def taken(self) -> float:
        return datetime(2026, 11, self.day, 12).timestamp()

    def place(self, output: Path) -> Path:
        return output / "runs" / self.name

    def window(self, output: Path, number: int = 1) -> Path:
        return self.place(output) / "captures" / self.case.slug / str(number)

    def write(self, output: Path) -> Path:
        self.place(output).mkdir(parents=True)
        if self.capture:
            self.write_capture(self.window(output))
        if self.report is not None:
            (self.place(output) / "report.json").write_text(json.dumps(self.document()))
        return self.place(output)

    def write_capture(self, place: Path) -> None:
        recipes = self.recipes or tuple(Recipe(duration_us=self.us) for _ in range(self.case.tp))
        write_ranks(place, *recipes)
        ranks = [f"rank_{number}" for number in range(len(recipes))]
        manifest = {
            "schema": 1,
            "slug": self.case.slug,
            "case": self.case.as_dict(),
            "engine": self.engine,
            "run": self.name,
            "test": "test_speed.py::test_speed",
            "created_unix_s": self.taken,
            "capture_s": 12.5,
            "expected_ranks": ranks,
            "ranks": {rank: {"file": f"{rank}/{next((place / rank).iterdir()).name}"} for rank in ranks},
            "server": {"env": self.env},
            "environment": {"gpu": MI355X, "key": "0123456789ab", **self.environment, "volatile": {"host": "node-1"}}
            if self.engine == "atom"
            else self.environment,
            "versions": {"pytest-atomtrace": "0.1.0"},
        }
        (place / "manifest.json").write_text(json.dumps(manifest))
        (place / "bench.json").write_text(json.dumps(self.bench))

    def document(self) -> dict[str, Any]:
        report = dict(self.report or {})
        checks = report.pop("checks", [])
        row = {
            "slug": self.case.slug,
            "outcome": "pass",
            "engine": self.engine,
            "simulated": self.engine == "sim",
            "capture": "x" if self.capture else "",
            "gpu": "AMD Instinct MI355X",
            "decode_p50_ns": None,
            "health": [],
        }
        return {"schema": "atomtrace-report/1", "run": {"id": self.name}, "cases": [row | report], "checks": checks}


def check(outcome: str, *, expected: bool = False, notes: tuple[str, ...] = ()) -> dict[str, Any]:
    """A check of a report."""
    return {
        "test": "test_speed.py::test_speed",
        "file": "test_speed.py",
        "line": 7,
        "case": CASE.slug,
        "check": "p50 of decode steps",
        "outcome": outcome,
        "expected": expected,
        "sentence": "It took 9.5 ms.",
        "evidence": [],
        "notes": list(notes),
        "facts": {"p50_ns": 9_500_000, "rank": "rank_1"},
    }
