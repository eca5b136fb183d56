"""Command lines, environments and rank sets of engines, and which engine can run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_atomtrace.capture.availability import EngineChoice, choose_engine
from pytest_atomtrace.capture.engines import AtomEngine, engine_of, ranks_of, server_arguments
from pytest_atomtrace.capture.prompts import requests_for
from pytest_atomtrace.cases.case import Case
from pytest_atomtrace.settings import Settings
from pytest_atomtrace.simulator.argv import parse_argv
from tests.capture.conftest import small_case
from tests.capture.machines import FakeMachine


def arguments(case: Case) -> list[str]:
    return server_arguments(case, trace_dir=Path("/t/trace"), port=1234)


def test_arguments_are_in_the_spelling_that_old_and_new_servers_register() -> None:
    case = small_case(tp=4, dp_attention=True, mark_trace=True, load_dummy=True, server_args=("--level", "0"))
    assert arguments(case) == [
        "--model", "deepseek-ai/DeepSeek-V4-Pro", "--host", "127.0.0.1", "--server-port", "1234",
        "--tensor-parallel-size", "4", "--enable-dp-attention", "--load_dummy", "--torch-profiler-dir", "/t/trace",
        "--mark-trace", "--level", "0",
    ]  # fmt: skip


def test_json_arguments_arrive_whole() -> None:
    value = '{"method": "mtp", "x y": [1, "a \'b\'"]}'
    case = small_case(server_args=("--hf-overrides", value, f"--kv-transfer-config={value}"))
    parsed = parse_argv(arguments(case))
    assert parsed.hf_overrides == parsed.kv_transfer_config == value
    assert parsed.torch_profiler_dir == "/t/trace"
    assert parsed.load_dummy is None


def test_the_environment_is_the_cases_over_ours_without_what_binds_a_profiler_elsewhere() -> None:
    base = {
        "PATH": "/bin", "PYTEST_CURRENT_TEST": "x", "ENABLE_TORCH_PROFILER": "1", "KINETO_CONFIG": "/home/x",
        "AITER_LOG_LEVEL": "DEBUG", "PYTHONPATH": "/p", "ATOM_PROFILER_MORE": "1",
    }  # fmt: skip
    case = small_case(env={"ATOM_MOE_GU_ITLV": "1"})
    engine = AtomEngine(python="/opt/python", root="/opt/atom")
    launch = engine.launch(case, trace_dir=Path("/w/trace"), port=1, base_env=base, token="run-7")
    assert launch.argv[:3] == ("/opt/python", "-m", "atom.entrypoints.openai_server")
    assert launch.env == {
        "PATH": "/bin", "AITER_LOG_LEVEL": "DEBUG", "PYTHONPATH": "/opt/atom:/p", "ATOM_PROFILER_MORE": "0",
        "ATOM_MOE_GU_ITLV": "1", "ATOMTRACE_RUN_TOKEN": "run-7", "PYTHONUNBUFFERED": "1",
        "KINETO_CONFIG": "/w/kineto.conf",
    }  # fmt: skip
    assert launch.files == {Path("/w/kineto.conf"): "ROCTRACER_MAX_EVENTS=20000000\n"}


def test_more_detail_is_asked_of_the_server_and_not_of_the_client() -> None:
    engine = engine_of(Settings(), "sim")
    case = small_case(profiler_more=True)
    env = engine.launch(case, trace_dir=Path("/t"), port=1, base_env={}, token="t").env
    assert env["ATOM_PROFILER_MORE"] == "1"


@pytest.mark.parametrize(
    ("arguments", "ranks"),
    [
        ((), ("rank_0", "rank_1")),
        (("-pcp", "2"), ("rank_0", "rank_1", "rank_2", "rank_3")),
        (("--prefill-context-parallel-size=2",), ("rank_0", "rank_1", "rank_2", "rank_3")),
        (("--enable-rapidserve",), ("prefill/rank_0", "prefill/rank_1", "decode/rank_0", "decode/rank_1")),
    ],
)
def test_arguments_that_change_the_rank_set_are_known(arguments: tuple[str, ...], ranks: tuple[str, ...]) -> None:
    assert ranks_of(small_case(server_args=arguments)) == ranks


def test_a_named_backend_is_taken_at_its_word() -> None:
    assert choose_engine(Settings(backend="atom", python="/nonexistent")) == EngineChoice("atom")
    assert choose_engine(Settings(backend="sim")) == EngineChoice("sim")


def test_auto_says_all_that_is_missing_and_how_to_run_without(tmp_path: Path) -> None:
    reason = choose_engine(Settings(root=str(tmp_path), python="/nonexistent/python"))
    assert isinstance(reason, str)
    assert f"ATOM is not importable from --atom-root={tmp_path} by /nonexistent/python" in reason
    assert reason.endswith("run on the simulator with --atom-backend=sim, or on saved captures with --atom-replay=DIR")


def test_a_package_that_is_only_called_atom_is_not_atom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "atom").mkdir()
    (tmp_path / "atom" / "__init__.py").write_text("raise AssertionError('looked at, not imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    for chosen in (Settings(), Settings(python=str(link))):
        assert "ATOM is not importable" in str(choose_engine(chosen))
    (tmp_path / "atom" / "entrypoints").mkdir()
    for chosen in (Settings(), Settings(python=str(link)), Settings(root=str(tmp_path), python="/nonexistent")):
        assert "ATOM is not importable" not in str(choose_engine(chosen))


def test_auto_is_the_real_engine_where_both_atom_and_a_gpu_are(tmp_path: Path) -> None:
    FakeMachine(tmp_path / "machine").build()
    (tmp_path / "atom" / "entrypoints").mkdir(parents=True)
    there = Settings(root=str(tmp_path), machine_root=str(tmp_path / "machine"))
    assert choose_engine(there) == EngineChoice("atom")
    (tmp_path / "machine" / "dev" / "kfd").unlink()
    assert "no AMD GPU is visible (there is no" in str(choose_engine(there))


@settings(max_examples=50, deadline=None)
@given(isl=st.integers(1, 300), osl=st.integers(2, 300), ratio=st.floats(0.05, 1.0), seed=st.text(max_size=5))
def test_lengths_stay_in_their_range_and_a_seed_gives_the_same_requests(
    isl: int, osl: int, ratio: float, seed: str
) -> None:
    case = Case("m", isl=isl, osl=osl, range_ratio=ratio)
    requests = requests_for(case, seed=seed, count=5)
    assert requests == requests_for(case, seed=seed, count=5)
    for request in requests:
        assert max(1, int(isl * ratio)) <= request.input_tokens <= isl
        assert max(1, int(osl * ratio)) <= request.output_tokens <= osl
        assert len(request.prompt.split()) == request.input_tokens


def test_two_windows_share_no_prompt_and_prompts_of_a_window_differ() -> None:
    case = Case("m", isl=64)
    one, two = (requests_for(case, seed=seed, count=8) for seed in ("a/1", "a/2"))
    assert len({request.prompt for request in one + two}) == 16


def test_prompts_are_scaled_to_the_tokenizer() -> None:
    [request] = requests_for(Case("m", isl=1000), seed="s", count=1, words_per_token=0.8)
    assert len(request.prompt.split()) == 800
