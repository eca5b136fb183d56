"""A first spec from a healthy capture: what ran in every steady decode step, and how long it took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.cases.case import Case
from pytest_atomtrace.errors import NoStepsError
from pytest_atomtrace.trace.names import Pattern
from pytest_atomtrace.verdicts.facts import case_facts
from pytest_atomtrace.verdicts.kernel_time import kernel_time
from pytest_atomtrace.verdicts.kernel_view import view_kernels
from pytest_atomtrace.verdicts.missing_steps import few_steps_hint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_atomtrace.verdicts.kernel_view import KernelLine
    from pytest_atomtrace.verdicts.trace import Trace

__all__ = ["CountedKernel", "SpecDraft", "TimedFamily", "draft_spec"]

KIND = "decode"
MOST_KERNELS = 12
ENOUGH_SHARE = 0.95
LEAST_FAMILY_SHARE = 0.05
# hipBLASLt and inductor name kernels after tile sizes and graph contents: such names change with every tuning.
BLOCK_OPS = (
    "aiter::moe_forward",
    "aiter::unified_attention_with_output_base",
    "aiter::v4_attention_with_output",
    "aiter::linear_attention_with_output_base",
    "aiter::kda_attention_with_output",
)
UNSTABLE = ("Cijk_", "Custom_Cijk_", "triton_", "Memcpy ", "Memset ", "void at::native::", "at::native::")


@dataclass(frozen=True)
class CountedKernel:
    """A kernel that every steady step calls equally often; `share` is of all kernel time in them."""

    name: str
    family: str
    per_step: int
    share: float


@dataclass(frozen=True)
class TimedFamily:
    """A family's median GPU time per steady step on the slowest rank."""

    family: str
    p50_ns: int
    share: float


@dataclass(frozen=True)
class SpecDraft:
    """What a spec of this capture can say; times are None where they cannot be believed or are too few."""

    source: str
    case: Case | None
    ranks: int
    steps: int
    simulated: bool
    times: bool
    kernels: tuple[CountedKernel, ...]
    families: tuple[TimedFamily, ...]
    prefill_ops: tuple[str, ...]
    p50_ns: int | None
    p99_ns: int | None


def draft_spec(trace: Trace) -> SpecDraft:
    """Look at what a spec can hold.

    Raises:
        UnhealthyTraceError: counts of this trace cannot be believed.
        NoStepsError: it has no steady decode step.

    """
    trace.require("steps")
    trace.require_kind(KIND)
    steady = [trace.steady_steps(rank, KIND) for rank in trace.data.ranks.values()]
    if not all(steady):
        raise NoStepsError("steady decode", hint=few_steps_hint(trace, "decode"))
    times = not any(finding.fatal for finding in trace.health) and min(map(len, steady)) >= trace.settings.steady_min
    facts = case_facts(trace)
    p50, p99 = facts.get("p50_ns"), facts.get("p99_ns")
    rows = view_kernels(trace, during=KIND, per_step=True, layer="kernel").rows
    case = trace.manifest.get("case")
    return SpecDraft(
        source=str(trace.directory),
        case=Case.from_dict(case) if isinstance(case, dict) else None,
        ranks=len(trace.data.ranks),
        steps=sum(map(len, steady)),
        simulated=trace.simulated,
        times=times,
        kernels=_counted(rows),
        families=_timed(trace, rows) if times else (),
        prefill_ops=_ops(trace),
        p50_ns=p50 if times and isinstance(p50, int) else None,
        p99_ns=p99 if times and isinstance(p99, int) and facts.get("p99_firm") else None,
    )


def _counted(rows: Sequence[KernelLine]) -> tuple[CountedKernel, ...]:
    whole = sum(row.total_ns or 0 for row in rows) or 1
    found: list[CountedKernel] = []
    covered = 0.0
    seen: set[str] = set()
    for row in rows:
        if row.base_name in seen or row.name.startswith(UNSTABLE) or row.base_name.startswith(UNSTABLE):
            continue
        # The pattern may mean more rows than this one: variants of one template share their base name.
        pattern = Pattern.parse(row.base_name)
        same = [one for one in rows if pattern.matches(one.name)]
        seen.update(one.base_name for one in same)
        if not same or any(one.calls_per_step_min != one.calls_per_step_max for one in same):
            continue
        share = sum(one.total_ns or 0 for one in same) / whole
        calls = sum(one.calls_per_step_min or 0 for one in same)
        found.append(CountedKernel(row.base_name, row.family, calls, share))
        covered += share
        if len(found) == MOST_KERNELS or covered >= ENOUGH_SHARE:
            break
    return tuple(found)


def _timed(trace: Trace, rows: Sequence[KernelLine]) -> tuple[TimedFamily, ...]:
    whole = sum(row.total_ns or 0 for row in rows) or 1
    shares: dict[str, float] = {}
    for row in rows:
        shares[row.family] = shares.get(row.family, 0.0) + (row.total_ns or 0) / whole
    timed = []
    for name, share in sorted(shares.items(), key=lambda pair: -pair[1]):
        if share >= LEAST_FAMILY_SHARE and name != "unclassified":
            verdict = kernel_time(trace, f"family:{name}", during=KIND, per_step="1 h", share=None)
            p50 = verdict.facts.get("p50_ns")
            if isinstance(p50, int):
                timed.append(TimedFamily(name, p50, share))
    return tuple(timed)


def _ops(trace: Trace) -> tuple[str, ...]:
    """Ops that ATOM itself registers for whole blocks, as far as they ran in prefill on every rank."""
    ranks = trace.data.ranks.values()
    return tuple(op for op in BLOCK_OPS if all(rank.op_counts.get(op, {}).get("prefill", 0) for rank in ranks))
