"""What became of draft tokens, by the server's own counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.http import TransportError

if TYPE_CHECKING:
    from pytest_atomtrace.capture.http import Client

__all__ = ["DraftCounts", "draft_counts"]

# The server asks its engines and gives up after 30 s itself (ATOM `model_engine/llm_engine.py`).
_ASK_S = 35.0


@dataclass(frozen=True)
class DraftCounts:
    """Draft tokens made and accepted since the server's start; None where they cannot be known."""

    drafted: int | None = None
    accepted: int | None = None

    def since(self, before: DraftCounts, *, per_step: int) -> dict[str, object]:
        """``{"acceptance": {...}}`` between two looks, empty where nothing was drafted or nobody knows.

        `per_step` is the number of draft tokens a step; ``length`` is 1 + what of them is accepted on average.
        """
        if self.drafted is None or self.accepted is None or before.drafted is None or before.accepted is None:
            return {}
        drafted, accepted = self.drafted - before.drafted, self.accepted - before.accepted
        if drafted <= 0:
            return {}
        rate = accepted / drafted
        figures = {"rate": round(rate, 6), "length": round(1 + per_step * rate, 4)}
        return {"acceptance": {"draft_tokens": drafted, "accepted_tokens": accepted, **figures}}


async def draft_counts(client: Client) -> DraftCounts:
    """Ask ``/debug/mtp_stats``; a server that does not have it, or does not answer, costs nothing but the figure."""
    try:
        reply = await client.get("/debug/mtp_stats", timeout_s=_ASK_S)
    except TransportError:
        return DraftCounts()
    drafted, accepted = reply.fields.get("total_draft_tokens"), reply.fields.get("total_accepted_tokens")
    if reply.status != 200 or not isinstance(drafted, int) or not isinstance(accepted, int):
        return DraftCounts()
    return DraftCounts(drafted, accepted)
