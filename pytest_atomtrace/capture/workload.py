"""The built-in workload: a streaming client at fixed concurrency, and the figures it saw."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.http import Client, Stream
from pytest_atomtrace.errors import WorkloadError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_atomtrace.capture.clock import Clock
    from pytest_atomtrace.capture.prompts import Request

__all__ = ["Load", "quantile"]


@dataclass
class Load:
    """Requests in flight at a fixed concurrency; `streams` tell what became of each."""

    client: Client
    model: str
    requests: Sequence[Request]
    concurrency: int
    clock: Clock

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

    async def run(self) -> None:
        """Send everything; `concurrency` requests are in flight until the last ones. Failures are recorded."""
        waiting = iter(zip(self.requests, self.streams, strict=True))

        async def slot() -> None:
            for request, stream in waiting:
                await self.client.stream("/v1/completions", _body(self.model, request), stream)
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
        since a lagging client gets several tokens in one.
        """
        good = [stream for stream in self.streams if not stream.error]
        start_s = min((s.start_s for s in self.streams if s.start_s), default=0.0)
        end_s = max((s.last_s for s in good), default=start_s)
        duration_s = end_s - start_s
        ttft = sorted((s.first_s - s.start_s) * 1e3 for s in good)
        tpot = sorted((s.last_s - s.first_s) * 1e3 / (s.completion_tokens - 1) for s in good if s.completion_tokens > 1)
        output_tokens = sum(s.completion_tokens for s in good)
        prompts = [s.prompt_tokens for s in good]
        return {
            "requests": len(self.streams),
            "completed": len(good),
            "failed": len(self.streams) - len(good),
            "concurrency": self.concurrency,
            "duration_s": round(duration_s, 6),
            "output_tokens": output_tokens,
            "input_tokens": sum(prompts),
            "input_tokens_min": min(prompts, default=0),
            "input_tokens_max": max(prompts, default=0),
            "output_tokens_per_s": round(output_tokens / duration_s, 3) if duration_s > 0 else None,
            "ttft_ms": _spread(ttft),
            "tpot_ms": _spread(tpot),
        }


def _body(model: str, request: Request) -> dict[str, object]:
    return {
        "model": model,
        "prompt": request.prompt,
        "max_tokens": request.output_tokens,
        "temperature": 0.0,
        "ignore_eos": True,
        "stream": True,
    }


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
