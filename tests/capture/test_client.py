"""The client against servers that answer wrongly: clear errors, no hang."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_atomtrace.capture.acceptance import DraftCounts, draft_counts
from pytest_atomtrace.capture.clock import SYSTEM_CLOCK
from pytest_atomtrace.capture.http import Client, Reply, Stream, TransportError, free_port, port_is_taken
from pytest_atomtrace.capture.prompts import Request
from pytest_atomtrace.capture.workload import Load, quantile
from pytest_atomtrace.errors import WorkloadError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
Talk = Callable[[Client], Awaitable[None]]


def event(text: str = "", finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice], **more}).encode() + b"\n\n"


def usage(tokens: int) -> bytes:
    figures = {"prompt_tokens": 7, "completion_tokens": tokens}
    return b"data: " + json.dumps({"choices": [], "usage": figures}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
GOOD = event("a") + event("b", "max_tokens") + event("", "stop") + usage(2) + DONE


def with_server(answers: list[list[bytes]], talk: Talk) -> None:
    """Serve each connection its pieces of raw bytes, then close it."""
    waiting = iter(answers)

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # the client may have heard enough
            received = connection.recv(65536)
            while b"\r\n\r\n" not in received:
                received += connection.recv(65536)
            for piece in next(waiting, []):
                connection.sendall(piece)
                time.sleep(0.001)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    def accept() -> None:
        with contextlib.suppress(OSError):  # closed below
            while True:
                connection, _ = listener.accept()
                connection.settimeout(10)
                threads.append(threading.Thread(target=serve, args=(connection,), daemon=True))
                threads[-1].start()

    async def main() -> None:
        async with Client(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            await talk(client)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads = [threading.Thread(target=accept, daemon=True)]
        threads[0].start()
        try:
            asyncio.run(main())
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept
    for thread in threads:
        thread.join(10)


def streamed(*pieces: bytes) -> Stream:
    into = Stream()

    async def talk(client: Client) -> None:
        await asyncio.wait_for(client.stream("/v1/completions", {}, into), 10)

    with_server([list(pieces)], talk)
    return into


def test_a_stream_is_read_to_its_end_and_the_engines_own_finish_word_is_kept() -> None:
    stream = streamed(HEAD, GOOD)
    assert (stream.error, stream.done, stream.completion_tokens, stream.prompt_tokens) == ("", True, 2, 7)
    assert stream.finish_reason == "max_tokens"
    assert stream.start_s <= stream.first_s <= stream.last_s


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, len(GOOD)), max_size=6))
def test_a_stream_may_be_cut_into_packets_anywhere(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(GOOD)]
    stream = streamed(HEAD, *(GOOD[a:b] for a, b in pairwise(places)))
    assert (stream.error, stream.completion_tokens) == ("", 2)


def test_an_event_of_a_megabyte_is_read() -> None:
    assert streamed(HEAD, event("x" * (1 << 20)), usage(1), DONE).error == ""


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ([HEAD, event("a")], "ended after 1 chunks without [DONE]"),
        ([HEAD, event("a"), usage(1)], "without [DONE]"),
        ([HEAD, b"data: {broken\n\n"], "an event is not JSON: '{broken'"),
        ([HEAD, b"data: " + b"[" * 2000 + b"\n\n"], "an event is not JSON"),
        ([HEAD, b"data: [1, 2]\n\n"], "an event is list, not an object"),
        ([HEAD, b'data: {"error": {"message": "out of blocks"}}\n\n'], "the server sent an error"),
        ([HEAD, b"\n" * 10], "without [DONE]"),
        ([b"HTTP/1.1 500 Oops\r\nContent-Length: 17\r\n\r\n" + b'{"detail": "bad"}'], "HTTP 500: bad"),
        ([b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"], "HTTP 503: no text"),
        ([b"SSH-2.0-OpenSSH_9\r\n"], "Error"),
        ([], "Error"),
        ([HEAD, b'data: {"choices": 5}\n\ndata: {"choices": [3], "usage": {"prompt_tokens": "x"}}\n\n'], "without"),
        ([HEAD.replace(b"Connection: close", b"Transfer-Encoding: chunked"), b"zz\r\n"], "Error"),
        ([HEAD.replace(b"Connection: close", b"Content-Length: 900"), event("a")], "Error"),
    ],
)  # fmt: skip
def test_every_wrong_answer_is_told_and_none_raises_or_hangs(pieces: list[bytes], error: str) -> None:
    assert error in streamed(*pieces).error


def test_both_error_envelopes_are_understood() -> None:
    assert Reply(400, {"detail": "too long"}, "").reason == "HTTP 400: too long"
    assert Reply(500, {"error": {"message": "boom", "code": 500}}, "").reason == "HTTP 500: boom"
    assert Reply(502, None, " <html>proxy</html> ").reason == "HTTP 502: <html>proxy</html>"


def test_a_server_that_is_not_there_or_does_not_answer_is_a_transport_error() -> None:
    async def nobody() -> None:
        async with Client(f"http://127.0.0.1:{free_port()}") as client:
            with pytest.raises(TransportError, match="GET /v1/models: ClientConnectorError"):
                await client.get("/v1/models", timeout_s=5)

    asyncio.run(nobody())

    async def silent(client: Client) -> None:
        with pytest.raises(TransportError, match=r"POST /stop_profile was not answered within 0\.1 s"):
            await client.post("/stop_profile", timeout_s=0.1)

    with socket.create_server(("127.0.0.1", 0)) as listener:  # the kernel accepts, nobody answers
        port = listener.getsockname()[1]
        assert port_is_taken(port)

        async def main() -> None:
            async with Client(f"http://127.0.0.1:{port}") as client:
                await silent(client)

        asyncio.run(main())


def run_load(answers: list[list[bytes]], *, concurrency: int, output_tokens: int = 2) -> Load:
    loads: list[Load] = []

    async def talk(client: Client) -> None:
        requests = [Request("hi", output_tokens, 1) for _ in answers]
        loads.append(Load(client, "m", requests, concurrency, SYSTEM_CLOCK))
        await asyncio.wait_for(loads[0].run(), 20)

    with_server(answers, talk)
    return loads[0]


def test_a_load_counts_what_was_done() -> None:
    load = run_load([[HEAD, GOOD]] * 5, concurrency=2)
    load.check("window")
    figures = load.figures()
    assert (figures["completed"], figures["failed"], figures["output_tokens"], figures["input_tokens"]) == (
        5,
        0,
        10,
        35,
    )
    ttft, tpot = figures["ttft_ms"], figures["tpot_ms"]
    assert isinstance(ttft, dict)
    assert isinstance(tpot, dict)
    assert 0 <= ttft["p50"] <= ttft["p99"]
    assert tpot["p50"] >= 0


def test_failed_requests_are_counted_and_their_reasons_grouped() -> None:
    bad = [b"HTTP/1.1 500 Oops\r\nContent-Length: 17\r\n\r\n" + b'{"detail": "bad"}']
    load = run_load([[HEAD, GOOD], bad, [HEAD, event("a")], bad], concurrency=1)
    with pytest.raises(WorkloadError, match="3 of 4 requests of the window failed: 2 x HTTP 500: bad") as failed:
        load.check("window")
    assert failed.value.evidence == ("1 x the stream ended after 1 chunks without [DONE]",)
    assert load.figures()["completed"] == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (event("a", "eos") + usage(1) + DONE, r"1 of 2 tokens \(finish reason eos\)"),
        (event("a", "aborted") + usage(2) + DONE, "aborted after 2 of 2 tokens"),
        (event("a") + event("b", "max_tokens") + DONE, "0 of 2 tokens"),
    ],
)
def test_a_request_with_another_number_of_tokens_than_asked_for_is_a_failure(answer: bytes, reason: str) -> None:
    load = run_load([[HEAD, answer]], concurrency=1)
    with pytest.raises(WorkloadError, match=reason):
        load.check("window")


def test_no_more_requests_are_in_flight_than_the_concurrency() -> None:
    now: list[int] = []
    most: list[int] = []

    class Counting(Client):
        async def stream(self, path: str, body: dict[str, object], into: Stream) -> None:
            now.append(1)
            most.append(len(now))
            await asyncio.sleep(0.002)
            now.pop()
            into.done = True
            into.completion_tokens = 2
            assert (path, body["max_tokens"], body["ignore_eos"]) == ("/v1/completions", 2, True)

    async def main() -> None:
        async with Counting("http://127.0.0.1:1") as client:
            await Load(client, "m", [Request("hi", 2, 1)] * 20, 3, SYSTEM_CLOCK).run()

    asyncio.run(main())
    assert max(most) == 3
    assert len(most) == 20


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.floats(0, 1e6), min_size=1), share=st.floats(0.01, 1.0))
def test_a_quantile_is_a_value_that_the_share_does_not_exceed(values: list[float], share: float) -> None:
    ordered = sorted(values)
    value = quantile(ordered, share)
    assert value in values
    assert sum(v <= value for v in ordered) >= share * len(ordered) - 1e-9


# What no server should send


def exchanged(*pieces: bytes) -> Reply | TransportError:
    answer: list[Reply | TransportError] = []

    async def talk(client: Client) -> None:
        try:
            answer.append(await asyncio.wait_for(client.get("/v1/models", timeout_s=8), 10))
        except TransportError as error:
            answer.append(error)

    with_server([list(pieces)], talk)
    return answer[0]


STATUS_LINES = (
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 999 \r\n",
    b"HTTP/9 200 OK\r\n",
    b"ICY 200 OK\r\n",
    b"HTTP/1.1 abc\r\n",
    b"",
)
HEADERS = (
    b"Content-Length: 5\r\n", b"Content-Length: -5\r\n", b"Content-Length: 99999999999999999999\r\n",
    b"Content-Length: 3\r\nContent-Length: 4\r\n", b"Transfer-Encoding: chunked\r\n", b"no colon here\r\n",
    b"Content-Encoding: gzip\r\n", b"X: " + b"y" * 20000 + b"\r\n", b"\x00: \xff\r\n", b"",
)  # fmt: skip
BODIES = (
    b"",
    b"{}",
    b"{broken",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"zz\r\n",
    b"\x1f\x8b\x08garbage",
    b"\xff\xfe\x00",
    b"[" * 2000,
)


@settings(max_examples=40, deadline=None)
@given(
    status=st.sampled_from(STATUS_LINES),
    headers=st.lists(st.sampled_from(HEADERS), max_size=3),
    body=st.sampled_from(BODIES) | st.binary(max_size=64),
    cut=st.integers(0, 60),
)
def test_malformed_http_is_an_answer_or_a_transport_error_in_time(
    status: bytes, headers: list[bytes], body: bytes, cut: int
) -> None:
    text = status + b"".join(headers) + b"\r\n" + body
    answer = exchanged(text[: len(text) - cut])
    if isinstance(answer, TransportError):
        assert "GET /v1/models" in str(answer)
    else:
        assert isinstance(answer.fields, dict)
        assert answer.reason.startswith("HTTP ")


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_damaged_event_stream_ends_in_tokens_or_in_a_reason(data: st.DataObject) -> None:
    text = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        end = min(len(text), at + data.draw(st.integers(0, 30)))
        text[at:end] = data.draw(
            st.sampled_from([b"", b"\n", b"\n\n", b"data:", b"\xff", b"null", b"{", b"]", b"9" * 400])
        )
    stream = streamed(HEAD, bytes(text))
    assert stream.done or stream.error
    assert stream.completion_tokens >= 0


@pytest.mark.parametrize("megabytes", [1, 9])
def test_long_lines_are_read_up_to_a_limit_and_then_refused(megabytes: int) -> None:
    stream = streamed(HEAD, *[b"data: " + b"x" * (1 << 20)] * 1, *[b"x" * (1 << 20)] * (megabytes - 1), b"\n", DONE)
    wanted = "an event is not JSON" if megabytes == 1 else "an event of more than 8,388,608 bytes"
    assert wanted in stream.error


def test_many_events_of_a_megabyte_do_not_pile_up() -> None:
    stream = streamed(HEAD, *[event("x" * (1 << 20))] * 6, usage(6), DONE)
    assert (stream.error, stream.completion_tokens, stream.chunks) == ("", 6, 6)


@pytest.mark.parametrize("after", [0, len(HEAD), len(HEAD) + 40])
def test_a_connection_that_is_reset_is_told(after: int) -> None:
    """RST instead of FIN, before the head, after it, and within an event."""
    into = Stream()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall((HEAD + GOOD)[:after])
        time.sleep(0.05)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        connection.close()

    async def main() -> None:
        async with Client(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            await asyncio.wait_for(client.stream("/v1/completions", {}, into), 10)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        asyncio.run(main())
        thread.join(10)
    assert into.error
    assert not into.done


def test_a_server_that_shuts_its_side_and_does_not_read_ends_the_request() -> None:
    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.shutdown(socket.SHUT_WR)
        closed.wait(10)
        connection.close()

    async def main() -> None:
        async with Client(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            with pytest.raises(TransportError, match="POST /v1/completions"):
                await client.post("/v1/completions", {"prompt": "x " * (4 << 20)}, timeout_s=8)

    closed = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        asyncio.run(main())
        closed.set()
        thread.join(10)


def json_answer(value: object) -> list[bytes]:
    body = json.dumps(value).encode()
    return [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body]


@pytest.mark.parametrize(
    "value",
    [[], 5, None, {}, {"total_draft_tokens": "7"}, {"total_draft_tokens": 7}, {"total_draft_tokens": [1], "x": {}}],
)
def test_counters_of_drafts_in_another_shape_are_no_counters(value: object) -> None:
    found: list[DraftCounts] = []

    async def talk(client: Client) -> None:
        found.append(await draft_counts(client))

    with_server([json_answer(value)], talk)
    assert found == [DraftCounts()]


def test_the_role_that_opens_a_chat_answer_is_no_token() -> None:
    def chat(**delta: object) -> bytes:
        return (
            b"data: "
            + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}).encode()
            + b"\n\n"
        )

    stream = streamed(HEAD, chat(role="assistant", content=""), chat(content="a"), chat(content="b"), usage(2), DONE)
    assert (stream.error, stream.chunks) == ("", 2)
