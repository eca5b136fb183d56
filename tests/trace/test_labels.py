"""The label grammar over all generations of ATOM, vLLM and SGLang."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_atomtrace.trace.labels import KINDS, Label, parse_label


def _label(text: str) -> Label:
    label = parse_label(text)
    assert label is not None, text
    return label


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("prefill[bs=2 tok=128 ctx=[64, 64]]", {"kind": "prefill", "bs": 2, "tok": 128, "ctx": (64, 64)}),
        ("prefill[bs=1 tok=64 ctx=64]", {"kind": "prefill", "ctx": (64,), "query_len": 64}),
        ("decode[bs=117/128 tok=117 d=117]", {"kind": "decode", "bs": 117, "graph_bs": 128, "decodes": 117}),
        ("decode[bs=4 tok=16 d=4 spec=3]", {"graph_bs": 4, "spec": 3, "query_len": 4}),
        ("decode[bs=8 tok=9 p=1 d=7]", {"prefills": 1, "decodes": 7, "query_len": None}),
        ("decode[bs=4 tok=4 d=4 tbo=1]", {"tbo": True}),
        ("decode[bs=4]", {"bs": 4, "tok": None, "query_len": None}),
        ("dummy_decode[bs=1/4 tok=1 d=1]", {"kind": "dummy_decode", "graph_bs": 4}),
        ("dummy_prefill[bs=1 tok=4 ctx=4]", {"kind": "dummy_prefill"}),
        (
            "eager_decode[bs=600 tok=600 ctx=[1025, 1025, 1026]...+597]",
            {"kind": "eager_decode", "ctx": (1025, 1025, 1026), "extra": (("ctx_more", "597"),)},
        ),
        ("dummy_eager_decode[bs=1 tok=1 ctx=1]", {"kind": "dummy_eager_decode"}),
        (
            "prefill[bs=1 tok=64 ctx=64 sqsq=4096 sqsk=4096 sk=64]",
            {"extra": (("sqsq", "4096"), ("sqsk", "4096"), ("sk", "64"))},
        ),
        ("draft[0/3 bs=64]", {"kind": "draft", "draft_index": 0, "draft_count": 3, "bs": 64}),
        ("draft[11/12 bs=64]", {"draft_index": 11, "draft_count": 12}),
        ("dspark[bs=4 T=7]", {"kind": "dspark", "bs": 4, "extra": (("T", "7"),)}),
        ("dspark_ctx_kv[bs=4 tok=28]", {"kind": "dspark_ctx_kv", "tok": 28}),
        ("dspark_sched[bs=4]", {"kind": "dspark_sched"}),
        ("decode[bs=4 tok=4 d=4 future=abc]", {"extra": (("future", "abc"),)}),
        ("prefill_bs_2_ctxlens_[64, 65]", {"kind": "prefill", "bs": 2, "ctx": (64, 65)}),
        ("decode_step_bs_32", {"kind": "decode", "bs": 32, "graph_bs": 32}),
        (
            "execute_32_context_0(sq0sk0sqsq0sqsk0)_generation_32(sq32sk55086sqsq32sqsk55086)",
            {"kind": "decode", "bs": 32, "tok": 32, "query_len": 1, "style": "execute"},
        ),
        (
            "execute_15360_context_15(sq15360sk15360)_generation_0(sq0sk0)",
            {"kind": "prefill", "bs": 15, "tok": 15360, "prefills": 15},
        ),
        ("execute_40_context_1(sq8)_generation_32(sq32)", {"kind": "prefill", "prefills": 1, "decodes": 32}),
        ("step[DECODE bs=32]", {"kind": "decode", "bs": 32, "query_len": 1, "style": "step"}),
        ("step[EXTEND bs=15 toks=15360]", {"kind": "prefill", "tok": 15360}),
        ("step[TARGET_VERIFY bs=8]", {"kind": "decode", "tok": None}),
    ],
)
def test_a_label_is_read(text: str, facts: dict[str, object]) -> None:
    label = _label(text)
    assert {name: getattr(label, name) for name in facts} == facts
    assert label.text == text


@pytest.mark.parametrize(
    "text",
    [
        "aten::mm",
        "decode",
        "decode[]",
        "decode[tok=4]",
        "decode[bs=x]",
        "decode[bs=4/]extra",
        "redecode[bs=4 tok=4]",
        "draft[bs=4]",
        "draft[a/b bs=4]",
        "step[NEW_MODE bs=4]",
        "execute_model",
        "ProfilerStep#6",
        "capture_graph_bs_4",
        "prefill_bs_x_ctxlens_[1]",
        "decode[bs=²]",
        "decode[bs=" + "9" * 5000 + "]",
    ],
)
def test_what_is_no_step_label_stays_an_annotation(text: str) -> None:
    assert parse_label(text) is None


@given(
    kind=st.sampled_from([k for k in KINDS if "decode" in k or "prefill" in k]),
    bs=st.integers(1, 4096),
    pad=st.integers(0, 512),
    query=st.integers(1, 8),
    spec=st.integers(0, 7),
    tbo=st.booleans(),
)
@settings(max_examples=200)
def test_what_atom_writes_is_what_is_read(kind: str, bs: int, pad: int, query: int, spec: int, tbo: bool) -> None:
    size = f"{bs}/{bs + pad}" if pad else f"{bs}"
    text = f"{kind}[bs={size} tok={bs * query} d={bs}{f' spec={spec}' if spec else ''}{' tbo=1' if tbo else ''}]"
    label = _label(text)
    assert (label.kind, label.bs, label.graph_bs, label.query_len) == (kind, bs, bs + pad, query)
    assert (label.spec, label.tbo, label.decodes) == (spec, tbo, bs)


@given(st.text(max_size=60))
@settings(max_examples=300)
def test_any_text_is_read_without_an_error(text: str) -> None:
    for wrapped in (text, f"decode[{text}]", f"draft[{text}]", f"step[{text}]"):
        label = parse_label(wrapped)
        assert label is None or label.kind in KINDS
