"""Small kineto traces for tests: one eager prefill and a run of graph-replayed decode steps per rank."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

NAME = "m_ts_20260101_000000_000.pt.trace.json.gz"
LAYERS = 4
PER_LAYER = ("attention_kernel", "mfma_moe1_a_t32", "mfma_moe2_a_t32")


@dataclass
class Recipe:
    """What one rank's trace holds; durations are microseconds.

    `replaced` maps a decode step to a kernel that another one stands in for once (graphs of one shape always
    hold equally many kernels, so a trace with one fewer is a lossy one); `slow` maps a decode step to a factor,
    `times` a kernel;
    `lost` are decode steps whose last kernel record is missing.
    """

    decode_steps: int = 40
    layers: int = LAYERS
    duration_us: float = 10.0
    extra: tuple[str, ...] = ()
    extra_us: float | None = None
    times: dict[str, float] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    replaced: dict[int, str] = field(default_factory=dict)
    lost: frozenset[int] = frozenset()
    slow: dict[int, float] = field(default_factory=dict)
    empty: frozenset[int] = frozenset()
    labels: bool = True
    prefill: bool = True
    bs: int = 4


class _Writer:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.correlation = 0
        self.gpu_us = 5_000.0

    def add(self, name: str, cat: str, ts: float, dur: float, *, tid: int = 100, **args: object) -> None:
        self.events.append(
            {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": tid, "ts": ts, "dur": dur, "args": args}
        )

    def kernel(self, name: str, dur: float, **args: object) -> None:
        self.add(name, "kernel", self.gpu_us, dur, tid=7, stream=7, correlation=self.correlation, **args)
        self.gpu_us += dur


def events(recipe: Recipe) -> list[dict[str, Any]]:
    """The trace's events, in time order of the host."""
    out = _Writer()
    if recipe.prefill:
        _prefill(out, recipe)
    host = 4_000.0
    for step in range(recipe.decode_steps):
        if recipe.labels:
            out.add(f"decode[bs={recipe.bs} tok={recipe.bs} d={recipe.bs}]", "user_annotation", host, 50.0)
        out.correlation += 1
        out.add("hipGraphLaunch", "cuda_runtime", host + 5, 20.0, correlation=out.correlation)
        out.gpu_us = max(out.gpu_us, host + 2_000)
        replaced = recipe.replaced.get(step)
        factor = recipe.slow.get(step, 1.0)
        names = [*PER_LAYER * recipe.layers, *recipe.extra]
        if step in recipe.empty:
            names = []
        for name in names[: len(names) - (step in recipe.lost)]:
            shown = recipe.renamed.get(name, name)
            if name == replaced:
                replaced, shown = None, "stand_in_kernel"
            usual = recipe.extra_us if name in recipe.extra and recipe.extra_us else recipe.duration_us
            usual *= recipe.times.get(name, 1.0)
            out.kernel(shown, usual * factor)
        host += 400.0
    return out.events


def _prefill(out: _Writer, recipe: Recipe) -> None:
    if recipe.labels:
        out.add(f"prefill[bs={recipe.bs} tok=64 ctx=16]", "user_annotation", 1_000.0, 2_000.0)
    host = 1_010.0
    for _ in range(recipe.layers):
        out.add("aiter::moe_forward", "cpu_op", host, 90.0, **{"External id": out.correlation + 1})
        for name in PER_LAYER:
            out.correlation += 1
            out.add("hipLaunchKernel", "cuda_runtime", host + 1, 2.0, correlation=out.correlation, kernel=name)
            out.kernel(recipe.renamed.get(name, name), 30.0, **{"External id": out.correlation})
            host += 10
        host += 70


def write_rank(directory: Path, recipe: Recipe) -> Path:
    """Write one rank directory as ATOM's exporter names its file."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / NAME
    document = {"schemaVersion": 1, "traceEvents": events(recipe), "traceName": str(path.name)}
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        json.dump(document, stream)
    return path


def write_ranks(directory: Path, *recipes: Recipe) -> Path:
    """Write ``rank_0 ..``, one per recipe."""
    for rank, recipe in enumerate(recipes):
        write_rank(directory / f"rank_{rank}", recipe)
    return directory
