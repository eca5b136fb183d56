"""DeepSeek-V4-Pro on 8 GPUs: router, MoE GEMMs, sparse attention, all-reduce, and no fallback.

Every count is derived from the model's public config
(https://huggingface.co/deepseek-ai/DeepSeek-V4-Pro/blob/main/config.json):

    num_hidden_layers 61, all of them MoE; num_hash_layers 3 route by token id, the other 58 by a gate;
    compress_ratios 128, 128, 4, 128, 4, ..: 30 layers of ratio 4 (CSA, with an indexer), 31 of ratio 128 (HCA).

Kernel names come from ATOM and aiter, named beside each check.
"""

import pytest

from pytest_atomtrace import Trace

LAYERS = 61
HASH_LAYERS = 3
GATED_LAYERS = LAYERS - HASH_LAYERS
CSA_LAYERS = 30

# Kernels of the tuned names flydsl_moe1_afp8_wfp4_*, flydsl_moe2_* and opus_moe2_* (aiter dsv4_fp8fp4_tuned_fmoe.csv,
# ops/flydsl/kernels, csrc/opus_moe); moe_gemm1_0 and moe_gemm2_0 in older FlyDSL.
STAGE_1 = r"re:mfma_moe1_\w*afp8_wfp4|^moe_gemm1_\d|opus_moe_stage1"
STAGE_2 = r"re:mfma_moe2_\w*afp8_wfp4|^moe_gemm2_\d|opus_moe_stage2|gemm2_a\d+w\d+_port"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.atom_case(
        model="deepseek-ai/DeepSeek-V4-Pro",
        tp=8,
        isl=1024,
        osl=128,
        conc=32,
        # ATOM .github/benchmark/models.json, entry DeepSeek-V4-Pro.
        server_args=["--kv_cache_dtype", "fp8", "--index-cache-dtype", "fp4", "--no-enable_prefix_caching"],
        env={"AITER_BF16_FP8_MOE_BOUND": "0", "ATOM_MOE_GU_ITLV": "1"},
    ),
]


def test_every_gated_layer_routes_with_the_fused_topk(atom_trace: Trace) -> None:
    # aiter csrc/include/topk_gating_kernels.cuh: topk_gating_kernel_opt and its variants by batch size.
    atom_trace.assert_kernel_called("aiter::topk_gating_kernel*", during="decode", per_step=GATED_LAYERS)


def test_hash_layers_route_by_token_id(atom_trace: Trace) -> None:
    # ATOM atom/model_ops/v4_kernels: _hash_topk_kernel.
    atom_trace.assert_kernel_called("_hash_topk_kernel", during="decode", per_step=HASH_LAYERS)


def test_each_layer_runs_both_moe_gemms_once(atom_trace: Trace) -> None:
    # Two stages, fp8 activations and fp4 weights.
    atom_trace.assert_kernel_called(STAGE_1, during="decode", per_step=LAYERS)
    atom_trace.assert_kernel_called(STAGE_2, during="decode", per_step=LAYERS)


def test_tokens_are_sorted_once_per_moe_layer(atom_trace: Trace) -> None:
    # aiter csrc/include/moe_sorting_opus.h.
    atom_trace.assert_kernel_called("opus_moe_sorting_entry*", during="decode", per_step=LAYERS)


def test_every_layer_attends_once(atom_trace: Trace) -> None:
    # ATOM atom/model_ops/v4_kernels/paged_decode.py: with an fp8 cache aiter's assembly kernel (hsa/gfx950/mla_v4);
    # with a bf16 one Triton's, in one pass or split, by the batch and alike in every layer.
    atom_trace.assert_kernel_called(
        r"re:mla_a8w8_\w*_nm|_paged_decode_(?:fused|split)_kernel", during="decode", per_step=LAYERS
    )


def test_the_indexers_choice_becomes_pages_once_per_sparse_layer(atom_trace: Trace) -> None:
    # ATOM atom/model_ops/v4_kernels/csa_translate_pack.py: only layers of ratio 4 choose.
    atom_trace.assert_kernel_called("_csa_translate_pack_kernel", during="decode", per_step=CSA_LAYERS)


def test_the_indexer_scores_once_per_sparse_layer(atom_trace: Trace) -> None:
    # Behind aiter::indexer_score_topk: aiter FlyDSL pa_mqa_logits_fp4 over an fp4 index cache, the gluon kernel
    # _gluon_deepgemm_fp8_paged_mqa_logits where the GPU has no fp4.
    atom_trace.assert_kernel_called(
        "re:pa_mqa_logits_fp4|deepgemm_fp8_paged_mqa_logits", during="decode", per_step=CSA_LAYERS
    )


def test_two_all_reduces_per_layer_and_one_for_the_embedding(atom_trace: Trace) -> None:
    # aiter csrc/include/custom_all_reduce.cuh, in one stage or two by the size: after attention and after the MoE, in
    # every layer; and one where the vocabulary's shards meet (ATOM atom/model_ops/embed_head.py).
    atom_trace.assert_kernel_called(r"re:cross_device_reduce_[12]stage\b", during="decode", per_step=2 * LAYERS + 1)


def test_prefill_goes_through_the_moe_op(atom_trace: Trace) -> None:
    # ATOM atom/model_ops/moe.py registers aiter::moe_forward; ops show in eager prefill only.
    atom_trace.assert_kernel_called("aiter::moe_forward", during="prefill", layer="op", at_least=LAYERS)
    # Long prefills may take CK-Tile for the first stage, by the same table.
    atom_trace.assert_kernel_called(STAGE_1 + "|MoeFlatmm", during="prefill", per_step=LAYERS)


def test_prefill_attention_is_the_sparse_kernel(atom_trace: Trace) -> None:
    # ATOM atom/model_ops/v4_kernels/paged_prefill.py: aiter's pa_sparse_prefill_fp8_opus over an fp8 cache; over a
    # bf16 one Triton's, whose variant (_csa) goes by the length of the prefix.
    atom_trace.assert_kernel_called(
        "re:pa_sparse_prefill|_sparse_attn_v4_paged_prefill", during="prefill", per_step=LAYERS
    )


def test_no_moe_fallback(atom_trace: Trace) -> None:
    # CK's grouped GEMMs, which aiter fused_moe.py takes where FlyDSL is missing; moe_ck2stages_gemm1_* names them in
    # tuning tables and logs, not in traces. (The tables take them too, for more than 16384 tokens of a prefill.)
    atom_trace.assert_kernel_not_called(
        "re:kernel_moe_(mx)?gemm",
        during="decode",
        example="void ck::kernel_moe_mxgemm_2lds<ck::GridwiseMoeGemmMX<int>, true>(int)",
    )


def test_no_unfused_all_reduce_in_decode(atom_trace: Trace) -> None:
    # The naive variant of aiter custom_all_reduce.cuh is chosen when the fast path is refused.
    atom_trace.assert_kernel_not_called(
        "aiter::cross_device_reduce_*_naive*",
        during="decode",
        example="void aiter::cross_device_reduce_1stage_naive<std::bfloat16_t, 8>(aiter::RankData*)",
    )


def test_decode_stays_in_the_simulators_own_budget(atom_trace: Trace) -> None:
    # No public step time names this case and a GPU, so the figure is the simulator's own (8.8 ms and headroom).
    if not atom_trace.simulated:
        pytest.skip("no public step time for this case; record a budget for your hardware")
    atom_trace.assert_step_time("decode", p50="10.5 ms")
