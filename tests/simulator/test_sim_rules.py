from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from pytest_atomtrace.simulator.argv import parse_argv
from pytest_atomtrace.simulator.controls import ControlError, Controls
from pytest_atomtrace.simulator.faults import FAULTS, FaultError, Faults, parse_faults
from pytest_atomtrace.simulator.labels import eager_label, graph_label
from pytest_atomtrace.simulator.mutations import Mutation, MutationError, base_name, parse_mutations
from pytest_atomtrace.simulator.profile import ProfileError, find_profile, known_models
from pytest_atomtrace.simulator.programs import Options, resolve
from pytest_atomtrace.simulator.scheduler import Limits, Request, Scheduler
from pytest_atomtrace.simulator.topology import engines_of

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable


def counts(model: str, tp: int, program: str = "decode", query: int = 1) -> Counter[str]:
    data = resolve(find_profile(model), Options(tp=tp, query=query))
    keys = [item[1] for item in data["programs"][program] if item[0] == "k"]
    return Counter(base_name(data["kernels"][key]["name"]) for key in keys)


def test_deepseek_v4_pro_has_the_layers_of_its_public_config() -> None:
    names = counts("deepseek-ai/DeepSeek-V4-Pro", 8)
    assert names["mfma_moe1_silu_mul_afp8_wfp4_fp8_t32x128x256_pm1_fp8q_sort_async_gui_v33"] == 61
    assert names["topk_gating_kernel_opt"] == 58
    assert names["_hash_topk_kernel"] == 3
    assert (names["_paged_decode_split_kernel"], names["_paged_decode_fused_kernel"]) == (30, 31)
    assert names["cross_device_reduce_2stage"] == 122
    assert sum(names.values()) == 1956


def test_gpt_oss_120b_alternates_sliding_and_full_attention() -> None:
    names = counts("openai/gpt-oss-120b", 1)
    assert (names["kernel_unified_attention_2d"], names["kernel_unified_attention_3d"]) == (18, 18)
    assert names["reduce_segments"] == 18
    assert names["topkGatingSoftmax"] == 36
    assert "cross_device_reduce_2stage" not in names
    assert sum(names.values()) == 417


def test_every_kernel_of_every_profile_has_a_source() -> None:
    for model in known_models():
        assert all(kernel["source"] for kernel in find_profile(model)["kernels"].values())


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ProfileError, match=r"did you mean 'openai/gpt-oss-120b'.*deepseek-ai/DeepSeek-V4-Pro"):
        find_profile("openai/gpt-oss-12b")


@pytest.mark.parametrize("flag", ["--torch-profiler-dir", "--torch_profiler_dir", "--torch-prof", "--torch_prof"])
@pytest.mark.parametrize("joined", [True, False])
def test_flags_are_taken_in_both_spellings_and_abbreviated(flag: str, joined: bool) -> None:
    argv = [f"{flag}=/a_b-c"] if joined else [flag, "/a_b-c"]
    assert parse_argv(argv).torch_profiler_dir == "/a_b-c"


def test_negative_and_optional_flags() -> None:
    args = parse_argv(["--no-enable_prefix_caching", "--load_dummy", "--enable-tbo", "all", "-tp", "4"])
    assert (args.enable_prefix_caching, args.load_dummy, args.enable_tbo) == (False, "empty", "all")
    assert args.tensor_parallel_size == 4


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--no-such-flag"], "error: unrecognized arguments: --no-such-flag"),
        (["--kv_cache_dtype", "fp4"], "invalid choice: 'fp4'"),
        (["--host", "10.0.0.1"], "loopback only"),
        (["-tp", "x"], "invalid int value"),
        (["--method", "eagle3"], "--draft-model is required"),
    ],
)
def test_a_wrong_command_line_exits_2(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_argv(argv)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "names", "titles"),
    [
        (["-tp", "2"], ["rank_0", "rank_1"], ["ATOM::TP0", "ATOM::TP1"]),
        (["-tp", "2", "-pcp", "2"], ["rank_0", "rank_1", "rank_2", "rank_3"], None),
        (["-tp", "2", "-dp", "2"], ["dp0_tp0", "dp0_tp1", "dp1_tp0", "dp1_tp1"], None),
        (["-tp", "2", "--enable-dp-attention"], ["dp0_tp0", "dp1_tp0"], ["ATOM::DP0TP0", "ATOM::DP1TP0"]),
        (["-tp", "1", "-pp", "2"], ["pp0_rank_0", "pp1_rank_0"], None),
        (["--enable-rapidserve"], ["prefill/rank_0", "decode/rank_0"], None),
    ],
)
def test_rank_directories_follow_the_topology(argv: list[str], names: list[str], titles: list[str] | None) -> None:
    workers = [worker for engine in engines_of(parse_argv(argv), "ATOM") for worker in engine.workers]
    assert [worker.directory for worker in workers] == names
    if titles is not None:
        assert [worker.title for worker in workers] == titles
    assert [worker.rank for worker in workers] == list(range(len(names)))


def test_labels_have_atoms_exact_forms() -> None:
    assert graph_label("decode", bs=117, graph_bs=128, tok=117, decodes=117) == "decode[bs=117/128 tok=117 d=117]"
    assert graph_label("decode", bs=4, graph_bs=4, tok=16, decodes=4, spec=3) == "decode[bs=4 tok=16 d=4 spec=3]"
    assert eager_label("prefill", bs=2, tok=128, contexts=[64, 64]) == "prefill[bs=2 tok=128 ctx=[64, 64]]"
    assert eager_label("prefill", bs=1, tok=64, contexts=[64]) == "prefill[bs=1 tok=64 ctx=64]"
    many = eager_label("eager_decode", bs=600, tok=600, contexts=[1025, 1025, 1026] + [1] * 597)
    assert many == "eager_decode[bs=600 tok=600 ctx=[1025, 1025, 1026]...+597]"


def make_scheduler(**changes: Any) -> Scheduler:
    limits: dict[str, Any] = {
        "max_num_seqs": 8, "max_num_batched_tokens": 100, "graph_sizes": (1, 2, 4), "spec_tokens": 0,
        "acceptance": 0.5, "tbo": "", "eager_logits": False, **changes,
    }  # fmt: skip
    return Scheduler(Limits(**limits), seed=1)


def _labels(scheduler: Scheduler) -> list[str]:
    labels = []
    while scheduler.busy:
        labels.append(scheduler.next_step().record["label"])
    return labels


def test_prefills_are_batched_up_to_the_token_budget_and_long_prompts_are_cut() -> None:
    scheduler = make_scheduler()
    for ident, prompt in (("a", 40), ("b", 60), ("c", 150)):
        scheduler.add(Request(ident, prompt, 2))
    assert _labels(scheduler) == [
        "prefill[bs=2 tok=100 ctx=[40, 60]]",
        "prefill[bs=1 tok=100 ctx=100]",
        "prefill[bs=1 tok=50 ctx=150]",
        "decode[bs=3/4 tok=3 d=3]",
    ]


def test_a_batch_above_the_largest_graph_runs_eagerly() -> None:
    scheduler = make_scheduler()
    for index in range(5):
        scheduler.add(Request(str(index), 10, 2))
    assert _labels(scheduler)[-1] == "eager_decode[bs=5 tok=5 ctx=[11, 11, 11, 11, 11]]"


def test_speculative_decoding_makes_the_wanted_tokens_in_fewer_steps() -> None:
    scheduler = make_scheduler(spec_tokens=3, acceptance=1.0)
    scheduler.add(Request("a", 10, 9))
    assert _labels(scheduler) == ["prefill[bs=1 tok=10 ctx=10]"] + ["decode[bs=1 tok=4 d=1 spec=3]"] * 2
    assert scheduler.acceptance.counts == [0, 0, 0, 2]


def test_faults_are_parsed_with_ranks_and_arguments() -> None:
    faults = Faults(parse_faults("slow_rank:3:1.5, async_stop,no_kernels,lossy_graph"))
    slow = faults.on_rank("slow_rank", 3)
    assert slow is not None
    assert slow.number(1, 2.0) == 1.5
    assert faults.on_rank("slow_rank", 0) is None
    assert faults.get("async_stop") is not None
    assert faults.on_rank("no_kernels", 5) is not None
    assert faults.on_rank("lossy_graph", 0) is not None
    assert faults.on_rank("lossy_graph", 1) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slow_rnk:1", "did you mean 'slow_rank'"),
        ("slow_rank:x", "'x' is not a number"),
        ("async_stop:1", "takes 0 argument"),
    ],
)
def test_an_unknown_fault_is_refused(text: str, words: str) -> None:
    with pytest.raises(FaultError, match=words):
        parse_faults(text)


def test_a_mutation_reads_back_whole() -> None:
    assert parse_mutations("slow:mfma_moe1_*=1.3@rank=3@phase=decode;drop:aiter::x") == (
        Mutation("slow", "mfma_moe1_*", "1.3", rank=3, phase="decode"),
        Mutation("drop", "aiter::x"),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dorp:x", "did you mean 'drop'"),
        ("slow:x=fast", "not a number above 0"),
        ("rename:x", "want drop"),
        ("drop:x@phase=decod", "@phase=<decode"),
    ],
)
def test_an_unreadable_mutation_is_refused(text: str, words: str) -> None:
    with pytest.raises(MutationError, match=words):
        parse_mutations(text)


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("void aiter::topk_gating_kernel_opt<hip_bfloat16, 128>(hip_bfloat16 const*)", "topk_gating_kernel_opt"),
        ("_ZN5aiter19topksoftmax_4x128x4E", "topksoftmax_4x128x4"),
        ("void at::native::(anonymous namespace)::distribution<float>", "distribution"),
        ("_ZN2ck11kernel_gemmINS_4GridIfEELb1EEEvNT_8ArgumentE", "kernel_gemm"),
        ("_swa_write_kernel.kd", "_swa_write_kernel"),
    ],
)
def test_base_names(name: str, base: str) -> None:
    assert base_name(name) == base


def test_controls_name_an_unknown_variable() -> None:
    with pytest.raises(ControlError, match="ATOMTRACE_SIM_SEDE"):
        Controls.from_environ({"ATOMTRACE_SIM_SEDE": "1"})


def test_a_launch_differs_from_the_next_unless_seeded() -> None:
    launches = {Controls.from_environ({}).launch for _ in range(4)}
    assert len(launches) > 1
    assert Controls.from_environ({"ATOMTRACE_SIM_SEED": "3"}).launch == 0


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"ATOMTRACE_SIM_FAULT": "late_raedy"}, "did you mean 'late_ready'"),
        ({"ATOMTRACE_SIM_MUTATE": "drop:no_such_kernel"}, "matches no kernel of openai/gpt-oss-120b"),
    ],
)
def test_a_wrong_control_exits_2(
    run_main: Callable[..., subprocess.CompletedProcess[str]], env: dict[str, str], words: str
) -> None:
    done = run_main("--model", "openai/gpt-oss-120b", **env)
    assert done.returncode == 2
    assert words in done.stderr


def test_every_fault_has_words() -> None:
    assert all(text for _, text in FAULTS.values())
