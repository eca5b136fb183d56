"""Files for github-action-benchmark: ATOM's names, one direction a file, and no made-up number among real ones."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_atomtrace.report.dashboard import Dashboard, Entry, dashboard
from tests.report.rows import document, entry

ASKED = {
    "model": "deepseek-ai/DeepSeek-V4-Pro", "tp": 8, "dp": 1, "isl": 1024, "osl": 128, "conc": 64, "variant": "MTP3",
}  # fmt: skip
BENCH = {
    "profiled": False, "output_tokens_per_s": 2839.361, "total_tokens_per_s": 5684.96, "ttft_mean_ns": 449_041_000,
    "tpot_mean_ns": 41_400_000, "acceptance_length": 2.5, "acceptance_rate": 0.5,
}  # fmt: skip
NAME = "ATOM::DeepSeek-V4-Pro MTP3 1024/128 c=64"


def made(*cases: dict[str, Any], simulator_run: bool = False) -> Dashboard:
    rows = [
        entry(place, slug=str(case.pop("slug", f"case{place}")), case={"p50_ns": 9_553_000, "asked": ASKED, **case})
        for place, case in enumerate(cases)
    ]
    return dashboard(document(*rows), simulator_run=simulator_run, run_url="https://github.com/o/r/actions/runs/1")


def values(entries: list[Entry]) -> dict[str, tuple[object, object]]:
    return {str(one["name"]): (one["value"], one["unit"]) for one in entries}


def test_a_measured_case_has_the_series_of_atoms_dashboard_by_direction() -> None:
    found = made({"bench": BENCH, "per_token_ns": 3_800_000, "gpu": "AMD Instinct MI355X", "rocm": "7.0"})
    assert values(found.bigger) == {
        f"{NAME} throughput (tok/s)": (2839.36, "tok/s"),
        f"{NAME} Total Tput (tok/s)": (5684.96, "tok/s"),
        f"{NAME} Accept Length (tok/fwd)": (2.5, "tok/fwd"),
        f"{NAME} Acceptance Rate (%)": (50.0, "%"),
        f"{NAME} _gpu_count": (8, ""),
        f"{NAME} _tp": (8, ""),
    }
    assert values(found.smaller) == {
        f"{NAME} TTFT (ms)": (449.04, "ms"),
        f"{NAME} TPOT (ms)": (41.4, "ms"),
        "atomtrace::case0 decode GPU busy p50 (us/step)": (9553.0, "us/step"),
        "atomtrace::case0 decode GPU busy p50 (us/token)": (3800.0, "us/token"),
    }
    extra = "Run: https://github.com/o/r/actions/runs/1 | GPU: AMD Instinct MI355X | ROCm: 7.0 | Case: case0"
    assert found.smaller[0]["extra"] == extra
    assert not found.left_out


def test_times_taken_under_the_profiler_never_reach_atoms_series() -> None:
    found = made({"bench": {**BENCH, "profiled": True}})
    assert not found.bigger
    assert all("ATOM::" not in name for name in values(found.smaller))
    assert "--atom-bench=on" in found.left_out[0]


def test_a_simulated_case_is_refused_outside_a_simulator_run_and_marked_inside() -> None:
    case = {"bench": BENCH, "simulated": True}
    refused = made(dict(case))
    assert (refused.bigger, refused.smaller) == ([], [])
    assert "simulated" in refused.left_out[0]
    names = [*values((found := made(dict(case), simulator_run=True)).bigger), *values(found.smaller)]
    assert names
    assert all(name.startswith("[simulated] ") for name in names)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ({"health": ["H05"]}, "H05"),
        ({"asked": {**ASKED, "load_dummy": True}}, "random weights"),
        ({"asked": {}}, "no capture"),
    ],
)
def test_what_cannot_be_believed_is_left_out_and_said(case: dict[str, Any], reason: str) -> None:
    found = made({"bench": BENCH, **case})
    assert (found.bigger, found.smaller) == ([], [])
    assert reason in found.left_out[0]


def test_two_cases_that_atom_calls_the_same_share_no_series() -> None:
    found = made({"bench": BENCH, "slug": "a"}, {"bench": BENCH, "slug": "b", "asked": {**ASKED, "tp": 4}})
    assert not found.bigger
    assert sorted(values(found.smaller)) == [
        "atomtrace::a decode GPU busy p50 (us/step)",
        "atomtrace::b decode GPU busy p50 (us/step)",
    ]
    assert len(found.left_out) == 2


def ratios(now: Dashboard, before: Dashboard) -> dict[str, float]:
    """By series how much worse it became, as the action computes it: above 1 is worse in either direction."""
    found: dict[str, float] = {}
    for new, old, bigger in ((now.bigger, before.bigger, True), (now.smaller, before.smaller, False)):
        assert list(values(new)) == list(values(old))
        for one, other in zip(new, old, strict=True):
            value, earlier = float(one["value"]), float(other["value"])
            found[str(one["name"])] = earlier / value if bigger else value / earlier
    return found


def test_the_action_alerts_on_a_slower_run_and_is_quiet_on_an_equal_one() -> None:
    worse = {"output_tokens_per_s": 0.7, "total_tokens_per_s": 0.7, "ttft_mean_ns": 1.5, "tpot_mean_ns": 1.5}
    slow = {key: value * worse.get(key, 1) for key, value in BENCH.items()}
    before = made({"bench": BENCH})
    assert set(ratios(made({"bench": BENCH}), before).values()) == {1.0}
    alerts = {
        name for name, ratio in ratios(made({"bench": slow, "p50_ns": 14_000_000}), before).items() if ratio > 1.25
    }
    assert alerts == {
        f"{NAME} throughput (tok/s)", f"{NAME} Total Tput (tok/s)", f"{NAME} TTFT (ms)", f"{NAME} TPOT (ms)",
        "atomtrace::case0 decode GPU busy p50 (us/step)",
    }  # fmt: skip
