"""Every item of the shipped specs fails for one named change of the simulated kernels, and alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

SPECS = Path(__file__).parents[2] / "perf_specs"

# The same specs on a cheaper case: fewer ranks, requests and steps change no count per step.
CHEAPER = {
    "test_deepseek_v4_pro.py": [("tp=8", "tp=2"), ("osl=128", "osl=40"), ("conc=32", "conc=4")],
    "test_gpt_oss_120b.py": [("osl=128", "osl=40"), ("conc=16", "conc=4")],
    "test_deepseek_r1_mtp.py": [("tp=4", "tp=2"), ("conc=16", "conc=4")],
}

MUTATIONS = {
    "test_deepseek_v4_pro.py": {
        "test_every_gated_layer_routes_with_the_fused_topk": "drop:topk_gating_kernel_opt@phase=decode",
        "test_hash_layers_route_by_token_id": "rename:_hash_topk_kernel=_slow_hash_topk_kernel",
        "test_each_layer_runs_both_moe_gemms_once": "drop:mfma_moe2_*@phase=decode",
        "test_tokens_are_sorted_once_per_moe_layer": "rename:opus_moe_sorting_entry=ck_moe_sorting",
        "test_every_layer_attends_once": "rename:_paged_decode_fused_kernel=_paged_decode_unfused_kernel",
        "test_the_indexers_choice_becomes_pages_once_per_sparse_layer": (
            "drop:_csa_translate_pack_kernel@phase=decode"
        ),
        "test_the_indexer_scores_once_per_sparse_layer": "drop:_gluon_deepgemm_fp8_paged_mqa_logits@phase=decode",
        "test_two_all_reduces_per_layer_and_one_for_the_embedding": (
            "rename:cross_device_reduce_2stage=ncclDevKernel_Generic_2"
        ),
        "test_prefill_goes_through_the_moe_op": "rename:mfma_moe1_*=moe_gemm1_untuned@phase=prefill",
        "test_prefill_attention_is_the_sparse_kernel": "drop:_sparse_attn_v4_paged_prefill_csa_kernel",
        "test_no_moe_fallback": "extra:void ck::kernel_moe_mxgemm<ck::GridwiseMoeGemmMX<float>, true>(int)",
        "test_no_unfused_all_reduce_in_decode": (
            "extra:void aiter::cross_device_reduce_1stage_naive<std::bfloat16_t, 8>(aiter::RankData*)"
        ),
        "test_decode_stays_in_the_simulators_own_budget": "slow:mfma_moe1_*=8@phase=decode",
    },
    "test_gpt_oss_120b.py": {
        "test_every_layer_routes_with_topk_softmax": "drop:topkGatingSoftmax@phase=decode",
        "test_each_layer_runs_both_moe_gemms_once": "rename:mfma_moe2_*=ck_moe_stage2@phase=decode",
        "test_sliding_layers_attend_with_one_kernel_each": "drop:kernel_unified_attention_2d@phase=decode",
        "test_full_layers_split_and_reduce": "drop:reduce_segments",
        "test_norm_and_padding_stay_fused": "rename:_fused_add_rmsnorm_pad=rmsnorm_then_pad@phase=decode",
        "test_rope_and_cache_write_stay_fused": "drop:_fused_qk_rope_reshape_and_cache_kernel@phase=decode",
        "test_one_gpu_needs_no_all_reduce": "extra:ncclDevKernel_Generic_1",
        "test_prefill_goes_through_the_moe_op": "drop:mfma_moe1_*@phase=prefill",
        "test_decode_stays_in_the_simulators_own_budget": "slow:mfma_moe2_*=3@phase=decode",
    },
    "test_deepseek_r1_mtp.py": {
        "test_attention_verifies_four_tokens_per_sequence": (
            "rename:mla_a8w8_qh16_qseqlen4_*=_ZN5aiter36mla_a8w8_qh16_qseqlen1_gqaratio16_psE@phase=decode"
        ),
        "test_split_attention_is_reduced_once_per_layer": "drop:kn_mla_reduce_v1_ps@phase=decode",
        "test_rope_and_cache_write_stay_fused": "drop:fuse_qk_rope_concat_and_cache_mla_*@phase=decode",
        "test_every_moe_layer_routes_with_the_grouped_topk": "rename:grouped_topk_opt_sort_kernel=torch_topk",
        "test_each_moe_layer_runs_both_moe_gemms_once": "drop:mfma_moe2_*@phase=decode",
        "test_dense_layers_and_shared_experts_gate_with_silu": "drop:act_and_mul_kernel@phase=decode",
        "test_two_all_reduces_per_layer_and_one_for_the_embedding": (
            "rename:cross_device_reduce_2stage=ncclDevKernel_Generic_2"
        ),
        "test_every_draft_step_runs_the_mtp_layer": "drop:_lm_head_argmax_pack_kernel",
        "test_drafts_are_verified_by_rejection_sampling": "drop:rejection_greedy_sample_kernel",
        "test_prefill_goes_through_the_moe_op": "rename:mfma_moe1_*=moe_gemm1_untuned@phase=prefill",
        "test_no_moe_fallback": "extra:void ck::kernel_moe_mxgemm<ck::GridwiseMoeGemmMX<float>, true>(int)",
        "test_decode_stays_in_the_simulators_own_budget": "slow:mfma_moe1_*=8@phase=decode",
        "test_a_token_stays_in_the_simulators_own_budget": "slow:mfma_moe1_*=600@phase=draft",
    },
}


def spec_on_a_cheaper_case(pytester: pytest.Pytester, name: str) -> None:
    shutil.copy(SPECS / name, pytester.path / name)
    text = (pytester.path / name).read_text()
    for old, new in CHEAPER[name]:
        assert old in text, f"{name} no longer holds {old}"
        text = text.replace(old, new)
    (pytester.path / name).write_text(text)


def outcomes(pytester: pytest.Pytester) -> dict[str, str]:
    result = pytester.runpytest_subprocess("--atom-backend=sim", "-m", "gpu", "-v", "-p", "no:randomly")
    words = {}
    for line in result.stdout.lines:
        if "::" in line and "%]" in line:
            node, word = line.split()[:2]
            words[node.split("::")[1].split("[")[0]] = word
    return words


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_item_has_a_mutation_and_passes_without_one(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("ATOMTRACE_SIM_MUTATE", raising=False)
    spec_on_a_cheaper_case(pytester, name)
    assert outcomes(pytester) == dict.fromkeys(MUTATIONS[name], "PASSED")


@pytest.mark.parametrize(
    ("name", "test", "mutation"),
    [
        pytest.param(name, test, mutation, id=f"{name.removesuffix('.py').removeprefix('test_')}-{test}")
        for name, table in MUTATIONS.items()
        for test, mutation in table.items()
    ],
)
def test_a_mutation_fails_exactly_its_item(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, name: str, test: str, mutation: str
) -> None:
    monkeypatch.setenv("ATOMTRACE_SIM_MUTATE", mutation)
    spec_on_a_cheaper_case(pytester, name)
    expected = dict.fromkeys(MUTATIONS[name], "PASSED") | {test: "FAILED"}
    assert outcomes(pytester) == expected
