"""Which kernels an ATOM-like model runs: names, usual durations and streams, by position in a step.

The names are made up in the style of the libraries that ATOM calls (AITER, Composable Kernel, Tensile, Triton,
RCCL): short assembly names beside templates of several hundred characters, because the length of names decides
how much text a trace holds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["MAIN_STREAM", "SIDE_STREAM", "Kernel", "layer_program", "tail_program"]

MAIN_STREAM, SIDE_STREAM = 3, 5


_ALL_REDUCE = (
    "void aiter::allreduce_fusion_kernel_1stage_launcher<__hip_bfloat16, 8, true, aiter::QuantType::PerToken>"
    "(aiter::AllReduceFusionParams<__hip_bfloat16>, aiter::RankData*, aiter::RankSignals, aiter::Signal*, int, int, "
    "__hip_bfloat16*, __hip_bfloat16 const*, __hip_bfloat16 const*, float)"
)


@dataclass(frozen=True)
class Kernel:
    """One kernel of a step: its name, the ATen or AITER op that launches it when eager, usual ns, stream."""

    name: str
    op: str
    usual_ns: int
    stream: int = MAIN_STREAM


def _ck_gemm(m: int, n: int, k: int) -> str:
    return (
        "void ck::kernel_gemm_xdl_cshuffle_v3_multi_d_blockscale_b_preshuffle<ck::GridwiseGemmMultiD_blockscale_"
        "xdl_cshuffle_v3_b_preshuffle<ck::tensor_layout::gemm::RowMajor, ck::tensor_layout::gemm::ColumnMajor, "
        f"ck::Tuple<>, ck::tensor_layout::gemm::RowMajor, ck::f8_t, ck::f8_t, float, float, {m}, {n}, {k}, 16, 16>, "
        "ck::Sequence<8, 32, 1>, ck::Sequence<1, 0, 2>, ck::Sequence<1, 0, 2>, 2, 16, 16, false, 0, 1, 2, "
        "ck::Sequence<1, 32, 1, 8>, ck::Sequence<8, 8, 1>, (ck::BlockGemmPipelineScheduler)0, "
        "(ck::BlockGemmPipelineVersion)0, ck::f8_t, ck::f8_t, false, false>, true, "
        "(ck::InMemoryDataOperationEnum)0, 1, (ck::TailNumber)2>(ck::GridwiseGemmMultiD_blockscale_xdl_cshuffle_v3"
        "_b_preshuffle::Argument)"
    )


def _ck_moe(stage: int) -> str:
    return (
        f"_ZN7ck_tile6kentryILi1ENS_15FusedMoeGemmStageILi{stage}ENS_8DataTypeIfp8E4m3fnuzEENS_4TileILi32ELi256ELi128"
        "ELi16ELi16ELi32EEENS_8PipelineILb1ELb0ELb1EEENS_12FusedEpilogueINS_9TupleTypeIfffEENS_16element_wise4SiluELb1EEENS_"
        "21MoeSortingPolicyOneShotILi8ELi256EEEEENS_12FusedMoeArgsEEEvT1_.kd"
    )


def _elementwise(functor: str) -> str:
    return (
        "void at::native::vectorized_elementwise_kernel<8, at::native::"
        f"{functor}(at::TensorIteratorBase&)::{{lambda()#3}}::operator()() const::{{lambda(c10::BFloat16)#1}}, "
        "std::array<char*, 2ul> >(int, at::native::CUDAFunctorOnSelf_add<c10::BFloat16>, std::array<char*, 2ul>, "
        "TrivialOffsetCalculator<1, unsigned int>, TrivialOffsetCalculator<1, unsigned int>)"
    )


def _layer(number: int) -> list[Kernel]:
    tile = (16, 32, 64, 128)[number % 4]
    return [
        Kernel(
            "void aiter::add_rmsnorm_quant_kernel<c10::BFloat16, 8, 256, true>(aiter::Args)", "aiter::rmsnorm", 4200
        ),
        Kernel("aiter::dynamic_per_group_scaled_quant_kernel<ck_tile::bf16_t, 32>", "aiter::quant", 2600),
        Kernel(_ck_gemm(tile, 128, 256), "aiter::gemm_a8w8_blockscale", 9100),
        Kernel(_ck_gemm(tile, 64, 256), "aiter::gemm_a8w8_blockscale", 7400),
        Kernel("triton_poi_fused_split_rope_cat_3", "triton_poi_fused_split_rope_cat_3", 2100),
        Kernel(
            "void aiter::concat_and_cache_mla_kernel<__hip_bfloat16, (vllm::Fp8KVCacheDataType)1>", "aiter::cache", 1900
        ),
        Kernel("_ZN5aiter29mla_a8w8_qh16_qseqlen1_gqaratio16E", "aiter::mla_decode_fwd", 31000),
        Kernel(
            "_ZN5aiter32kn_mla_reduce_v1_ps_bf16_dv512_lse0EPKvPvNS_10ReduceArgsE.kd", "aiter::mla_decode_fwd", 3600
        ),
        Kernel(
            "Cijk_Alik_Bljk_BBS_BH_Bias_HA_S_SAV_UserArgs_MT64x64x128_MI16x16x1_SN_LDSB1_GRVWA8_GRVWB8_WG32_8_1",
            "aten::bmm",
            5200,
        ),
        Kernel(_ck_gemm(tile, 256, 128), "aiter::gemm_a8w8_blockscale", 8300),
        Kernel(_ALL_REDUCE, "aiter::all_reduce", 8800),
        Kernel(
            "void aiter::add_rmsnorm_quant_kernel<c10::BFloat16, 8, 256, false>(aiter::Args)", "aiter::rmsnorm", 4300
        ),
        Kernel("bf16gemm_fp32bf16_tn_96x64_splitk_clean", "aiter::router_gemm", 4700),
        Kernel("void aiter::grouped_topk_opt_sort_kernel<float, 256, 8, true>", "aiter::grouped_topk", 5100),
        Kernel(
            "void ck_tile::kentry<2, ck_tile::MoeSortingMultiPhaseKernel_P0_v2<int, float>, int>",
            "aiter::moe_sorting",
            3300,
        ),
        Kernel(_ck_moe(1), "aiter::moe_forward", 38000),
        Kernel(_ck_moe(2), "aiter::moe_forward", 27000),
        Kernel(_elementwise("silu_mul_kernel"), "aten::mul", 2300, SIDE_STREAM),
        Kernel(_ck_gemm(tile, 128, 64), "aiter::gemm_a8w8_blockscale", 7900, SIDE_STREAM),
        Kernel(_elementwise("add_clamp_kernel"), "aten::add", 2200),
        Kernel("triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_0.kd", "triton_red_fused_0", 2500),
        Kernel(_ALL_REDUCE, "aiter::all_reduce", 9000),
    ]


def layer_program(kernels: int, seed: int) -> list[Kernel]:
    """The first `kernels` kernels of as many layers as that takes, with durations that differ by layer."""
    rng = random.Random(seed)
    program: list[Kernel] = []
    layer = 0
    while len(program) < kernels:
        for kernel in _layer(layer):
            usual = max(800, int(kernel.usual_ns * rng.uniform(0.9, 1.1)))
            program.append(Kernel(kernel.name, kernel.op, usual, kernel.stream))
        layer += 1
    return program[:kernels]


def tail_program() -> list[Kernel]:
    """What runs eagerly after the graph of a decode step: logits inside its label, sampling after it."""
    return [
        Kernel("Cijk_Alik_Bljk_BBS_BH_UserArgs_MT256x16x64_MI16x16x1_SN_LDSB0_AFC1", "aten::mm", 61000),
        Kernel("ncclDevKernel_Generic_4(ncclDevKernelArgsStorage<4096ul>)", "aten::_allgather_base_", 24000),
        Kernel("void aiter::mix_sample_outer_exponential_kernel<float, 1024, 4>", "aiter::mixed_sample", 18000),
        Kernel(_elementwise("copy_index_kernel"), "aten::index_put_", 2400),
    ]
