"""The public Trace: what one capture shows, and the assertions on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import ConfigError
from pytest_atomtrace.trace.load import load
from pytest_atomtrace.verdicts import (
    agreement,
    bench_budgets,
    kernel_time,
    no_regression,
    occupancy,
    order,
    presence,
    several,
    times,
    tuned,
)
from pytest_atomtrace.verdicts.baseline_place import baseline_path
from pytest_atomtrace.verdicts.baseline_reading import usable_baseline
from pytest_atomtrace.verdicts.fingerprint import fingerprint
from pytest_atomtrace.verdicts.launches import SingleWindow
from pytest_atomtrace.verdicts.outcome import Outcome, Verdict
from pytest_atomtrace.verdicts.saved import beside, saved_case
from pytest_atomtrace.verdicts.view import RankTrace, TraceView

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["RankTrace", "Trace", "load_trace"]


class Trace(TraceView):
    """All ranks of one capture.

    Of a case with several captures this is the last one; checks look at all of them: exact ones (calls, order, ranks)
    must hold in each, budgets are on the median over captures.

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
        self._in_every(lambda capture: presence.called(capture, question))

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
        self._in_every(lambda capture: presence.absent(capture, question))

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
        bs: int | None = None,
        ranks: str | Sequence[str] = "worst",
    ) -> None:
        """Assert a time budget per steady step, such as ``p50="9.5 ms"``.

        `bs` asks about steps of one real batch instead of those near the peak.

        Raises:
            AssertionError: a budget is exceeded; with rank, amount, slowest step and top kernels.
            InconclusiveError: too few steady steps (p50, mean, max: 20; p90: 50; p99: 200), or times that
                cannot be believed.
            ConfigError: a budget without a unit, an unknown metric, no budget at all.

        """
        __tracebackhide__ = True
        budgets = {"p50": p50, "p90": p90, "p99": p99, "mean": mean, "max": max}
        self._median(lambda capture: times.step_time(capture, kind, budgets, metric=metric, ranks=ranks, bs=bs))

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
        self._in_every(lambda capture: order.kernel_order(capture, names, during=during, ranks=ranks))

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
        self._median(
            lambda capture: kernel_time.kernel_time(capture, name, during=during, per_step=per_step, share=share)
        )

    def assert_gpu_busy(self, kind: str = "decode", *, at_least: str) -> None:
        """Assert the share of a steady run, time between steps included, in which some kernel runs.

        Raises:
            AssertionError: the least busy rank is under ``at_least="90 %"``.
            InconclusiveError: times cannot be believed, too few steady steps.
            ConfigError: no share.

        """
        __tracebackhide__ = True
        self._median(lambda capture: occupancy.gpu_busy(capture, kind, at_least=at_least))

    def assert_gaps(self, *, longer_than: str, at_most: int, during: str = "decode") -> None:
        """Assert how many idle gaps longer than ``"100 us"`` lie in a steady run, between steps too.

        Gaps inside a graph do not exist in ROCm traces: consecutive graph kernels abut within 2 ns.

        Raises:
            AssertionError: a rank has more.
            InconclusiveError: times cannot be believed, too few steady steps.
            ConfigError: no duration, no whole number.

        """
        __tracebackhide__ = True
        self._median(lambda capture: occupancy.gaps(capture, longer_than=longer_than, at_most=at_most, during=during))

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
        self._median(lambda capture: occupancy.launch_time(capture, mean=mean, api=api))

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
        self._median(lambda capture: agreement.ranks_agree(capture, counts=counts, skew=skew, during=during))

    def assert_no_regression(self, *, tolerance: str | None = None, metrics: Sequence[str] | None = None) -> None:
        """Assert that the case is not slower than its baseline, or record one (``--atom-update-baselines``).

        Judged are the decode step and every kernel family with at least 5 % of it. Beyond the limit a second, fresh
        launch decides; without one the check fails and says that it was not confirmed.

        Args:
            tolerance: a change that is never a regression, such as ``"5 %"``; None for the setting (3 %).
            metrics: instead of the step and its families, some of ``decode.gpu_busy``, ``families``,
                ``decode.iteration``, ``draft.gpu_busy``, ``prefill.per_ktok``, ``decode.family.<name>``, and
                ``counts`` for the exact calls per step.

        Raises:
            AssertionError: slower, or drifted too far from the anchor; with both launches, what grew, and where.
            NoBaselineError: no baseline for this case, hardware, profiler and model; with the recording command.
            InconclusiveError: the trace cannot answer.
            ConfigError: the question is wrong.

        """
        __tracebackhide__ = True
        asked: object = metrics  # specs bring values of any type
        if asked is not None and not (isinstance(asked, (list, tuple)) and all(isinstance(one, str) for one in asked)):
            raise ConfigError(f"metrics must be a list of names, got {metrics!r}")
        launches = self._launches
        if launches is None:
            launches = SingleWindow(self, Path(self.settings.baselines))
        self._settle(no_regression.no_regression(self, launches, tolerance=tolerance, metrics=metrics))

    def assert_tuned(self) -> None:
        """Assert that the server's log names no shape without a tuned AITER config, no fused MoE on defaults.

        Where the case has a baseline for this hardware, what it lists is known and does not fail.

        Raises:
            AssertionError: with op and M, N, K of every such shape.
            InconclusiveError: there is no server log with this trace.

        """
        __tracebackhide__ = True
        known = self._known_untuned()
        self._in_every(lambda capture: tuned.tuned(capture, known=known))

    def _known_untuned(self) -> tuple[str, ...] | None:
        if self.case is None:
            return None
        launches = self._launches or SingleWindow(self, Path(self.settings.baselines))
        now = fingerprint(self)
        path = baseline_path(launches.baselines, now, self.case.slug)
        baseline = usable_baseline(path, self.case.slug, launches.command("all"))
        return baseline.untuned if baseline is not None and baseline.misfit(now) is None else None

    def assert_bench(
        self,
        *,
        ttft: str | Mapping[str, str] | None = None,
        tpot: str | Mapping[str, str] | None = None,
        itl: str | Mapping[str, str] | None = None,
        e2el: str | Mapping[str, str] | None = None,
        throughput: str | None = None,
        completed: str | None = None,
        acceptance: str | None = None,
    ) -> None:
        """Assert budgets on what the client saw without the profiler (``--atom-bench=on``).

        Args:
            ttft: time to the first token: ``"800 ms"`` of the mean, or ``{"p50": ..., "p99": ...}``.
            tpot: time per output token after the first.
            itl: time between two arrivals; comparable between runs of one client only.
            e2el: time of a whole request; of ATOM's client only.
            throughput: at least so many output tokens per second: ``"1500 tok/s"``.
            completed: at least this share of the requests: ``"100 %"``.
            acceptance: at least this share of draft tokens (``"62 %"``), or tokens a step (``"2.8 tok/fwd"``).

        Raises:
            AssertionError: a budget is missed; with all figures.
            InconclusiveError: no pass without the profiler, or a figure that the workload does not have.
            ConfigError: no budget, or one without a unit.

        """
        __tracebackhide__ = True
        budgets: dict[str, object] = {
            "ttft": ttft,
            "tpot": tpot,
            "itl": itl,
            "e2el": e2el,
            "throughput": throughput,
            "completed": completed,
            "acceptance": acceptance,
        }
        self._median(lambda capture: bench_budgets.bench_budgets(capture, budgets))

    def _captures(self) -> Sequence[TraceView]:
        """The captures that this trace stands for, itself the last: as many as the case asks for."""
        wanted = self.case.captures if self.case is not None else 1
        if wanted == 1 or self._launches is None:
            return (self,)
        windows = self._launches.windows(1)
        if not windows or windows[-1].directory != self.directory:  # a replay of one window that was named
            return (self,)
        # A baseline may have asked for more windows than the case, and a replay may have fewer.
        return (*windows[-wanted:-1], self)

    def _in_every(self, judge: Callable[[TraceView], Verdict]) -> None:
        __tracebackhide__ = True
        self._settle(several.in_every(self._captures(), judge))

    def _median(self, judge: Callable[[TraceView], Verdict]) -> None:
        __tracebackhide__ = True
        self._settle(several.median_over(self._captures(), judge))

    def _settle(self, verdict: Verdict) -> None:
        __tracebackhide__ = True
        if self._waive is not None:
            verdict = self._waive(verdict)
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
    case = saved_case(manifest)
    return Trace(load(place, ranks=ranks), case=case, engine=engine, manifest=manifest, bench=bench)
