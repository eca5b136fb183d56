"""gpt-oss-120b on one GPU: alternating attention, top-4 router, MXFP4 MoE.

Counts are derived from the model's public config
(https://huggingface.co/openai/gpt-oss-120b/blob/main/config.json): num_hidden_layers 36, all MoE, layer_types
alternating sliding_attention and full_attention, 18 each.
"""

import pytest

from pytest_atomtrace import Trace

LAYERS = 36
SLIDING_LAYERS = 18
FULL_LAYERS = LAYERS - SLIDING_LAYERS

# One kernel for each of the two stages. bf16 activations and fp4 weights: CK-Tile's for both by aiter's
# gptoss_a16w4_tuned_fmoe.csv (swiglu_mxfp4_bf16_cktile), FlyDSL's by other tunings (aiter ops/flydsl/kernels).
MOE_GEMM = r"re:MoeFlatmm|mfma_moe[12]_|^moe_gemm[12]_\d|gemm[12]_a\d+w\d+_port"

pytestmark = [
    pytest.mark.gpu,
    # ATOM .github/benchmark/models.json, entry gpt-oss-120b.
    pytest.mark.atom_case(
        model="openai/gpt-oss-120b",
        tp=1,
        isl=1024,
        osl=128,
        conc=16,
        server_args=["--kv_cache_dtype", "fp8", "--gpu-memory-utilization", "0.9"],
    ),
]


def test_every_layer_routes_with_topk_softmax(atom_trace: Trace) -> None:
    # ATOM atom/model_ops/topK.py, aiter csrc/kernels/topk_softmax_kernels.cu: 128 experts, 4 of them chosen. ATOM does
    # not take the assembly kernel topksoftmax_4x128x4.
    atom_trace.assert_kernel_called("vllm::moe::topkGatingSoftmax", during="decode", per_step=LAYERS)


def test_each_layer_runs_both_moe_gemms_once(atom_trace: Trace) -> None:
    atom_trace.assert_kernel_called(MOE_GEMM, during="decode", per_step=2 * LAYERS)


# ATOM atom/model_ops/attention_mha.py: aiter's triton unified attention where ATOM_USE_UNIFIED_ATTN=1 (and in older
# ATOM), else aiter's gluon paged decode for the window and its asm paged attention for the whole context.
SLIDING = r"re:^kernel_unified_attention_2d|paged_attention_decode_(sliding_window|v2_gluon)"
FULL = r"re:^kernel_unified_attention_3d|\bpa_|\d+pa_"


def test_sliding_layers_attend_with_one_kernel_each(atom_trace: Trace) -> None:
    # The window of 128 tokens is one partition, so nothing is split.
    atom_trace.assert_kernel_called(SLIDING, during="decode", per_step=SLIDING_LAYERS)


def test_full_layers_split_and_reduce(atom_trace: Trace) -> None:
    atom_trace.assert_kernel_called(FULL, during="decode", per_step=FULL_LAYERS)
    if any(rank.kernels("kernel_unified_attention_3d", during="decode") for rank in atom_trace.ranks.values()):
        # aiter triton unified attention: the split kernel leaves segments, which reduce_segments joins.
        atom_trace.assert_kernel_called("reduce_segments", during="decode", per_step=FULL_LAYERS)


def test_norm_and_padding_stay_fused(atom_trace: Trace) -> None:
    # ATOM layernorm.py fused_add_rmsnorm_pad: two per layer and the final one.
    atom_trace.assert_kernel_called("_fused_add_rmsnorm_pad", during="decode", per_step=2 * LAYERS + 1)


def test_rope_and_cache_write_stay_fused(atom_trace: Trace) -> None:
    # aiter triton _fused_qk_rope_reshape_and_cache_kernel.
    atom_trace.assert_kernel_called("_fused_qk_rope_reshape_and_cache_kernel", during="decode", per_step=LAYERS)


def test_one_gpu_needs_no_all_reduce(atom_trace: Trace) -> None:
    # aiter csrc/include/custom_all_reduce.cuh and RCCL.
    atom_trace.assert_kernel_not_called(
        "*cross_device_reduce_*",
        example="void aiter::cross_device_reduce_2stage<std::bfloat16_t, 8, false>(aiter::RankData*)",
    )
    atom_trace.assert_kernel_not_called("ncclDevKernel_*", example="ncclDevKernel_Generic_1")


def test_prefill_goes_through_the_moe_op(atom_trace: Trace) -> None:
    # ATOM atom/model_ops/moe.py registers aiter::moe_forward; ops show in eager prefill only.
    atom_trace.assert_kernel_called("aiter::moe_forward", during="prefill", layer="op", at_least=LAYERS)
    atom_trace.assert_kernel_called(MOE_GEMM, during="prefill", per_step=2 * LAYERS)


def test_decode_stays_in_the_simulators_own_budget(atom_trace: Trace) -> None:
    # No public step time names this case and a GPU, so the figure is the simulator's own (5.3 ms and headroom).
    if not atom_trace.simulated:
        pytest.skip("no public step time for this case; record a budget for your hardware")
    atom_trace.assert_step_time("decode", p50="6.5 ms")
