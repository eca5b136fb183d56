"""What every workload answers, and the built-in one: a streaming client at fixed concurrency."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pytest_atomtrace.capture.http import Client, Stream
from pytest_atomtrace.errors import WorkloadError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_atomtrace.capture.clock import Clock
    from pytest_atomtrace.capture.prompts import Request

__all__ = ["Load", "Workload", "completion", "quantile"]


class Workload(Protocol):
    """One run of requests against a server, whoever sends them."""

    @property
    def progress(self) -> int:
        """Grows with every sign of life."""

    @property
    def so_far(self) -> str:
        """How far it came, for the end of a sentence; begins with a blank."""

    @property
    def state(self) -> str:
        """How far it came, for progress lines."""

    @property
    def in_flight(self) -> int:
        """Requests that the server may still be working on after `run` ended."""

    @property
    def may_be_silent(self) -> bool:
        """Whether long silence is ordinary (a client that builds its prompts first)."""

    async def run(self) -> None:
        """Send everything and wait for the answers; failures are recorded."""

    def check(self, what: str) -> None:
        """Raise WorkloadError unless every request was answered in full."""

    def figures(self) -> dict[str, object]:
        """The workload's own figures: milliseconds, tokens per second, counts."""


@dataclass
class Load:
    """Requests in flight at a fixed concurrency; `streams` tell what became of each.

    With `chat` the prompts go to the chat route, where the server wraps them in its chat template.
    """

    client: Client
    model: str
    requests: Sequence[Request]
    concurrency: int
    clock: Clock
    chat: bool = False

    def __post_init__(self) -> None:
        """One record a request, filled while it runs."""
        self.streams = [Stream() for _ in self.requests]

    @property
    def progress(self) -> int:
        """Chunks received so far over all requests; a silent load does not grow."""
        return sum(stream.chunks + stream.done + bool(stream.error) for stream in self.streams)

    @property
    def so_far(self) -> str:
        """For the end of a sentence about a load that did not end."""
        done = sum(stream.done for stream in self.streams)
        failed = sum(bool(stream.error) for stream in self.streams)
        chunks = sum(stream.chunks for stream in self.streams)
        return f" ({done} of {len(self.streams)} requests done, {failed} failed, {chunks} chunks received)"

    @property
    def state(self) -> str:
        """For progress lines."""
        done = sum(stream.done or bool(stream.error) for stream in self.streams)
        return f"{done}/{len(self.streams)} requests done"

    @property
    def in_flight(self) -> int:
        """Requests that were sent and neither ended nor failed."""
        return sum(bool(s.start_s) and not s.done and not s.error for s in self.streams)

    @property
    def may_be_silent(self) -> bool:
        """Never: tokens come all the time."""
        return False

    async def run(self) -> None:
        """Send everything; `concurrency` requests are in flight until the last ones. Failures are recorded."""
        waiting = iter(zip(self.requests, self.streams, strict=True))

        async def slot() -> None:
            for request, stream in waiting:
                await self.client.stream(*completion(self.model, request, chat=self.chat), stream)
                _judge(request, stream)

        slots = [asyncio.ensure_future(slot()) for _ in range(min(self.concurrency, len(self.requests)))]
        try:
            await asyncio.gather(*slots)
        finally:
            for task in slots:
                task.cancel()
            await asyncio.gather(*slots, return_exceptions=True)

    def check(self, what: str) -> None:
        """Raise WorkloadError if any request failed: how many, and the reasons with their counts."""
        reasons = Counter(stream.error for stream in self.streams if stream.error)
        if not reasons:
            return
        failed = sum(reasons.values())
        first, *others = [f"{count} x {reason}" for reason, count in reasons.most_common(6)]
        raise WorkloadError(
            f"{failed} of {len(self.streams)} requests of the {what} failed: {first}",
            "The server's log of this time is in the quarantine; times of such a window mean nothing.",
            others,
        )

    def figures(self) -> dict[str, object]:
        """The workload's own figures; milliseconds and tokens per second, quantiles by `quantile`.

        TPOT of a request is (last token - first token) / (tokens - 1): the number of chunks is no measure,
        since a lagging client gets several tokens in one. For the same reason ITL, the time between two arrivals, is
        only comparable between runs of one client.
        """
        good = [stream for stream in self.streams if not stream.error]
        start_s = min((s.start_s for s in self.streams if s.start_s), default=0.0)
        end_s = max((s.last_s for s in good), default=start_s)
        duration_s = end_s - start_s
        ttft = sorted((s.first_s - s.start_s) * 1e3 for s in good)
        tpot = sorted((s.last_s - s.first_s) * 1e3 / (s.completion_tokens - 1) for s in good if s.completion_tokens > 1)
        itl = sorted(gap * 1e3 for s in good for gap in s.gaps_s)
        output_tokens = sum(s.completion_tokens for s in good)
        prompts = [s.prompt_tokens for s in good]
        return {
            "workload": "builtin",
            "chat_template": self.chat,
            "requests": len(self.streams),
            "completed": len(good),
            "failed": len(self.streams) - len(good),
            "concurrency": self.concurrency,
            "duration_s": round(duration_s, 6),
            "output_tokens": output_tokens,
            "asked_output_tokens": sum(request.output_tokens for request in self.requests),
            "input_tokens": sum(prompts),
            "input_tokens_min": min(prompts, default=0),
            "input_tokens_max": max(prompts, default=0),
            "output_tokens_per_s": round(output_tokens / duration_s, 3) if duration_s > 0 else None,
            "ttft_ms": _spread(ttft),
            "tpot_ms": _spread(tpot),
            "itl_ms": _spread(itl),
        }


def completion(model: str, request: Request, *, chat: bool) -> tuple[str, dict[str, object]]:
    """Route and body of one streamed completion of exactly the request's tokens."""
    body: dict[str, object] = {
        "model": model,
        "max_tokens": request.output_tokens,
        "temperature": 0.0,
        "ignore_eos": True,
        "stream": True,
    }
    if chat:
        return "/v1/chat/completions", {**body, "messages": [{"role": "user", "content": request.prompt}]}
    return "/v1/completions", {**body, "prompt": request.prompt}


def _judge(request: Request, stream: Stream) -> None:
    if stream.error:
        return
    if stream.finish_reason == "aborted":
        stream.error = f"aborted after {stream.completion_tokens} of {request.output_tokens} tokens"
    elif stream.completion_tokens != request.output_tokens:
        stream.error = (
            f"{stream.completion_tokens} of {request.output_tokens} tokens "
            f"(finish reason {stream.finish_reason or 'none'})"
        )


def quantile(ordered: Sequence[float], share: float) -> float:
    """Nearest-rank quantile of an ascending sequence: the smallest value that `share` of all do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _spread(ordered: Sequence[float]) -> dict[str, float] | None:
    if not ordered:
        return None
    return {
        "mean": round(sum(ordered) / len(ordered), 4),
        "p50": round(quantile(ordered, 0.5), 4),
        "p99": round(quantile(ordered, 0.99), 4),
    }
