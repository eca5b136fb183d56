"""A trace as checks see it: the numbers of one capture, with the run's settings and what lies beside it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pytest_atomtrace.errors import ConfigError, NoStepsError, UnhealthyTraceError
from pytest_atomtrace.settings import Settings
from pytest_atomtrace.trace.data import PHASES, RankData, Step, TraceData
from pytest_atomtrace.trace.labels import KINDS
from pytest_atomtrace.trace.steady import RUNS, steady_steps
from pytest_atomtrace.verdicts.capture_findings import capture_findings
from pytest_atomtrace.verdicts.contention import batch_findings
from pytest_atomtrace.verdicts.evidence import did_you_mean, listed, near_path, shell_quoted, shown_engine
from pytest_atomtrace.verdicts.kernels import KernelTable, kernel_table
from pytest_atomtrace.verdicts.missing_steps import no_steps_hint
from pytest_atomtrace.verdicts.occurrences import matching_ids
from pytest_atomtrace.verdicts.question import parse_pattern
from pytest_atomtrace.verdicts.rank_trace import RankTrace
from pytest_atomtrace.verdicts.saved import accepted_length
from pytest_atomtrace.verdicts.steps import Steps

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.trace.finding import Finding
    from pytest_atomtrace.trace.names import Pattern
    from pytest_atomtrace.verdicts.launches import Launches
    from pytest_atomtrace.verdicts.outcome import Recorder, Verdict

__all__ = ["RankTrace", "TraceView"]

# What a phase asked for by `during=` covers; any other word is a phase of its own.
COMBINED = {"iteration": ("decode", "sample", "draft")}
# What a question about steps of whatever kind calls them.
ANY_LABELLED = "labelled"


class TraceView:
    """All ranks of one capture, without judgements."""

    def __init__(
        self,
        data: TraceData,
        *,
        case: Case | None = None,
        directory: Path | None = None,
        engine: str = "file",
        settings: Settings | None = None,
        manifest: Mapping[str, object] | None = None,
        bench: Mapping[str, object] | None = None,
        record: Recorder | None = None,
        launches: Launches | None = None,
        waive: Callable[[Verdict], Verdict] | None = None,
    ) -> None:
        self.data = data
        self.case = case
        self.directory = directory if directory is not None else data.source
        self.engine = engine
        self.settings = settings if settings is not None else Settings()
        self.manifest = manifest if manifest is not None else {}
        self.bench = bench if bench is not None else {}
        beside = (*capture_findings(self.manifest, self.bench), *batch_findings(data, case))
        self._findings = (*data.findings, *beside)
        self._record = record
        self._launches = launches
        self._waive = waive

    def __repr__(self) -> str:
        name = self.case.slug if self.case else str(self.directory)
        return f"<{type(self).__name__} {name}: {len(self.data.ranks)} ranks>"

    # What it holds

    @property
    def ranks(self) -> Mapping[str, RankTrace]:
        """Ranks by name, in rank order."""
        return {name: RankTrace(self, rank) for name, rank in self.data.ranks.items()}

    @property
    def health(self) -> tuple[Finding, ...]:
        """Health findings, fatal or not: of the files, and of what the capture recorded beside them."""
        return self._findings

    @property
    def simulated(self) -> bool:
        """True for traces of the built-in simulator, whatever brought them here: their times are made up."""
        named = "sim" in (self.engine, self.manifest.get("engine"))
        return named or any(rank.simulated for rank in self.data.ranks.values())

    @property
    def environment(self) -> Mapping[str, object]:
        """What the capture's manifest and the first rank's trace say about the machine."""
        first = next(iter(self.data.ranks.values()), None)
        recorded = self.manifest.get("environment")
        meta: Mapping[str, object] = dict(first.meta) if first is not None else {}
        return {**meta, **(recorded if isinstance(recorded, Mapping) else {})}

    @property
    def accepted_length(self) -> float | None:
        """Tokens that a sequence gains per decode step (1.0 without drafts), None where it is not known."""
        return accepted_length(self.data, self.bench)

    def steps(self, kind: str, *, bs: int | None = None, graph_bs: int | None = None) -> Steps:
        """Steps of one kind on all ranks, in time order per rank.

        Raises:
            ConfigError: there is no such kind of step.

        """
        if kind not in KINDS:
            raise ConfigError(f"{kind!r} is no kind of step{did_you_mean(kind, KINDS)}")
        by_rank = [(rank, [step for step in rank.steps if step.kind == kind]) for rank in self.data.ranks.values()]
        steps = Steps(kind, by_rank, self.settings, accepted_length=self.accepted_length)
        return steps.where(bs=bs, graph_bs=graph_bs)

    @property
    def decode(self) -> Steps:
        """Decode steps."""
        return self.steps("decode")

    @property
    def prefill(self) -> Steps:
        """Prefill steps."""
        return self.steps("prefill")

    @property
    def draft(self) -> Steps:
        """Draft steps of speculative decoding."""
        return self.steps("draft")

    def kernels(
        self, pattern: str | None = None, *, during: str | None = None, layer: str | None = None
    ) -> KernelTable:
        """GPU activities by name over all ranks.

        Args:
            pattern: a plain name, a glob, or ``re:`` and a regular expression.
            during: a phase; None for everything, unattributed activities included.
            layer: ``kernel`` or ``memory`` (memcpy, memset).

        """
        if layer not in (None, "kernel", "memory"):
            raise ConfigError(f"layer={layer!r}: a kernel table holds kernel or memory")
        parsed = parse_pattern(pattern) if pattern is not None else None
        ranks = list(self.data.ranks.values())
        return kernel_table(ranks, pattern=parsed, phases=self.phases_of(during), layer=layer)

    # What checks ask of it

    def require(self, purpose: str) -> None:
        """Refuse to judge on a trace that is unfit for `purpose` (``all``, ``counts``, ``steps``, ``times``).

        Raises:
            UnhealthyTraceError: with the findings that forbid it.

        """
        scopes = {"all", purpose} | ({"steps", "counts"} if purpose == "times" else set())
        fatal = [str(f) for f in self.health if f.fatal and f.scope in scopes]
        if fatal:
            raise UnhealthyTraceError(fatal, f"Look closer: atomtrace health {shlex.quote(near_path(self.directory))}")

    def require_times(self) -> None:
        """Refuse to judge times that say nothing, or cannot be believed.

        Raises:
            ConfigError: the case runs on random weights.
            UnhealthyTraceError: with the findings that forbid it.

        """
        if self.case is not None and self.case.load_dummy:
            raise ConfigError(
                "load_dummy runs on random weights, which send tokens to other experts and accept other drafts: times "
                "say nothing, only counts do. Ask for times in a case without load_dummy"
            )
        self.require("times")

    def require_kind(self, kind: str) -> None:
        """Refuse a question about steps that no rank has.

        Raises:
            ConfigError: there is no such kind at all, in no trace.
            NoStepsError: naming the kinds that were seen.

        """
        if kind not in (*KINDS, ANY_LABELLED):
            raise ConfigError(f"{kind!r} is no kind of step{did_you_mean(kind, KINDS)}")
        seen = {step.kind for rank in self.data.ranks.values() for step in rank.steps}
        if kind not in seen:
            raise NoStepsError(kind, sorted(seen), no_steps_hint(self, kind))

    def require_steps_of(self, during: str) -> None:
        """Refuse to judge what a phase calls whose steps the trace does not have.

        Phases that are not made of labelled steps (``other``, ``unattributed``, ``sample``) ask for none.

        Raises:
            NoStepsError: naming the kinds that were seen.

        """
        kind = COMBINED[during][0] if during in COMBINED else during
        if kind in KINDS:
            self.require_kind(kind)

    def phases_of(self, during: str | None) -> frozenset[str] | None:
        """The phases that `during` covers, None for all.

        Raises:
            ConfigError: there is no such phase.

        """
        if during is None:
            return None
        words = [*PHASES, *COMBINED]
        if during not in words:
            raise ConfigError(f"during={during!r} is no phase{did_you_mean(during, words)}")
        if during in COMBINED:
            return frozenset(COMBINED[during])
        return frozenset((during,))

    def select_ranks(self, ranks: str | Sequence[str]) -> list[RankData]:
        """``all``, ``any``, one rank's name, or several.

        Raises:
            ConfigError: there is no such rank.

        """
        if ranks in ("all", "any"):
            return list(self.data.ranks.values())
        names = [ranks] if isinstance(ranks, str) else list(ranks)
        missing = [name for name in names if name not in self.data.ranks]
        if missing or not names:
            problem = f"there is no {', '.join(missing) or 'rank named'}; the trace has {listed(list(self.data.ranks))}"
            raise ConfigError(f"ranks={ranks!r}: {problem}")
        return [self.data.ranks[name] for name in names]

    def steady_steps(self, rank: RankData, kind: str, *, bs: int | None = None) -> list[Step]:
        """Steady steps of one rank by the run's settings; `bs` asks for one real batch instead of the peak."""
        settings = self.settings
        first, last = settings.steady_skip_first, settings.steady_skip_last
        return list(steady_steps(rank, kind, bs=bs, skip_first=first, skip_last=last))

    def median_step(self, rank: RankData, kind: str) -> Step | None:
        """The steady step of the middle in GPU busy time: the one to look at for "what does a step do here"."""
        steps = sorted(self.steady_steps(rank, kind), key=lambda step: step.gpu_busy_ns)
        return steps[(len(steps) - 1) // 2] if steps else None

    def countable_steps(self, rank: RankData, kind: str) -> list[Step]:
        """Steps on which a count per step is judged: steady ones, or for prefill every whole one."""
        if kind in RUNS:
            return self.steady_steps(rank, kind)
        return [step for step in rank.steps if step.kind == kind and (not step.edge or _whole(rank, step))]

    def count_notes(self, judged: Collection[tuple[str, int]]) -> tuple[str, ...]:
        """What weakens a count on the `judged` steps, (rank, number) each: graph launches without a reference.

        One in a prefill says nothing about a count on decode steps.
        """
        found = [f for f in self.data.findings if f.code == "H05" and not f.fatal]
        return tuple(f.text for f in found if not f.steps or not set(f.steps).isdisjoint(judged))

    def first_step_with(self, rank: RankData, pattern: Pattern) -> Step | None:
        """The step in which a kernel first appears, None where it is in none."""
        hit = np.flatnonzero(matching_ids(rank, pattern)[rank.name_id] & (rank.step >= 0))
        return rank.steps[int(rank.step[hit[0]])] if len(hit) else None

    def kernels_of_step(self, rank: RankData, step: Step) -> list[tuple[str, int, int]]:
        """(name, calls, summed ns) of one step's kernels, longest first."""
        mine = (rank.step == step.index) & (rank.kind == 0)
        ids = rank.name_id[mine]
        calls = np.bincount(ids, minlength=len(rank.names))
        total = np.bincount(ids, weights=rank.dur_ns[mine], minlength=len(rank.names))
        rows = [(rank.names[i], int(calls[i]), int(total[i])) for i in np.flatnonzero(calls)]
        return sorted(rows, key=lambda row: -row[2])

    def footer(self, pattern: str | None, during: str | None, *, step: Step | None = None) -> list[tuple[str, str]]:
        """Where the evidence lies, and the commands that show more: of `step` its place in Perfetto."""
        match = f" --match {shell_quoted(pattern)}" if pattern else ""
        phase = f" --during {during}" if during else ""
        per_step = " --per-step" if during else ""
        engine = shown_engine(self.engine, simulated=self.simulated)
        rows = [("case", f"{self.case.slug} ({engine})")] if self.case else []
        if self.simulated:
            rows.append(("engine", f"{engine}: simulated, its times are made up"))
        rows.append(("trace", near_path(self.directory)))
        place = shlex.quote(near_path(self.directory))
        rows.append(("more", f"atomtrace kernels {place}{phase}{match}{per_step}"))
        if step is not None:
            rows.append(("open", f"atomtrace open {place} --rank {step.rank} --step {step.index}"))
        return rows


def _whole(rank: RankData, step: Step) -> bool:
    """Whether a step at the window's start holds all it launched; a prefill usually is the first step there is.

    The window may end inside the last step of a rank, so that one never counts as whole.
    """
    mine = rank.launches.step == step.index
    return step.index < len(rank.steps) - 1 and bool((rank.launches.n_gpu[mine] > 0).all())
