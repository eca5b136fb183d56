"""The grammar of specs: what is accepted, what is refused with which words, and that it is the engine's own."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from typing import TYPE_CHECKING

import msgspec
import pytest

from pytest_atomtrace import Case, Trace
from pytest_atomtrace.cases.specs import grammar, words
from pytest_atomtrace.cases.specs.casefields import CaseFields
from pytest_atomtrace.cases.specs.grammar import SECTIONS
from pytest_atomtrace.cases.specs.words import id_safe
from pytest_atomtrace.trace.data import PHASES
from pytest_atomtrace.trace.labels import KINDS
from pytest_atomtrace.verdicts.measure import METRICS
from pytest_atomtrace.verdicts.no_regression import KNOWN_METRICS
from pytest_atomtrace.verdicts.question import LAYERS
from pytest_atomtrace.verdicts.times import PER_KTOK, STATISTICS
from pytest_atomtrace.verdicts.view import COMBINED
from pytest_atomtrace.verdicts.window_figures import FAMILY_PREFIX
from tests.specs.reading import CASE, located, read

if TYPE_CHECKING:
    from pathlib import Path

EVERYTHING = """
defaults: {isl: 64, osl: 40}
case: {model: m, tp: 2, conc: [4, 8], env: {A: 1}, server_args: [--level, 0]}
marks: [slow]
kernels:
  - called: aiter::moe_forward
  - called: mfma_moe1_*
    during: decode
    per_step: 4
    ranks: [rank_0, rank_1]
    marks: [extra]
  - not_called: "*fallback*"
    example: a_fallback_b
    xfail: known since the last change
  - order: [attention_kernel, "mfma_moe1_*"]
    during: decode
    skip: not on this stack
  - time: family:moe_gemm
    per_step: 1.2 ms
    share: 30 %
steps:
  decode:
    - {p50: 9.5 ms, p99: 12 ms}
    - {mean: 9 ms, metric: iteration, bs: 4}
  prefill: {mean: 30 ms, metric: prefill_per_ktok}
busy: {decode: {at_least: 90 %}}
gaps: {decode: {longer_than: 100 us, at_most: 5}}
launch: {mean: 150 us}
ranks: {decode: {counts: true, skew: 5 %}}
bench:
  tpot: 12 ms
  ttft: {p50: 800 ms, p99: 2 s}
  throughput: 1500 tok/s
  completed: 100 %
  acceptance: 2.8 tok/fwd
regression:
  - {tolerance: 5%}
  - {metrics: [counts, decode.family.moe_gemm]}
tuned: true
"""


def test_every_part_of_the_grammar_becomes_items(tmp_path: Path) -> None:
    spec = read(tmp_path, EVERYTHING)
    assert located(spec) == []
    assert [one.case.conc for one in spec.cases] == [4, 8]
    assert spec.cases[0].case.server_args == ("--level", "0")
    assert spec.cases[0].case.env == (("A", "1"),)
    assert [check.name for check in spec.checks] == [
        "called-aiter-moe_forward",
        "called-mfma_moe1-decode-rank_0-rank_1",
        "not_called-fallback",
        "order-attention_kernel-mfma_moe1-decode",
        "time-family_moe_gemm-per_step",
        "time-family_moe_gemm-share",
        "steps-decode-p50",
        "steps-decode-p99",
        "steps-decode-iteration-bs4-mean",
        "steps-prefill-prefill_per_ktok-mean",
        "busy-decode",
        "gaps-decode",
        "launch-hipGraphLaunch",
        "ranks-decode",
        "bench-ttft-p50",
        "bench-ttft-p99",
        "bench-tpot",
        "bench-throughput",
        "bench-completed",
        "bench-acceptance",
        "regression",
        "regression-counts-decode_family_moe_gemm",
        "tuned",
    ]
    by_name = {check.name: check for check in spec.checks}
    assert by_name["steps-decode-p50"].assertion.arguments == {"p50": "9.5 ms"}
    assert by_name["not_called-fallback"].xfail == "known since the last change"
    assert by_name["order-attention_kernel-mfma_moe1-decode"].skip == "not on this stack"
    moe = by_name["called-mfma_moe1-decode-rank_0-rank_1"]
    assert (moe.first_line, moe.last_line, [mark.name for mark in moe.marks]) == (7, 11, ["extra"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "1:1: is empty"),
        ("- a\n", "1:1: expected a mapping with a case and checks, got a list"),
        ("kernels: [{called: a}]\n", "1:1: names no case; write one of case, cases and from_catalog"),
        (CASE, "1:1: asserts nothing: add one of kernels, steps"),
        (CASE + "cases: [{model: n}]\nkernels: [{called: a}]\n", "1:1: has case and cases; write one of"),
        ("case: [{model: m}]\nkernels: [{called: a}]\n", "1:7: case: expected a mapping, got a list; several"),
        ("cases: []\nkernels: [{called: a}]\n", "1:8: cases: the list is empty"),
        ("cases: {model: m}\nkernels: [{called: a}]\n", "1:8: cases: expected a list of cases, got a mapping"),
        ("cases: [{model: m}, {model: m}]\nranks: {decode: {counts: true}}\n", "cases: the case m-tp1-isl1024"),
        ("cases: [{model: a/m}, {model: b/m}]\nranks: {decode: {counts: true}}\n", "two different cases share"),
        ("case:\nkernels: [{called: a}]\n", "1:6: case: expected a mapping, got nothing"),
        ("case: {tp: 2}\nkernels: [{called: a}]\n", "1:7: case: model is missing"),
        ("case: {model: m, cnc: 3}\nkernels: [{called: a}]\n", "1:18: case: unknown key 'cnc' (did you mean 'conc'?)"),
        ("case: {model: m, tp: eight}\nkernels: [{called: a}]\n", "1:22: case.tp: expected a whole number"),
        (
            "case: {model: m, tp: '8'}\nkernels: [{called: a}]\n",
            "expected a whole number or a list of them, got the text '8'",
        ),
        ("case: {model: m, tp: 0}\nkernels: [{called: a}]\n", "1:22: case.tp: tp must be a whole number of at least 1"),
        ("case: {model: m, conc: [8, 8]}\nkernels: [{called: a}]\n", "1:24: case.conc: conc lists 8 twice"),
        ("case: {model: m, env: {A: yes}}\nkernels: [{called: a}]\n", "1:27: case.env.A: expected text"),
        (
            "case: {model: m, server_args: [-tp, 8]}\nranks: {decode: {counts: true}}\n",
            "may not hold -tp: write it as tp=",
        ),
        (CASE + "kernel: [{called: a}]\n", "2:1: unknown key 'kernel' (did you mean 'kernels'?)"),
        (CASE + "kernels: {called: a}\n", "2:10: kernels: expected a list of checks, got a mapping"),
        (CASE + "kernels: []\n", "2:10: kernels: the list is empty"),
        (
            CASE + "kernels: [called]\n",
            "2:11: kernels[0]: expected a check such as called: NAME, got the text 'called'",
        ),
        (CASE + "kernels: [{caled: a}]\n", "kernels[0]: is no check: unknown key 'caled' (did you mean 'called'?)"),
        (CASE + "kernels: [{during: decode}]\n", "is no check: has none of called, not_called, order, time"),
        (CASE + "kernels: [{called: a, not_called: b}]\n", "has called and not_called; each is an entry of its own"),
        (CASE + "kernels: [{called: ''}]\n", "2:20: kernels[0].called: the text is empty"),
        (
            CASE + "kernels: [{called: 5}]\n",
            'kernels[0].called: expected text, got the number 5; quote it to make it text: "5"',
        ),
        (CASE + "kernels: [{called: no}]\n", "got the boolean no; quote it to make it text"),
        (CASE + "kernels:\n  - called: re:(\n", "kernels[0].called: 're:(' is no regular expression"),
        (
            CASE + "kernels: [{called: a, during: decod}]\n",
            "kernels[0].during: 'decod' is not allowed here (did you mean 'decode'?)",
        ),
        (CASE + "kernels: [{called: a, per_step: 3}]\n", "kernels[0].per_step: per_step needs a phase"),
        (CASE + "kernels: [{called: a, at_least: -1}]\n", "expected a whole number of at least 0, got -1"),
        (CASE + "kernels: [{called: a, exactly: 1.5}]\n", "kernels[0].exactly: expected a whole number of at least 0"),
        (CASE + "kernels: [{called: a, during: decode, exactly: 1, per_step: 1}]\n", "exclude each other"),
        (
            CASE + "kernels: [{not_called: a*, example: b}]\n",
            "2:37: kernels[0].example: the pattern 'a*' does not match",
        ),
        (CASE + "kernels: [{order: [a]}]\n", "kernels[0].order: expected at least 2 values, got 1"),
        (CASE + "kernels: [{order: a}]\n", "kernels[0].order: expected a list of them, got the text 'a'"),
        (CASE + "kernels: [{time: a}]\n", "kernels[0]: asserts nothing: give a budget (time, during, per_step, share)"),
        (CASE + "kernels: [{time: a, per_step: 3}]\n", "'3' is not a duration"),
        (
            CASE + "kernels: [{time: family:moe_gem, share: 3 %}]\n",
            "kernels[0].time: there is no family 'moe_gem' (did you mean 'moe_gemm'?)",
        ),
        (CASE + "kernels: [{called: a}, {called: a}]\n", "2:24: kernels[1]: the same check stands in line 2"),
        (CASE + "kernels: [{called: a, name: x}, {called: b, name: x}]\n", "kernels[1].name: the name 'x' is taken"),
        (CASE + "kernels: [{called: a, skip: ''}]\n", "kernels[0].skip: the text is empty"),
        (CASE + "kernels: [{called: a, xfail: true}]\n", "kernels[0].xfail: expected text"),
        (CASE + "steps: {decod: {p50: 1 ms}}\n", "2:9: steps: 'decod' is no kind of step (did you mean 'decode'?)"),
        (CASE + "steps: {decode: {p50: 9.5}}\n", 'write "9.5 ms" or "9.5 us"'),
        (CASE + "steps: {decode: {p5: 9.5 ms}}\n", "2:18: steps.decode: unknown key 'p5' (did you mean 'p50'?)"),
        (CASE + "steps: {decode: {metric: gpu_busy}}\n", "steps.decode: asserts nothing: give a budget (p50, p90"),
        (CASE + "steps: {decode: {p50: 1 ms, metric: busy}}\n", "steps.decode.metric: 'busy' is not allowed here"),
        (
            CASE + "steps: {decode: {mean: 1 ms, metric: prefill_per_ktok}}\n",
            "is one figure a window: a mean of prefill",
        ),
        (CASE + "steps: [decode]\n", "2:8: steps: expected a mapping by kind of step, got a list"),
        (CASE + "steps:\n", "2:7: steps: expected a mapping by kind of step, got nothing"),
        (CASE + "busy: {decode: {at_least: 0.9}}\n", "busy.decode.at_least: '0.9' is not a share like"),
        (CASE + "busy: {decode: {}}\n", "busy.decode: at_least is missing"),
        (CASE + "gaps: {decode: {longer_than: 100 us}}\n", "gaps.decode: at_most is missing"),
        (CASE + "launch: {mean: fast}\n", "launch.mean: 'fast' is not a duration"),
        (CASE + "ranks: {decode: {counts: false}}\n", "2:26: ranks.decode.counts: nothing is asked: counts: true"),
        (CASE + "bench: {tpot: 12}\n", "2:15: bench.tpot: '12' is not a duration"),
        (CASE + "bench: {ttft: {p98: 1 s}}\n", "bench.ttft: unknown key 'p98' (did you mean 'p99'?)"),
        (CASE + "bench: {throughput: 1500}\n", "bench.throughput: expected text, got the number 1500"),
        (CASE + "bench: {throughput: 1500 tokens}\n", "bench.throughput: '1500 tokens' is not a throughput like"),
        (CASE + "bench: {}\n", "bench: asserts nothing: give a budget (ttft, tpot"),
        (CASE + "regression: {tolerance: 5}\n", "regression.tolerance: '5' is not a share"),
        (CASE + "regression: {metrics: [decode.gpu_bus]}\n", "there is no metric 'decode.gpu_bus' (did you mean"),
        (CASE + "regression: no\n", "2:13: regression: expected a mapping, got the boolean no"),
        (CASE + "tuned: {all: true}\n", "tuned: unknown key 'all'"),
        (CASE + "marks: slow\nlaunch: {mean: 1 ms}\n", "marks: expected a list of them, got the text 'slow'"),
        (CASE + "5: x\nlaunch: {mean: 1 ms}\n", "2:1: the key 5 is no word to YAML"),
    ],
)
def test_a_mistake_is_refused_at_its_place_with_what_to_write(tmp_path: Path, text: str, says: str) -> None:
    problems = located(read(tmp_path, text))
    assert any(says in problem for problem in problems), problems


def test_all_mistakes_of_a_file_come_at_once_in_the_order_of_the_text(tmp_path: Path) -> None:
    text = """\
    case: {model: m, tpp: 2, osl: x, conc: 0}
    kernels:
      - called: a
        durin: decode
      - not_called: a*
        example: b
    steps: {decode: {p50: 3, p99: 4}}
    """
    lines = [problem.partition(" ")[0] for problem in located(read(tmp_path, text))]
    assert lines == ["1:18:", "1:31:", "1:40:", "4:5:", "6:14:", "7:23:", "7:31:"]


def test_a_name_of_no_letters_is_refused(tmp_path: Path) -> None:
    text = (
        "case: {model: m}\nkernels:\n  - {called: a, name: '**'}\n  - {called: b, name: x}\n  - {called: c, name: x}\n"
    )
    assert located(read(tmp_path, text)) == [
        "3:23: kernels[0].name: '**' holds no letter and no digit",
        "5:23: kernels[2].name: the name 'x' is taken",
    ]


def test_ids_hold_nothing_that_splits_selects_or_globs() -> None:
    assert id_safe("aiter::moe_forward") == "aiter-moe_forward"
    assert id_safe("aiter::mla_a*_qseqlen4_*") == "aiter-mla_a-_qseqlen4"
    assert id_safe("re:^flydsl.*\\[1\\]") == "flydsl_-_1"
    assert id_safe("void f<int, 4>(char*)") == "void_f_int_4_char-"[:-1]
    assert id_safe("***") == "any"


def literals(alias: object) -> set[str]:
    (literal, *_) = typing.get_args(alias)
    return set(typing.get_args(literal) or [literal])


def test_the_words_are_the_engines() -> None:
    assert literals(words.Phase) == {*PHASES, *COMBINED}
    assert literals(words.Layer) == set(LAYERS)
    assert set(typing.get_args(words.Metric)) == {*METRICS, PER_KTOK}
    assert set(words.STEP_KINDS) <= set(KINDS)
    assert set(STATISTICS) <= set(grammar.StepTime.__struct_fields__)
    assert set(words.BASELINE_METRICS) == set(KNOWN_METRICS)
    assert FAMILY_PREFIX == "decode.family."


def test_case_fields_are_those_of_case() -> None:
    assert CaseFields.__struct_fields__ == tuple(one.name for one in dataclasses.fields(Case))


def test_every_argument_of_an_entry_is_one_of_its_assertion(tmp_path: Path) -> None:
    for check in read(tmp_path, EVERYTHING).checks:
        signature = inspect.signature(getattr(Trace, check.assertion.method))
        assert set(check.assertion.arguments) <= set(signature.parameters), check.name


def test_every_assertion_of_a_trace_can_be_written() -> None:
    methods = {name for name in vars(Trace) if name.startswith("assert_")}
    text = inspect.getsource(grammar)
    assert {name for name in methods if f'"{name}"' not in text} == set()


def test_entries_take_no_unknown_key() -> None:
    for section in SECTIONS.values():
        for entry in section.entries.values():
            assert msgspec.structs.fields(entry)
            assert entry.__struct_config__.forbid_unknown_fields
