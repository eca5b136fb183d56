"""An attribution in words: few lines, largest part first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.trace.names import short_name
from pytest_atomtrace.units import format_duration
from pytest_atomtrace.verdicts.evidence import listed

if TYPE_CHECKING:
    from pytest_atomtrace.verdicts.attribution import Attribution, Change

__all__ = ["attribution_rows", "signed"]

_SHOWN = 8
_FAMILIES = 4
_LATE = 0.5
_NAME = 44
# Less is no time at all: "+0 ns" would be a line about nothing.
_ZERO_NS = 0.5


def signed(ns: float) -> str:
    """``+1.200 ms``, ``-3.000 us``."""
    return f"{'-' if ns <= -_ZERO_NS else '+'}{format_duration(abs(ns))}"


def attribution_rows(found: Attribution) -> list[tuple[str, list[str]]]:
    """Rows for an evidence block: changes, families, what is left, and the rank that comes last."""
    alone = sorted({rank for change in found.changes for rank in change.ranks})
    where = f" on {found.rank}, the rank with most work" if len(found.late) > 1 or alone else ""
    share = f", {found.share * 100:.0f} % of it explained by" if found.share is not None else ":"
    takes = signed(found.step_ns) if abs(found.step_ns) >= _ZERO_NS else "as long as before"
    lines = [f"the step takes {takes}{where}{share}"]
    if found.alike:
        lines.append(f"{signed(found.alike_ns):>11}  all kernels alike, {found.alike * 100:+.1f} %; beyond that:")
    lines += [_line(change) for change in found.changes[:_SHOWN]]
    if len(found.changes) > _SHOWN:
        more = sum(change.delta_ns for change in found.changes[_SHOWN:])
        lines.append(f"{signed(more):>11}  {len(found.changes) - _SHOWN} more kernels")
    if not found.changes:
        lines.append("no kernel differs by more than 1 % and 0.3 us")
    rest = "waiting for other ranks" if len(found.late) > 1 else "no kernel accounts for it"
    for ns, what in ((found.same_ns, "all others together"), (found.rest_ns, rest)):
        lines += [f"{signed(ns):>11}  {what}"] * (abs(ns) >= _ZERO_NS)
    families = [f"{name} {signed(ns)}" for name, ns in found.families[:_FAMILIES] if abs(ns) > 1]
    rows = [("changed", lines), ("families", [", ".join(families)])]
    late = max(found.late, key=lambda rank: found.late[rank], default="")
    if late and found.late[late] > _LATE:
        text = f"{late} comes last to {found.late[late] * 100:.0f} % of the collectives: the other ranks wait for it"
        rows.append(("waiting", [text]))
    return rows


def _line(change: Change) -> str:
    names = " + ".join(short_name(name, _NAME) for name in change.after or change.before)
    if change.sort in ("replaced", "fused", "split"):
        names = f"{' + '.join(short_name(name, _NAME) for name in change.before)} -> {names}"
    calls = f"{change.after_calls} calls"
    if change.before_calls != change.after_calls:
        calls = f"{change.before_calls} -> {change.after_calls} calls"
    where = f", only on {listed(list(change.ranks), limit=3)}" if change.ranks else ""
    return f"{signed(change.delta_ns):>11}  {change.sort} {names} ({calls}{where})"
