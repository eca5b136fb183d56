"""The API process's side of the engine cores: adding requests, receiving tokens, synchronous commands."""

from __future__ import annotations

import asyncio
import select
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_atomtrace.simulator.logs import log
from pytest_atomtrace.simulator.wire import ChannelClosedError

if TYPE_CHECKING:
    from pytest_atomtrace.simulator.children import Child

__all__ = ["Engines", "Live", "UtilityTimeoutError"]


class UtilityTimeoutError(TimeoutError):
    """An engine core did not answer a command in time."""


@dataclass
class Live:
    """A request in flight: its engine and the tokens that came and were not yet sent on."""

    engine: int
    tokens: int
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    new: int = 0
    reason: str | None = None


class Engines:
    """All engine cores. Everything runs on the event loop's thread; commands block it, as they do in ATOM."""

    def __init__(self, children: list[Child]) -> None:
        self.children = children
        self.live: dict[str, Live] = {}
        self.loads = [[0, 0] for _ in children]
        self._accepted: list[list[int]] = [[] for _ in children]
        self.generated = self.prompts = self.finished = 0
        self._answers: list[dict[str, Any]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listen to the engines on ``loop``."""
        self._loop = loop
        for index, child in enumerate(self.children):
            loop.add_reader(child.channel.fileno(), self._readable, index)

    def add(self, ident: str, prompt: int, wanted: int) -> Live:
        """Send a request to the engine with the fewest of ours."""
        counts = [0] * len(self.children)
        for live in self.live.values():
            counts[live.engine] += 1
        alive = [i for i, child in enumerate(self.children) if not child.channel.closed] or [0]
        index = min(alive, key=counts.__getitem__)
        live = self.live[ident] = Live(index, prompt)
        self.prompts += prompt
        self._send(index, {"t": "add", "id": ident, "prompt": prompt, "wanted": wanted})
        return live

    def drop(self, ident: str) -> None:
        """Forget a request; an unfinished one is aborted in its engine."""
        live = self.live.pop(ident, None)
        if live is not None and live.reason is None:
            self._send(live.engine, {"t": "abort", "id": ident})

    def _send(self, index: int, message: dict[str, Any]) -> None:
        try:
            self.children[index].channel.send(message)
        except ChannelClosedError:
            return  # a dead engine: ATOM's API process does not notice either, the request hangs

    def _readable(self, index: int) -> None:
        channel = self.children[index].channel
        try:
            messages = channel.receive()
        except ChannelClosedError:
            if self._loop is not None:
                self._loop.remove_reader(channel.fileno())
            return
        for message in messages:
            if message["t"] == "out":
                self._outputs(index, message)
            elif message["t"] == "util":
                self._answers.append(message)

    def _outputs(self, index: int, message: dict[str, Any]) -> None:
        self.loads[index], self._accepted[index] = message["load"], message["mtp"]
        for ident, count, reason in message["o"]:
            self.generated += count
            self.finished += reason is not None
            live = self.live.get(ident)
            if live is not None:
                live.new += count
                live.reason = reason
                live.arrived.set()

    def command(self, name: str, timeout_s: float, *, wait: bool = True) -> list[object]:
        """Send a command to all engines and block for their answers, ``timeout_s`` for each.

        Answers are not matched to commands: one that was late for the last command satisfies this one, unless
        it had arrived before. Raises UtilityTimeoutError.
        """
        for index in range(len(self.children)):
            if self.children[index].channel.wait(0):
                self._readable(index)
        self._answers.clear()
        for index in range(len(self.children)):
            self._send(index, {"t": "util", "cmd": name})
        results: list[object] = []
        while wait and len(results) < len(self.children):
            results.append(self._next_answer(name, timeout_s))
        return results

    def _next_answer(self, name: str, timeout_s: float) -> object:
        deadline = time.monotonic() + timeout_s
        while not self._answers:
            channels = {c.channel.fileno(): i for i, c in enumerate(self.children) if not c.channel.closed}
            ready = select.select(list(channels), [], [], max(0.0, deadline - time.monotonic()))[0]
            if not ready:
                raise UtilityTimeoutError(
                    "Engine Core Mgr: Timed out waiting for UTILITY_RESPONSE for command "
                    f"'{name}' (timeout={timeout_s:.1f}s)"
                )
            for descriptor in ready:
                self._readable(channels[descriptor])
        return self._answers.pop(0)["result"]

    @property
    def accepted(self) -> list[int]:
        """Forwards of all engines by the number of draft tokens they accepted, as last reported."""
        return [sum(column) for column in zip(*self._accepted, strict=False)]

    def close(self) -> None:
        """Shut all engines down, with ATOM's grace of five seconds."""
        log(f"Engine Core Mgr: Shutting down all {len(self.children)} EngineCores")
        for child in self.children:
            if self._loop is not None and not child.channel.closed:
                self._loop.remove_reader(child.channel.fileno())
            child.channel.close()
        deadline = time.monotonic() + 5.0
        for child in self.children:
            child.stop(max(0.0, deadline - time.monotonic()))
        log("Engine Core Mgr: All EngineCores shut down")
