"""A program's host side: operators, module spans and launches at fixed offsets from where a piece starts."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pytest_atomtrace.simulator.frames import Frame, frames_of

__all__ = ["EAGER", "GRAPH", "PIECES", "Launch", "Node", "Piece", "Plan"]

EAGER, GRAPH, PIECES = "eager", "graph", "pieces"
COLLECTIVE_OP = "record_param_comms"


class Launch(NamedTuple):
    """When a kernel is launched, in which operator of the piece (-1: none), on which thread."""

    start: int
    took: int
    op: int
    thread: int


@dataclass
class Node:
    """An operator or a module span with the range of kernels that are launched inside."""

    name: str
    is_op: bool
    thread: int
    start: int
    first: int
    took: int = 0
    last: int = 0


@dataclass
class Piece:
    """A stretch of kernels that is replayed by one graph launch or launched one by one."""

    graph: bool
    first: int
    last: int = 0
    nodes: list[Node] = field(default_factory=list)
    launches: list[Launch] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    span: int = 0


class Plan:
    """The kernels of a program in launch order, cut into pieces.

    ``mode`` says how it runs: all eager, one graph, or graphs with the ``splitting`` operators eager between
    them. With ``second`` the launches to the side stream and of RCCL come from a second thread. The halves of a
    two-batch step are launched ``together`` by their threads, or else one after the other.
    """

    def __init__(
        self,
        items: list[list[Any]],
        seed: str,
        *,
        mode: str = EAGER,
        splitting: frozenset[str] = frozenset(),
        second: bool = False,
        detailed: bool = False,
        together: bool = True,
    ) -> None:
        self._rng = random.Random(seed)
        self._mode, self._second, self._together = mode, second, together
        self.keys: list[str] = []
        self.codes: list[int] = []
        self.joins: list[int] = []
        self.split: list[bool] = []  # inside a splitting operator
        self.pieces: list[Piece] = []
        self._splitting = splitting
        self._now = self._lane = 0
        self._stack: list[Node] = []
        self._build(items)
        self.kernels = tuple(self.keys)
        self.pieces = [piece for piece in self.pieces if piece.last > piece.first or piece.nodes]
        for piece in self.pieces if detailed else ():
            piece.frames = frames_of(piece.graph, [(n.name, n.start, n.took) for n in piece.nodes if n.is_op])
        # 6 % of the neighbours in a graph leave a gap, the others abut within a nanosecond
        draw = self._rng.random
        self.gaps = [self._rng.randint(300, 1600) if draw() < 0.06 else int(draw() < 0.5) for _ in self.keys]

    def _build(self, items: list[list[Any]]) -> None:
        depth, split_depth = 0, -1
        self.pieces.append(Piece(self._mode != EAGER, 0))
        for place, item in enumerate(items):
            match item[0]:
                case "l":
                    self._lane = item[1]
                    self._now = 0 if self._together else self._now
                case "o" | "s":
                    if item[1] in self._splitting and split_depth < 0:
                        split_depth = depth
                        self._cut(graph=False)
                    depth += 1
                    self._begin(item, items, place)
                case "e":
                    depth -= 1
                    self._end()
                    if depth == split_depth:
                        split_depth = -1
                        self._cut(graph=True)
                case _:
                    self._kernel(item, inside=split_depth >= 0)
        self._close()

    def _cut(self, *, graph: bool) -> None:
        if self._mode == PIECES:
            self._close()
            self.pieces.append(Piece(graph, len(self.keys)))
            self._now = 0

    def _close(self) -> None:
        piece = self.pieces[-1]
        piece.last = len(self.keys)
        piece.span = max([self._now, *(n.start + n.took for n in piece.nodes)]) + 800

    def _begin(self, item: list[Any], items: list[list[Any]], place: int) -> None:
        piece = self.pieces[-1]
        self._now += self._rng.randint(1200, 2600)
        thread = self._lane + 1 if self._lane else int(self._second and _all_aside(items, place))
        node = Node(item[1], item[0] == "o", thread, self._now, len(self.keys))
        self._stack.append(node)
        if not piece.graph:
            piece.nodes.append(node)

    def _end(self) -> None:
        self._now += self._rng.randint(500, 1500)
        node = self._stack.pop()
        node.took, node.last = self._now - node.start, len(self.keys)

    def _kernel(self, item: list[Any], *, inside: bool) -> None:
        _, key, code, join = item
        piece = self.pieces[-1]
        self.keys.append(key)
        self.codes.append(code)
        self.joins.append(join)
        self.split.append(inside)
        if piece.graph:
            return
        self._now += self._rng.randint(900, 2500)
        took = self._rng.randint(3200, 6900)
        op, thread = self._innermost(piece)
        if self._second and code % 3:
            op, thread = (op if thread == 1 else -1), 1
        piece.launches.append(Launch(self._now, took, op, thread))
        self._now += took

    def _innermost(self, piece: Piece) -> tuple[int, int]:
        thread = self._lane + 1 if self._lane else 0
        for node in reversed(self._stack):
            if node.is_op:
                place = next((i for i, other in enumerate(reversed(piece.nodes)) if other is node), -1)
                return (len(piece.nodes) - 1 - place if place >= 0 else -1), node.thread
        return -1, thread


def _all_aside(items: list[list[Any]], place: int) -> bool:
    """Whether everything inside the operator at ``place`` goes to a side stream or to RCCL."""
    if items[place][1] == COLLECTIVE_OP:
        return True
    depth, codes = 0, set()
    for item in items[place:]:
        depth += {"o": 1, "s": 1, "e": -1}.get(item[0], 0)
        if item[0] == "k":
            codes.add(item[2] % 3)
        if depth == 0:
            break
    return items[place][0] == "o" and 0 not in codes
