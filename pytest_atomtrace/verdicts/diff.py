"""Two traces, kernel by kernel: what grew, shrank, came, went or was replaced in a step.

Compared are medians per step over the steady steps of one rank of each side (the slowest), or of all ranks. Times
are evidence to look at, not a verdict: that is what baselines and their noise are for. The set of kernels and
their calls per step are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pytest_atomtrace.errors import NoStepsError
from pytest_atomtrace.trace.families import family
from pytest_atomtrace.trace.names import base_name
from pytest_atomtrace.verdicts.likeness import unlike
from pytest_atomtrace.verdicts.step_grid import counted_steps, step_grid
from pytest_atomtrace.verdicts.steps import Timing
from pytest_atomtrace.verdicts.summary import slowest_rank

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from pytest_atomtrace.verdicts.likeness import Unlike
    from pytest_atomtrace.verdicts.step_grid import StepGrid
    from pytest_atomtrace.verdicts.trace import Trace

__all__ = ["Difference", "FamilyDelta", "KernelDelta", "Side", "compare"]

_I64: TypeAlias = "NDArray[np.int64]"
_Grid: TypeAlias = "dict[tuple[str, str], tuple[_I64, _I64, _I64]]"
# Calls, summed ns and exposed ns of a kernel per step.
_Figures: TypeAlias = "tuple[int, int, int]"

# Below both of these a change of a kernel's time per step is not shown as growth: 1 % is what two windows of
# one server differ by, and 0.2 us is a handful of clock ticks.
_SAME_SHARE = 0.01
_SAME_NS = 200


@dataclass(frozen=True)
class Side:
    """What was compared of one trace; `busy_ns` and `kernels` are medians per step."""

    source: str
    simulated: bool
    ranks: tuple[str, ...]
    steps: int
    steady: bool
    busy_ns: int
    kernels: int
    sound: bool


@dataclass(frozen=True)
class KernelDelta:
    """One kernel per step. `change` is grew, shrank, came, went, replaced or same.

    A replaced kernel had the name `before_name`: other template arguments of one function, or the only one of
    its family that went while this one came with as many calls. Times are sums of durations; `exposed_delta_ns` is
    of what counts for the step (nothing of a side stream's kernel that runs behind the main stream). `explains` is
    that as a share of the step's difference, None where the step hardly differs.
    """

    name: str
    before_name: str
    layer: str
    family: str
    change: str
    before_calls: int
    after_calls: int
    before_ns: int
    after_ns: int
    delta_ns: int
    exposed_delta_ns: int
    explains: float | None


@dataclass(frozen=True)
class FamilyDelta:
    """A kernel family per step."""

    family: str
    before_calls: int
    after_calls: int
    before_ns: int
    after_ns: int
    delta_ns: int
    exposed_delta_ns: int
    explains: float | None

    @property
    def changed(self) -> bool:
        """Other calls, or a time beyond what counts as the same."""
        return self.before_calls != self.after_calls or not _is_same(self.before_ns, self.delta_ns)


def _is_same(before_ns: int, delta_ns: int) -> bool:
    return abs(delta_ns) <= _SAME_NS or abs(delta_ns) <= _SAME_SHARE * before_ns


@dataclass(frozen=True)
class Difference:
    """B against A. `unlike` says in what the two captures differ by intent.

    `explained` is the sum of all kernels' exposed differences over the step's: near 1, since exposed times add up to
    GPU busy and only medians do not.
    """

    during: str
    a: Side
    b: Side
    unlike: tuple[Unlike, ...]
    busy_delta_ns: int
    kernels_delta_ns: int
    explained: float | None
    calls_differ: bool
    families: tuple[FamilyDelta, ...]
    kernels: tuple[KernelDelta, ...]


def compare(a: Trace, b: Trace, *, during: str = "decode", rank: str | None = None) -> Difference:
    """Compare the steps of kind `during`; `rank` is a rank's name, ``all``, or None for each side's slowest.

    Raises:
        NoStepsError: a side has no step of this kind.
        ConfigError: a side has no such rank.

    """
    for side in (a, b):
        try:
            side.require_kind(during)
        except NoStepsError as error:
            raise NoStepsError(error.kind, error.seen, f"Trace: {side.directory}") from None
    side_a, grid_a = _side(a, during, rank)
    side_b, grid_b = _side(b, during, rank)
    delta = side_b.busy_ns - side_a.busy_ns
    # A difference within the noise of a median explains nothing and divides badly.
    whole = delta if abs(delta) > 0.005 * max(side_a.busy_ns, 1) else None
    rows = _rows(grid_a, grid_b, whole)
    exposed = sum(row.exposed_delta_ns for row in rows)
    return Difference(
        during=during,
        a=side_a,
        b=side_b,
        unlike=unlike(a, b),
        busy_delta_ns=delta,
        kernels_delta_ns=sum(row.delta_ns for row in rows if row.layer == "kernel"),
        explained=exposed / whole if whole else None,
        calls_differ=any(row.before_calls != row.after_calls or row.change not in _TIMES for row in rows),
        families=_families(rows, whole),
        kernels=tuple(sorted(rows, key=_weight)),
    )


_TIMES = ("grew", "shrank", "same")


def _weight(row: KernelDelta) -> tuple[int, int, str]:
    """What moved the step comes first, then what moved behind another stream."""
    return -abs(row.exposed_delta_ns), -abs(row.delta_ns), row.name


def _side(trace: Trace, during: str, rank: str | None) -> tuple[Side, _Grid]:
    ranks = [slowest_rank(trace, during)] if rank is None else trace.select_ranks(rank)
    chosen = [(data, *counted_steps(trace, data, during)) for data in ranks]
    steps = [step for _, found, _ in chosen for step in found]
    side = Side(
        source=str(trace.directory),
        simulated=trace.simulated,
        ranks=tuple(data.name for data in ranks),
        steps=len(steps),
        steady=all(steady for _, _, steady in chosen),
        busy_ns=Timing(tuple(step.gpu_busy_ns for step in steps)).p50_ns if steps else 0,
        kernels=Timing(tuple(step.n_kernels for step in steps)).p50_ns if steps else 0,
        sound=not any(finding.fatal for finding in trace.health),
    )
    return side, _joined([step_grid(data, found) for data, found, _ in chosen])


def _joined(grids: Sequence[StepGrid]) -> _Grid:
    joined: _Grid = {}
    for key in dict.fromkeys(key for grid in grids for key in grid.keys):
        rows = [(grid, grid.row(*key)) for grid in grids]
        calls = [grid.calls[row] if row >= 0 else np.zeros(grid.steps, np.int64) for grid, row in rows]
        total = [grid.total_ns[row] if row >= 0 else np.zeros(grid.steps, np.int64) for grid, row in rows]
        exposed = [grid.exposed_ns[row] if row >= 0 else np.zeros(grid.steps, np.int64) for grid, row in rows]
        joined[key] = (np.concatenate(calls), np.concatenate(total), np.concatenate(exposed))
    return joined


def _typical(calls: _I64, total: _I64, exposed: _I64) -> _Figures:
    """Figures per step: medians, or means for what fewer than half of the steps call."""
    if (calls > 0).mean() < 0.5:
        return max(1, round(float(calls.mean()))), round(float(total.mean())), round(float(exposed.mean()))
    middle = (len(calls) - 1) // 2
    return int(np.sort(calls)[middle]), int(np.sort(total)[middle]), int(np.sort(exposed)[middle])


def _rows(grid_a: _Grid, grid_b: _Grid, whole: int | None) -> list[KernelDelta]:
    before = {key: _typical(*columns) for key, columns in grid_a.items()}
    after = {key: _typical(*columns) for key, columns in grid_b.items()}
    pairs = _replaced(before, after)
    rows = []
    for key in dict.fromkeys([*after, *before]):
        if key in pairs.values():
            continue
        old = pairs.get(key, key)
        rows.append(_row(key, old, before.get(old), after.get(key), whole))
    return rows


def _row(
    key: tuple[str, str],
    old: tuple[str, str],
    before: _Figures | None,
    after: _Figures | None,
    whole: int | None,
) -> KernelDelta:
    calls_a, ns_a, exposed_a = before or (0, 0, 0)
    calls_b, ns_b, exposed_b = after or (0, 0, 0)
    delta = ns_b - ns_a
    if before is None:
        change = "came"
    elif after is None:
        change = "went"
    elif old != key:
        change = "replaced"
    elif calls_a == calls_b and _is_same(ns_a, delta):
        change = "same"
    else:
        change = "grew" if delta > 0 else "shrank"
    name, layer = key
    of = family(name) if layer == "kernel" else "copy"
    exposed = exposed_b - exposed_a
    return KernelDelta(
        name=name,
        before_name=old[0],
        layer=layer,
        family=of,
        change=change,
        before_calls=calls_a,
        after_calls=calls_b,
        before_ns=ns_a,
        after_ns=ns_b,
        delta_ns=delta,
        exposed_delta_ns=exposed,
        explains=exposed / whole if whole else None,
    )


def _replaced(
    before: dict[tuple[str, str], _Figures], after: dict[tuple[str, str], _Figures]
) -> dict[tuple[str, str], tuple[str, str]]:
    """New key -> old key, where exactly one kernel went and one came of the same sort."""
    pairs: dict[tuple[str, str], tuple[str, str]] = {}

    def pair(sort_old: dict[tuple[str, str], object], sort_new: dict[tuple[str, str], object]) -> None:
        for new, sort in sort_new.items():
            olds = [old for old, other in sort_old.items() if other == sort and old not in pairs.values()]
            news = [one for one, other in sort_new.items() if other == sort and one not in pairs]
            if len(olds) == 1 and news == [new]:
                pairs[new] = olds[0]

    went = [key for key in before if key not in after]
    came = [key for key in after if key not in before]
    pair({key: (key[1], base_name(key[0])) for key in went}, {key: (key[1], base_name(key[0])) for key in came})
    pair(
        {key: (key[1], family(key[0]), before[key][0]) for key in went},
        {key: (key[1], family(key[0]), after[key][0]) for key in came if key not in pairs},
    )
    return pairs


def _families(rows: Iterable[KernelDelta], whole: int | None) -> tuple[FamilyDelta, ...]:
    sums: dict[str, list[int]] = {}
    for row in rows:
        mine = sums.setdefault(row.family, [0, 0, 0, 0, 0])
        figures = (row.before_calls, row.after_calls, row.before_ns, row.after_ns, row.exposed_delta_ns)
        for place, value in enumerate(figures):
            mine[place] += value
    found = [
        FamilyDelta(
            family=name,
            before_calls=calls_a,
            after_calls=calls_b,
            before_ns=ns_a,
            after_ns=ns_b,
            delta_ns=ns_b - ns_a,
            exposed_delta_ns=exposed,
            explains=exposed / whole if whole else None,
        )
        for name, (calls_a, calls_b, ns_a, ns_b, exposed) in sums.items()
    ]
    return tuple(sorted(found, key=lambda one: (-abs(one.exposed_delta_ns), -abs(one.delta_ns), one.family)))
