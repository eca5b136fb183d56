"""The public Trace: what one capture shows, and the assertions on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.trace.load import load
from pytest_atomtrace.verdicts import agreement, kernel_time, occupancy, order, presence, times
from pytest_atomtrace.verdicts.outcome import Outcome, Verdict
from pytest_atomtrace.verdicts.saved import beside
from pytest_atomtrace.verdicts.view import RankTrace, TraceView

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["RankTrace", "Trace", "load_trace"]


class Trace(TraceView):
    """All ranks of one capture.

    The ``assert_*`` methods record a verdict whether they pass or fail. They raise AssertionError with the full
    evidence for "no", `InconclusiveError` where the trace cannot answer, and `ConfigError` for a wrong question.
    """

    def assert_kernel_called(
        self,
        name: str,
        *,
        during: str | None = None,
        layer: str | None = None,
        ranks: str | Sequence[str] = "all",
        at_least: int = 1,
        exactly: int | None = None,
        per_step: int | None = None,
    ) -> None:
        """Assert that a kernel (or op, or annotation) is called.

        Args:
            name: a plain name (raw, base name, or one of its ``::`` suffixes; never a substring), a glob with
                ``*`` and ``?``, or ``re:`` and a regular expression.
            during: a phase such as ``decode`` or ``prefill``; None for the whole window.
            layer: ``kernel``, ``op``, ``annotation`` or ``memory``; None prefers GPU kernels.
            ranks: ``all`` (each must fit), ``any``, a rank's name or several.
            at_least: calls per rank.
            exactly: calls per rank, exact.
            per_step: exact calls in every steady step of `during` on every selected rank.

        Raises:
            AssertionError: it is not; with rank, step, counts and nearest names.
            InconclusiveError: the trace cannot answer.
            ConfigError: the question is wrong.

        """
        __tracebackhide__ = True
        question = presence.Question(name, during, layer, ranks, at_least, exactly, per_step)
        self._settle(presence.called(self, question))

    def assert_kernel_not_called(
        self,
        name: str,
        *,
        example: str | None = None,
        during: str | None = None,
        layer: str | None = None,
        ranks: str | Sequence[str] = "all",
    ) -> None:
        """Assert that no kernel (or op) of this name is called.

        Args:
            name: as in `assert_kernel_called`.
            example: a real name that the pattern must match; without one the verdict is listed as unproven,
                since a typo in an absence is green for ever.
            during: a phase, or None for the whole window.
            layer: restrict to one layer; None looks at kernels, memory operations and ops.
            ranks: which ranks are looked at.

        Raises:
            AssertionError: it is called; with where and how often.
            InconclusiveError: the trace cannot answer.
            ConfigError: the question is wrong, or the pattern does not match its own example.

        """
        __tracebackhide__ = True
        question = presence.Question(name, during, layer, ranks, example=example)
        self._settle(presence.absent(self, question))

    def assert_step_time(
        self,
        kind: str,
        *,
        p50: str | None = None,
        p90: str | None = None,
        p99: str | None = None,
        mean: str | None = None,
        max: str | None = None,  # noqa: A002  # the statistic's name in every tool of this field
        metric: str = "gpu_busy",
        ranks: str | Sequence[str] = "worst",
    ) -> None:
        """Assert a time budget per steady step, such as ``p50="9.5 ms"``.

        Raises:
            AssertionError: a budget is exceeded; with rank, amount, slowest step and top kernels.
            InconclusiveError: too few steady steps (p50, mean, max: 20; p90: 50; p99: 200), or times that
                cannot be believed.
            ConfigError: a budget without a unit, an unknown metric, no budget at all.

        """
        __tracebackhide__ = True
        budgets = {"p50": p50, "p90": p90, "p99": p99, "mean": mean, "max": max}
        self._settle(times.step_time(self, kind, budgets, metric=metric, ranks=ranks))

    def assert_kernel_order(
        self, names: Sequence[str], *, during: str = "decode", ranks: str | Sequence[str] = "all"
    ) -> None:
        """Assert that the calls of these kernels, taken together, repeat the given sequence in every steady step.

        Within one stream calls are ordered by their starts; across streams only where one ends before the other
        starts, so an overlap breaks the order.

        Raises:
            AssertionError: the order breaks; with rank, step and the calls around the place.
            InconclusiveError: the trace cannot answer.
            ConfigError: fewer than two names.

        """
        __tracebackhide__ = True
        self._settle(order.kernel_order(self, names, during=during, ranks=ranks))

    def assert_kernel_time(
        self, name: str, *, during: str = "decode", per_step: str | None = None, share: str | None = None
    ) -> None:
        """Assert the GPU time of a kernel (a pattern) or a family (``family:moe_gemm``) per steady step.

        Args:
            name: pattern, or ``family:`` and a family of ``atomtrace summary``.
            during: a kind of step.
            per_step: budget of the median over steady steps, such as ``"1.2 ms"``; union over streams.
            share: budget as a share of the step's GPU busy time, such as ``"30 %"``.

        Raises:
            AssertionError: over budget on the worst rank, or never called.
            InconclusiveError: times cannot be believed, too few steady steps.
            ConfigError: no budget, no such family.

        """
        __tracebackhide__ = True
        self._settle(kernel_time.kernel_time(self, name, during=during, per_step=per_step, share=share))

    def assert_gpu_busy(self, kind: str = "decode", *, at_least: str) -> None:
        """Assert the share of a steady run, time between steps included, in which some kernel runs.

        Raises:
            AssertionError: the least busy rank is under ``at_least="90 %"``.
            InconclusiveError: times cannot be believed, too few steady steps.
            ConfigError: no share.

        """
        __tracebackhide__ = True
        self._settle(occupancy.gpu_busy(self, kind, at_least=at_least))

    def assert_gaps(self, *, longer_than: str, at_most: int, during: str = "decode") -> None:
        """Assert how many idle gaps longer than ``"100 us"`` lie in a steady run, between steps too.

        Gaps inside a graph do not exist in ROCm traces: consecutive graph kernels abut within 2 ns.

        Raises:
            AssertionError: a rank has more.
            InconclusiveError: times cannot be believed, too few steady steps.
            ConfigError: no duration, no whole number.

        """
        __tracebackhide__ = True
        self._settle(occupancy.gaps(self, longer_than=longer_than, at_most=at_most, during=during))

    def assert_launch_time(self, *, mean: str, api: str = "hipGraphLaunch") -> None:
        """Assert the mean host cost of a launch API, such as ``mean="150 us"``.

        A healthy graph launch costs about 50 us; torch on rocprofiler-sdk before 1.3.2 about 316 us (ATOM
        tests/test_profiler_regression.py).

        Raises:
            AssertionError: the slowest rank is over it.
            InconclusiveError: nothing was launched by `api`, or host times cannot be believed.
            ConfigError: no duration.

        """
        __tracebackhide__ = True
        self._settle(occupancy.launch_time(self, mean=mean, api=api))

    def assert_ranks_agree(self, *, counts: bool = True, skew: str | None = None, during: str = "decode") -> None:
        """Assert that the ranks of each tensor-parallel group call the same kernels and work equally long.

        Args:
            counts: equal calls per step of every kernel.
            skew: how much longer than the middle rank the slowest may work, such as ``"5 %"``; collectives are
                left out, since they wait for the slowest and hide which one it is.
            during: a kind of step.

        Raises:
            AssertionError: a rank differs; named, with the kernel or the times.
            InconclusiveError: the trace cannot answer.
            ConfigError: nothing asked.

        """
        __tracebackhide__ = True
        self._settle(agreement.ranks_agree(self, counts=counts, skew=skew, during=during))

    def _settle(self, verdict: Verdict) -> None:
        __tracebackhide__ = True
        if self._record is not None:
            self._record(verdict)
        if verdict.outcome in (Outcome.FAIL, Outcome.REGRESSION):
            raise AssertionError(verdict.text)


def load_trace(path: str | Path, *, ranks: Sequence[str] | None = None) -> Trace:
    """Read a trace file, a directory of rank directories, or one saved capture.

    Args:
        path: ``*.pt.trace.json[.gz]``, or a directory as ATOM's ``--torch-profiler-dir`` leaves it.
        ranks: read only these ranks.

    Raises:
        TraceFileError: a single file that is truncated, empty or no kineto trace. In a directory a damaged
            rank becomes a fatal health finding instead, so that the others can be looked at.

    """
    place = Path(path)
    manifest, bench = beside(place, "manifest.json"), beside(place, "bench.json")
    engine = str(manifest.get("engine", "file"))
    return Trace(load(place, ranks=ranks), engine=engine, manifest=manifest, bench=bench)
