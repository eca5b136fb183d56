"""A window's steps on one rank, in order: preparation, label, logits, sampling, drafts.

The host starts a step while the GPU is still busy with the one before. ATOM's labels hold the forward pass and
the logits; input preparation, sampling and drafts lie outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_atomtrace.simulator.durations import Shape
from pytest_atomtrace.simulator.player import LAG_NS

if TYPE_CHECKING:
    from pytest_atomtrace.simulator.player import Player

__all__ = ["Timeline"]

AHEAD_NS = 350_000


class Timeline:
    """Plays the engine's step records through a player."""

    def __init__(self, player: Player, *, start_ns: int) -> None:
        self._player = player
        self._rng = player.rng
        self.start = start_ns
        player.now = start_ns + 1_500_000
        self._counts: dict[str, int] = {}
        self.labels = True

    @property
    def end(self) -> int:
        """The end of everything written so far, in ns."""
        return max(self._player.gpu_end, self._player.now)

    def in_flight(self, step: dict[str, Any]) -> None:
        """Kernels of the step before the window: they run when it opens, their launch was before it."""
        self._player.orphans(step["program"], _shape(step), step["n"], since=self.start)

    def step(self, step: dict[str, Any], *, keep: float = 1.0) -> None:
        """One executed step with what surrounds it; ``keep`` is the share of a graph's kernels that survive."""
        player, rng = self._player, self._rng
        player.lag = min(max(player.lag + int(rng.gauss(0, 150_000)), LAG_NS[0]), LAG_NS[1])
        player.now = max(player.now, player.gpu_end - player.lag - AHEAD_NS)
        if step["idle"]:
            player.now = max(player.now, player.gpu_end - player.lag) + rng.randint(1_500_000, 4_000_000)
        kind, phase, shape, n = step["kind"], step["phase"], _shape(step), step["n"]
        name, number = kind.removeprefix("dummy_"), self._count(kind)
        player.play(f"{phase}_prepare", "prepare", number, shape, n, keep=keep)
        begin, external = player.now, player.next_external()
        if step["graph"]:
            player.now += rng.randint(6_000, 14_000)
        first = player.play(step["program"], name, number, shape, n, keep=keep)
        if step["eager_logits"] or not step["graph"]:
            player.play(f"{phase}_logits", name, number, shape, n, keep=keep, whole=False)
        player.now += rng.randint(3_000, 8_000)
        self._label(step["label"], begin, external, first if keep > 0 else None)
        if not step["dummy"]:
            player.play(f"{phase}_sample", "sample", number, shape, n, keep=keep)
        for index in range(step["drafts"]):
            self._draft(step, index, keep)

    def _draft(self, step: dict[str, Any], index: int, keep: float) -> None:
        player, number = self._player, self._count("draft")
        begin, external = player.now + 2_000, player.next_external()
        player.now = begin + 3_000
        # the first draft catches up with the tokens that the target has just seen, the others take one each
        program, shape = "draft", Shape(prefill=False, size=step["bs"], ctx=_shape(step).ctx)
        if index == 0:
            program, shape = f"draft_{step['phase']}", _shape(step)
        first = player.play(program, "draft", number, shape, step["n"], keep=keep)
        player.now += 3_000
        label = f"draft[{index}/{step['drafts']} bs={step['bs']}]"
        self._label(label, begin, external, first if keep > 0 else None)

    def _count(self, kind: str) -> int:
        number = self._counts[kind] = self._counts.get(kind, -1) + 1
        return number

    def _label(self, label: str, begin: int, external: int, first_kernel: int | None) -> None:
        if not self.labels:
            return
        player = self._player
        player.annotation(label, begin, player.now, external)
        if first_kernel is None:
            return
        # Real GPU annotations are often wrong: missing, far too short, or shifted.
        luck = self._rng.random()
        start, took = first_kernel, max(player.streams.ends[0], player.streams.ends[2]) - first_kernel
        if luck < 0.04:
            return
        if luck < 0.09:
            took = min(took, 18_000)
        elif luck < 0.12:
            start -= took // 3
        player.gpu_annotation(label, 0, start, took, external)


def _shape(step: dict[str, Any]) -> Shape:
    halves = 2 if step["tbo"] else 1
    if step["phase"] == "prefill":
        return Shape(prefill=True, size=-(-step["tok"] // (256 * halves)) * 256, ctx=0)
    size = max(step["size"] * step["query"], 1)
    return Shape(prefill=False, size=-(-size // halves), ctx=-(-step["ctx"] // 256) * 256)
