"""When kernels run: each stream takes them in launch order, one after the other."""

from __future__ import annotations

from itertools import accumulate
from operator import add
from typing import TYPE_CHECKING

from pytest_atomtrace.simulator.sheets import STREAMS

if TYPE_CHECKING:
    from pytest_atomtrace.simulator.sheets import Lane, PieceSheets

__all__ = ["Streams"]

EARLY_NS = 30_000


class Streams:
    """The ends of a rank's streams: main and side of both halves of a step."""

    def __init__(self, start_ns: int) -> None:
        self.ends = [start_ns] * len(STREAMS)

    def join(self) -> None:
        """All wait for the last, as before and after the halves of a two-batch step."""
        self.ends = [max(self.ends)] * len(self.ends)

    def place(self, lanes: list[Lane], times: list[int], floors: list[int]) -> list[int]:
        """Start times in launch order; moves the ends of the streams."""
        ends, starts = self.ends, []
        for (stream, early, join, gap), took, floor in zip(lanes, times, floors, strict=True):
            begin = ends[stream]
            if stream & 1:
                main = ends[stream - 1]
                begin = max(begin, main - EARLY_NS, floor - EARLY_NS) if early else max(begin, main, floor)
            else:
                begin = max(begin, floor, ends[stream + 1] if join else 0)
            starts.append(begin)
            ends[stream] = begin + took + gap
        return starts

    def place_graph(self, sheets: PieceSheets, times: list[int], floor: int) -> list[int]:
        """The same for a graph, whose kernels have one floor: whole runs at once, in a third of the time."""
        starts: list[int] = []
        for first, last in sheets.runs:
            starts += self.place(sheets.lanes[first : first + 1], times[first : first + 1], [floor])
            stream = sheets.lanes[first].stream
            if last > first + 1:
                steps = map(add, times[first + 1 : last], sheets.gaps[first + 1 : last])
                starts += accumulate(steps, initial=self.ends[stream])
                self.ends[stream] = starts.pop()
        return starts
