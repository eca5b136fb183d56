"""Shapes for which AITER found no tuned kernel: slower than they need to be, and silent about it but for a log line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import InconclusiveError
from pytest_atomtrace.verdicts.evidence import block, count_of
from pytest_atomtrace.verdicts.outcome import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Collection

    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["tuned", "untuned_shapes"]

_SHOWN = 20


def untuned_shapes(manifest: Mapping[str, object]) -> tuple[str, ...] | None:
    """``bf16 M=64 N=512 K=7168`` and ``fused_moe 2stage (...)``, sorted; None where no server log was read."""
    facts = manifest.get("log")
    if not isinstance(facts, Mapping):
        return None
    shapes = {f"{r.get('op')} M={r.get('m')} N={r.get('n')} K={r.get('k')}" for r in _rows(facts, "untuned")}
    shapes |= {f"fused_moe {r.get('stages')}stage {r.get('shape')}" for r in _rows(facts, "moe_defaults")}
    return tuple(sorted(shapes))


def tuned(trace: TraceView, *, known: Collection[str] | None) -> Verdict:
    """Judge that every shape is tuned, or (`known` given) that none is untuned that the baseline has not got.

    Raises:
        InconclusiveError: there is no server log with this trace.

    """
    found = untuned_shapes(trace.manifest)
    if found is None:
        raise InconclusiveError("no server log was read for this trace, and only the log tells of untuned shapes")
    against = "" if known is None else " that the baseline has not got"
    check = f"no untuned shapes{against}"
    new = [shape for shape in found if known is None or shape not in known]
    facts: dict[str, str | int | float | bool] = {"untuned": len(found), "new": len(new)}
    if not new:
        rest = f"; {count_of(len(found), 'untuned shape')} are in the baseline" if found else ""
        return Verdict(check, Outcome.PASS, f"The server's log names no untuned shape{against}{rest}.", facts=facts)
    shown = [*new[:_SHOWN], *([f"and {len(new) - _SHOWN} more"] if len(new) > _SHOWN else [])]
    lines = block(
        [
            ("untuned", shown),
            ("remedy", "tune these shapes (AITER's tuners read the untuned csv) or record them: assert_no_regression"),
            *trace.footer(None, None),
        ]
    )
    noun = count_of(len(new), "shape") + (" has" if len(new) == 1 else " have")
    return Verdict(check, Outcome.FAIL, f"{noun} no tuned config{against}.", lines, facts=facts)


def _rows(facts: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    rows = facts.get(name)
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
