"""How long each kernel of a program takes on each rank, with collectives that wait for the late rank."""

from __future__ import annotations

import random
from dataclasses import dataclass
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
    """Nanoseconds per kernel on this rank; per rank the sums between collectives; where the collectives are."""

    mine: list[float]
    sums: list[list[float]]
    collectives: list[int]


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
        self._jitter: dict[tuple[object, ...], list[float]] = {}
        self._products: dict[tuple[object, ...], _Product] = {}
        self._carry = [0.0] * len(ranks)

    def view(self, keys: tuple[str, ...], phase: str, step: int, *, whole: bool = True) -> View:
        """``keys`` under the mutations that are active in this phase and step.

        ``whole`` is false for a part of a phase beside its main program: extra kernels come once a step.
        """
        active = [
            [m for m in self._mutations if m.applies(rank=rank, phase=phase, step=step)] for rank in self._ranks
        ]
        token: tuple[object, ...] = tuple(tuple(self._mutations.index(m) for m in row) for row in active)
        if not any(active):
            names = tuple(str(self._kernels[key]["name"]) for key in keys)
            return View((), keys, names, tuple(range(len(keys))), (None,) * len(self._ranks))
        extras = [
            m
            for m in self._mutations
            if whole and m.action == "extra" and (m.phase or "decode") == phase and m.step in (None, step)
        ]
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
            found = []
            for key in keys:
                kernel = self._kernels[key]
                draw = shared if kernel.get("collective") else own
                # two uniform draws: near enough to a normal one, at a fifth of its time for 100,000 of them
                found.append(1.0 + float(kernel.get("spread", 0.03)) * TRIANGLE * (draw() + draw() - 1.0))
            self._jitter[token] = found
        return found

    def _product(self, name: str, view: View, shape: Shape, variant: int) -> _Product:
        # Same mutations, other kernels: extra ones come only with the whole program of their phase.
        token = (name, view.token, len(view.keys), shape, variant)
        found = self._products.get(token)
        if found is not None:
            return found
        if len(self._products) > 64:  # contexts grow for ever, memory must not
            self._products.clear()
        base = [self._median_us(key, shape) * 1000 * self._launch for key in view.keys]
        collective = [bool(self._kernels[key].get("collective")) for key in view.keys]
        mine: list[float] = []
        sums = []
        for index, rank in enumerate(self._ranks):
            times = [a * b for a, b in zip(base, self._jitters(rank, name, variant, view.keys), strict=True)]
            factors = view.factors[index]
            if factors is not None:
                times = [a * b for a, b in zip(times, factors, strict=True)]
            if index == self._me:
                mine = times
            parts, total = [], 0.0
            for time_ns, is_collective in zip(times, collective, strict=True):
                if is_collective:
                    parts.append(total)
                    total = 0.0
                else:
                    total += time_ns
            sums.append([*parts, total])
        found = _Product(mine, sums, [index for index, yes in enumerate(collective) if yes])
        self._products[token] = found
        return found

    def of(self, name: str, view: View, shape: Shape, step: int) -> list[int]:
        """Durations in ns of all kernels of the view for engine step ``step`` (call once per executed program).

        A collective lasts its transfer time plus the time by which the slowest rank is later than this one.
        """
        variant = (step * 2654435761 ^ self._seed) % VARIANTS
        product = self._product(name, view, shape, variant)
        mine, sums = product.mine, product.sums
        speed = [
            s * max(0.9, random.Random(f"{self._seed}/{rank}/{step}").gauss(1.0, STEP_SPREAD))
            for s, rank in zip(self._speed, self._ranks, strict=True)
        ]
        me, own = self._me, speed[self._me]
        out = [int(time_ns * own) for time_ns in mine]
        for part, index in enumerate(product.collectives):
            arrivals = [c + row[part] * s for c, row, s in zip(self._carry, sums, speed, strict=True)]
            self._carry = [0.0] * len(speed)
            if out[index]:  # a dropped collective neither runs nor waits
                out[index] = int(mine[index]) + int(max(arrivals) - arrivals[me])
        self._carry = [c + row[-1] * s for c, row, s in zip(self._carry, sums, speed, strict=True)]
        return out
