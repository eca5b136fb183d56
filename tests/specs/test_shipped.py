"""The shipped specs: sound, proven absences, and every check fails for a change of its kernel, and alone.

One capture per spec on a cheap case; changes are made to the loaded trace, so that all of them cost milliseconds.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pytest

from pytest_atomtrace import Trace, load_trace
from pytest_atomtrace.cases.specs.spec import Spec, read_spec
from pytest_atomtrace.plugin.yaml_items import _settle
from pytest_atomtrace.trace.data import PHASES
from pytest_atomtrace.trace.names import Pattern
from pytest_atomtrace.verdicts.questions import problem_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_atomtrace.trace.data import RankData, TraceData

SPECS = Path(__file__).parents[2] / "perf_specs"
# Fewer ranks, requests and steps change no count per step.
CHEAPER = {r"tp: [48]": "tp: 2", r"osl: 64": "osl: 40", r"conc: 16": "conc: 4"}
# Runs once a step in every profile, and no check is about it.
BYSTANDER = "_masked_embedding_kernel"

Change: TypeAlias = "Callable[[RankData], RankData]"


def rename(pattern: str, new: str, during: str | None = None, rank: str | None = None) -> Change:
    """Another kernel in the place of those that `pattern` means."""
    meant = Pattern.parse(pattern)

    def change(data: RankData) -> RankData:
        if rank not in (None, data.name):
            return data
        hit = np.array([meant.matches(name) for name in data.names], dtype=bool)[data.name_id]
        if during is not None:
            hit &= data.phase == PHASES.index(during)
        assert hit.any(), f"{pattern} is not called"
        name_id = np.where(hit, len(data.names), data.name_id).astype(data.name_id.dtype)
        return dataclasses.replace(data, names=(*data.names, new), name_id=name_id)

    return change


def swap(one: str, other: str) -> Change:
    """Two kernels in each other's place."""
    first, second = Pattern.parse(one), Pattern.parse(other)

    def change(data: RankData) -> RankData:
        ours = next(name for name in data.names if first.matches(name))
        theirs = next(name for name in data.names if second.matches(name))
        swapped = {ours: theirs, theirs: ours}
        return dataclasses.replace(data, names=tuple(swapped.get(name, name) for name in data.names))

    return change


def lose_op(op: str) -> Change:
    """An op that never runs."""

    def change(data: RankData) -> RankData:
        assert data.op_counts[op]
        return dataclasses.replace(data, op_counts={k: v for k, v in data.op_counts.items() if k != op})

    return change


def extra(new: str) -> Change:
    """One more kernel a decode step, on every rank."""
    return rename(BYSTANDER, new, "decode")


CK = extra("void ck::kernel_moe_mxgemm<ck::GridwiseMoeGemmMX<float>, true>(int)")
LONE_RANK = rename(BYSTANDER, "another_embedding", "decode", "rank_1")
CHANGES: dict[str, dict[str, Change]] = {
    "glm_5_2": {
        "called-gluon_deepgemm_fp8_paged_mqa_logits-decode": rename("_gluon_deepgemm_*", "mqa_logits", "decode"),
        "called-aiter-mla_a-_qh16_qseqlen1-decode": rename("*qseqlen1*", "aiter::mla_a8w8_qh16_qseqlen2_x", "decode"),
        "called-aiter-fuse_qk_rope_concat_and_cache_mla-decode": rename("*cache_mla_*", "rope", "decode"),
        "every-moe-layer-routes-once": rename("*grouped_topk*", "topk_softmax", "decode"),
        "experts-stage-1": rename("mfma_moe1_*", "mfma_moe1_silu_mul_abf16_wfp8_x", "decode"),
        "experts-stage-2": rename("mfma_moe2_*", "mfma_moe2_abf16_wfp8_x", "decode"),
        "experts-in-order": swap("mfma_moe1_*", "mfma_moe2_*"),
        "no-shared-expert-runs-apart": extra("void aiter::act_and_mul_kernel<float, 8>(float*)"),
        "called-aiter-moe_forward-prefill-op": lose_op("aiter::moe_forward"),
        "called-aiter-sparse_attn_indexer-prefill-op": lose_op("aiter::sparse_attn_indexer"),
        "short-prompts-score-nothing": rename(BYSTANDER, "_fp8_mqa_logits_kernel", "prefill"),
        "no-moe-fallback": CK,
        "ranks-decode": LONE_RANK,
    },
    "kimi_k2_7": {
        "called-aiter-mla_a-_qh16_qseqlen1-decode": rename("*qseqlen1*", "aiter::mla_a8w8_qh16_qseqlen2_x", "decode"),
        "called-kn_mla_reduce_v1-decode": rename("kn_mla_reduce_*", "mla_reduce", "decode"),
        "called-aiter-fuse_qk_rope_concat_and_cache_mla-decode": rename("*cache_mla_*", "rope", "decode"),
        "every-moe-layer-routes-once": rename("*grouped_topk*", "topk_softmax", "decode"),
        "called-gemm1_a4w4_port-decode": rename("gemm1_a4w4_*", "gemm1_a16w4_port_x", "decode"),
        "called-gemm2_a4w4_port-decode": rename("gemm2_a4w4_*", "gemm2_a16w4_port_x", "decode"),
        "called-aiter-moe_forward-prefill-op": lose_op("aiter::moe_forward"),
        "experts-stage-1-prefill": rename("mfma_moe1_*", "moe1", "prefill"),
        "no-moe-fallback": CK,
        "ranks-decode": LONE_RANK,
    },
    "kimi_k3": {
        "called-causal_conv1d_update_kernel-decode": rename("_causal_conv1d_update_*", "conv", "decode"),
        "called-fused_sigmoid_gating_delta_rule_update_kernel-decode": rename("fused_sigmoid_*", "delta", "decode"),
        "called-causal_conv1d_fwd_kernel-prefill": rename("_causal_conv1d_fwd_*", "conv", "prefill"),
        "called-gather_kda_state_kernel-prefill": rename("_gather_kda_*", "gather", "prefill"),
        "called-aiter-mla_a-_qh16_qseqlen1-decode": rename("*qseqlen1*", "aiter::mla_a8w8_qh16_qseqlen2_x", "decode"),
        "called-aiter-fuse_qk_rope_concat_and_cache_mla-decode": rename("*cache_mla_*", "rope", "decode"),
        "called-attn_res_fused_kernel-decode": rename("_attn_res_fused_*", "attn_res", "decode"),
        "every-moe-layer-routes-once": rename("*grouped_topk*", "topk_softmax", "decode"),
        "called-gemm1_a16w4-decode": rename("gemm1_a16w4_*", "mfma_moe1_silu_mul_afp8_wfp4_x", "decode"),
        "called-gemm2_a16w4-decode": rename("gemm2_a16w4_*", "mfma_moe2_afp8_wfp4_x", "decode"),
        "called-situ_and_mul_kernel-decode": rename("_situ_and_mul_*", "situ", "decode"),
        "every-all-reduce-is-the-fast-one": rename("*cross_device_reduce*", "ncclDevKernel_Generic_2", "decode"),
        "called-aiter-kda_attention_with_output-prefill-op": lose_op("aiter::kda_attention_with_output"),
        "called-aiter-moe_forward-prefill-op": lose_op("aiter::moe_forward"),
        "no-moe-fallback": CK,
        "ranks-decode": LONE_RANK,
    },
    "llama_3_3_70b": {
        "every-linear-layer-is-an-fp4-gemm": rename("*cshuffle_v3_mx*", "Cijk_Alik_Bljk_BBS", "decode"),
        "paged-attention-once-per-layer": rename("*pa_bf16_*", "unified_attention", "decode"),
        "called-aiter-reshape_and_cache_with_per_token_quant_kernel-decode": rename("*per_token_quant*", "x", "decode"),
        "called-fused_reduce_act_mul_and_dynamic_mxfp4_quant_kernel-decode": rename("*act_mul*", "silu", "decode"),
        "called-fmha_fwd_hd128_bf16_causal-prefill": rename("*fmha_fwd*", "flash_attention", "prefill"),
        "called-aiter-unified_attention_with_output_base-prefill-op": lose_op(
            "aiter::unified_attention_with_output_base"
        ),
        "not_called-cross_device_reduce": extra("void aiter::cross_device_reduce_1stage<int>(int)"),
        "not_called-ncclDevKernel": extra("ncclDevKernel_AllReduce_Sum_bf16_RING_LL"),
        "no-expert-runs": CK,
    },
    "minimax_m3": {
        "called-decode_index_score_topk_partial_kernel-decode": extra("_decode_index_score_topk_partial_kernel"),
        "called-topk_index_merge_kernel-decode": extra("_topk_index_merge_kernel"),
        "called-index_block_score_kernel-prefill": rename("_index_block_score_kernel", "block_score", "prefill"),
        "called-fused_qkv_norm_rope_cache_kernel-decode": rename("_fused_qkv_norm_*", "norm_then_rope", "decode"),
        "every-moe-layer-routes-once": rename("*topk_gating*", "topk_softmax", "decode"),
        "experts-stage-1": rename("mfma_moe1_*", "mfma_moe1_silu_mul_abf16_wfp8_x", "decode"),
        "experts-stage-2": rename("gemm2_a4w4_*", "mfma_moe2_abf16_wfp8_x", "decode"),
        "called-aiter-moe_forward-prefill-op": lose_op("aiter::moe_forward"),
        "not_called-index_block_score_kernel-decode": extra("_index_block_score_kernel"),
        "no-moe-fallback": CK,
        "ranks-decode": LONE_RANK,
    },
    "qwen3_5": {
        "called-causal_conv1d_update_kernel-decode": rename("_causal_conv1d_update_*", "conv", "decode"),
        "called-causal_conv1d_fwd_kernel-prefill": rename("_causal_conv1d_fwd_*", "conv", "prefill"),
        "the-recurrence-runs-once-per-linear-layer": rename("fused_recurrent_*", "recurrence", "decode"),
        "called-chunk_gated_delta_rule_fwd_kernel_h-prefill": rename("chunk_gated_*", "chunks", "prefill"),
        "called-aiter-linear_attention_with_output_base-prefill-op": lose_op(
            "aiter::linear_attention_with_output_base"
        ),
        "called-aiter-unified_attention_with_output_base-prefill-op": lose_op(
            "aiter::unified_attention_with_output_base"
        ),
        "every-layer-routes-once": rename("*topkGatingSoftmax*", "topk_sigmoid", "decode"),
        "called-fmoe_bf16_blockscaleFp8-decode": rename("*fmoe_bf16_*", "fmoe_bf16_pertokenFp8", "decode"),
        "not_called-chunk_gated_delta_rule-decode": extra("chunk_gated_delta_rule_fwd_kernel_h_blockdim64"),
        "no-moe-fallback": CK,
        "ranks-decode": LONE_RANK,
    },
}


def spec_of(name: str) -> Spec:
    return read_spec(SPECS / f"{name}.atom.yaml", judge=problem_of, catalog=lambda: None)


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TraceData]:
    """One simulated capture of each spec on a cheaper case, all in one run of pytest."""
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("shipped")
    for name in CHANGES:
        text = (SPECS / f"{name}.atom.yaml").read_text()
        for old, new in CHEAPER.items():
            text = re.sub(rf"(?m)^  {old}$", f"  {new}", text)
        (folder / f"{name}.atom.yaml").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    argv = [sys.executable, "-m", "pytest", "-q", "--atom-backend=sim", "--atom-full", "-p", "no:cacheprovider"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    found = {}
    for name in CHANGES:
        spec = read_spec(folder / f"{name}.atom.yaml", judge=problem_of, catalog=lambda: None)
        (place,) = (folder / ".atomtrace/latest/captures").glob(f"{spec.cases[0].case.slug}/*")
        found[name] = load_trace(place).data
    return found


def failing(spec: Spec, data: TraceData) -> set[str]:
    names = set()
    for check in spec.checks:
        try:
            _settle(Trace(data), check.assertion)
        except AssertionError:
            names.add(check.name)
    return names


@pytest.mark.parametrize("name", CHANGES)
def test_every_check_has_a_change_and_passes_without_one(captured: dict[str, TraceData], name: str) -> None:
    spec = spec_of(name)
    assert not spec.problems
    assert {check.name for check in spec.checks} == set(CHANGES[name])
    assert failing(spec, captured[name]) == set()


@pytest.mark.parametrize(("name", "check"), [(name, check) for name, table in CHANGES.items() for check in table])
def test_a_change_fails_exactly_its_check(captured: dict[str, TraceData], name: str, check: str) -> None:
    data = captured[name]
    change = CHANGES[name][check]
    changed = dataclasses.replace(data, ranks={rank: change(one) for rank, one in data.ranks.items()})
    assert failing(spec_of(name), changed) == {check}


def test_every_shipped_spec_is_here() -> None:
    assert {path.name.removesuffix(".atom.yaml") for path in SPECS.glob("*.atom.y*ml")} == set(CHANGES)


@pytest.mark.parametrize("name", CHANGES)
def test_absences_are_proven_and_sources_are_named(name: str) -> None:
    spec = spec_of(name)
    for check in spec.checks:
        if check.assertion.method == "assert_kernel_not_called":
            assert "example" in check.assertion.arguments, check.name
    text = (SPECS / f"{name}.atom.yaml").read_text()
    assert "https://huggingface.co/" in text
    assert "config.json" in text
    assert ".github/benchmark/models.json" in text


@pytest.mark.parametrize("name", CHANGES)
def test_no_time_is_invented(name: str) -> None:
    methods = {check.assertion.method for check in spec_of(name).checks}
    assert not methods & {"assert_step_time", "assert_kernel_time", "assert_gpu_busy", "assert_launch_time"}
