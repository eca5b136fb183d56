"""H11: who else was on the GPUs or asked the server while the window was open, and what throttled the GPUs.

The capture records both in its manifest. Neither touches counts: a throttled GPU launches the same kernels. The power
cap is no finding: a busy MI300X runs at it, it is part of the hardware key, and its residency is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from pytest_atomtrace.trace.finding import TITLES, Finding
from pytest_atomtrace.units import format_bytes

if TYPE_CHECKING:
    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.trace.data import TraceData

__all__ = ["batch_findings", "contention_findings"]

_THROTTLES: Final = {
    "prochot": "PROCHOT (the board asked for it)",
    "socket_thermal": "the socket's temperature",
    "vr_thermal": "the voltage regulators' temperature",
    "hbm_thermal": "the HBM's temperature",
}
_SHOWN: Final = 4
_DECODES: Final = ("decode", "eager_decode")


def contention_findings(manifest: Mapping[str, object]) -> Iterator[Finding]:
    """The findings of one capture's manifest; none where nothing was recorded."""
    facts = manifest.get("contention")
    if not isinstance(facts, Mapping):
        return
    foreign = [row for row in _listed(facts.get("foreign")) if isinstance(row, Mapping)]
    more = facts.get("foreign_unnamed")
    unnamed = more if isinstance(more, int) else 0
    if foreign or unnamed:
        shown = [_tenant(row) for row in foreign[:_SHOWN]]
        rest = len(foreign) - len(shown) + unnamed
        names = "; ".join([*shown, *([f"{rest} more"] if rest else [])])
        yield _finding(f"other processes were on the GPUs in the window: {names}", len(foreign) + unnamed)
    traffic = facts.get("traffic")
    if isinstance(traffic, Mapping):
        yield from _traffic(traffic)
    throttle = facts.get("throttle")
    for card, row in sorted(throttle.items()) if isinstance(throttle, Mapping) else ():
        if isinstance(row, Mapping):
            yield from _throttled(str(card), row)


def _traffic(row: Mapping[str, object]) -> Iterator[Finding]:
    """What a server that is not ours counted beside our own requests."""
    finished, ours = row.get("finished"), row.get("ours")
    if isinstance(finished, int) and isinstance(ours, int) and finished > ours:
        yield _finding(f"the server answered {finished} requests with the window, ours were {ours}", finished - ours)
        return
    flying = [row.get(name) for name in ("in_flight_before", "in_flight_after")]
    most = max((count for count in flying if isinstance(count, int)), default=0)
    if most > 0:
        yield _finding(f"the server worked on {most} {'request' if most == 1 else 'requests'} beside ours", most)


def batch_findings(data: TraceData, case: Case | None) -> Iterator[Finding]:
    """Decode steps with more sequences than the case ever has in flight: others' requests were in the batch."""
    if case is None:
        return
    over = {
        rank.name: max(sizes)
        for rank in data.ranks.values()
        if (sizes := [step.bs for step in rank.steps if step.kind in _DECODES and step.bs > case.conc])
    }
    if over:
        name = max(over, key=lambda rank: over[rank])
        text = (
            f"decode steps of up to {over[name]} sequences on {name}, where the case has {case.conc} in flight: "
            "requests that are not the case's were in the batch"
        )
        yield _finding(text, over[name] - case.conc)


def _throttled(card: str, row: Mapping[str, object]) -> Iterator[Finding]:
    cycles = row.get("cycles")
    for name, reason in _THROTTLES.items():
        grown = row.get(name)
        if isinstance(grown, int) and grown > 0:
            share = f" for {100 * grown / cycles:.1f} % of the window" if isinstance(cycles, int) and cycles > 0 else ""
            yield _finding(f"{card} was throttled by {reason}{share}", grown)


def _tenant(row: Mapping[str, object]) -> str:
    who = f" {row['name']}" if row.get("name") else ""
    owner = f" of {row['user']}" if row.get("user") else ""
    size = row.get("vram_bytes")
    memory = f" with {format_bytes(size)}" if isinstance(size, (int, float)) else ""
    return f"pid {row.get('pid')}{who}{owner}{memory}"


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []


def _finding(text: str, count: int) -> Finding:
    return Finding(code="H11", title=TITLES["H11"], fatal=True, scope="times", text=text, count=count)
