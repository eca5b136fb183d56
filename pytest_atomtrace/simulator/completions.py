"""POST /v1/completions and /v1/chat/completions: validation, streams, errors, as an ATOM client sees them."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from typing import TYPE_CHECKING, Any

from aiohttp import web

from pytest_atomtrace.simulator.logs import log

if TYPE_CHECKING:
    from pytest_atomtrace.simulator.engines import Engines, Live
    from pytest_atomtrace.simulator.faults import Faults

__all__ = ["Completions"]

WORDS = (" the", " kernel", " of", " a", " step", " runs", " on", " every", " rank", " and", " returns", " tokens")
_TYPES: dict[str, tuple[type | tuple[type, ...], str, str]] = {
    "model": (str, "string_type", "Input should be a valid string"),
    "prompt": (str, "string_type", "Input should be a valid string"),
    "max_tokens": (int, "int_type", "Input should be a valid integer"),
    "max_completion_tokens": (int, "int_type", "Input should be a valid integer"),
    "n": (int, "int_type", "Input should be a valid integer"),
    "temperature": ((int, float), "float_type", "Input should be a valid number"),
    "top_p": ((int, float), "float_type", "Input should be a valid number"),
    "top_k": (int, "int_type", "Input should be a valid integer"),
    "stream": (bool, "bool_type", "Input should be a valid boolean"),
    "ignore_eos": (bool, "bool_type", "Input should be a valid boolean"),
    "stop": (list, "list_type", "Input should be a valid list"),
    "messages": (list, "list_type", "Input should be a valid list"),
}
_CHAT_REASONS = {"max_tokens": "length", "eos": "stop", "stop_sequence": "stop"}


def _unprocessable(loc: list[str], kind: str, message: str, value: object) -> web.Response:
    return web.json_response(
        {"detail": [{"type": kind, "loc": ["body", *loc], "msg": message, "input": value}]}, status=422
    )


def _detail(status: int, text: str) -> web.Response:
    return web.json_response({"detail": text}, status=status)


class Completions:
    """The two handlers. A token is a blank-separated word of the prompt; answers are words of a fixed list."""

    def __init__(self, engines: Engines, *, model: str, served: str, max_model_len: int, faults: Faults) -> None:
        self._engines = engines
        self._model = model
        self._served = served
        self._max_model_len = max_model_len
        self._faults = faults
        self._arrived = 0

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """Text completions."""
        return await self._serve(request, chat=False)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Chat completions."""
        return await self._serve(request, chat=True)

    async def _serve(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        raw = await request.read()
        try:
            body = json.loads(raw)
        except ValueError as error:
            return _unprocessable([str(getattr(error, "pos", 0))], "json_invalid", "JSON decode error", {})
        problem = self._validate(body, "messages" if chat else "prompt")
        if problem is not None:
            return problem
        prompt = _chat_text(body["messages"]) if chat else body["prompt"]
        tokens = max(1, len(prompt.split()))
        wanted = body.get("max_completion_tokens") or body.get("max_tokens") or 8192
        if tokens + (wanted if "max_tokens" in body or "max_completion_tokens" in body else 1) > self._max_model_len:
            return _detail(
                400,
                f"This model's maximum context length is {self._max_model_len} tokens. However, you requested "
                f"{tokens + wanted} tokens ({tokens} in the messages, {wanted} in the completion).",
            )
        self._arrived += 1
        fail = self._faults.get("fail_requests")
        if fail and self._arrived % int(fail.number(0, 1)) == 0:
            return _detail(500, "Engine Core Mgr: request failed")
        wanted = min(wanted, self._max_model_len - tokens)
        ident = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        began = time.monotonic()
        live = self._engines.add(ident, tokens, wanted)
        log(f"Request {ident} arrived, input tokens: {tokens}, pending requests: {len(self._engines.live)}")
        try:
            if body.get("stream"):
                return await self._stream(request, ident, live, tokens, chat=chat)
            return await self._whole(ident, live, tokens, began, chat=chat)
        finally:
            self._engines.drop(ident)

    def _validate(self, body: Any, required: str) -> web.Response | None:  # noqa: ANN401 - JSON from outside
        if not isinstance(body, dict):
            return _unprocessable([], "model_attributes_type", "Input should be a valid dictionary", body)
        if required not in body:
            return _unprocessable([required], "missing", "Field required", body)
        for name, (kinds, code, message) in _TYPES.items():
            value = body.get(name)
            if value is None and name != required:
                continue
            if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
                return _unprocessable([name], code, message, value)
        model = body.get("model")
        if model is not None and model.rstrip("/") not in (self._served.rstrip("/"), self._model.rstrip("/")):
            return _detail(400, f"Requested model '{model}' does not match server model '{self._served}'")
        if (body.get("max_completion_tokens") or body.get("max_tokens") or 1) < 1:
            return _detail(400, "max_tokens must be at least 1")
        return None

    def _chunk(self, ident: str, text: str, reason: str | None, *, chat: bool) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0}
        if chat:
            choice.update(
                delta={"content": text} if text else {}, finish_reason=_CHAT_REASONS.get(reason or "", reason)
            )
        else:
            choice.update(text=text, finish_reason=reason, logprobs=None)
        kind = "chat.completion.chunk" if chat else "text_completion"
        return {
            "id": ident,
            "object": kind,
            "created": int(time.time()),
            "model": self._served,
            "choices": [choice],
        }

    async def _stream(
        self, request: web.Request, ident: str, live: Live, tokens: int, *, chat: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        stall = self._faults.get("stall_stream")
        sent = 0
        while True:
            await live.arrived.wait()
            live.arrived.clear()
            count, reason = live.new, live.reason
            live.new = 0
            text = "".join(WORDS[(sent + i) % len(WORDS)] for i in range(count))
            sent += count
            frames = [self._chunk(ident, text, reason, chat=chat)]
            if stall and sent >= stall.number(0, 3):
                await response.write(_frames(frames))
                await asyncio.Event().wait()
            if reason is None:
                await response.write(_frames(frames))
                continue
            frames.append(self._chunk(ident, "", "stop", chat=chat))
            usage = {"prompt_tokens": tokens, "completion_tokens": sent, "total_tokens": tokens + sent}
            frames.append({**frames[0], "choices": [], "usage": usage})
            await response.write(_frames(frames) + b"data: [DONE]\n\n")
            await response.write_eof()
            return response

    async def _whole(self, ident: str, live: Live, tokens: int, began: float, *, chat: bool) -> web.Response:
        made, first = 0, 0.0
        while live.reason is None:
            await live.arrived.wait()
            live.arrived.clear()
            first = first or time.monotonic() - began
            made += live.new
            live.new = 0
        latency = time.monotonic() - began
        text = "".join(WORDS[i % len(WORDS)] for i in range(made))
        choice: dict[str, Any] = {"index": 0, "finish_reason": live.reason, "logprobs": None}
        if chat:
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": _CHAT_REASONS.get(live.reason, live.reason),
            }
        else:
            choice["text"] = text
        usage = {
            "prompt_tokens": tokens,
            "completion_tokens": made,
            "total_tokens": tokens + made,
            "ttft_s": round(first, 4),
            "tpot_s": round((latency - first) / max(made - 1, 1), 4),
            "latency_s": round(latency, 4),
        }
        kind = "chat.completion" if chat else "text_completion"
        return web.json_response(
            {
                "id": ident,
                "object": kind,
                "created": int(time.time()),
                "model": self._served,
                "choices": [choice],
                "usage": usage,
            }
        )


def _frames(frames: list[dict[str, Any]]) -> bytes:
    return b"".join(b"data: " + json.dumps(frame, separators=(",", ":")).encode() + b"\n\n" for frame in frames)


def _chat_text(messages: list[Any]) -> str:
    parts = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            parts.append(content)
        elif isinstance(content, list):
            parts += [str(part.get("text", "")) for part in content if isinstance(part, dict)]
    return " ".join(parts)
