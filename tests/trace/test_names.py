"""Base names, patterns that never match by substring, and the families' own examples."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_atomtrace.trace.families import FAMILIES, RULES, Rule, family
from pytest_atomtrace.trace.mangled import read_mangled
from pytest_atomtrace.trace.names import Pattern, base_name, demangled, nearest, short_name

EW = "void at::native::vectorized_elementwise_kernel"
RMSNORM = (
    "_ZN7ck_tile6kentryILi1ENS_12Rmsnorm2dFwdINS_27Rmsnorm2dFwdPipelineOnePassINS_27Rmsnorm2dFwdPipelineProblemIDF16b"
    "DF16bfDF16bDF16bDF16bffNS_19Generic2dBlockShapeINS_8sequenceIJLi1ELi3072EEEENS5_IJLi1ELi128EEEENS5_IJLi1ELi8EEEEEE"
    "NS_18Rmsnorm2dFwdTraitsILb1ELb0ELb0ELb0ELNS_21Rmsnorm2dFusedAddEnumE1ELNS_23Rmsnorm2dFusedQuantEnumE0ELNS_22Rmsnor"
    "m2dSensitiveEnumE0EEEEENS_33Rmsnorm2dFwdPipelineDefaultPolicyEEENS_17Default2DEpilogueINS_24Default2DEpilogueProbl"
    "emIfDF16bLb0ELb1ELb0EEEvEEEEJNSM_5KargsEEEEvDpT1_"
)


@pytest.mark.parametrize(
    ("raw", "base"),
    [
        ("mfma_moe1_afp8_wfp4_bf16_t32", "mfma_moe1_afp8_wfp4_bf16_t32"),
        ("aiter::moe_forward", "aiter::moe_forward"),
        ("_fwd_kernel.kd", "_fwd_kernel"),
        ("fmoe_kernel [clone .kd]", "fmoe_kernel"),
        ("void aiter::topk_gating_kernel_opt<float, 8, true>(float const*, int)", "aiter::topk_gating_kernel_opt"),
        ("void aiter::f<a<(b>c), d>>::g<int>(std::vector<int>)", "aiter::f::g"),
        ("void (anonymous namespace)::store_kvcache<128l>(int)", "(anonymous namespace)::store_kvcache"),
        (f"{EW}<4, at::native::FillFunctor<int>, std::array<char*, 1ul> >(int)", None),
        ("void ns::thing::operator()<int>(int) const", "ns::thing::operator()"),
        ("_ZN5aiter23fmoe_bf16_blockscaleFp8E.kd", "aiter::fmoe_bf16_blockscaleFp8"),
        ("_Z3fooIiEvT_", "foo"),
        ("_ZN12_GLOBAL__N_13barEv", "(anonymous namespace)::bar"),
        ("_ZNK3foo3barEv", "foo::bar"),
        (
            "_ZN7sgl_hip10activation18act_and_mul_kernelI14__hip_bfloat16TnPFT_RKS3_EXadL_Z4siluIS2_ES3_S5_EEEE"
            "vPS3_PS4_i",
            "sgl_hip::activation::act_and_mul_kernel",
        ),
        (RMSNORM, "ck_tile::kentry<ck_tile::Rmsnorm2dFwd>"),
        ("void ck_tile::kentry<1, ck_tile::Rmsnorm2dFwd<X, Y> >(Z)", "ck_tile::kentry<ck_tile::Rmsnorm2dFwd>"),
        ("Memcpy DtoH (Device -> Host)", "Memcpy DtoH (Device -> Host)"),
        ("_ZN", "_ZN"),
        ("_Znonsense", "_Znonsense"),
    ],
)
def test_the_base_name_is_namespace_and_function(raw: str, base: str | None) -> None:
    expected = base or "at::native::vectorized_elementwise_kernel<at::native::FillFunctor>"
    assert base_name(raw) == expected


def test_a_wrapper_is_named_after_what_it_runs() -> None:
    fill = f"{EW}<4, at::native::FillFunctor<int>, std::array<char*, 1ul> >(int)"
    add = f"{EW}<8, at::native::CUDAFunctor_add<c10::BFloat16>, std::array<char*, 3ul> >(int)"
    copy = (
        "void at::native::elementwise_kernel_manual_unroll<128, 4, at::native::gpu_kernel_impl<at::native::"
        "direct_copy_kernel_cuda(at::X&)::{lambda()#3}::operator()() const::{lambda(int)#1}>(int)>(int)"
    )
    assert len({base_name(name) for name in (fill, add, copy)}) == 3
    assert base_name(copy).endswith("gpu_kernel_impl<at::native::direct_copy_kernel_cuda>>")


@pytest.mark.parametrize(
    ("pattern", "raw", "expected"),
    [
        ("moe_forward", "triton_poi_fused_constant_pad_nd_moe_forward_0", False),
        ("moe_forward", "aiter::moe_forward", True),
        ("aiter::moe_forward", "aiter::moe_forward", True),
        ("ter::moe_forward", "aiter::moe_forward", False),
        ("topk_gating_kernel_opt", "void aiter::topk_gating_kernel_opt<float>(int)", True),
        ("topk_gating_kernel", "void aiter::topk_gating_kernel_opt<float>(int)", False),
        ("aiter::topk_gating_*", "void aiter::topk_gating_kernel_opt<float>(int)", True),
        ("topk_gating_*", "void aiter::topk_gating_kernel_opt<float>(int)", True),
        ("gating_*", "void aiter::topk_gating_kernel_opt<float>(int)", False),
        ("mfma_moe?_*", "mfma_moe1_afp8", True),
        ("re:blockscaleFp8.*g1u1", "_ZN5aiter28fmoe_bf16_blockscaleFp8_g1u1E", True),
        ("fmoe_bf16_blockscaleFp8_g1u1", "_ZN5aiter28fmoe_bf16_blockscaleFp8_g1u1E", True),
        ("kentry<Rmsnorm2dFwd>", RMSNORM, True),
        ("kentry", RMSNORM, False),
        ("ck_tile::kentry<*Rmsnorm2d*>", RMSNORM, True),
        ("vectorized_elementwise_kernel<*>", f"{EW}<4, at::native::FillFunctor<int>, X>(int)", True),
        ("ns::f[1]*", "ns::f[1]x", True),
    ],
)
def test_a_pattern_matches_whole_names_only(pattern: str, raw: str, expected: bool) -> None:
    assert Pattern.parse(pattern).matches(raw) is expected


def test_a_broken_pattern_is_refused_with_its_reason() -> None:
    with pytest.raises(ValueError, match="no regular expression"):
        Pattern.parse("re:(")
    with pytest.raises(ValueError, match="empty"):
        Pattern.parse("  ")
    assert [Pattern.parse(text).kind for text in ("a", "a*", "re:a")] == ["plain", "glob", "regex"]


def test_the_nearest_names_come_first() -> None:
    names = ["aten::mm", "aiter::moe_forward", "triton_poi_fused_moe_forward_0", "mfma_moe1_afp8"]
    assert nearest("moe_forwrd", names)[0] == "aiter::moe_forward"
    assert set(nearest("moe_forward", names)[:2]) == {"aiter::moe_forward", "triton_poi_fused_moe_forward_0"}
    assert nearest("zzz", names) == []


def test_names_for_tables_are_short_and_keep_the_tile() -> None:
    tensile = "Cijk_Alik_Bljk_BBS_BH_Bias_HA_S_SAV_UserArgs_MT32x32x256_MI16x16x1_SN_LDSB1"
    assert short_name(tensile) == "Cijk_Alik_Bljk_BBS MT32x32x256 MI16x16x1"
    assert len(short_name("a::" + "b" * 500, 40)) == 40
    assert len(short_name("abcdefghij", 5)) == 5


@given(st.text(alphabet="abcN_Z0123456789EISLJKDFX<>(){}:, *&-", max_size=80), st.integers(1, 90))
@settings(max_examples=400, deadline=None)
def test_any_name_has_a_base_a_family_and_a_short_form(text: str, width: int) -> None:
    for name in (text, f"_ZN{text}", f"_Z{text}", f"void {text}"):
        assert isinstance(base_name(name), str)
        assert isinstance(demangled(name), str)
        assert family(name) in FAMILIES
        assert len(short_name(name, width)) <= width
        read_mangled(name)
        assert Pattern("x", "plain").matches(name) == ("x" in (name, base_name(name)))


@given(st.lists(st.text("abcxyz", min_size=1, max_size=6), min_size=1, max_size=4))
def test_a_mangled_path_is_read_back(parts: list[str]) -> None:
    symbol = "_ZN" + "".join(f"{len(part)}{part}" for part in parts) + "IDF16bLi3EEEvT_"
    assert base_name(symbol) == "::".join(parts)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.family)
def test_a_family_knows_its_own_examples_and_no_others(rule: Rule) -> None:
    assert {name: family(name) for name in rule.yes} == dict.fromkeys(rule.yes, rule.family)
    assert [name for name in rule.no if family(name) == rule.family] == []


def test_a_kernel_that_no_rule_knows_is_unclassified() -> None:
    assert family("some_new_kernel") == "unclassified"
