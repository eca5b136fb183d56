"""One question about kernels, ops or copies of a trace, and its answer as rows."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import ConfigError
from pytest_atomtrace.trace.data import PHASES
from pytest_atomtrace.trace.families import FAMILIES, family
from pytest_atomtrace.trace.labels import KINDS
from pytest_atomtrace.trace.names import Pattern, base_name
from pytest_atomtrace.verdicts.kernels import kernel_table
from pytest_atomtrace.verdicts.step_grid import ITERATION_PHASES, counted_steps, iteration_grid, step_grid
from pytest_atomtrace.verdicts.suggestions import nearest_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_atomtrace.trace.data import RankData
    from pytest_atomtrace.verdicts.kernels import KernelRow
    from pytest_atomtrace.verdicts.trace import Trace

__all__ = ["KernelLine", "KernelView", "view_kernels"]

_FAMILY = "family:"


@dataclass(frozen=True)
class KernelLine:
    """One name. Ops have calls and no time: their duration is the host's.

    `share` is of the summed durations of everything selected but the pattern. The calls per step span all
    selected ranks; they are None where steps were not asked about.
    """

    name: str
    base_name: str
    layer: str
    family: str
    calls: int
    total_ns: int | None
    mean_ns: int | None
    share: float | None
    calls_per_step_min: int | None
    calls_per_step_max: int | None
    by_phase: Mapping[str, int]
    by_rank: Mapping[str, int]


@dataclass(frozen=True)
class KernelView:
    """The answer: rows by time, what their shares are of, and the nearest names if there is no row."""

    source: str
    simulated: bool
    pattern: str | None
    during: str | None
    layer: str | None
    ranks: tuple[str, ...]
    per_step: bool
    step_kind: str | None
    steps: int
    steady: bool
    calls: int
    total_ns: int
    whole_ns: int
    rows: tuple[KernelLine, ...]
    nearest: tuple[str, ...]


def view_kernels(
    trace: Trace,
    *,
    during: str | None = None,
    match: str | None = None,
    layer: str | None = None,
    rank: str | None = None,
    per_step: bool = False,
) -> KernelView:
    """Answer `atomtrace kernels`; `match` is a pattern or ``family:`` and a family.

    Raises:
        ConfigError: a phase, rank or pattern that cannot be, or calls per step where there are no steps.

    """
    pattern, of_family = _parsed(match)
    ranks = trace.select_ranks(rank if rank is not None else "all")
    phases = trace.phases_of(during)
    calls = _Calls(trace, ranks, during) if per_step and layer != "op" else None
    if layer == "op":
        lines, whole_ns = _ops(ranks, pattern, phases), 0
    else:
        table = kernel_table(ranks, pattern=pattern, phases=phases, layer=layer)
        lines = tuple(_line(row, calls) for row in table)
        whole_ns = kernel_table(ranks, pattern=None, phases=phases, layer=layer).total_ns
    if of_family is not None:
        lines = tuple(line for line in lines if line.family == of_family)
    near = () if lines or match is None else _nearest(ranks, match, of_family)
    return KernelView(
        source=str(trace.directory),
        simulated=trace.simulated,
        pattern=match,
        during=during,
        layer=layer,
        ranks=tuple(one.name for one in ranks),
        per_step=calls is not None,
        step_kind=calls.kind if calls else None,
        steps=calls.steps if calls else 0,
        steady=calls.steady if calls else False,
        calls=sum(line.calls for line in lines),
        total_ns=sum(line.total_ns or 0 for line in lines),
        whole_ns=whole_ns,
        rows=lines,
        nearest=near,
    )


def _parsed(match: str | None) -> tuple[Pattern | None, str | None]:
    if match is None:
        return None, None
    if match.startswith(_FAMILY):
        name = match.removeprefix(_FAMILY).strip()
        if name not in FAMILIES:
            close = difflib.get_close_matches(name, FAMILIES, n=1)
            mean = f"; did you mean {close[0]!r}?" if close else f" ({', '.join(FAMILIES)})"
            raise ConfigError(f"there is no family {name!r}{mean}", "--match")
        return None, name
    try:
        return Pattern.parse(match), None
    except ValueError as error:
        raise ConfigError(str(error), "--match") from None


def _nearest(ranks: Sequence[RankData], match: str, of_family: str | None) -> tuple[str, ...]:
    if of_family is None:
        return tuple(nearest_names(match, ranks))
    rows = kernel_table(ranks, pattern=None, phases=None, layer="kernel")
    return tuple(dict.fromkeys(f"{_FAMILY}{row.family}" for row in rows))[:6]


class _Calls:
    """Calls per step over all selected ranks: the smallest and the largest number that any step has."""

    def __init__(self, trace: Trace, ranks: Sequence[RankData], during: str | None) -> None:
        self.kind = _step_kind(ranks, during)
        self.steps = 0
        self.steady = True
        self._bounds: dict[tuple[str, str], tuple[int, int]] = {}
        grids = []
        for rank in ranks:
            steps, steady = counted_steps(trace, rank, self.kind)
            if not steps:
                continue
            self.steps += len(steps)
            self.steady &= steady
            if during in ITERATION_PHASES:
                grids.append(iteration_grid(rank, steps, trace.phases_of(during) or frozenset()))
            else:
                grids.append(step_grid(rank, steps))
        for key in {key for grid in grids for key in grid.keys}:
            of_ranks = [(grid, grid.row(*key)) for grid in grids]
            low = min(int(grid.calls[row].min()) if row >= 0 else 0 for grid, row in of_ranks)
            high = max(int(grid.calls[row].max()) if row >= 0 else 0 for grid, row in of_ranks)
            self._bounds[key] = (low, high)

    def of(self, name: str, layer: str) -> tuple[int, int]:
        return self._bounds.get((name, layer), (0, 0))


def _step_kind(ranks: Sequence[RankData], during: str | None) -> str:
    seen = {step.kind for rank in ranks for step in rank.steps}
    wanted = "decode" if during is None or during in ITERATION_PHASES else during
    if wanted in seen:
        return wanted
    there = ", ".join(kind for kind in KINDS if kind in seen) or "none"
    if wanted not in KINDS:
        problem = f"{wanted!r} has no steps of its own, so no calls per step; kinds here: {there}"
        raise ConfigError(problem, "--per-step")
    raise ConfigError(f"the trace has no {wanted} step; kinds here: {there}", "--per-step")


def _line(row: KernelRow, calls: _Calls | None) -> KernelLine:
    low, high = calls.of(row.name, row.layer) if calls is not None else (None, None)
    return KernelLine(
        name=row.name,
        base_name=row.base_name,
        layer=row.layer,
        family=row.family if row.layer == "kernel" else "copy",
        calls=row.count,
        total_ns=row.total_ns,
        mean_ns=row.mean_ns,
        share=row.share,
        calls_per_step_min=low,
        calls_per_step_max=high,
        by_phase=row.by_phase,
        by_rank=row.by_rank,
    )


def _ops(ranks: Sequence[RankData], pattern: Pattern | None, phases: frozenset[str] | None) -> tuple[KernelLine, ...]:
    by_phase: dict[str, dict[str, int]] = {}
    by_rank: dict[str, dict[str, int]] = {}
    for rank in ranks:
        for name, counts in rank.op_counts.items():
            if pattern is not None and not pattern.matches(name):
                continue
            for phase, number in counts.items():
                if phases is None or phase in phases:
                    mine = by_phase.setdefault(name, {})
                    mine[phase] = mine.get(phase, 0) + number
                    there = by_rank.setdefault(name, {})
                    there[rank.name] = there.get(rank.name, 0) + number
    lines = [
        KernelLine(
            name=name,
            base_name=base_name(name),
            layer="op",
            family=family(name),
            calls=sum(counts.values()),
            total_ns=None,
            mean_ns=None,
            share=None,
            calls_per_step_min=None,
            calls_per_step_max=None,
            by_phase=dict(sorted(counts.items(), key=lambda item: PHASES.index(item[0]))),
            by_rank=by_rank[name],
        )
        for name, counts in by_phase.items()
    ]
    return tuple(sorted(lines, key=lambda line: (-line.calls, line.name)))
