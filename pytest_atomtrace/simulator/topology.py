"""Which engines, workers and rank directories a command line asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["Engine", "Worker", "engines_of"]


@dataclass(frozen=True)
class Worker:
    """One GPU worker: its rank over the whole server, in its engine, its directory and process title."""

    rank: int
    local_rank: int
    directory: str
    title: str
    dp_rank: int


@dataclass(frozen=True)
class Engine:
    """One EngineCore with its workers; ``role`` is the part of a rapidserve server, else empty."""

    index: int
    dp_rank: int
    pp_rank: int
    role: str
    title: str
    workers: tuple[Worker, ...]
    tp_size: int


def engines_of(args: argparse.Namespace, prefix: str) -> tuple[Engine, ...]:
    """Engines and workers of ATOM's config and manager rules (atom/config.py, engine_core_mgr.py)."""
    tp, dp, pp = args.tensor_parallel_size, args.data_parallel_size, args.pipeline_parallel_size
    if args.enable_dp_attention:
        tp, dp = 1, tp * dp
    workers = tp * args.prefill_context_parallel_size
    if args.enable_rapidserve:
        return tuple(
            Engine(
                index,
                0,
                0,
                role,
                f"{prefix}::EngineCore",
                _workers(f"{role}/rank_%d", index * workers, workers, 0, prefix),
                tp,
            )
            for index, role in enumerate(("prefill", "decode"))
        )
    engines = []
    for index in range(dp * pp):
        dp_rank, pp_rank = (index, 0) if dp > 1 else (0, index)
        pattern = f"dp{dp_rank}_tp%d" if dp > 1 else f"pp{pp_rank}_rank_%d" if pp > 1 else "rank_%d"
        suffix = f"_DP{dp_rank}" if dp > 1 else f"_PP{pp_rank}" if pp > 1 else ""
        made = _workers(pattern, index * workers, workers, dp_rank if dp > 1 else -1, prefix)
        engines.append(Engine(index, dp_rank, pp_rank, "", f"{prefix}::EngineCore{suffix}", made, tp))
    return tuple(engines)


def _workers(pattern: str, first: int, count: int, dp_rank: int, prefix: str) -> tuple[Worker, ...]:
    label = f"DP{dp_rank}TP" if dp_rank >= 0 else "TP"
    return tuple(Worker(first + r, r, pattern % r, f"{prefix}::{label}{r}", max(dp_rank, 0)) for r in range(count))
