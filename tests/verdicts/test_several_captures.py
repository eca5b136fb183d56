"""Cases with several captures: what is exact holds in each, budgets are on the median, doubts name their capture."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace import Case, InconclusiveError, InsufficientStepsError, NoStepsError, Trace, UnhealthyTraceError
from pytest_atomtrace.settings import Settings
from pytest_atomtrace.trace.load import load
from tests.traces import LAYERS, Recipe, write_ranks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pytest_atomtrace.verdicts.launches import RecordedBy
    from pytest_atomtrace.verdicts.outcome import Verdict
    from pytest_atomtrace.verdicts.view import TraceView

STEP_US = 3 * LAYERS * 10
QUIET: dict[str, object] = {"requests": 4, "completed": 4, "output_tokens": 40}


class Windows:
    """The windows of one launch; nothing else is asked for."""

    saved = 1
    no_more = "a test has no server"
    launch_s = 0.0

    def __init__(self, traces: Sequence[Trace], baselines: Path) -> None:
        self._traces = traces
        self.baselines = baselines

    def windows(self, launch: int) -> Sequence[TraceView]:
        return self._traces if launch == 1 else []

    def command(self, mode: str) -> str:
        return f"pytest --atom-update-baselines={mode}"

    def say(self, text: str) -> None:
        raise NotImplementedError(text)

    def write(self, path: Path, data: bytes) -> None:
        raise NotImplementedError(f"{len(data)} bytes for {path}")

    times_wanted = False

    def recording(self) -> AbstractContextManager[RecordedBy | None]:
        raise NotImplementedError

    def recorded(self, *, times: bool) -> None:
        raise NotImplementedError(times)

    @property
    def lasting_command(self) -> str:
        raise NotImplementedError


class Taken:
    """Windows as they lie on disk, and what was said about them."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.verdicts: list[Verdict] = []

    def trace(
        self,
        *recipes: Recipe | Sequence[Recipe],
        captures: int | None = None,
        manifests: Mapping[int, Mapping[str, object]] | None = None,
        benches: Sequence[Mapping[str, object]] = (),
    ) -> Trace:
        """The last of these windows (each a recipe for two ranks, or one a rank), as a test gets it."""
        made: list[Trace] = []
        for number, recipe in enumerate(recipes, 1):
            place = self.place / "captures" / str(number)
            write_ranks(place, *([recipe, recipe] if isinstance(recipe, Recipe) else recipe))
            made.append(
                Trace(
                    load(place),
                    case=Case(model="org/model", tp=2, captures=captures or len(recipes)),
                    directory=place,
                    engine="atom",
                    settings=Settings(),
                    manifest=(manifests or {}).get(number),
                    bench=benches[number - 1] if benches else None,
                    record=self.verdicts.append,
                    launches=Windows(made, self.place),
                )
            )
        return made[-1]


@pytest.fixture
def taken(tmp_path: Path) -> Taken:
    return Taken(tmp_path)


def at(factor: float) -> Recipe:
    return Recipe(duration_us=10.0 * factor)


def test_a_budget_is_on_the_median_over_captures(taken: Taken) -> None:
    trace = taken.trace(at(1.0), at(2.0), at(1.1))
    trace.assert_step_time("decode", p50=f"{STEP_US * 1.2} us")
    verdict = taken.verdicts[-1]
    assert verdict.sentence == (
        "decode p50 (gpu_busy) is 132.0 us, within the budget of 144.0 us "
        "(median of 3 captures: 120.0 us, 240.0 us, 132.0 us)."
    )
    assert (verdict.facts["p50_ns"], verdict.facts["captures"]) == (132_000, 3)


def test_a_median_over_budget_fails_with_every_value_and_the_evidence_of_one_capture(taken: Taken) -> None:
    trace = taken.trace([at(1.0), at(1.2)], at(1.5), at(1.0))
    with pytest.raises(AssertionError) as caught:
        trace.assert_step_time("decode", p50=f"{STEP_US * 1.1} us", mean="1 s")
    lines = str(caught.value).splitlines()
    assert lines[0] == (
        "decode p50 (gpu_busy) is 144.0 us, over the budget of 132.0 us by 9.1 % "
        "(median of 3 captures: 144.0 us, 180.0 us, 120.0 us)."
    )
    assert lines[1:4] == [
        "  captures  1: 144.0 us on rank_1  <-",
        "            2: 180.0 us on rank_0  <-",
        "            3: 120.0 us on rank_0",
    ]
    assert lines[4] == "  evidence  of capture 1:"
    assert "captures/1" in str(caught.value)
    facts = taken.verdicts[-1].facts
    assert (facts["p50_ns"], facts["capture"], facts["rank"]) == (144_000, 1, "rank_1")


def test_two_captures_are_judged_by_their_mean(taken: Taken) -> None:
    trace = taken.trace(at(1.0), at(1.3))
    trace.assert_step_time("decode", p50=f"{STEP_US * 1.16} us")
    with pytest.raises(AssertionError, match=r"is 138\.0 us, over the budget of 136\.8 us"):
        trace.assert_step_time("decode", p50=f"{STEP_US * 1.14} us")


def test_the_last_capture_alone_decides_nothing(taken: Taken) -> None:
    with pytest.raises(AssertionError, match=r"median of 3 captures"):
        taken.trace(at(2.0), at(2.0), at(1.0)).assert_step_time("decode", p50=f"{STEP_US} us")


def test_a_count_that_is_wrong_in_the_first_capture_of_three_fails_and_names_it(taken: Taken) -> None:
    wrong = Recipe(renamed={"mfma_moe1_a_t32": "mfma_moe2_a_t32"})
    trace = taken.trace([Recipe(), wrong], Recipe(), Recipe())
    with pytest.raises(AssertionError, match=r"^Capture 1 of 3: mfma_moe1_a_t32 is called 0 times .* of rank_1"):
        trace.assert_kernel_called("mfma_moe1_a_t32", during="decode", per_step=LAYERS)
    assert taken.verdicts[-1].facts["capture"] == 1
    assert "captures/1" in taken.verdicts[-1].text
    trace.assert_kernel_called("attention_kernel", during="decode", per_step=LAYERS)
    assert taken.verdicts[-1].sentence.endswith("on 2 ranks; so it is in each of 3 captures.")


def test_presence_absence_order_and_agreement_hold_in_every_capture(taken: Taken) -> None:
    other = Recipe(renamed={"mfma_moe2_a_t32": "late_kernel"})
    trace = taken.trace(Recipe(), [Recipe(), other], Recipe())
    with pytest.raises(AssertionError, match=r"^Capture 2 of 3: late_kernel is called \d+ times"):
        trace.assert_kernel_not_called("late_kernel")
    with pytest.raises(AssertionError, match=r"^Capture 2 of 3: rank_\d differs from its 1 peers"):
        trace.assert_ranks_agree()
    with pytest.raises(AssertionError, match=r"^Capture 1 of 3: late_kernel is not called"):
        trace.assert_kernel_called("late_kernel")
    with pytest.raises(AssertionError, match=r"^Capture 2 of 3: The order .* breaks in decode step 6 of rank_1"):
        trace.assert_kernel_order(["attention_kernel", "mfma_moe1_*", "mfma_moe2_*"])


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (lambda t: t.assert_kernel_time("mfma_moe1_*", per_step="40 us"), "mfma_moe1_\\* per decode step is 44"),
        (lambda t: t.assert_kernel_time("mfma_moe1_*", share="30 %"), "share of mfma_moe1_\\* .* is 33.3 %"),
        (lambda t: t.assert_gpu_busy("decode", at_least="90 %"), "busy share .* is 33.7 %, under the budget"),
        (lambda t: t.assert_gaps(longer_than="100 us", at_most=3), "the number of gaps .* is 32, over"),
        (lambda t: t.assert_launch_time(mean="10 us"), "mean hipGraphLaunch is 20.00 us, over"),
    ],
    ids=["kernel time", "share", "busy", "gaps", "launch"],
)
def test_every_check_of_times_is_on_the_median(taken: Taken, check: object, text: str) -> None:
    trace = taken.trace(at(1.0), at(1.1), at(2.0))
    assert callable(check)
    with pytest.raises(AssertionError, match=rf"{text}[\s\S]*median of 3 captures"):
        check(trace)


def test_a_skew_is_on_the_median_and_counts_are_not(taken: Taken) -> None:
    trace = taken.trace([at(1.0), at(1.2)], [at(1.0), at(1.0)], [at(1.0), at(1.0)])
    trace.assert_ranks_agree(skew="5 %")
    assert "median of 3 captures: 20.0 %, 0.0 %, 0.0 %" in taken.verdicts[-1].sentence


def test_a_kernel_without_calls_has_no_time_in_any_median(taken: Taken) -> None:
    gone = Recipe(renamed={"mfma_moe1_a_t32": "other"})
    with pytest.raises(AssertionError, match=r"^Capture 2 of 3: mfma_moe1_a_t32 has no call"):
        taken.trace(at(1.0), gone, at(1.0)).assert_kernel_time("mfma_moe1_a_t32", per_step="1 s")


def test_a_capture_that_cannot_answer_is_named_and_no_median_is_made_of_the_rest(taken: Taken) -> None:
    contended = {2: {"contention": {"foreign": [{"pid": 7}], "throttle": {}}}}
    trace = taken.trace(at(1.0), at(1.0), at(1.0), manifests=contended)
    with pytest.raises(UnhealthyTraceError, match=r"H11 .*pid 7 \(capture 2 of 3\)"):
        trace.assert_step_time("decode", p50="1 s")
    trace.assert_kernel_called("attention_kernel", during="decode", per_step=LAYERS)


def test_a_wrong_count_outweighs_a_capture_that_cannot_answer(taken: Taken) -> None:
    trace = taken.trace(Recipe(decode_steps=4), Recipe(), Recipe())
    with pytest.raises(AssertionError, match=r"^Capture 2 of 3: "):
        trace.assert_kernel_called("attention_kernel", during="decode", per_step=3)
    with pytest.raises(InsufficientStepsError, match=r"has 0 on rank_0 in capture 1 of 3"):
        trace.assert_kernel_called("attention_kernel", during="decode", per_step=LAYERS)


def test_steps_that_one_capture_has_not_are_told_with_its_number(taken: Taken) -> None:
    trace = taken.trace(Recipe(), Recipe(), Recipe(decode_steps=0))
    with pytest.raises(NoStepsError, match=r"no decode step\..* capture 3 of 3"):
        trace.assert_kernel_order(["attention_kernel", "mfma_moe1_*", "mfma_moe2_*"])


def test_the_workloads_figures_are_medians_and_every_request_counts(taken: Taken) -> None:
    def bench(tpot_ms: float, completed: int = 4) -> dict[str, object]:
        spread = {"mean": tpot_ms, "p50": tpot_ms, "p99": tpot_ms}
        return {**QUIET, "unprofiled": {**QUIET, "completed": completed, "tpot_ms": spread}}

    trace = taken.trace(Recipe(), Recipe(), Recipe(), benches=[bench(9.0), bench(30.0), bench(10.0)])
    trace.assert_bench(tpot="11 ms", completed="100 %")
    with pytest.raises(
        AssertionError, match=r"mean tpot is 10\.00 ms, over .* captures: 9\.000 ms, 30\.00 ms, 10\.00 ms"
    ):
        trace.assert_bench(tpot="9.5 ms")
    lossy = Taken(taken.place / "lossy").trace(
        Recipe(), Recipe(), Recipe(), benches=[bench(9.0), bench(9.0, completed=3), bench(9.0)]
    )
    with pytest.raises(AssertionError, match=r"completed is 75\.0 %, under .*\(worst of 3 captures"):
        lossy.assert_bench(completed="90 %")
    with pytest.raises(InconclusiveError, match=r"Capture 2 of 3: 1 of 4 requests failed"):
        lossy.assert_bench(tpot="11 ms")


def test_untuned_shapes_of_any_capture_fail(taken: Taken) -> None:
    shape = {"op": "bf16", "m": 4, "n": 5, "k": 6}
    logs: dict[int, Mapping[str, object]] = {1: {"log": {"untuned": [shape]}}, 2: {"log": {}}}
    with pytest.raises(AssertionError, match=r"^Capture 1 of 2: 1 shape has no tuned config"):
        taken.trace(Recipe(), Recipe(), manifests=logs).assert_tuned()


def test_windows_that_only_a_baseline_needs_are_not_judged(taken: Taken) -> None:
    """Which windows a run takes depends on the tests that were selected; what one test says must not."""
    trace = taken.trace(at(2.0), at(2.0), at(1.0), captures=1)
    trace.assert_step_time("decode", p50=f"{STEP_US} us")
    trace = Taken(taken.place / "two").trace(at(9.0), at(1.0), at(1.1), captures=2)
    trace.assert_step_time("decode", p50=f"{STEP_US * 1.05} us")


SPEC = """
    import pytest

    pytestmark = pytest.mark.atom_case(model="openai/gpt-oss-120b", isl=16, osl=36, conc=4, captures=3)

    def test_counts(atom_trace):
        atom_trace.assert_kernel_called("topkGatingSoftmax", during="decode", per_step=2)

    def test_time(atom_trace):
        atom_trace.assert_step_time("decode", p50="1 us")
"""


def test_a_run_judges_all_captures_of_a_case_and_so_does_its_replay(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATOMTRACE_SIM_LAYERS", "2")
    ledger = pytester.path / "ledger.jsonl"
    monkeypatch.setenv("ATOMTRACE_SIM_LEDGER", str(ledger))
    pytester.makepyfile(SPEC)
    pytester.makeini("[pytest]")
    locks = f"--atom-lock-dir={pytester.path / 'locks'}"
    result = pytester.runpytest_subprocess("-p", "no:randomly", "--atom-backend=sim", locks)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.re_match_lines(
        [r".*decode p50 \(gpu_busy\) is .*, over the budget of 1\.000 us .*median of 3 captures"]
    )
    assert sum(json.loads(line)["event"] == "start" for line in ledger.read_text().splitlines()) == 1

    # A first capture that lost the kernel: only a look at all three finds it.
    (first,) = pytester.path.glob(".atomtrace/runs/*/captures/*/1")
    (file,) = first.glob("rank_0/*.pt.trace.json.gz")
    rename(file)
    result = pytester.runpytest_subprocess("-p", "no:randomly", "-k", "counts", "--atom-replay=.atomtrace")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Capture 1 of 3: topkGatingSoftmax is *not called*"])


def rename(file: Path) -> None:
    import gzip

    text = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(text.replace(b"topkGatingSoftmax", b"topkXXXXXXXXXXXXX"), 1))
