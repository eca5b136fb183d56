"""One doubt about a trace."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SCOPES", "TITLES", "Finding"]

SCOPES = ("all", "times", "steps", "counts", "span")
TITLES = {
    "H01": "rank-set",
    "H02": "truncated",
    "H03": "no-gpu",
    "H04": "empty-steps",
    "H05": "lossy",
    "H06": "row-cap",
    "H07": "no-labels",
    "H08": "rank-mismatch",
    "H09": "overlaps",
    "H10": "workload",
    "H11": "contended",
    "H12": "profiler-cost",
    "H13": "build-in-window",
    "H14": "annotation-mismatch",
}


@dataclass(frozen=True)
class Finding:
    """One doubt about a trace.

    `scope` says which questions a fatal finding forbids: `all`, `times` (any duration), `steps` (anything
    per step or phase), `counts`, `span` (span and launch metrics). `count` is how often it was seen,
    `steps` the (rank, number) of the steps that it is about, where it is not about all.
    """

    code: str
    title: str
    fatal: bool
    scope: str
    text: str
    rank: str = ""
    count: int = 0
    steps: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        rank = f" {self.rank}:" if self.rank else ""
        return f"{self.code} {self.title}:{rank} {self.text}"
