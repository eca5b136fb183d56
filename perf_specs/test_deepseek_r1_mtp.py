"""DeepSeek-R1 on 4 GPUs with three draft tokens a step: MTP really ran, MLA, router, MoE, no fallback.

Every count is derived from the model's public config
(https://huggingface.co/deepseek-ai/DeepSeek-R1-0528/blob/main/config.json):

    num_hidden_layers 61, first_k_dense_replace 3, so 58 MoE layers of n_routed_experts 256 with one shared
    expert each (n_shared_experts 1); num_nextn_predict_layers 1: one MTP layer, run once per draft token.

Kernel names come from ATOM and aiter, named beside each check.
"""

import pytest

from pytest_atomtrace import Trace

LAYERS = 61
DENSE_LAYERS = 3
MOE_LAYERS = LAYERS - DENSE_LAYERS
DRAFTS = 3

# FlyDSL's kernels of the tuned names flydsl_moe1_afp4_wfp4_* and flydsl_moe2_* (aiter dsv3_fp4_tuned_fmoe.csv,
# ops/flydsl/kernels/mixed_moe_gemm_2stage_common.py); moe_gemm1_0 and moe_gemm2_0 in older FlyDSL.
STAGE_1 = r"re:mfma_moe1_\w*afp4_wfp4|^moe_gemm1_\d"
STAGE_2 = r"re:mfma_moe2_\w*afp4_wfp4|^moe_gemm2_\d"

pytestmark = [
    pytest.mark.gpu,
    # ATOM .github/benchmark/models.json, entry DeepSeek-R1-0528-MXFP4, variant MTP3. Its client wraps prompts in
    # the chat template, which raises the acceptance; no count below depends on it.
    pytest.mark.atom_case(
        model="amd/DeepSeek-R1-0528-MXFP4-MTP-MoEFP4",
        tp=4,
        isl=1024,
        conc=16,
        server_args=["--kv_cache_dtype", "fp8", "--method", "mtp", "--num-speculative-tokens", "3"],
    ),
]


def test_attention_verifies_four_tokens_per_sequence(atom_trace: Trace) -> None:
    # aiter hsa/*/mla: qseqlen is the tokens per sequence of a decode, one more than the drafts. It is the proof
    # that speculative decoding ran: without drafts the same layer calls the qseqlen1 kernel.
    atom_trace.assert_kernel_called("aiter::mla_a*_qseqlen4_*", during="decode", per_step=LAYERS)
    atom_trace.assert_kernel_not_called(
        "aiter::mla_a*_qseqlen1_*", during="decode", example="_ZN5aiter36mla_a8w8_qh16_qseqlen1_gqaratio16_psE"
    )


def test_split_attention_is_reduced_once_per_layer(atom_trace: Trace) -> None:
    # aiter csrc/kernels/mla/reduce.cu.
    atom_trace.assert_kernel_called("kn_mla_reduce_v1*", during="decode", per_step=LAYERS)


def test_rope_and_cache_write_stay_fused(atom_trace: Trace) -> None:
    # aiter csrc/kernels/cache_kernels.cu: _per_head below 256 tokens.
    atom_trace.assert_kernel_called("aiter::fuse_qk_rope_concat_and_cache_mla_*", during="decode", per_step=LAYERS)


def test_every_moe_layer_routes_with_the_grouped_topk(atom_trace: Trace) -> None:
    # aiter csrc/kernels/topk_softmax_kernels_group.cu, behind aiter::biased_grouped_topk_hip.
    atom_trace.assert_kernel_called("aiter::grouped_topk*_kernel", during="decode", per_step=MOE_LAYERS)


def test_each_moe_layer_runs_both_moe_gemms_once(atom_trace: Trace) -> None:
    # Two stages, fp4 activations and weights.
    atom_trace.assert_kernel_called(STAGE_1, during="decode", per_step=MOE_LAYERS)
    atom_trace.assert_kernel_called(STAGE_2, during="decode", per_step=MOE_LAYERS)


def test_dense_layers_and_shared_experts_gate_with_silu(atom_trace: Trace) -> None:
    # aiter csrc/kernels/activation_kernels.cu: once in each dense MLP and once in each shared expert; the routed
    # experts have it inside mfma_moe1.
    atom_trace.assert_kernel_called("aiter::act_and_mul_kernel", during="decode", per_step=DENSE_LAYERS + MOE_LAYERS)


def test_two_all_reduces_per_layer_and_one_for_the_embedding(atom_trace: Trace) -> None:
    # aiter csrc/include/custom_all_reduce.cuh: after attention and after the MLP, in every layer; and one where
    # the vocabulary's shards meet. ATOM fuses them with the norm that follows (ATOM_ENABLE_ALLREDUCE_RMSNORM_FUSION,
    # on by default); each of these kernels stands for one of them, whatever size and fusion choose.
    atom_trace.assert_kernel_called(
        "re:cross_device_reduce_[12]stage|allreduce_fusion_kernel_[12]stage|reduce_scatter_cross_device_store",
        during="decode",
        per_step=2 * LAYERS + 1,
    )


def test_every_draft_step_runs_the_mtp_layer(atom_trace: Trace) -> None:
    # ATOM atom/spec_decode/eagle_proposer.py labels them draft[i/k]; the MTP layer is a MoE layer.
    atom_trace.assert_kernel_called(STAGE_1, during="draft", per_step=1)
    # ATOM atom/model_ops/lm_head_argmax.py: a draft takes the likeliest token.
    atom_trace.assert_kernel_called("_lm_head_argmax_pack_kernel", during="draft", per_step=1)


def test_drafts_are_verified_by_rejection_sampling(atom_trace: Trace) -> None:
    # ATOM atom/model_ops/rejection_sampler.py, after the decode label.
    decodes = len(atom_trace.decode)
    drafts = len(atom_trace.draft)
    assert drafts >= DRAFTS * decodes > 0
    atom_trace.assert_kernel_called("rejection_*_sample_kernel", during="sample")


def test_prefill_goes_through_the_moe_op(atom_trace: Trace) -> None:
    # ATOM atom/model_ops/moe.py registers aiter::moe_forward; ops show in eager prefill only.
    atom_trace.assert_kernel_called("aiter::moe_forward", during="prefill", layer="op", at_least=MOE_LAYERS)
    atom_trace.assert_kernel_called(STAGE_1, during="prefill", per_step=MOE_LAYERS)


def test_no_moe_fallback(atom_trace: Trace) -> None:
    # CK's grouped GEMMs, which aiter fused_moe.py takes where FlyDSL is missing; moe_ck2stages_gemm1_* names them in
    # tuning tables and logs, not in traces. (The tables take them too, for more than 16384 tokens of a prefill.)
    atom_trace.assert_kernel_not_called(
        "re:kernel_moe_(mx)?gemm",
        during="decode",
        example="void ck::kernel_moe_mxgemm_2lds<ck::GridwiseMoeGemmMX<int>, true>(int)",
    )


def test_decode_stays_in_the_simulators_own_budget(atom_trace: Trace) -> None:
    # No public step time names this case and a GPU, so the figure is the simulator's own (9.6 ms and headroom).
    if not atom_trace.simulated:
        pytest.skip("no public step time for this case; record a budget for your hardware")
    atom_trace.assert_step_time("decode", p50="11.5 ms")


def test_a_token_stays_in_the_simulators_own_budget(atom_trace: Trace) -> None:
    # What drafts are for: an iteration (decode, sampling, drafts) shared by the tokens it yields. The figure is the
    # simulator's own (4.5 ms and headroom).
    if not atom_trace.simulated:
        pytest.skip("no public time per token for this case; record a budget for your hardware")
    atom_trace.assert_step_time("decode", p50="6.5 ms", metric="per_token")
