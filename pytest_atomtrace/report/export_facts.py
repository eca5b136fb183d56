"""What an export says of a capture and of a run, out of manifests, workload figures and reports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_atomtrace.verdicts.environment import environment_facts, environment_id
from pytest_atomtrace.verdicts.saved import beside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_atomtrace.capture.saved_runs import SavedCapture, SavedRun
    from pytest_atomtrace.report.saved_report import SavedReport
    from pytest_atomtrace.verdicts.fingerprint import Fingerprint

__all__ = ["capture_facts", "identity", "run_facts", "verdict_columns"]

_CASE_FIELDS = ("model", "tp", "dp", "pp", "isl", "osl", "conc")
_SOFTWARE = {
    "rocm_version": "rocm_version",
    "driver_version": "driver_version",
    "torch_version": "versions.torch",
    "triton_version": "versions.triton",
    "atom_version": "atom.version",
    "atom_commit": "atom.commit",
    "atom_edits": "atom.edits",
    "aiter_version": "aiter.version",
    "aiter_commit": "aiter.commit",
    "aiter_edits": "aiter.edits",
}
# Of these a capture without traces says nothing.
_MAY_LACK = ("gpu", "gfx")
_SHARED = (
    "engine", "simulated", "host", "gpu", "gfx", "hardware_key", *_SOFTWARE, "profiler", "plugin_version",
    "environment_id", "environment",
)  # fmt: skip


def identity(run: SavedRun, capture: SavedCapture) -> dict[str, object]:
    """The columns that say of which window a row is."""
    return {
        "run": run.name,
        "slug": capture.slug,
        "side": capture.side,
        "launch_no": capture.launch,
        "window_no": capture.window,
    }


def capture_facts(
    run: SavedRun,
    capture: SavedCapture,
    now: Fingerprint | None,
    *,
    ranks: int,
    missing: Sequence[str],
    accepted: float | None,
    health: Sequence[str] | None,
) -> dict[str, object]:
    """A row of `captures`, and the facts that `run_facts` joins; `now` is the fingerprint of a rank, None
    where no trace was kept.
    """
    manifest = capture.manifest
    case = _mapping(manifest.get("case"))
    bench = beside(capture.directory, "bench.json") if manifest else {}
    facts = environment_facts(manifest)
    environment = _mapping(manifest.get("environment"))
    profiler = [facts.get(f"profiler.{key}") for key in ("library", "version")]
    engine = str(manifest.get("engine") or "file")
    return {
        **identity(run, capture),
        "taken_utc": manifest.get("created_unix_s"),
        "engine": engine,
        "simulated": engine == "sim" if manifest else None,
        **{name: case.get(name) for name in _CASE_FIELDS},
        "ranks": ranks,
        "missing_ranks": list(missing),
        "health": list(health) if health is not None else None,
        "test": manifest.get("test"),
        "capture_s": manifest.get("capture_s"),
        **{name: bench.get(name) for name in ("completed", "failed", "input_tokens", "output_tokens")},
        "output_tokens_per_s": bench.get("output_tokens_per_s"),
        **{
            f"{name}_{quantile}_ns": _ns(bench, f"{name}_ms", quantile)
            for name in ("ttft", "tpot")
            for quantile in ("p50", "p99")
        },
        "unprofiled_tpot_p50_ns": _ns(_mapping(bench.get("unprofiled")), "tpot_ms", "p50"),
        "accepted_length": accepted,
        "gpu": now.hardware.get("device") if now is not None else None,
        "gfx": now.gfx if now is not None and now.gfx != "gpu" else facts.get("gpu.gfx"),
        "hardware_key": environment.get("key"),
        **{name: facts.get(key) for name, key in _SOFTWARE.items()},
        "profiler": " ".join(one for one in profiler if one) or None,
        "environment_id": environment_id(facts) or None,
        "directory": str(capture.directory),
        # Of the run's row only.
        "host": facts.get("host"),
        "plugin_version": facts.get("plugin"),
        "environment": json.dumps(dict(sorted(facts.items())), ensure_ascii=False) if facts else None,
    }


def run_facts(run: SavedRun, captures: Sequence[Mapping[str, object]], report: SavedReport | None) -> dict[str, object]:
    """A row of `runs`: what all captures share."""
    times = [float(one) for row in captures if isinstance(one := row["taken_utc"], (int, float))]
    outcomes = [check.outcome for check in report.checks if not check.expected] if report is not None else None
    return {
        "run": run.name,
        "taken_utc": min(times, default=None),
        **{
            name: _shared([row[name] for row in captures if row[name] is not None or name not in _MAY_LACK])
            for name in _SHARED
        },
        "captures": len(captures),
        "checks": None if outcomes is None else len(outcomes),
        "failed": None if outcomes is None else sum(one in ("fail", "regression") for one in outcomes),
        "directory": str(run.directory or (run.captures[0].directory if run.captures else "")),
    }


def verdict_columns(report: SavedReport) -> dict[str, object]:
    """Every check of a run's report."""
    checks = report.checks
    return {
        "slug": [one.case for one in checks],
        "test": [one.test for one in checks],
        "file": [one.file for one in checks],
        "line": [one.line for one in checks],
        "asked": [one.check for one in checks],
        "outcome": [one.outcome for one in checks],
        "expected": [one.expected for one in checks],
        "sentence": [one.sentence for one in checks],
        "notes": [list(one.notes) for one in checks],
        "facts": [json.dumps(dict(one.facts), ensure_ascii=False) for one in checks],
    }


def _shared(values: Sequence[object]) -> object:
    return values[0] if values and all(one == values[0] for one in values) else None


def _ns(figures: Mapping[str, object], name: str, quantile: str) -> int | None:
    value = _mapping(figures.get(name)).get(quantile)
    return round(value * 1e6) if isinstance(value, (int, float)) else None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
