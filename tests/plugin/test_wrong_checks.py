"""A check that asks wrongly is an error of its own, told at the test's line: no failure, no doubt, and never XFAIL."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import jsonschema
import pytest

from pytest_atomtrace.report.json_report import report_schema
from tests.traces import Recipe, write_ranks

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "import pytest\npytestmark = pytest.mark.atom_case(model='m', tp=1)\n"
PROPER = "atom_trace.assert_kernel_called('mfma_moe1_*', during='decode')"
TYPO = "atom_trace.assert_kernel_called('mfma_moe1_*', during='decod')"
WRONG = {
    TYPO: "during='decod' is no phase; did you mean 'decode'?",
    "atom_trace.assert_kernel_called('x', ranks=[3])": "ranks=[3]: ranks are named by text, as rank_3 is",
    "atom_trace.assert_kernel_called('x', ranks=[0])": "named by text, as rank_0 is",
    "atom_trace.assert_kernel_called('x', during=['decode'])": "is no phase; did you mean 'decode'?",
    "atom_trace.assert_kernel_called('x', layer='kernal')": "layer='kernal' is no layer; did you mean 'kernel'?",
    "atom_trace.assert_kernel_not_called('x', example=3)": "example is the name of a kernel, got 3",
    "atom_trace.assert_step_time('decode', p50='9 ms', metric='gpu_bussy')": "did you mean 'gpu_busy'?",
    "atom_trace.assert_step_time('decode', p50='9 ms', metric=3)": "there is no metric 3 (gpu_busy, ",
    "atom_trace.assert_step_time('decode', p50=9)": 'a bare number has no unit, write "9 ms"',
    "atom_trace.assert_step_time('decode', p50='9 parsec')": "p50: '9 parsec' is not a duration like",
    "atom_trace.assert_step_time('decode', p5='9 ms')": "assert_step_time() has no argument 'p5'; did you mean 'p50'?",
    "atom_trace.assert_step_time('decode', '9 ms')": "all but the first are given by name (kind, p50,",
    "atom_trace.assert_step_time(p50='9 ms')": "assert_step_time() missing 1 required positional argument: 'kind'",
    "atom_trace.assert_step_tme('decode')": "a Trace has no 'assert_step_tme'; did you mean 'assert_step_time'?",
    "atom_trace.assert_kernel_time(5, share='5 %')": "a name pattern is text, got 5",
    "atom_trace.assert_kernel_time('family:moe_gem', share='5 %')": "did you mean 'moe_gemm'?",
    "atom_trace.assert_ranks_agree(counts='yes')": "counts is True or False, got 'yes'",
    "atom_trace.assert_launch_time(mean='5 us', api=5)": "api is the name of a runtime call",
    "atom_trace.kernels('re:(')": "is no regular expression",
    "atom_trace.steps('decod')": "'decod' is no kind of step; did you mean 'decode'?",
    "atom_trace.decode.where(bss=4)": "where() has no argument 'bss'; did you mean 'bs'?",
    "atom_trace.ranks['rank_0'].kernels('re:(')": "is no regular expression",
}


@pytest.fixture
def saved(pytester: pytest.Pytester) -> Path:
    return write_ranks(pytester.path / "saved", Recipe())


def run(pytester: pytest.Pytester, saved: Path, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess(f"--atom-replay={saved}", *arguments)


def test_each_wrong_question_is_told_at_its_own_line_without_our_frames(pytester: pytest.Pytester, saved: Path) -> None:
    body = "".join(f"def test_{number}(atom_trace):\n    {call}\n" for number, call in enumerate(WRONG))
    pytester.makepyfile(test_spec=HEAD + body)
    result = run(pytester, saved)
    result.assert_outcomes(errors=len(WRONG))
    text = result.stdout.str()
    lines = text.splitlines()
    for number, (call, words) in enumerate(WRONG.items()):
        told = [line for line in lines if line.startswith(f"test_spec.py:{4 + 2 * number}: ")]
        assert [words in line for line in told] == [True], (call, told)
        assert lines[lines.index(told[0]) + 1].strip() == call
    assert "pytest_atomtrace/" not in text
    assert "Error:" not in text


def test_a_typo_is_neither_an_expected_failure_nor_mended_by_reruns(
    pytester: pytest.Pytester, saved: Path, mode: tuple[str, ...]
) -> None:
    body = f"""
@pytest.mark.xfail(reason="known")
def test_expected(atom_trace):
    {TYPO}

@pytest.mark.xfail(reason="known")
def test_misspelt_argument(atom_trace):
    atom_trace.assert_step_time('decode', p5='9 ms')

@pytest.fixture
def judged(atom_trace):
    {TYPO}

@pytest.mark.xfail(reason="known")
def test_in_a_fixture(judged): pass

def test_plain(atom_trace):
    {TYPO}
"""
    pytester.makepyfile(test_spec=HEAD + body)
    for more in ((), ("--reruns=1",)):
        result = run(pytester, saved, "-v", "--junitxml=j.xml", *more, *mode)
        counts = result.parseoutcomes()
        assert counts["errors"] == 4
        assert not {"xfailed", "failed", "passed"} & set(counts)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        assert result.stdout.str().count(" WRONG CHECK") >= 4
        tags = {child.tag for case in ET.parse(pytester.path / "j.xml").iter("testcase") for child in case}
        assert tags == {"error", "properties"}


def test_every_report_has_a_word_for_it(
    pytester: pytest.Pytester, saved: Path, mode: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    tests = {"test_it": TYPO, "test_fine": PROPER}
    body = "".join(f"def {name}(atom_trace):\n    {call}\n" for name, call in tests.items())
    pytester.makepyfile(test_spec=HEAD + body)
    options = ("--atom-json=r.json", "--atom-markdown=r.md", "--atom-html=r.html", "--junitxml=j.xml")
    result = run(pytester, saved, *options, *mode)
    sentence = "test_spec.py:4: during='decod' is no phase; did you mean 'decode'?"
    result.stdout.fnmatch_lines(["WRONG CHECK  test_spec.py::test_it*", "*test_spec.py:4: during='decod' is no phase*"])
    result.stdout.fnmatch_lines(["::error file=test_spec.py,line=4,title=wrong check*"])
    made = json.loads((pytester.path / "r.json").read_bytes())
    jsonschema.validate(made, report_schema())
    assert (made["run"]["outcome"], made["run"]["checks"]["wrong"], made["run"]["checks"]["failed"]) == (
        "wrong_check", 1, 0,
    )  # fmt: skip
    (row,) = (one for one in made["checks"] if one["outcome"] == "wrong_check")
    assert (row["sentence"], row["line"], row["evidence"]) == (sentence, 4, [f"    {TYPO}"])
    markdown = (pytester.path / "r.md").read_text()
    assert "atomtrace: 1 wrong check" in markdown
    page = (pytester.path / "r.html").read_text()
    assert "1 wrong check in 1 of 1 case" in page
    assert '<span class="badge o-wrong_check">wrong check</span>' in page
    words = {one.get("value") for one in ET.parse(pytester.path / "j.xml").iter("property")}
    assert "wrong_check" in words


def test_ci_does_not_queue_a_wrong_check_again(pytester: pytest.Pytester, saved: Path) -> None:
    pytester.makepyfile(test_spec=f"{HEAD}def test_it(atom_trace):\n    {TYPO}\n")
    assert run(pytester, saved, "--atom-error-exit=75").ret == pytest.ExitCode.TESTS_FAILED


def test_a_helper_in_another_file_is_told_at_the_tests_own_line(pytester: pytest.Pytester, saved: Path) -> None:
    pytester.makepyfile(helpers=f"def judge(atom_trace):\n    {TYPO}\n")
    pytester.makepyfile(test_spec=f"from helpers import judge\n{HEAD}def test_it(atom_trace):\n    judge(atom_trace)\n")
    run(pytester, saved).stdout.fnmatch_lines(["test_spec.py:5: during='decod' is no phase*"])


def test_a_fixture_of_a_conftest_is_told_at_its_line(pytester: pytest.Pytester, saved: Path) -> None:
    pytester.makeconftest(f"import pytest\n@pytest.fixture\ndef judged(atom_trace):\n    {TYPO}\n")
    pytester.makepyfile(test_spec=f"{HEAD}def test_it(judged): pass\n")
    run(pytester, saved).stdout.fnmatch_lines(["conftest.py:4: during='decod' is no phase*"])


def test_a_spec_file_is_told_at_its_entry(pytester: pytest.Pytester, saved: Path) -> None:
    (pytester.path / "m.atom.yaml").write_text("case: {model: m, tp: 1}\nkernels:\n  - called: x\n    ranks: rank_7\n")
    result = run(pytester, saved)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["m.atom.yaml:3: ranks='rank_7': there is no rank_7; the trace has rank_0"])


def test_a_mistake_in_the_tests_own_code_stays_a_failure_with_its_traceback(
    pytester: pytest.Pytester, saved: Path
) -> None:
    body = """
class Trace:
    def assert_it(self): pass

def test_own_attribute(atom_trace):
    "text".no_such_thing

def test_own_class_of_that_name(atom_trace):
    Trace().assert_it(5)
"""
    pytester.makepyfile(test_spec=HEAD + body)
    run(pytester, saved).assert_outcomes(failed=2)


def test_times_of_steps_that_are_not_there_are_no_failure(pytester: pytest.Pytester, saved: Path) -> None:
    names = ("p50_ns", "min_ns", "max_ns", "mean_ns")
    body = "".join(f"def test_{name}(atom_trace):\n    assert atom_trace.draft.gpu_busy.{name} < 9\n" for name in names)
    pytester.makepyfile(test_spec=HEAD + body)
    result = run(pytester, saved)
    result.assert_outcomes(errors=len(names))
    result.stdout.fnmatch_lines(["INCONCLUSIVE  *", "*and 3 more tests for the same reason*"])
