from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.simulator.conftest import Captured


def _frames(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_identity_endpoints_answer_as_atom_does(captured: Captured) -> None:
    sim = captured.sim
    status, models = sim.call("/v1/models")
    assert status == 200
    assert models["object"] == "list"
    assert models["data"][0]["id"] == "deepseek-ai/DeepSeek-V4-Pro"
    assert models["data"][0]["owned_by"] == "atom"
    assert sim.call("/health") == (200, {"status": "ok"})
    assert sim.call("/server_info") == (
        200,
        {
            "model_id": "deepseek-ai/DeepSeek-V4-Pro",
            "served_model_name": "deepseek-ai/DeepSeek-V4-Pro",
            "tp_size": 2,
            "dp_size": 1,
        },
    )
    assert "atom:requests_running 0.0" in sim.call("/metrics")[1]
    assert sim.call("/debug/mtp_stats")[1]["enabled"] is False


def test_a_wrong_method_is_405_with_fastapis_body(captured: Captured) -> None:
    assert captured.sim.call("/start_profile", method="GET") == (405, {"detail": "Method Not Allowed"})


def test_a_stream_ends_with_reason_extra_stop_chunk_usage_and_done(captured: Captured) -> None:
    body = {"prompt": "one two three", "max_tokens": 5, "stream": True, "best_of": 1, "stream_options": {}}
    status, text = captured.sim.call("/v1/completions", body)
    assert status == 200
    *content, extra, usage = _frames(text)
    assert [chunk["choices"][0]["finish_reason"] for chunk in content] == [None] * (len(content) - 1) + ["max_tokens"]
    assert sum(len(chunk["choices"][0]["text"].split()) for chunk in content) == 5
    assert (extra["choices"][0]["text"], extra["choices"][0]["finish_reason"]) == ("", "stop")
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    assert content[0]["id"].startswith("cmpl-")
    assert content[0]["object"] == "text_completion"


def test_a_whole_answer_carries_atoms_extra_usage_times(captured: Captured) -> None:
    status, body = captured.sim.call("/v1/completions", {"prompt": "hi", "max_tokens": 2, "model": None})
    assert status == 200
    assert body["choices"][0]["finish_reason"] == "max_tokens"
    assert set(body["usage"]) == {
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "ttft_s",
        "tpot_s",
        "latency_s",
    }


def test_chat_reasons_are_openais(captured: Captured) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "a b"}]}]
    status, body = captured.sim.call("/v1/chat/completions", {"messages": messages, "max_tokens": 2})
    assert status == 200
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["prompt_tokens"] == 2


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"prompt": [1, 2, 3]}, 422, "Input should be a valid string"),
        ({"prompt": "a", "stop": "x"}, 422, "Input should be a valid list"),
        ({"max_tokens": 4}, 422, "Field required"),
        (b"{not json", 422, "JSON decode error"),
        (
            {"prompt": "a", "model": "other/model"},
            400,
            "Requested model 'other/model' does not match server model",
        ),
        (
            {"prompt": "a", "max_tokens": 2_000_000},
            400,
            "This model's maximum context length is 1048576 tokens. However",
        ),
    ],
)
def test_bad_requests_get_atoms_code_and_envelope(captured: Captured, body: object, status: int, words: str) -> None:
    got, answer = captured.sim.call("/v1/completions", body)
    assert got == status
    assert words in json.dumps(answer["detail"])


def test_stop_answers_with_one_trace_entry_per_engine(captured: Captured) -> None:
    status, body = captured.stop
    assert status == 200
    assert body["message"] == "Profiling stopped. Trace files generated."
    assert [entry["trace_dir"] for entry in body["traces"]] == [str(captured.sim.traces / "rank_0")]


def test_stop_without_start_answers_with_no_time(captured: Captured) -> None:
    before = sorted(captured.sim.traces.rglob("*"))
    status, body = captured.sim.call("/stop_profile")
    assert status == 200
    assert body["traces"] == [{"trace_dir": str(captured.sim.traces / "rank_0"), "elapsed": 0.0}]
    assert sorted(captured.sim.traces.rglob("*")) == before


def test_the_log_tells_the_life_of_a_window_in_order(captured: Captured) -> None:
    log = captured.sim.log
    position = 0
    for words in (
        "Loading tokenizer from deepseek-ai/DeepSeek-V4-Pro...",
        "Engine Core Mgr: Creating EngineCore engine 0 (dp=0, pp=0) of 1",
        "Engine Core: EngineCore fully initialized and ready",
        "Engine Core Mgr: All 1 EngineCores initialized and ready",
        "Starting server on 0.0.0.0:",
        "Server started successfully and ready to accept requests",
        "Scheduled prefill batch: ",
        "Engine Core: executing utility command: start_profile",
        "Engine Core: profiler started",
        "Profiling started",
        "Engine Core: stopping profiler...",
        "Engine Core: profiler stopped, result={'trace_dir': ",
    ):
        position = log.index(words, position)
    assert log.count("profiler started (detailed=False, dir=") == 2
    assert log.count("trace exported to ") == 2
    assert '"POST /start_profile HTTP/1.1" 200 OK' in log
