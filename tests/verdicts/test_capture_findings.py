"""What a capture's manifest and figures say about whether its times may be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace import Case, Trace, UnhealthyTraceError
from pytest_atomtrace.trace.load import load
from pytest_atomtrace.verdicts.capture_findings import ACCEPTANCE_FLOORS, capture_findings
from tests.traces import Recipe, write_ranks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

GOOD = {"requests": 64, "completed": 64, "output_tokens": 8192, "asked_output_tokens": 8192}


def manifest_of(engine: str = "atom", **fields: object) -> dict[str, object]:
    case = Case(
        model="deepseek-ai/DeepSeek-V4-Pro", tp=8, server_args=("--method", "mtp", "--num-speculative-tokens=3")
    )
    return {"engine": engine, "case": {**case.as_dict(), **fields}}


def texts(manifest: Mapping[str, object], bench: Mapping[str, object]) -> list[str]:
    found = capture_findings(manifest, bench)
    assert all(finding.fatal and finding.scope == "times" for finding in found)
    return [str(finding) for finding in found]


def test_nothing_recorded_and_a_sound_workload_raise_no_doubt() -> None:
    assert texts({}, {}) == []
    assert texts(manifest_of(), GOOD) == []


def test_failed_and_incomplete_requests_are_doubts() -> None:
    assert texts({}, {**GOOD, "completed": 62, "output_tokens": 7936}) == [
        "H10 workload: 2 of 64 requests of the window failed: the batch was not the one asked for"
    ]
    assert texts({}, {**GOOD, "output_tokens": 8000}) == [
        "H10 workload: 8,000 of 8,192 output tokens came: requests ended early"
    ]


def drafts(rate: float, count: int = 6000) -> dict[str, object]:
    return {**GOOD, "acceptance": {"rate": rate, "draft_tokens": count}}


@pytest.mark.parametrize(
    ("rate", "count", "doubt"),
    [
        (0.65, 6000, False),
        (0.61, 6000, False),  # within three standard deviations of 0.622
        (0.55, 6000, True),
        (0.55, 60, False),  # too few draft tokens to tell
        (0.0, 6000, True),
    ],
)
def test_low_acceptance_is_a_doubt_when_it_is_no_scatter(rate: float, count: int, doubt: bool) -> None:
    assert bool(texts(manifest_of(), drafts(rate, count))) is doubt


def test_the_floor_is_that_of_the_model_and_means_nothing_on_the_simulator() -> None:
    assert ACCEPTANCE_FLOORS["deepseek-ai/DeepSeek-V4-Pro", 3] == 0.622
    assert "ATOM's CI asks for 62.2% of this model" in texts(manifest_of(), drafts(0.5))[0]
    assert texts(manifest_of(model="org/unknown"), drafts(0.3)) == []
    assert texts(manifest_of(engine="sim"), drafts(0.5)) == []
    assert "speculative decoding did not work" in texts(manifest_of(engine="sim"), drafts(0.001))[0]
    assert texts(manifest_of(server_args=[]), drafts(0.0)) == [], "no drafts, no acceptance"


def test_ordered_acceptance_is_compared_with_the_order() -> None:
    for flags, ordered in (
        (["--spec-decode-acceptance-rate", "0.8"], 0.8),
        (["--spec_decode_acceptance_length=2.5"], 0.5),
    ):
        manifest = manifest_of(server_args=["--method", "mtp", "--num-speculative-tokens", "3", *flags])
        assert texts(manifest, drafts(ordered)) == []
        assert "were ordered by argument" in texts(manifest, drafts(ordered - 0.2))[0]


def test_a_build_or_a_first_lookup_inside_the_window_is_a_doubt() -> None:
    log = {
        "builds": [{"module": "m_a", "in_window": True}, {"module": "m_b", "in_window": False}],
        "untuned": [{"op": "bf16", "in_window": True}, {"op": "bf16", "in_window": False}],
        "moe_defaults": [{"stages": "2", "in_window": False}],
    }
    assert texts({"log": log}, {}) == [
        "H13 build-in-window: m_a was built inside the window",
        "H13 build-in-window: 1 shape was looked up inside the window and found untuned: the warm-up did not reach "
        "them",
    ]


def test_such_a_capture_answers_counts_and_refuses_times(tmp_path: Path) -> None:
    place = write_ranks(tmp_path / "traces", Recipe())
    trace = Trace(load(place), bench={**GOOD, "completed": 60})
    trace.assert_kernel_called("mfma_moe1_*", during="decode")
    with pytest.raises(UnhealthyTraceError, match="H10 workload: 4 of 64 requests"):
        trace.assert_step_time("decode", p50="1 s")
    assert [finding.code for finding in trace.health if finding.fatal] == ["H10"]
