"""Cases: identity, names, matrices and refusals."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_atomtrace import Case, ConfigError
from pytest_atomtrace.cases.case import refuse_equal_slugs
from pytest_atomtrace.cases.matrix import advice, expand, field_table

V4 = "deepseek-ai/DeepSeek-V4-Pro"


def test_the_slug_reads_like_the_case() -> None:
    assert Case(V4, tp=8, conc=64).slug == "DeepSeek-V4-Pro-tp8-isl1024-osl128-conc64"
    assert Case(V4, tp=4, dp=2, range_ratio=0.8, conc=1).slug == "DeepSeek-V4-Pro-tp4-dp2-isl1024-osl128-conc1-rr0.8"
    assert Case(V4, dp_attention=True, mark_trace=True, chat_template=True).slug.endswith(
        "-dpa-isl1024-osl128-conc64-chat-mark"
    )


def test_a_path_as_model_is_told_apart_by_a_digest() -> None:
    one, other = Case("/models/a/M"), Case("/models/b/M")
    assert one.slug.startswith("M-")
    assert one.slug != other.slug


def test_the_order_of_env_is_no_identity() -> None:
    one = Case(V4, env={"A": "1", "B": "2"})  # type: ignore[arg-type]
    other = Case(V4, env={"B": "2", "A": "1"})  # type: ignore[arg-type]
    assert one == other
    assert hash(one) == hash(other)
    assert one.server_key == other.server_key


@pytest.mark.parametrize("change", [{"isl": 8}, {"osl": 9}, {"conc": 2}, {"prompts_per_slot": 2}, {"range_ratio": 0.5}])
def test_the_load_does_not_change_the_server(change: dict[str, object]) -> None:
    changed = dataclasses.replace(Case(V4), **change)  # type: ignore[arg-type]
    assert changed.server_key == Case(V4).server_key
    assert changed.slug != Case(V4).slug


@pytest.mark.parametrize(
    "change",
    [
        {"tp": 2},
        {"dp": 2},
        {"server_args": ("--level", "0")},
        {"env": (("A", "1"),)},
        {"mark_trace": True},
        {"load_dummy": True},
        {"dp_attention": True},
    ],
)
def test_what_fixes_a_launch_changes_the_server(change: dict[str, object]) -> None:
    changed = dataclasses.replace(Case(V4), **change)  # type: ignore[arg-type]
    assert changed.server_key != Case(V4).server_key
    assert changed.slug != Case(V4).slug


@pytest.mark.parametrize(("drafts", "tokens"), [(None, 128), ("1", 256), ("3", 256), ("7", 512)])
def test_output_tokens_grow_with_drafts(drafts: str | None, tokens: int) -> None:
    args = ("--method", "mtp", "--num-speculative-tokens", drafts) if drafts else ()
    assert Case(V4, server_args=args).output_tokens == tokens
    assert Case(V4, osl=64, server_args=args).output_tokens == 64


@given(
    st.builds(
        Case,
        model=st.sampled_from([V4, "m", "/p/q"]),
        tp=st.integers(1, 16),
        isl=st.integers(1, 10**6),
        osl=st.none() | st.integers(2, 10**4),
        conc=st.integers(1, 1024),
        range_ratio=st.floats(0.1, 1.0),
        server_args=st.lists(st.sampled_from(["--level", "0", "--enforce-eager"]), max_size=3).map(tuple),
        env=st.dictionaries(st.sampled_from("ABC"), st.sampled_from("12")),
        chat_template=st.none() | st.booleans(),
    )
)
def test_cases_survive_every_way_they_travel(case: Case) -> None:
    assert Case.from_dict(case.as_dict()) == case
    assert pickle.loads(pickle.dumps(case)) == case
    assert set(case.slug) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def test_lists_multiply_in_a_stable_order() -> None:
    cases = expand({"conc": [32, 64], "model": V4, "tp": [4, 8]})
    assert [(c.tp, c.conc) for c in cases] == [(4, 32), (4, 64), (8, 32), (8, 64)]


def test_argument_lists_are_one_value_and_lists_of_them_many() -> None:
    (one,) = expand({"model": "m", "server_args": ["--level", "0"]})
    assert one.server_args == ("--level", "0")
    two = expand({"model": "m", "server_args": [["--level", "0"], ["--level", "3"]], "env": [{}, {"A": "1"}]})
    assert len(two) == 4


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "m", "conk": 1}, "unknown key 'conk' (did you mean 'conc'?)"),
        ({"model": "m", "zzz": 1}, "(known: model, tp, dp"),
        ({}, "model is missing"),
        ({"model": "m", "conc": []}, "conc is an empty list"),
        ({"model": "m", "conc": [1, 1]}, "conc lists 1 twice"),
        ({"model": "m", "env": "A=1"}, "env must be a mapping"),
        ({"model": "m", "server_args": "--level 0"}, "server_args must be a list of strings"),
        ({"model": "m", "tp": True}, "tp must be a whole number of at least 1, got True"),
        ({"model": "m", "tp": "8"}, "tp must be a whole number of at least 1, got '8'"),
        ({"model": ""}, "model must be a name or a path"),
        ({"model": "m", "osl": 1}, "osl must be a whole number of at least 2"),
        ({"model": "m", "range_ratio": 0}, "range_ratio must be above 0"),
        ({"model": "m", "dp_attention": 1}, "dp_attention must be True or False"),
        ({"model": "m", "pp": 2, "dp": 2}, "not supported by ATOM"),
        ({"model": "m", "profiler_more": True, "osl": 1024}, "run out of memory"),
        ({"model": "m", "server_args": ["-tp", "8"]}, "may not hold -tp: write it as tp="),
        ({"model": "m", "server_args": ["--load_dummy"]}, "write it as load_dummy=True"),
        ({"model": "m", "env": {"ATOM_PROFILER_MORE": "1"}}, "write it as profiler_more=True"),
    ],
)
def test_wrong_fields_are_refused_with_what_to_write(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        expand(fields)
    assert words in str(caught.value)


def test_equal_names_of_different_cases_are_refused() -> None:
    refuse_equal_slugs([Case("amd/M"), Case("amd/M")])
    with pytest.raises(ConfigError, match=r"share the name M-tp1.*'amd/M' / 'x/M'"):
        refuse_equal_slugs([Case("amd/M"), Case("x/M")])


def test_advice_names_what_is_seldom_meant() -> None:
    assert advice(Case("m")) == ()
    assert any("prompts_per_slot=4" in note for note in advice(Case("m", prompts_per_slot=4)))
    assert any("osl=16" in note for note in advice(Case("m", osl=16)))


def test_every_field_is_documented() -> None:
    assert [name for name, _, _ in field_table()] == [f.name for f in dataclasses.fields(Case)]
    assert all(doc for _, _, doc in field_table())


def test_too_many_cases_are_refused_before_they_are_made() -> None:
    many = list(range(2, 62))
    with pytest.raises(ConfigError, match=r"makes 216,000 cases, at most 1,000 are allowed.*60 isl x 60 osl x 60 conc"):
        expand({"model": "m", "isl": many, "osl": many, "conc": many})
    with pytest.raises(ConfigError, match=r"conc makes 50,000 cases"):
        expand({"model": "m", "conc": list(range(1, 50_001))})
    assert len(expand({"model": "m", "isl": list(range(1, 101)), "conc": list(range(1, 11))})) == 1000


def test_one_mistake_does_not_hide_the_others_of_a_mark() -> None:
    with pytest.raises(ConfigError) as caught:
        expand({"model": "m", "conc": [], "isl": -3, "osl": [0, 64], "cnc": 3})
    assert [problem.partition(" ")[0] for problem in caught.value.problems] == ["unknown", "conc", "isl", "osl"]


def test_a_sentence_with_a_semicolon_is_one_problem() -> None:
    with pytest.raises(ConfigError) as caught:
        expand({"model": "m", "profiler_more": True, "osl": 1024})
    (problem,) = caught.value.problems
    assert problem.endswith("run out of memory; use osl=32 and a smaller conc")
    assert pickle.loads(pickle.dumps(caught.value)).problems == (problem,)
