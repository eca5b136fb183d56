"""Families of kernels: one table of rules, each with names that it must and must not match.

Rules are tried in order on the base name; the first match wins. Names are from AITER and ATOM sources and
from public MI300X traces. What no rule knows is `unclassified`, and its share of GPU time is shown: a rule
that is missing must not look like a kernel that is missing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from pytest_atomtrace.trace.names import base_name

__all__ = ["FAMILIES", "RULES", "Rule", "family"]


@dataclass(frozen=True)
class Rule:
    """Base names that `pattern` finds belong to `family`; `yes` and `no` are its examples, run as tests."""

    family: str
    pattern: str
    yes: tuple[str, ...]
    no: tuple[str, ...] = ()


_EW = "void at::native::vectorized_elementwise_kernel"
_REDUCE = "void at::native::reduce_kernel<512, 1, at::native::ReduceOp"

RULES: tuple[Rule, ...] = (
    Rule(
        "triton_fused",
        r"^triton_(?:poi|red|per|tem|for|unk|mm)_?",
        ("triton_poi_fused_constant_pad_nd_moe_forward_0", "triton_red_fused_add_mean_mul_pow_rsqrt_0"),
        ("create_flashinfer_kv_indices_triton", "_paged_decode_fused_kernel"),
    ),
    Rule(
        "rccl",
        r"^(?:nccl|rccl|msccl)",
        ("ncclDevKernel_Generic_1(ncclDevKernelArgsStorage<4096ul>)", "ncclDevKernel_AllReduce_Sum_bf16_RING_LL"),
        ("void aiter::cross_device_reduce_1stage<__hip_bfloat16, 8>(aiter::RankData*)",),
    ),
    Rule(
        "allreduce",
        r"cross_device_reduce|allreduce_fusion|all_?reduce|reduce_scatter|all_?gather|local_device_load_rmsnorm"
        r"|quick_reduce|allreduce_(?:one|two)shot|qr_",
        (
            "void aiter::cross_device_reduce_2stage<__hip_bfloat16, 8>(aiter::RankData*, int)",
            "void aiter::allreduce_fusion_kernel_1stage<__hip_bfloat16, 8, 7168>(aiter::Params)",
            "void aiter::local_device_load_rmsnorm_naive<__hip_bfloat16>(int)",
            "void aiter::reduce_scatter_cross_device_store<__hip_bfloat16, 8>(int)",
        ),
        ("reduce_segments", "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, X> >(X)"),
    ),
    Rule(
        "moe_routing",
        r"topk_?[Gg]ating|topk_softplus|topk_?softmax|topk_sigmoid|(?:biased_)?grouped_topk|moe_fused_gate|hash_topk"
        r"|[Mm]oe_?[Ss]orting|(?:flydsl|opus)\w*sorting|_topk_forward|bitmatrix|combined_routing|expert_data|moe_align|routing_compute",
        (
            "void aiter::topk_gating_kernel_opt<float, 8, 256, true>(float const*, int)",
            "void aiter::topk_softplus_kernel_opt<float, 8>(float const*)",
            "void aiter::grouped_topk_opt_sort_kernel<float, 8>(float*)",
            "_ZN7ck_tile6kentryILi1ENS_18MoeSortingKernelP0INS_18MoeSortingProblemIiEEEEEEvT_",
            "opus_moe_sorting_entry",
            "_topk_forward",
            "_combined_routing_compute",
            "_sum_bitmatrix_rows",
            "_hash_topk_kernel",
            "_ZN5aiter19topksoftmax_4x128x4E",
            "void vllm::moe::topkGatingSoftmax<__hip_bfloat16, 8, 512, 2, 16>(int)",
        ),
        ("flydsl_moe1_afp8_wfp4_bf16_t32x128x256_w4_gui_fp8", "void aiter::top_k_per_row_decode<float>(int)"),
    ),
    Rule(
        "moe_gemm",
        r"mfma_moe[12]|gemm[12]_a\d+w\d+\w*_port|flydsl_(?:mx)?moe|opus_moe(?:[12]|_stage)|fmoe|moe_ck2stages|moe_mxgemm|moe_gemm|_matmul_ogs|matmul_scatter|moe_cktile"
        r"|cktile_moe|fused_moe_kernel|MoeFlatmm|kernel_moe_|mxfp4_bf16_cktile",
        (
            "flydsl_moe1_afp8_wfp4_bf16_t32x128x256_w4_gui_fp8",
            "flydsl_mxmoe_g1_a4w4_t32",
            "opus_moe2_afp8_wfp4_bf16",
            "mfma_moe1_silu_mul_afp8_wfp4_fp8_t32x128x256_pm1_fp8q_sort_async_gui_v33",
            "moe_gemm2_0",
            "gemm1_a4w4_port_h7168_i512_ne384_bm16_iq_sep",
            "void opus_moe_stage2_a8w4_decode_kernel_gfx950<Shape<32> >(int)",
            "fmoe_bf16_blockscaleFp8_g1u1_vs_silu_1tg_ps_32x256",
            "_ZN5aiter50fmoe_bf16_blockscaleFp8_g1u1_vs_silu_1tg_ps_32x256E",
            "void ck::kernel_moe_mxgemm_2lds<ck::GridwiseMoeGemmMX<float>, true>(int)",
            "_matmul_ogs_NNT_bf16xbf16xmxfp4_16x128x256x1_swiglu",
            "_finalize_matmul_scatter_bf16",
        ),
        ("triton_poi_fused_constant_pad_nd_moe_forward_0", "opus_moe_sorting_entry"),
    ),
    Rule(
        "kv_cache",
        r"reshape_and_cache|store_kv|concat_and_cache|kv_indices|kv_cache|_swa_write|compressor_states|page_table"
        r"|decode_indices|prefill_indices|translate_pack|quant_and_cache|block_convert",
        (
            "void vllm::reshape_and_cache_flash_kernel<__hip_bfloat16>(int)",
            "void (anonymous namespace)::store_kvcache<128l, true>(int)",
            "fuse_qk_rope_concat_and_cache_mla_kernel",
            "create_flashinfer_kv_indices_triton",
            "_v4_paged_decode_indices_kernel",
            "_swa_write_kernel",
            "_update_compressor_states_kernel",
        ),
        ("kernel_unified_attention_2d", "_paged_decode_fused_kernel"),
    ),
    Rule(
        "indexer",
        r"indexer|mqa_logits|top_k_per_row|radix_topk|index_score|_topk_index",
        (
            "void aiter::top_k_per_row_decode<float>(int)",
            "_gluon_deepgemm_fp8_paged_mqa_logits",
            "_fp8_mqa_logits_kernel",
        ),
        ("void at::native::(anonymous namespace)::indexSelectLargeIndex<c10::BFloat16, long>(int)",),
    ),
    Rule(
        "attention",
        r"attention|attn|fmha|_?mla_|flash|paged_decode|pa_fwd|pa_persistent|pa_decode|pa_bf16|reduce_segments|sparse_attn"
        r"|_fwd_kernel_stage2|gated_delta_rule|causal_conv1d|gdn_gating|gqa_sparse|kda_|chunk_(?:kda|gated|delta|fwd)"
        r"|FmhaFwd|FmhaBatchPrefill|compress_attn",
        (
            "kernel_unified_attention_2d",
            "reduce_segments",
            "attn_fwd",
            "_paged_decode_fused_kernel",
            "mla_a8w8_qh16_qseqlen4_gqaratio16_ps",
            "void aiter::kn_mla_reduce_v1<float>(int)",
            "_ZN5aiter32pa_bf16_pertokenFp8_gqa16_2tg_4wE",
            "void paged_attention_ll4mi_QKV_mfma16_kernel<__hip_bfloat16>(int)",
            "fmha_fwd_hd128_bf16_causal",
            "fused_recurrent_gated_delta_rule_fwd_kernel",
        ),
        ("void vllm::reshape_and_cache_flash_kernel<__hip_bfloat16>(int)", "Cijk_Alik_Bljk_BBS_BH"),
    ),
    Rule(
        "sampling",
        r"sampl|argmax|ArgMax|exponential|rejection|multinomial|greedy|top_p|topk_topp|gumbel|gatherTopK",
        (
            "void aiter::mix_sample_outer_exponential_kernel<float>(int)",
            "rejection_greedy_sample_kernel",
            "_lm_head_argmax_pack_kernel",
            f"{_REDUCE}<float, at::native::ArgMaxOps<float>, int> >(X)",
        ),
        (f"{_EW}<4, at::native::FillFunctor<int>, std::array<char*, 1ul> >(int)",),
    ),
    Rule(
        "rope",
        r"rope|rotary",
        ("void vllm::rotary_embedding_kernel<c10::BFloat16, true>(long const*)", "_inverse_rope_gptj_kernel"),
        ("fuse_qk_rope_concat_and_cache_mla_kernel",),
    ),
    Rule(
        "norm",
        r"rms_?norm|layer_?norm|Rmsnorm|batch_norm|BatchNorm|group_norm|mhc_",
        (
            "void aiter::add_rmsnorm_quant_kernel<__hip_bfloat16, __hip_bfloat16, 256, 16>(int)",
            "_ZN7ck_tile6kentryILi1ENS_12Rmsnorm2dFwdINS_4PipeEEEEEvT_",
            "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<c10::BFloat16, float>(int)",
        ),
        ("void aiter::local_device_load_rmsnorm_naive<__hip_bfloat16>(int)",),
    ),
    Rule(
        "gemm",
        r"^(?:Custom_)?Cijk_|gemm|^igemm|_gemv|wvSplitK|wv_splitk|LLGemm|skinny|Flatmm|matmul|splitk_reduce|PostGSU",
        (
            "Cijk_Alik_Bljk_BBS_BH_Bias_HA_S_SAV_UserArgs_MT32x32x256_MI16x16x1",
            "bf16gemm_fp32bf16_tn_96x64_splitk_clean",
            "f4gemm_bf16_per1x32Fp4_BpreShuffle_128x512",
            "void ck::kernel_gemm_xdl_cshuffle_v3<ck::GridwiseGemm<float>, true>(int)",
            "wvSplitK_hf_sml_",
        ),
        ("flydsl_moe1_afp8_wfp4_bf16_t32x128x256_w4_gui_fp8",),
    ),
    Rule(
        "quant",
        r"quant|scaled_fp8|mxfp4|per_token|per_group",
        ("void aiter::dynamic_per_group_scaled_quant_kernel<__hip_bfloat16>(int)", "_dynamic_mxfp4_quant_kernel"),
        ("void aiter::add_rmsnorm_quant_kernel<__hip_bfloat16>(int)",),
    ),
    Rule(
        "activation",
        r"act_and_mul|situ_and_mul|silu|gelu|swiglu|SiLU|GeluCUDA",
        ("void aiter::act_and_mul_kernel<__hip_bfloat16>(int)", "void vllm::silu_and_mul_kernel<float>(int)"),
        ("_matmul_ogs_NNT_bf16xbf16xmxfp4_16x128x256x1_swiglu",),
    ),
    Rule(
        "copy",
        r"__amd_rocclr_|[Cc]opyBuffer|fillBuffer|copy_kernel|CatArray|[Mm]emcpy|[Mm]emset|FillFunctor|batched_transpose"
        r"|transpose_kernel",
        (
            "__amd_rocclr_copyBuffer",
            "__amd_rocclr_fillBufferAligned",
            f"{_EW}<4, at::native::FillFunctor<int>, std::array<char*, 1ul> >(int)",
            f"{_EW}<4, at::native::bfloat16_copy_kernel_cuda(at::X&)::{{lambda(float)#1}}, X>(int)",
        ),
        (f"{_EW}<8, at::native::CUDAFunctor_add<c10::BFloat16>, std::array<char*, 3ul> >(int)",),
    ),
    Rule(
        "embedding",
        r"embedding|indexSelect|vectorized_gather|index_select|deferred_decode_ids",
        ("_masked_embedding_kernel", "void at::native::vectorized_gather_kernel<16, long>(char*, char*)"),
        ("void vllm::rotary_embedding_kernel<c10::BFloat16, true>(long const*)",),
    ),
    Rule(
        "elementwise",
        r"elementwise_kernel|reduce_kernel|multi_tensor_apply|index_put|index_kernel|scatter_gather|trampoline_kernel"
        r"|SubTensorOp|softmax|arange|cumsum|sort|scan",
        (
            f"{_EW}<8, at::native::CUDAFunctor_add<c10::BFloat16>, std::array<char*, 3ul> >(int)",
            f"{_REDUCE}<float, at::native::MeanOps<float>, int> >(X)",
        ),
        ("_paged_decode_fused_kernel",),
    ),
)

FAMILIES = (*dict.fromkeys(rule.family for rule in RULES), "unclassified")

_COMPILED = tuple((rule.family, re.compile(rule.pattern)) for rule in RULES)


@lru_cache(maxsize=65536)
def family(raw: str) -> str:
    """Family of a kernel by its raw name; `unclassified` if no rule knows it."""
    base = base_name(raw)
    for name, pattern in _COMPILED:
        if pattern.search(base):
            return name
    return "unclassified"
