"""The fixture `atom_bench`: the pass without the profiler, or no answer."""

from __future__ import annotations

import pytest

SPEC = """
    import pytest

    pytestmark = pytest.mark.atom_case(model="openai/gpt-oss-120b", isl=16, osl=36, conc=4)

    def test_figures(atom_bench):
        assert (atom_bench.requests, atom_bench.completed, atom_bench.profiled) == (4, 4, False)
        assert 0 < atom_bench.tpot.p50_ns <= atom_bench.tpot.p99_ns

    def test_budget(atom_trace):
        atom_trace.assert_bench(tpot="10 s", throughput="1 tok/s", completed="100 %")

    def test_missed(atom_trace):
        atom_trace.assert_bench(tpot="1 us")

    def test_counts_need_no_such_pass(atom_trace):
        atom_trace.assert_bench(completed="100 %")

    def test_tuned(atom_trace):
        atom_trace.assert_tuned()
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("ATOMTRACE_SIM_LAYERS", "2")
    pytester.makepyfile(SPEC)
    pytester.makeini("[pytest]")
    return pytester


def options(pytester: pytest.Pytester) -> tuple[str, ...]:
    return ("-p", "no:randomly", "--atom-backend=sim", f"--atom-lock-dir={pytester.path / 'locks'}")


def test_with_the_pass_figures_and_budgets_are_judged(run: pytest.Pytester) -> None:
    result = run.runpytest_subprocess(*options(run), "--atom-bench=on")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["*The workload misses its budget: mean tpot *"])


def test_without_it_there_is_no_answer_but_for_counts(run: pytest.Pytester) -> None:
    result = run.runpytest_subprocess(*options(run))
    result.assert_outcomes(passed=2, errors=3)
    result.stdout.fnmatch_lines(["*--atom-bench=on*"])
