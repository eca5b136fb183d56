"""Speculative decoding's bookkeeping: how many draft tokens a sequence accepts in each step."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["Acceptance", "mtp_metrics", "mtp_stats"]

INTERVAL_FORWARDS = 1000


@dataclass(frozen=True)
class _Figures:
    drafted: int
    accepted: int
    rate: float
    average: float
    shares: dict[str, float]


def _figures(counts: list[int]) -> _Figures:
    forwards, accepted = sum(counts), sum(n * count for n, count in enumerate(counts))
    drafted, each = forwards * (len(counts) - 1), max(forwards, 1)
    return _Figures(
        drafted,
        accepted,
        accepted / drafted if drafted else 0.0,
        (forwards + accepted) / each,
        {str(n): round(100 * count / each, 2) for n, count in enumerate(counts)},
    )


def mtp_stats(counts: list[int]) -> dict[str, object]:
    """What /debug/mtp_stats answers; ``counts[n]`` is the number of forwards that accepted n draft tokens."""
    figures = _figures(counts)
    return {
        "enabled": len(counts) > 1,
        "total_draft_tokens": figures.drafted,
        "total_accepted_tokens": figures.accepted,
        "acceptance_rate": figures.rate,
        "average_tokens_per_forward": figures.average,
        "distribution": {str(n): count for n, count in enumerate(counts)},
        "distribution_percent": figures.shares,
    }


def mtp_metrics(counts: list[int]) -> dict[str, float]:
    """The same as Prometheus samples of /metrics."""
    figures = _figures(counts)
    return {
        "mtp_draft_tokens": figures.drafted,
        "mtp_accepted_tokens": figures.accepted,
        "mtp_acceptance_rate": figures.rate,
        "mtp_average_tokens_per_forward": figures.average,
        **{f'mtp_decode_steps{{accepted_tokens="{n}"}}': count for n, count in enumerate(counts)},
    }


class Acceptance:
    """Draws accepted counts: draft by draft with a chance each, or about a fixed mean.

    ``mean`` is the mean number of accepted draft tokens a forward, what the server's
    --spec-decode-acceptance-length (mean + 1) and -rate (mean / drafts) ask for.
    """

    def __init__(self, *, drafts: int, chance: float, mean: float | None, seed: int) -> None:
        self._drafts, self._chance, self._seed = drafts, chance, seed
        self._mean = None if mean is None else min(max(mean, 0.0), float(drafts))
        self.counts = [0] * (drafts + 1)
        self._reported = list(self.counts)

    def draw(self) -> int:
        """Accepted draft tokens of one sequence in one step, 0 to ``drafts``."""
        if not self._drafts:
            return 0
        rng = random.Random(f"{self._seed}/accept/{sum(self.counts)}")
        accepted = 0
        if self._mean is not None:
            accepted = int(self._mean)
            accepted += rng.random() < self._mean - accepted
        else:
            while accepted < self._drafts and rng.random() < self._chance:
                accepted += 1
        self.counts[accepted] += 1
        return accepted

    def report(self, *, drained: bool) -> list[str]:
        """ATOM's two log lines when an interval is full or the last sequence has ended, else nothing."""
        new = [now - before for now, before in zip(self.counts, self._reported, strict=True)]
        if not self._drafts or not sum(new) or not (drained or sum(new) >= INTERVAL_FORWARDS):
            return []
        self._reported = list(self.counts)
        return [_line("MTP Stats         ", self.counts), _line("MTP Stats Interval", new)]


def _line(head: str, counts: list[int]) -> str:
    figures = _figures(counts)
    shares = ", ".join(f"{n}: {share}%" for n, share in figures.shares.items())
    return (
        f"[{head}] Average toks/fwd: {figures.average:.2f}, "
        f"Accepted/Total Draft tokens: {figures.accepted}/{figures.drafted}, "
        f"Acceptance rate: {100 * figures.rate:.2f}%, Accepted tokens distribution: {{{shares}}}"
    )
