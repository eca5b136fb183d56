"""Whether two captures are of the same thing: what a reader must know before comparing their figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.verdicts.figures import gpu_name
from pytest_atomtrace.verdicts.saved import saved_case

if TYPE_CHECKING:
    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["Unlike", "unlike"]

# How often something was captured is no part of what was measured.
_IGNORED = ("captures",)


@dataclass(frozen=True)
class Unlike:
    """What two captures differ in by intent: a field of the case, ``device``, or ``engine``."""

    what: str
    a: str
    b: str


def unlike(a: TraceView, b: TraceView) -> tuple[Unlike, ...]:
    """How the cases and devices of two captures differ; what a plain trace directory does not tell is left out."""
    found = _cases(a.case or saved_case(a.manifest), b.case or saved_case(b.manifest))
    device = (gpu_name(a), gpu_name(b))
    if all(device) and device[0] != device[1]:
        found.append(Unlike("device", *device))
    if a.simulated != b.simulated:
        words = ("simulated", "real")
        found.append(Unlike("engine", *(words if a.simulated else reversed(words))))
    return tuple(found)


def _cases(a: Case | None, b: Case | None) -> list[Unlike]:
    if a is None or b is None:
        return []
    mine, other = ({**case.as_dict(), "osl": case.output_tokens} for case in (a, b))
    names = [name for name in mine if name not in _IGNORED and mine[name] != other[name]]
    return [Unlike(name, str(mine[name]), str(other[name])) for name in names]
