"""The engine's scheduler: requests wait, are prefilled in batches, then decode together."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

from pytest_atomtrace.simulator.acceptance import Acceptance
from pytest_atomtrace.simulator.labels import eager_label, graph_label, guide_era

__all__ = ["Executed", "Limits", "Request", "Scheduler"]


@dataclass(frozen=True)
class Limits:
    """What the command line says about batches and graphs; no ``graph_sizes`` means eager.

    ``acceptance`` is the chance of each draft token, unless ``accepted_mean`` fixes the mean number of accepted
    ones. ``piecewise`` cuts graphs at attention; ``guide_labels`` writes labels as of May 2026.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    graph_sizes: tuple[int, ...]
    spec_tokens: int
    acceptance: float
    tbo: str
    eager_logits: bool
    accepted_mean: float | None = None
    piecewise: bool = False
    guide_labels: bool = False


@dataclass
class Request:
    """One sequence: prompt length, tokens to make, progress."""

    ident: str
    prompt: int
    wanted: int
    done_prompt: int = 0
    made: int = 0

    @property
    def context(self) -> int:
        """Tokens in its KV cache."""
        return self.done_prompt + self.made


@dataclass
class Executed:
    """One step: its record for the workers and its tokens for the API (id, new tokens, finish reason)."""

    record: dict[str, Any]
    outputs: list[tuple[str, int, str | None]]
    scheduled: str = ""


@dataclass
class Scheduler:
    """First come first served; prompts longer than the token budget are cut into chunks."""

    limits: Limits
    seed: int
    waiting: list[Request] = field(default_factory=list)
    running: list[Request] = field(default_factory=list)
    steps: int = 0
    idle: bool = True
    acceptance: Acceptance = field(init=False)

    def __post_init__(self) -> None:
        """Start with nothing accepted."""
        limits = self.limits
        self.acceptance = Acceptance(
            drafts=limits.spec_tokens, chance=limits.acceptance, mean=limits.accepted_mean, seed=self.seed
        )

    def add(self, request: Request) -> None:
        """Queue a request."""
        self.waiting.append(request)

    def abort(self, ident: str) -> None:
        """Forget a request wherever it is."""
        self.waiting = [r for r in self.waiting if r.ident != ident]
        self.running = [r for r in self.running if r.ident != ident]

    @property
    def busy(self) -> bool:
        """Whether a step can be made."""
        return bool(self.waiting or self.running)

    def next_step(self) -> Executed:
        """Execute one step: a prefill batch if anybody waits and fits, else one decode of all that run."""
        if self.waiting and len(self.running) < self.limits.max_num_seqs:
            return self._prefill()
        return self._decode()

    def dummy_step(self) -> Executed:
        """The step that an idle data-parallel engine runs with its peers."""
        graphs, spec = self.limits.graph_sizes, self.limits.spec_tokens
        tok = spec + 1
        if graphs:
            label = graph_label("dummy_decode", bs=1, graph_bs=graphs[0], tok=tok, decodes=1, spec=spec)
            return Executed(self._record("dummy_decode", label, bs=1, size=graphs[0], tok=tok, ctx=1, graph=True), [])
        label = eager_label("dummy_eager_decode", bs=1, tok=tok, contexts=[1])
        return Executed(self._record("dummy_eager_decode", label, bs=1, size=1, tok=tok, ctx=1, graph=False), [])

    def _record(
        self, kind: str, label: str, *, bs: int, size: int, tok: int, ctx: int, graph: bool, tbo: bool = False
    ) -> dict[str, Any]:
        self.steps += 1
        idle, self.idle = self.idle, False
        phase = "prefill" if "prefill" in kind else "decode"
        dummy = kind.startswith("dummy_")
        program = ("pieces" if self.limits.piecewise else "graph") if graph else phase
        return {
            "n": self.steps,
            "kind": kind,
            "phase": phase,
            "label": guide_era(label) if self.limits.guide_labels else label,
            "bs": bs,
            "size": size,
            "query": 1 if phase == "prefill" else self.limits.spec_tokens + 1,
            "tok": tok,
            "ctx": ctx,
            "graph": graph,
            "program": f"{program}_tbo" if tbo else program,
            "tbo": tbo,
            "dummy": dummy,
            "idle": idle,
            "eager_logits": self.limits.eager_logits,
            "drafts": 0 if dummy else self.limits.spec_tokens,
        }

    def _prefill(self) -> Executed:
        budget = self.limits.max_num_batched_tokens
        batch: list[Request] = []
        chunks: list[int] = []
        while self.waiting and budget > 0 and len(self.running) + len(batch) < self.limits.max_num_seqs:
            request = self.waiting[0]
            rest = request.prompt - request.done_prompt
            if batch and rest > budget:
                break
            chunk = min(rest, budget)
            budget -= chunk
            batch.append(request)
            chunks.append(chunk)
            self.waiting.pop(0)
        for request, chunk in zip(batch, chunks, strict=True):
            request.done_prompt += chunk
        contexts, bs, tok = [request.done_prompt for request in batch], len(batch), sum(chunks)
        tbo = bool(self.limits.tbo) and bs > 1
        label = eager_label("prefill", bs=bs, tok=tok, contexts=contexts, tbo=tbo)
        record = self._record("prefill", label, bs=bs, size=bs, tok=tok, ctx=max(contexts), graph=False, tbo=tbo)
        finished = [request for request in batch if request.done_prompt == request.prompt]
        self.waiting[:0] = [request for request in batch if request.done_prompt < request.prompt]
        self.running += finished
        idents = ", ".join(request.ident for request in batch)
        scheduled = (
            f"Scheduled prefill batch: {len(batch)} reqs, {sum(chunks)} new tokens "
            f"(cached: {[0] * len(batch)}, new: {chunks}), req_ids: ({idents},)"
        )
        return Executed(record, self._advance(finished, [1] * len(finished)), scheduled)

    def _decode(self) -> Executed:
        batch, graphs, spec = list(self.running), self.limits.graph_sizes, self.limits.spec_tokens
        bs, tok = len(batch), len(batch) * (spec + 1)
        contexts = [request.context for request in batch]
        mean = sum(contexts) // bs
        tbo = self.limits.tbo == "all" and bs > 1
        place = bisect_left(graphs, bs)
        if place < len(graphs):
            label = graph_label("decode", bs=bs, graph_bs=graphs[place], tok=tok, decodes=bs, spec=spec, tbo=tbo)
            size = graphs[place]
            record = self._record("decode", label, bs=bs, size=size, tok=tok, ctx=mean, graph=True, tbo=tbo)
        else:
            label = eager_label("eager_decode", bs=bs, tok=tok, contexts=contexts, tbo=tbo)
            record = self._record("eager_decode", label, bs=bs, size=bs, tok=tok, ctx=mean, graph=False, tbo=tbo)
        return Executed(record, self._advance(batch, [1 + self.acceptance.draw() for _ in batch]))

    def _advance(self, batch: list[Request], tokens: list[int]) -> list[tuple[str, int, str | None]]:
        outputs: list[tuple[str, int, str | None]] = []
        for request, made in zip(batch, tokens, strict=True):
            new = min(made, request.wanted - request.made)
            request.made += new
            done = request.made >= request.wanted
            outputs.append((request.ident, new, "max_tokens" if done else None))
        self.running = [request for request in self.running if request.made < request.wanted]
        return outputs
