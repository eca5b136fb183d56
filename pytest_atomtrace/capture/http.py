"""The one door to sockets and HTTP: the client of an ATOM server, and the choice of a port."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

import aiohttp

from pytest_atomtrace.capture.clock import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Client", "Reply", "Stream", "TransportError", "free_port", "port_is_taken"]

# An event is a token or two; a line this long is not one of ours and must not eat the memory.
_LONGEST_LINE_BYTES = 8 << 20
_CONNECT_S = 10.0
_LOOK_S = 2.0


class TransportError(Exception):
    """No usable answer: refused, cut off, timed out, or not HTTP."""


@dataclass(frozen=True)
class Reply:
    """A whole answer; `body` is the parsed JSON, None if it is none."""

    status: int
    body: object
    text: str

    @property
    def fields(self) -> dict[str, object]:
        """The body if it is a JSON object, else empty."""
        return self.body if isinstance(self.body, dict) else {}

    @property
    def reason(self) -> str:
        """The server's own words: ATOM has two error envelopes, `detail` and `error`."""
        error = self.fields.get("error")
        detail = self.fields.get("detail") or (error.get("message") if isinstance(error, dict) else error)
        return f"HTTP {self.status}: {str(detail or self.text.strip() or 'no text')[:300]}"


@dataclass
class Stream:
    """What one streamed completion did; times are on the clock's monotonic scale, 0.0 if it never came so far.

    `gaps_s` are the times between arrivals after the first; tokens that came in one packet have one gap.
    """

    start_s: float = 0.0
    first_s: float = 0.0
    last_s: float = 0.0
    chunks: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = ""
    done: bool = False
    error: str = ""
    gaps_s: list[float] = field(default_factory=list)


class Client:
    """Talks to one server. Every request has its own connection: a keep-alive pool outlives the server's 5 s."""

    def __init__(self, base_url: str, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._base_url = base_url
        self._clock = clock
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True), timeout=timeout, trust_env=False
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        # Transports close in the loop's next turn. Where the loop ended first, one was seen to keep its socket until
        # the garbage collector found it.
        await asyncio.sleep(0)

    async def get(self, path: str, *, timeout_s: float) -> Reply:
        """GET; raises TransportError if there is no answer in time."""
        return await self._whole("GET", path, None, timeout_s)

    async def post(self, path: str, body: dict[str, object] | None = None, *, timeout_s: float) -> Reply:
        """POST; raises TransportError if there is no answer in time."""
        return await self._whole("POST", path, body, timeout_s)

    async def _whole(self, method: str, path: str, body: dict[str, object] | None, timeout_s: float) -> Reply:
        try:
            status, data = await asyncio.wait_for(self._exchange(method, path, body), timeout_s)
        except asyncio.TimeoutError:
            raise TransportError(f"{method} {path} was not answered within {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise TransportError(f"{method} {path}: {type(error).__name__}: {error}") from error
        return _reply(status, data)

    async def _exchange(self, method: str, path: str, body: dict[str, object] | None) -> tuple[int, bytes]:
        async with self._session.request(method, self._base_url + path, **_payload(body)) as answer:
            return answer.status, await answer.read()

    async def stream(self, path: str, body: dict[str, object], into: Stream) -> None:
        """POST `body` and follow the server-sent events; what happens, failures included, is told in `into`.

        `into` is filled as it goes, so that a watcher sees how far a stuck stream came.
        """
        into.start_s = self._clock.monotonic_s()
        try:
            async with self._session.post(self._base_url + path, **_payload(body)) as answer:
                if answer.status != 200:
                    into.error = _reply(answer.status, await answer.read()).reason
                    return
                await self._follow(answer.content, into)
        except (aiohttp.ClientError, OSError, ValueError, asyncio.TimeoutError, TransportError) as error:
            into.error = f"{type(error).__name__}: {error}"
            return
        if not into.done and not into.error:
            into.error = f"the stream ended after {into.chunks} chunks without [DONE]"

    async def _follow(self, content: aiohttp.StreamReader, into: Stream) -> None:
        # Cut by hand: the reader's own readline gives up on lines over 128 KB.
        pending = b""
        while piece := await _next_piece(content):
            pending += piece
            if b"\n" not in piece:
                if len(pending) > _LONGEST_LINE_BYTES:
                    into.error = f"an event of more than {_LONGEST_LINE_BYTES:,} bytes"
                    return
                continue
            *lines, pending = pending.split(b"\n")
            now_s = self._clock.monotonic_s()
            for line in lines:
                if line.startswith(b"data:"):
                    _take_event(line[5:].strip(), now_s, into)
                if into.done or into.error:
                    return


class _Payload(TypedDict, total=False):
    data: io.BytesIO
    headers: dict[str, str]


def _payload(body: dict[str, object] | None) -> _Payload:
    # As a stream: from 1 MB on, a prompt of some 200,000 tokens, aiohttp warns about bodies given as bytes or json.
    if body is None:
        return {}
    return {"data": io.BytesIO(json.dumps(body).encode()), "headers": {"Content-Type": "application/json"}}


async def _next_piece(content: aiohttp.StreamReader) -> bytes:
    """What came next, b"" at the end; raises what `readany` raises, and TransportError if the connection is gone."""
    while True:
        try:
            return await asyncio.wait_for(content.readany(), _LOOK_S)
        except asyncio.TimeoutError:
            # aiohttp 3.14 wakes nobody when a malformed chunk closes the connection: the reader waits for ever.
            broken = content.exception()
            if broken is not None:
                raise TransportError(f"the stream broke off: {broken}") from None
        except RuntimeError as error:  # its word for reading on from a connection that is gone
            raise TransportError(f"the stream broke off: {error}") from error


def _reply(status: int, data: bytes) -> Reply:
    text = data.decode("utf-8", "replace")
    parsed: object = None
    with contextlib.suppress(ValueError, RecursionError):  # a thousand opening brackets are no JSON of ours either
        parsed = json.loads(text)
    return Reply(status, parsed, text)


def _take_event(data: bytes, now_s: float, into: Stream) -> None:
    if data == b"[DONE]":
        into.done = True
        return
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        into.error = f"an event is not JSON: {data[:80].decode('utf-8', 'replace')!r}"
        return
    if not isinstance(event, dict):
        into.error = f"an event is {type(event).__name__}, not an object"
        return
    if "error" in event:
        into.error = f"the server sent an error: {str(event['error'])[:300]}"
        return
    usage = event.get("usage")
    if isinstance(usage, dict):
        into.prompt_tokens = _count(usage.get("prompt_tokens"))
        into.completion_tokens = _count(usage.get("completion_tokens"))
    choices = event.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict) or _only_a_role(choice):
            continue
        # Empty text counts too: a detokenizer holds back half a character. The extra chunk at the end comes in
        # one send with the last token and shifts no time.
        into.chunks += 1
        if into.first_s and now_s > into.last_s:
            into.gaps_s.append(now_s - into.last_s)
        into.last_s = now_s
        into.first_s = into.first_s or now_s
        # ATOM's own word comes first (max_tokens, aborted); the extra chunk after it always says "stop".
        into.finish_reason = into.finish_reason or str(choice.get("finish_reason") or "")


def _only_a_role(choice: dict[str, object]) -> bool:
    """The chunk with which a chat answer begins; no token came with it."""
    delta = choice.get("delta")
    return isinstance(delta, dict) and "role" in delta and not delta.get("content") and not choice.get("finish_reason")


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def free_port() -> int:
    """A loopback port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return int(port)


def port_is_taken(port: int) -> bool:
    """True if somebody listens on the loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
