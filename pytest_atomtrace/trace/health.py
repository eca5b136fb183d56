"""May this trace be believed? Asked before any verdict.

A fatal finding makes every question in its scope inconclusive: an error, never a pass, never a failure.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_atomtrace.trace.data import KERNEL
from pytest_atomtrace.trace.finding import TITLES, Finding
from pytest_atomtrace.trace.layout import expected_global_rank, tp_groups
from pytest_atomtrace.trace.steady import RUNS, steady_steps
from pytest_atomtrace.trace.steps import is_graph_launch, is_launch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_atomtrace.trace.data import RankData, Step, TraceData

__all__ = ["ROW_CAP", "check", "check_rank", "rank_set_findings"]

# kineto's default limit of activity records in one window.
ROW_CAP = 5_000_000
# Steps of these kinds are one whole pass of a model, so without GPU work something is lost.
_MUST_WORK = frozenset({"prefill", "decode", "draft", "eager_decode", "dummy_decode", "dummy_prefill"})
_OVERLAP_SHARE = 0.05
# roctracer costs about 50 us per hipGraphLaunch, torch on rocprofiler-sdk about 316 us (ATOM
# tests/test_profiler_regression.py; ROCm/rocm-systems#4401).
_GRAPH_LAUNCH_LIMIT_NS = 150_000
_SHOWN = 3
# The ranks of a tensor-parallel group run every step together. Their profilers start and stop on a message of their
# own each, so the ends of their windows may lie a step apart.
_STEPS_APART = 2


def _finding(code: str, text: str, *, fatal: bool, scope: str = "all", rank: str = "", count: int = 0) -> Finding:
    return Finding(code, TITLES[code], fatal, scope, text, rank, count)


def rank_set_findings(
    present: Iterable[str], *, expected: Sequence[str] | None, doubled: Mapping[str, Sequence[str]] | None = None
) -> tuple[Finding, ...]:
    """H01: ranks missing or extra against `expected`, and ranks with more than one trace (`doubled`)."""
    found: list[Finding] = []
    names = list(present)
    if expected is not None:
        missing = [name for name in expected if name not in names]
        extra = [name for name in names if name not in expected]
        if missing:
            text = f"{len(missing)} of {len(expected)} ranks have no trace: {', '.join(missing)}"
            found.append(_finding("H01", text, fatal=True, count=len(missing)))
        if extra:
            text = f"ranks that this server cannot have: {', '.join(extra)} (left by an earlier, larger run?)"
            found.append(_finding("H01", text, fatal=True, count=len(extra)))
    for rank, files in (doubled or {}).items():
        text = f"has {len(files)} traces ({', '.join(files)}); one window must leave one"
        found.append(_finding("H01", text, fatal=True, rank=rank, count=len(files)))
    return tuple(found)


def check(
    data: TraceData,
    *,
    expected_ranks: Sequence[str] | None = None,
    graph_references: Mapping[tuple[int, int | None], int] | None = None,
    launch_ns_per_node: float | None = None,
) -> tuple[Finding, ...]:
    """All findings about `data`, those of loading first.

    `graph_references` gives the number of kernels that the graph of (graph bs, query length) was captured
    with; `launch_ns_per_node` the baseline's host cost of hipGraphLaunch per kernel.
    """
    found = list(data.findings)
    if expected_ranks is not None and not any(f.code == "H01" for f in found):
        unreadable = [f.rank for f in found if f.code in {"H02", "H03"} and f.rank]
        found += rank_set_findings([*data.ranks, *unreadable], expected=expected_ranks)
    for rank in data.ranks.values():
        found += check_rank(rank, names=tuple(data.ranks), launch_ns_per_node=launch_ns_per_node)
    found += _cut_ranks(data.ranks)
    found += _graph_counts(data, graph_references or {})
    return tuple(dict.fromkeys(found))


def check_rank(
    rank: RankData, *, names: Sequence[str] = (), launch_ns_per_node: float | None = None
) -> tuple[Finding, ...]:
    """Findings that one rank alone can show: H03, H04, H05 (lost launches), H06 to H09, H12."""
    kernels = int((rank.kind == KERNEL).sum())
    if not kernels:
        text = f"no GPU kernel among {rank.event_count:,} events; the profiler recorded the host only"
        return (_finding("H03", text, fatal=True, rank=rank.name),)
    found: list[Finding] = []
    found += _no_labels(rank)
    found += _empty_steps(rank)
    found += _lost_launches(rank)
    found += _row_cap(rank)
    found += _global_rank(rank, names)
    found += _overlaps(rank)
    found += _profiler_cost(rank, launch_ns_per_node)
    if rank.annotation_mismatches:
        text = (
            f"GPU annotations of {rank.annotation_mismatches} of {len(rank.steps)} steps disagree with the "
            "launches over more than 1 % of their kernels; launches were believed"
        )
        count = rank.annotation_mismatches
        found.append(_finding("H14", text, fatal=False, rank=rank.name, count=count))
    return tuple(found)


def _no_labels(rank: RankData) -> list[Finding]:
    if rank.steps:
        return []
    text = "no step labels (prefill[..], decode[..], ..), so nothing can be said per step or phase"
    return [_finding("H07", text, fatal=True, scope="steps", rank=rank.name)]


def _named(steps: Sequence[Step]) -> str:
    shown = ", ".join(f"#{step.index} {step.label.text}" for step in steps[:_SHOWN])
    return shown + (f" and {len(steps) - _SHOWN} more" if len(steps) > _SHOWN else "")


def _empty_steps(rank: RankData) -> list[Finding]:
    tail = {step.index for step in _idle_tail(rank)}
    idle = [s for s in rank.steps if not len(s.rows) and s.kind in _MUST_WORK]
    empty = [s for s in idle if not s.edge and s.index not in tail]
    if not empty:
        return []
    text = f"{len(empty)} of {len(rank.steps)} steps have no GPU activity: {_named(empty)}"
    return [_finding("H04", text, fatal=True, rank=rank.name, count=len(empty))]


def _lost_launches(rank: RankData) -> list[Finding]:
    """Launch records without a kernel, away from the window's ends where the window cuts them off."""
    launches = rank.launches
    if not len(launches):
        return []
    starts = np.array([is_launch(text) for text in rank.names], np.bool_)[launches.name_id]
    served = np.flatnonzero(starts & (launches.n_gpu > 0))
    if not len(served):
        return []
    inner = slice(int(served[0]), int(served[-1]) + 1)
    lost = np.flatnonzero(starts[inner] & (launches.n_gpu[inner] == 0)) + inner.start
    if not len(lost):
        return []
    first = int(lost[0])
    step = int(launches.step[first])
    place = f" in step #{step} {rank.steps[step].label.text}" if step >= 0 else ""
    text = (
        f"{len(lost)} of {int(starts[inner].sum())} launch records inside the window have no kernel; the first "
        f"is {rank.names[launches.name_id[first]]} with correlation {int(launches.correlation[first])}{place}"
    )
    return [_finding("H05", text, fatal=True, rank=rank.name, count=len(lost))]


def _idle_tail(rank: RankData) -> list[Step]:
    """The steps at the end whose launches no GPU record answers: cut by the window, if they are few."""
    tail = []
    for step in reversed(rank.steps):
        if len(step.rows):
            break
        if step.kind in _MUST_WORK:
            tail.append(step)
    return tail


def _row_cap(rank: RankData) -> list[Finding]:
    found = []
    if rank.event_count >= ROW_CAP:
        text = f"{rank.event_count:,} events, at or above the profiler's row cap of {ROW_CAP:,}: the rest was dropped"
        found.append(_finding("H06", text, fatal=True, rank=rank.name, count=rank.event_count))
    tail = _idle_tail(rank)
    if 1 < len(tail) < len(rank.steps):
        text = f"the last {len(tail)} steps have no GPU activity: GPU records end before the window does"
        found.append(_finding("H06", text, fatal=True, rank=rank.name, count=len(tail)))
    return found


def _cut_ranks(ranks: Mapping[str, RankData]) -> list[Finding]:
    """H06: a rank whose labels end long before its peers' do; alone it looks like a short, healthy window."""
    found = []
    for members in tp_groups(ranks).values():
        counts = {name: sum(step.kind in _MUST_WORK for step in ranks[name].steps) for name in members}
        longest = max(counts, key=counts.__getitem__)
        for name, count in counts.items():
            # A rank without labels has a finding that says so.
            if 0 < count < counts[longest] - _STEPS_APART:
                text = (
                    f"holds {count} steps where {longest} of its tensor-parallel group has {counts[longest]}: "
                    "its records end before the window does"
                )
                found.append(_finding("H06", text, fatal=True, rank=name, count=count))
    return found


def _global_rank(rank: RankData, names: Sequence[str]) -> list[Finding]:
    info = rank.meta.get("distributedInfo")
    world_rank = info.get("rank") if isinstance(info, dict) else None
    expected = expected_global_rank(rank.name, names or (rank.name,))
    if not isinstance(world_rank, int) or expected is None or world_rank == expected:
        return []
    text = f"the trace says it is global rank {world_rank}; its directory should hold rank {expected}"
    return [_finding("H08", text, fatal=False, rank=rank.name)]


def _overlaps(rank: RankData) -> list[Finding]:
    pool = [step for kind in ("decode", "prefill") for step in steady_steps(rank, kind)]
    touched = [step for step in pool if step.overlap_ns]
    if not touched:
        return []
    share = len(touched) / len(pool)
    text = (
        f"{len(touched)} of {len(pool)} steady steps ({share:.0%}) hold kernels that overlap on one stream: "
        f"{_named(touched)}"
    )
    fatal = share > _OVERLAP_SHARE
    return [_finding("H09", text, fatal=fatal, scope="times", rank=rank.name, count=len(touched))]


def _profiler_cost(rank: RankData, baseline: float | None) -> list[Finding]:
    launches = rank.launches
    graph = np.array([is_graph_launch(text) for text in rank.names] or [False], np.bool_)
    rows = graph[launches.name_id] & (launches.n_gpu > 0) if len(launches) else np.zeros(0, np.bool_)
    if not rows.any():
        return []
    total, nodes = int(launches.dur_ns[rows].sum()), int(launches.n_gpu[rows].sum())
    per_node = total / nodes
    if baseline is not None:
        if per_node <= 2 * baseline:
            return []
        text = f"hipGraphLaunch costs {per_node:.0f} ns per kernel, the baseline {baseline:.0f} ns"
    else:
        mean = total / int(rows.sum())
        # Without a baseline the cost of big graphs cannot be told from the profiler's, so this only warns.
        if mean <= _GRAPH_LAUNCH_LIMIT_NS or not _known_bad(rank):
            return []
        text = f"hipGraphLaunch takes {mean / 1000:.0f} us on average under rocprofiler-sdk (healthy: about 50 us)"
    return [_finding("H12", text, fatal=True, scope="span", rank=rank.name, count=int(rows.sum()))]


def _known_bad(rank: RankData) -> bool:
    return "roctracer_version" not in rank.meta and any("rocprofiler" in key for key in rank.meta)


def _graph_counts(data: TraceData, references: Mapping[tuple[int, int | None], int]) -> list[Finding]:
    """H05: a graph launch whose kernels differ in number from its reference.

    The k-th graph launch of every step of one (kind, graph bs, q) starts the same graph; PIECEWISE decode
    legally has different counts per launch of one step. Interior steps of all ranks are compared.
    """
    seen: dict[tuple[str, int, int | None, int], list[tuple[int, RankData, Step]]] = {}
    for rank in data.ranks.values():
        for step, number, count in _graph_launches(rank):
            key = (step.kind, step.graph_bs, step.label.query_len, number)
            seen.setdefault(key, []).append((count, rank, step))
    found = []
    unverified: list[tuple[RankData, Step]] = []
    for (kind, graph_bs, query, number), members in seen.items():
        whole = all(step.n_graph_launches == 1 for _, _, step in members)
        reference = references.get((graph_bs, query)) if whole and kind in {"decode", "dummy_decode"} else None
        source = "its capture"
        if reference is None:
            if len(members) < 2:
                unverified += [(rank, step) for _, rank, step in members]
                continue
            reference, source = Counter(count for count, _, _ in members).most_common(1)[0][0], "most others"
        wrong = [(count, rank, step) for count, rank, step in members if count != reference and not step.edge]
        if wrong:
            count, rank, step = wrong[0]
            text = (
                f"graph launch {number + 1} of step #{step.index} {step.label.text} carries {count} kernels, "
                f"{source} {reference}; {len(wrong)} of {len(members)} such launches differ"
            )
            found.append(_finding("H05", text, fatal=True, rank=rank.name, count=len(wrong)))
    unverified = [(rank, step) for rank, step in unverified if _is_counted(rank, step)]
    if unverified:
        steps = tuple(dict.fromkeys((rank.name, step.index) for rank, step in unverified))
        text = f"count not verified: {len(unverified)} graph launches have no reference to compare with"
        found.append(replace(_finding("H05", text, fatal=False, scope="counts", count=len(unverified)), steps=steps))
    return found


def _is_counted(rank: RankData, step: Step) -> bool:
    """Whether a count per step could look at `step`: of steps that come in runs, only the steady ones are looked at.

    A ramp passes through batch sizes once, whose graphs have nothing to compare with; no verdict rests on them.
    """
    if step.kind not in RUNS:
        return True
    steady = steady_steps(rank, step.kind)
    return not steady or any(step is one for one in steady)


def _graph_launches(rank: RankData) -> list[tuple[Step, int, int]]:
    """(step, which of its graph launches, kernels carried) for every graph launch inside a step."""
    launches = rank.launches
    if not len(launches):
        return []
    graph = np.array([is_graph_launch(text) for text in rank.names], np.bool_)
    rows = np.flatnonzero(graph[launches.name_id] & (launches.step >= 0))
    nth: Counter[int] = Counter()
    out = []
    for step, count in zip(launches.step[rows].tolist(), launches.n_kernels[rows].tolist(), strict=True):
        out.append((rank.steps[step], nth[step], count))
        nth[step] += 1
    return out
