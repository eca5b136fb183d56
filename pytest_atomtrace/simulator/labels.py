"""Step labels in ATOM's exact words (atom/model_engine/run_labels.py of August 2026), and those of May 2026."""

from __future__ import annotations

__all__ = ["eager_label", "graph_label", "guide_era"]


def _context(lengths: list[int]) -> str:
    if len(lengths) == 1:
        return str(lengths[0])
    if len(lengths) <= 5:
        return str(lengths)
    return f"{lengths[:3]}...+{len(lengths) - 3}"


def graph_label(kind: str, *, bs: int, graph_bs: int, tok: int, decodes: int, spec: int = 0, tbo: bool = False) -> str:
    """``decode[bs=117/128 tok=117 d=117]``; the graph's size only where it is larger."""
    size = f"{bs}/{graph_bs}" if graph_bs > bs else str(bs)
    return f"{kind}[bs={size} tok={tok} d={decodes}{f' spec={spec}' if spec else ''}{' tbo=1' if tbo else ''}]"


def eager_label(kind: str, *, bs: int, tok: int, contexts: list[int], tbo: bool = False) -> str:
    """``prefill[bs=2 tok=128 ctx=[64, 64]]``; up to five lengths as a list, else three and a count."""
    return f"{kind}[bs={bs} tok={tok} ctx={_context(contexts)}{' tbo=1' if tbo else ''}]"


def guide_era(label: str) -> str:
    """The label as ATOM wrote it in May 2026, when its tracing guide was: no graph size, no tbo, no dummies.

    Every step without a graph was a prefill then, an eager decode too.
    """
    kind, bracket, rest = label.removeprefix("dummy_").partition("[")
    kind = "prefill" if kind == "eager_decode" else kind
    size, blank, more = rest.partition(" ")
    return kind + bracket + size.partition("/")[0] + blank + more.replace(" tbo=1", "")
