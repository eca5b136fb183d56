"""Captures with a manifest, and what a browser's parser sees in a page."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

from pytest_atomtrace import Case
from pytest_atomtrace.report.document import CaseRow, CheckRow, ReportDocument
from pytest_atomtrace.report.gather import with_details
from pytest_atomtrace.settings import Settings
from tests.traces import NAME, Recipe, write_ranks

if TYPE_CHECKING:
    from pathlib import Path

CASE = Case(model="org/model", tp=2)


def capture(directory: Path, *recipes: Recipe, case: Case = CASE, **manifest: Any) -> Path:
    """A finished capture: rank directories and a manifest, as the store leaves them."""
    write_ranks(directory, *recipes)
    ranks = {f"rank_{n}": {"file": f"rank_{n}/{NAME}"} for n in range(len(recipes))}
    facts = {"schema": 1, "slug": case.slug, "case": case.as_dict(), "ranks": ranks, "expected_ranks": list(ranks)}
    (directory / "manifest.json").write_text(json.dumps({**facts, "engine": "sim", **manifest}))
    return directory


def row(directory: Path | str = "", *, slug: str = CASE.slug, outcome: str = "pass", **more: Any) -> CaseRow:
    facts: dict[str, Any] = {
        "slug": slug, "engine": "sim", "directory": str(directory), "outcome": outcome,
        "passed": int(outcome == "pass"), "total": 1, "ranks": 2, "steady": 33, "steps": 41, "p50_ns": 120_000,
        "p99_ns": 130_000, "p99_firm": False, "health": (), "warnings": (), "capture_s": 1.5,
    }  # fmt: skip
    return CaseRow(**{**facts, **more})


def check(sentence: str, *, outcome: str = "fail", slug: str = CASE.slug, **more: Any) -> CheckRow:
    facts: dict[str, Any] = {"nodeid": "test_spec.py::test_it", "check": "a check", "notes": (), "text": sentence}
    return CheckRow(**{**facts, **more}, slug=slug, outcome=outcome, sentence=sentence)


def document(*rows: CaseRow, checks: tuple[CheckRow, ...] = (), **more: Any) -> ReportDocument:
    return ReportDocument("20260101-000000-1-abcd", rows, checks, len(checks), **more)


def write_baseline(root: Path, place: Path) -> None:
    """A baseline of the usual recipe's steps (118 to 122 us) for the capture at `place`."""
    from pytest_atomtrace.trace.load import load
    from pytest_atomtrace.verdicts.baseline import Baseline
    from pytest_atomtrace.verdicts.baseline_place import baseline_path
    from pytest_atomtrace.verdicts.fingerprint import fingerprint
    from pytest_atomtrace.verdicts.saved import beside
    from pytest_atomtrace.verdicts.step_profile import Usage
    from pytest_atomtrace.verdicts.trace import Trace

    manifest = beside(place, "manifest.json")
    now = fingerprint(Trace(load(place), case=CASE, directory=place, engine="sim", manifest=manifest))
    kernels = {name: Usage(4, 40_000.0) for name in ("attention_kernel", "mfma_moe1_a_t32", "mfma_moe2_a_t32")}
    baseline = Baseline(
        CASE.slug, now.simulated, now.hardware, now.profiler, now.model, {},
        metrics={"decode.gpu_busy": tuple((ns,) for ns in range(118_000, 123_000, 1_000))}, kernels=kernels,
    )  # fmt: skip
    path = baseline_path(root / "baselines", now, CASE.slug)
    path.parent.mkdir(parents=True)
    path.write_text(baseline.text())


def detailed(plain: ReportDocument, root: Path, **settings: Any) -> ReportDocument:
    return with_details(plain, settings=Settings(**settings), baselines_root=root / "baselines")


@dataclass
class Page(HTMLParser):
    """Elements and texts of a page, as a parser that runs nothing finds them."""

    html: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._inside: list[str] = []
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside.append(tag)
            (self.scripts if tag == "script" else self.styles).append("")

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.shown.append(data)
        elif self._inside[-1] == "script":
            self.scripts[-1] += data
        else:
            self.styles[-1] += data

    @property
    def text(self) -> str:
        return "".join(self.shown)

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]
