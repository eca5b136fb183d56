"""How long each kernel of a program takes on each rank, with collectives that wait for the late rank."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise
from operator import add, mul
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_atomtrace.simulator.mutations import Mutation

__all__ = ["Durations", "Shape", "View"]

VARIANTS = 4
RANK_SPREAD = 0.002
STEP_SPREAD = 0.004
EXTRA_US = 5.0
TRIANGLE = 6**0.5  # the sum of two uniform draws has a standard deviation of 1/sqrt(6)


@dataclass(frozen=True)
class Shape:
    """What a program's times depend on; ``ctx`` is rounded so that few shapes arise."""

    prefill: bool
    size: int  # prefill: tokens; else: (graph) batch
    ctx: int


@dataclass(frozen=True)
class View:
    """A program as the active mutations leave it, for all ranks of the group and for this one."""

    token: tuple[object, ...]
    keys: tuple[str, ...]
    names: tuple[str, ...]  # as this rank shows them
    emitted: tuple[int, ...]  # indices that this rank runs
    factors: tuple[tuple[float, ...] | None, ...]  # per rank; None: untouched


@dataclass(frozen=True)
class _Product:
    """Nanoseconds per kernel on this rank; between collectives the sums per rank; where the collectives are."""

    mine: list[float]
    sums: list[tuple[float, ...]]
    collectives: list[int]


class _Spreads(dict[str, tuple[float, bool]]):
    """Half width of a kernel's jitter and whether it is a collective, by key."""

    def __init__(self, kernels: dict[str, dict[str, Any]]) -> None:
        self._kernels = kernels

    def __missing__(self, key: str) -> tuple[float, bool]:
        kernel = self._kernels[key]
        found = self[key] = (float(kernel.get("spread", 0.03)) * TRIANGLE, bool(kernel.get("collective")))
        return found


class Durations:
    """Seeded times. All ranks compute all ranks, so that nobody has to ask whom a collective waits for."""

    def __init__(
        self,
        kernels: dict[str, dict[str, Any]],
        *,
        seed: int,
        launch: int,
        launch_spread: float,
        ranks: list[int],
        me: int,
        mutations: tuple[Mutation, ...],
    ) -> None:
        self._kernels = kernels
        self._seed = seed
        self._ranks = ranks
        self._me = me
        self._mutations = mutations
        self._launch = max(0.5, random.Random(f"{seed}/launch/{launch}").gauss(1.0, launch_spread))
        self._speed = [random.Random(f"{seed}/speed/{rank}").gauss(1.0, RANK_SPREAD) for rank in ranks]
        self._spreads = _Spreads(kernels)
        self._jitter: dict[tuple[object, ...], list[float]] = {}
        self._products: dict[tuple[object, ...], _Product] = {}
        self._carry = [0.0] * len(ranks)
        self._views: dict[tuple[str, tuple[object, ...]], View] = {}
        self._speeds: tuple[int, list[float]] = (-1, [])

    def view(self, program: str, keys: tuple[str, ...], phase: str, number: int, *, whole: bool = True) -> View:
        """``keys``, those of ``program``, under the mutations that are active in this phase and step.

        ``whole`` is false for a part of a phase beside its main program: extra kernels come once a step.
        """
        active = [
            [m for m in self._mutations if m.applies(rank=rank, phase=phase, step=number)] for rank in self._ranks
        ]
        if not any(active):
            found = self._views.get((program, ()))
            if found is None:
                names = tuple(str(self._kernels[key]["name"]) for key in keys)
                found = View((), keys, names, tuple(range(len(keys))), (None,) * len(self._ranks))
                self._views[program, ()] = found
            return found
        extras = [
            m
            for m in self._mutations
            if whole and m.action == "extra" and (m.phase or "decode") == phase and m.step in (None, number)
        ]
        token = tuple(tuple(self._mutations.index(m) for m in row) for row in (extras, *active))
        found = self._views.get((program, token))
        if found is None:
            found = self._views[program, token] = self._view(keys, active, extras, token)
        return found

    def _view(
        self,
        keys: tuple[str, ...],
        active: list[list[Mutation]],
        extras: list[Mutation],
        token: tuple[object, ...],
    ) -> View:
        for mutation in extras:
            self._kernels.setdefault(f"+{mutation.pattern}", {"name": mutation.pattern, "us": EXTRA_US})
        every = keys + tuple(f"+{m.pattern}" for m in extras)
        factors = [self._factors(keys, extras, row) for row in active]
        mine = factors[self._me]
        emitted = tuple(i for i in range(len(every)) if mine is None or mine[i] > 0)
        return View(token, every, self._names(every, active[self._me]), emitted, tuple(factors))

    def _factors(
        self, keys: tuple[str, ...], extras: list[Mutation], active: list[Mutation]
    ) -> tuple[float, ...] | None:
        if not active and not extras:
            return None
        out = []
        for key in keys:
            factor = 1.0
            for mutation in active:
                if mutation.action in ("drop", "slow") and mutation.matches(str(self._kernels[key]["name"])):
                    factor *= 0.0 if mutation.action == "drop" else float(mutation.value)
            out.append(factor)
        return tuple(out + [1.0 if extra in active else 0.0 for extra in extras])

    def _names(self, keys: tuple[str, ...], active: list[Mutation]) -> tuple[str, ...]:
        names = [str(self._kernels[key]["name"]) for key in keys]
        for mutation in active:
            if mutation.action == "rename":
                names = [mutation.value if mutation.matches(name) else name for name in names]
        return tuple(names)

    def _median_us(self, key: str, shape: Shape) -> float:
        kernel = self._kernels[key]
        us = float(kernel["us"])
        if shape.prefill:
            full = float(kernel.get("pf_us", us))
            part = float(kernel.get("per_tok", 0.95 if "pf_us" in kernel else 0.0))
            return max(full * (1 - part + part * shape.size / 8192), min(us, full))
        by_batch, by_ctx = float(kernel.get("per_bs", 0.0)), float(kernel.get("per_ctx", 0.0))
        load = shape.size / 64
        return us * max(0.3, 1 - by_batch - by_ctx + by_batch * load + by_ctx * load * shape.ctx / 1024)

    def _jitters(self, rank: int, name: str, variant: int, keys: tuple[str, ...]) -> list[float]:
        token = (rank, name, variant, len(keys))
        found = self._jitter.get(token)
        if found is None:
            own = random.Random(f"{self._seed}/{rank}/{name}/{variant}").random
            shared = random.Random(f"{self._seed}/all/{name}/{variant}").random
            # two uniform draws: near enough to a normal one, at a fifth of its time for 100,000 of them
            found = [
                1.0 + spread * ((shared() + shared() if together else own() + own()) - 1.0)
                for spread, together in map(self._spreads.__getitem__, keys)
            ]
            self._jitter[token] = found
        return found

    def _product(self, name: str, view: View, shape: Shape, variant: int) -> _Product:
        token = (name, view.token, shape, variant)
        found = self._products.get(token)
        if found is not None:
            return found
        if len(self._products) > 64:  # contexts grow for ever, memory must not
            self._products.clear()
        medians = {key: self._median_us(key, shape) * 1000 * self._launch for key in set(view.keys)}
        base = [medians[key] for key in view.keys]
        collectives = [i for i, key in enumerate(view.keys) if self._spreads[key][1]]
        mine: list[float] = []
        rows = []
        for index, rank in enumerate(self._ranks):
            times = list(map(mul, base, self._jitters(rank, name, variant, view.keys)))
            factors = view.factors[index]
            if factors is not None:
                times = list(map(mul, times, factors))
            if index == self._me:
                mine = times
            cuts = [-1, *collectives, len(times)]
            rows.append([sum(times[a + 1 : b]) for a, b in pairwise(cuts)])
        found = _Product(mine, list(zip(*rows, strict=True)), collectives)
        self._products[token] = found
        return found

    def _speeds_of(self, step: int) -> list[float]:
        if self._speeds[0] != step:
            drawn = [random.Random(f"{self._seed}/{rank}/{step}").gauss(1.0, STEP_SPREAD) for rank in self._ranks]
            self._speeds = (step, [s * max(0.9, d) for s, d in zip(self._speed, drawn, strict=True)])
        return self._speeds[1]

    def of(self, name: str, view: View, shape: Shape, step: int) -> list[int]:
        """Durations in ns of all kernels of the view for engine step ``step`` (call once per executed program).

        A collective lasts its transfer time plus the time by which the slowest rank is later than this one.
        """
        variant = (step * 2654435761 ^ self._seed) % VARIANTS
        product = self._product(name, view, shape, variant)
        speeds = self._speeds_of(step)
        me, own = self._me, speeds[self._me]
        out = [int(time_ns * own) for time_ns in product.mine]
        carry = self._carry
        for sums, index in zip(product.sums, product.collectives, strict=False):
            arrivals = list(map(mul, sums, speeds))
            if carry:
                arrivals = list(map(add, arrivals, carry))
                carry = []
            if out[index]:  # a dropped collective neither runs nor waits
                out[index] = int(product.mine[index]) + int(max(arrivals) - arrivals[me])
        last = map(mul, product.sums[-1], speeds)
        self._carry = list(map(add, last, carry)) if carry else list(last)
        return out
