"""What was forgotten, or can never hold, is refused at its place; an editor marks it where a schema can say so."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import yaml

from pytest_atomtrace import Case, ConfigError, Trace, load_trace
from pytest_atomtrace.cases.catalog import load_catalog
from pytest_atomtrace.cases.specs.schema import schema
from tests.cli.conftest import Result, atomtrace
from tests.specs.models import write_catalog
from tests.specs.reading import CASE, located, read
from tests.specs.test_schema import faults
from tests.traces import Recipe, write_ranks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["atomtrace"]

CALLED = "kernels:\n  - called: a\n"


@pytest.mark.parametrize(
    ("text", "at"),
    [
        (CASE + "kernels:\n  - called: a\n    during: decode\n    per_step:\n", "kernels[0].per_step: "),
        (CASE + "kernels:\n  - not_called: a*\n    example: ~\n", "4:14: kernels[0].example: "),
        (CASE + "kernels:\n  - called: a\n    ranks: null\n", "4:12: kernels[0].ranks: "),
        (CASE + "steps:\n  decode: {p50: 1 ms, metric: }\n", "steps.decode.metric: "),
        (CASE + "steps:\n  decode: {p50: 1 ms, bs: }\n", "steps.decode.bs: "),
        (CASE + "bench: {tpot: 1 ms, ttft: }\n", "bench.ttft: "),
        (CASE + "regression: {metrics: }\n", "regression.metrics: "),
        (CASE + CALLED + "skip:\n", "skip: "),
        (CASE + CALLED + "    xfail:\n", "kernels[0].xfail: "),
        ("case: {model: m, osl: }\n" + CALLED, "case.osl: "),
        ("case: {model: m, osl: [64, ~]}\n" + CALLED, "1:28: case.osl[1]: "),
        ("from_catalog: {model: small, variants: }\n" + CALLED, "from_catalog.variants: "),
    ],
)
def test_a_value_that_was_forgotten_is_no_default(tmp_path: Path, text: str, at: str) -> None:
    (problem,) = located(read(tmp_path, text))
    assert at in problem
    assert "got nothing" in problem
    assert list(faults(yaml.safe_load(text), schema(), schema()))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("from_catalog: []\n" + CALLED, "1:15: from_catalog: the list is empty: no case would be left"),
        ("from_catalog: {model: small, variants: []}\n" + CALLED, "from_catalog.variants: the list is empty"),
        (CASE + CALLED + "steps: {}\n", "4:8: steps: the mapping is empty"),
        (CASE + CALLED + "busy: {}\n", "4:7: busy: the mapping is empty"),
        (CASE + "bench: {tpot: 1 ms, ttft: {}}\n", "bench.ttft: ttft: no statistic given"),
    ],
)
def test_an_empty_selection_is_no_selection(tmp_path: Path, text: str, says: str) -> None:
    (problem,) = located(read(tmp_path, text, load_catalog(write_catalog(tmp_path))))
    assert says in problem


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("busy: {decode: {at_least: 150 %}}", "busy.decode.at_least: '150 %' can never be reached; the most is 100 %"),
        ("busy: {decode: {at_least: 0 %}}", "busy.decode.at_least: '0 %' always holds"),
        ("bench: {completed: 150 %}", "bench.completed: '150 %' can never be reached"),
        ("bench: {acceptance: 101 %}", "bench.acceptance: '101 %' can never be reached"),
        ("bench: {throughput: 0 tok/s}", "bench.throughput: 0 tok/s always holds"),
        ("bench: {acceptance: 1 tok/fwd}", "bench.acceptance: '1 tok/fwd' always holds"),
        ("kernels: [{time: a, share: 200 %}]", "kernels[0].share: '200 %' always holds: nothing has more of a whole"),
        ("kernels: [{time: a, share: 100 %}]", "kernels[0].share: '100 %' always holds"),
        ("kernels: [{time: a, share: 0 %}]", "kernels[0].share: '0 %' never holds"),
        ("kernels: [{time: a, share: -5 %}]", "kernels[0].share: '-5 %' is not a share"),
        ("kernels: [{time: a, share: nan %}]", "kernels[0].share: 'nan %' is not a share"),
        ("ranks: {decode: {skew: 101 %}}", "ranks.decode.skew: '101 %' lets more than twice as much pass"),
        ("regression: {tolerance: 5 %, metrics: [famlies]}", "regression.metrics: there is no metric 'famlies'"),
        ("regression: {tolerance: 500 %}", "regression.tolerance: '500 %' lets more than twice as much pass"),
        ("kernels: [{called: 're:'}]", "kernels[0].called: 're:' matches the empty text, so it is found in every name"),
        ("kernels: [{called: 're:.*', exactly: 9}]", "kernels[0].called: 're:.*' matches the empty text"),
        ("kernels: [{not_called: 're:moe|'}]", "kernels[0].not_called: 're:moe|' matches the empty text"),
        ("kernels: [{order: [a, 're:b*']}]", "kernels[0].order: 're:b*' matches the empty text"),
        ("kernels: [{time: 're: ', share: 5 %}]", "kernels[0].time: 're: ' matches the empty text"),
        ("kernels: [{called: a, ranks: []}]", "kernels[0].ranks: the list is empty"),
        ("kernels: [{called: a, ranks: ['']}]", "kernels[0].ranks[0]: the text is empty"),
        ("steps: {decode: {p50: 1 ms, ranks: []}}", "steps.decode.ranks: the list is empty"),
    ],
)
def test_a_limit_that_never_or_always_holds_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (problem,) = located(read(tmp_path, CASE + text + "\n"))
    assert says in problem


@pytest.mark.parametrize(
    "ask",
    [
        lambda t: t.assert_kernel_called("re:"),
        lambda t: t.assert_kernel_called("re:.*", exactly=9),
        lambda t: t.assert_kernel_time("a", share="200 %"),
        lambda t: t.assert_kernel_time("re:", share="20 %"),
        lambda t: t.assert_ranks_agree(skew="101 %"),
        lambda t: t.assert_no_regression(tolerance="500 %"),
        lambda t: t.assert_bench(acceptance="1 tok/fwd"),
    ],
)
def test_python_refuses_the_same(tmp_path: Path, ask: Callable[[Trace], None]) -> None:
    trace = Trace(load_trace(write_ranks(tmp_path, Recipe(), Recipe())).data, case=Case(model="m", tp=2))
    with pytest.raises(ConfigError, match=r"always holds|matches the empty text|more than twice as much"):
        ask(trace)


@pytest.mark.parametrize(
    ("check", "refused"),
    [
        ("steps: {decode: {p50: 1 ms}}", True),
        ("regression: true", True),
        ("bench: {tpot: 1 ms}", True),
        ("kernels: [{time: a, during: decode, per_step: 1 ms}]", True),
        ("busy: {decode: {at_least: 90 %}}", True),
        ("gaps: {decode: {longer_than: 1 ms, at_most: 1}}", True),
        ("launch: {mean: 1 ms}", True),
        ("ranks: {decode: {skew: 5 %}}", True),
        ("ranks: {decode: {counts: true}}", False),
        ("regression: {metrics: [counts]}", False),
        ("bench: {completed: 100 %}", False),
        ("kernels: [{called: a}]", False),
    ],
)
def test_random_weights_have_no_times_to_ask_for(tmp_path: Path, check: str, *, refused: bool) -> None:
    problems = located(read(tmp_path, f"case: {{model: m, load_dummy: true}}\n{check}\n"))
    assert ["has load_dummy: random weights give counts, no times" in one for one in problems] == [True] * refused


def test_a_second_merge_is_a_second_key(tmp_path: Path) -> None:
    text = CASE + "kernels:\n  - &d {called: a}\n  - {<<: *d, <<: *d, during: prefill}\n"
    assert located(read(tmp_path, text)) == ["4:14: kernels[1].<<: the key '<<' is there already, in line 4"]


def test_a_small_file_makes_no_hundred_thousand_cases(tmp_path: Path) -> None:
    values = list(range(2, 62))
    matrix = f"isl: {values}, osl: {values}, conc: {values}"
    start = time.process_time()
    (problem,) = located(read(tmp_path, f"case: {{model: m, {matrix}}}\n{CALLED}"))
    assert "1:7: case: makes 216,000 cases, at most 1,000 are allowed" in problem
    catalog = load_catalog(write_catalog(tmp_path))
    (problem,) = located(read(tmp_path, f"from_catalog: {{model: small, {matrix}}}\n{CALLED}", catalog))
    assert "Small makes 216,000 cases" in problem
    cases = "".join(f"  - {{model: m{n}, conc: {values}}}\n" for n in range(17))
    (problem,) = located(read(tmp_path, f"cases:\n{cases}{CALLED}"))
    assert problem.startswith("18:5: cases[16]: the file makes 1,020 cases")
    assert time.process_time() - start < 5


def test_thousands_of_checks_cost_in_proportion(tmp_path: Path) -> None:
    alike = "".join(f"  - called: 'k{'?' * n}'\n" for n in range(1, 61))
    names = [check.name for check in read(tmp_path, f"{CASE}kernels:\n{alike}").checks]
    assert names == ["called-k", *(f"called-k-{n}" for n in range(2, 61))]
    start = time.process_time()
    spec = read(tmp_path, f"{CASE}kernels:\n" + "".join(f"  - called: k{n}\n" for n in range(8000)))
    assert len(spec.checks) == 8000
    assert time.process_time() - start < 3


@pytest.mark.parametrize("document", [[], {"models": []}])
def test_a_catalog_without_models_is_refused_with_its_path(
    atomtrace: Callable[..., Result], tmp_path: Path, document: object
) -> None:
    path = write_catalog(tmp_path, document)
    with pytest.raises(ConfigError, match="the catalog lists no models"):
        load_catalog(path)
    result = atomtrace("catalog", "list", path)
    assert result.code == 2
    assert f"{path}: the catalog lists no models" in result.err


def test_a_trailing_flag_without_its_value_is_an_error(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    load = {"isl": 8, "osl": 8, "concurrency": [1]}
    row = {"display": "M", "path": "a/M", "prefix": "m", "config": {"extra_args": "-tp 4 -dp"}, "scenarios": [load]}
    path = write_catalog(tmp_path, [row])
    says = "M: the server arguments end with -dp, which takes a value"
    result = atomtrace("catalog", "list", path)
    assert result.code == 2
    assert f"{path}: {says}" in result.err
    (problem,) = located(read(tmp_path, f"from_catalog: m\n{CALLED}", load_catalog(path)))
    assert problem.startswith(f"1:15: from_catalog: {says}")
