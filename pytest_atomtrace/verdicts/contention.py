"""H11: who else was on the GPUs while the window was open, and what throttled them.

The capture records both in its manifest. Neither touches counts: a throttled GPU launches the same kernels. The power
cap is no finding: a busy MI300X runs at it, it is part of the hardware key, and its residency is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from pytest_atomtrace.trace.finding import TITLES, Finding
from pytest_atomtrace.units import format_bytes

__all__ = ["contention_findings"]

_THROTTLES: Final = {
    "prochot": "PROCHOT (the board asked for it)",
    "socket_thermal": "the socket's temperature",
    "vr_thermal": "the voltage regulators' temperature",
    "hbm_thermal": "the HBM's temperature",
}
_SHOWN: Final = 4


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
    throttle = facts.get("throttle")
    for card, row in sorted(throttle.items()) if isinstance(throttle, Mapping) else ():
        if isinstance(row, Mapping):
            yield from _throttled(str(card), row)


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
