"""Fail, inconclusive, infra and skip stay apart wherever they arise: terminal, JUnit, exit code, last-failed."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

from tests.traces import Recipe, write_ranks

if TYPE_CHECKING:
    from pathlib import Path


SPEC = """
    import pytest

    pytestmark = pytest.mark.atom_case(model="m", tp=2)

    def test_passes(atom_trace):
        atom_trace.assert_kernel_called("mfma_moe1_*", during="decode", per_step=4)

    def test_missing_kernel(atom_trace):
        atom_trace.assert_kernel_called("no_such_kernel", during="decode")

    def test_small_budget(atom_trace):
        atom_trace.assert_step_time("decode", p50="1 us")

    def test_too_few_steps(atom_trace):
        atom_trace.assert_step_time("decode", p99="1 s")

    @pytest.mark.xfail(reason="known")
    def test_expected_to_fail(atom_trace):
        atom_trace.assert_kernel_called("no_such_kernel", during="decode")

    @pytest.mark.xfail(reason="known")
    def test_no_answer_is_never_xfail(atom_trace):
        atom_trace.assert_step_time("decode", p99="1 s")

    @pytest.fixture
    def judged(atom_trace):
        atom_trace.assert_step_time("decode", p99="1 s")

    def test_no_answer_in_a_fixture(judged): pass
"""


def healthy(pytester: pytest.Pytester) -> Path:
    return write_ranks(pytester.path / "saved", Recipe(), Recipe())


def junit(pytester: pytest.Pytester) -> dict[str, list[str]]:
    tree = ET.parse(pytester.path / "junit.xml")
    return {
        str(case.get("name")).split("[")[0]: [child.tag for child in case if child.tag != "properties"]
        for case in tree.iter("testcase")
    }


def last_failed(pytester: pytest.Pytester) -> set[str]:
    path = pytester.path / ".pytest_cache/v/cache/lastfailed"
    if not path.exists():
        return set()
    return {node.split("::")[1].split("[")[0] for node in json.loads(path.read_text())}


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("--junitxml=junit.xml", "-v", *arguments)


def test_each_outcome_has_its_own_word_and_tag(pytester: pytest.Pytester, mode: tuple[str, ...]) -> None:
    pytester.makepyfile(SPEC)
    result = run(pytester, f"--atom-replay={healthy(pytester)}", *mode)
    result.assert_outcomes(passed=1, failed=2, errors=3, xfailed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    for name, word in {
        "test_passes": "PASSED",
        "test_missing_kernel": "FAILED",
        "test_small_budget": "FAILED",
        "test_too_few_steps": "INCONCLUSIVE",
        "test_expected_to_fail": "XFAIL",
        "test_no_answer_is_never_xfail": "INCONCLUSIVE",
        "test_no_answer_in_a_fixture": "INCONCLUSIVE",
    }.items():
        assert any(f"::{name}[" in line and word in line for line in text.splitlines()), (name, word)
    assert junit(pytester) == {
        "test_passes": [],
        "test_missing_kernel": ["failure"],
        "test_small_budget": ["failure"],
        "test_too_few_steps": ["error"],
        "test_expected_to_fail": ["skipped"],
        "test_no_answer_is_never_xfail": ["error"],
        "test_no_answer_in_a_fixture": ["error"],
    }
    assert last_failed(pytester) == {
        "test_missing_kernel",
        "test_small_budget",
        "test_too_few_steps",
        "test_no_answer_is_never_xfail",
        "test_no_answer_in_a_fixture",
    }


def test_a_truncated_file_is_inconclusive_for_every_test(pytester: pytest.Pytester, mode: tuple[str, ...]) -> None:
    pytester.makepyfile(SPEC)
    saved = healthy(pytester)
    (file,) = (saved / "rank_1").iterdir()
    file.write_bytes(file.read_bytes()[:-200])
    result = run(pytester, f"--atom-replay={saved}", *mode)
    result.assert_outcomes(errors=7)
    assert set(map(tuple, junit(pytester).values())) == {("error",)}
    assert "H02 truncated: rank_1" in result.stdout.str()


def test_one_cause_is_told_once_in_whole(pytester: pytest.Pytester, mode: tuple[str, ...]) -> None:
    pytester.makepyfile(SPEC)
    saved = healthy(pytester)
    (file,) = (saved / "rank_1").iterdir()
    file.write_bytes(file.read_bytes()[:-200])
    result = pytester.runpytest_subprocess(f"--atom-replay={saved}", "--junitxml=junit.xml", "-rN", *mode)
    result.assert_outcomes(errors=7)
    errors = result.stdout.str().partition("= ERRORS =")[2].partition("= atomtrace =")[0]
    assert errors.count("H02 truncated: rank_1") == 1
    head = "The trace cannot be believed, so no verdict was made"
    assert errors.count(head) == 7
    texts = [str(one.text) for one in ET.parse(pytester.path / "junit.xml").iter("error")]
    (whole,) = (text for text in texts if "H02 truncated" in text)
    short = {text for text in texts if text != whole}
    assert len(short) == 1
    assert next(iter(short)).startswith(f"{head} (the whole text is at test_one_cause_is_told_once_in_whole.py::test_")
    result.stdout.fnmatch_lines(["INCONCLUSIVE  *", "*      and 6 more tests for the same reason (-v lists them)"])


def test_a_missing_rank_is_named(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SPEC)
    saved = healthy(pytester)
    for file in (saved / "rank_1").iterdir():
        file.unlink()
    result = run(pytester, f"--atom-replay={saved}")
    result.assert_outcomes(errors=7)
    assert "H01 rank-set: 1 of 2 ranks have no trace: rank_1" in result.stdout.str()


def test_a_trace_without_labels_answers_counts_but_no_steps(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        pytestmark = pytest.mark.atom_case(model="m", tp=1)

        def test_counts(atom_trace):
            atom_trace.assert_kernel_called("mfma_moe1_*")

        def test_steps(atom_trace):
            atom_trace.assert_kernel_called("mfma_moe1_*", during="decode", per_step=4)
        """
    )
    saved = write_ranks(pytester.path / "saved", Recipe(labels=False))
    result = run(pytester, f"--atom-replay={saved}")
    result.assert_outcomes(passed=1, errors=1)
    assert "H07 no-labels" in result.stdout.str()


def test_empty_steps_are_inconclusive_and_not_a_missing_kernel(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SPEC)
    saved = write_ranks(pytester.path / "saved", Recipe(), Recipe(empty=frozenset({20})))
    result = run(pytester, f"--atom-replay={saved}")
    result.assert_outcomes(errors=7)
    assert "H04 empty-steps: rank_1" in result.stdout.str()


def test_a_lost_kernel_in_one_graph_launch_is_a_lossy_trace(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SPEC)
    saved = write_ranks(pytester.path / "saved", Recipe(), Recipe(lost=frozenset({20})))
    result = run(pytester, f"--atom-replay={saved}")
    result.assert_outcomes(errors=7)
    assert "H05 lossy: rank_1" in result.stdout.str()


def test_a_replay_directory_that_is_not_there_is_a_usage_error(
    pytester: pytest.Pytester, mode: tuple[str, ...]
) -> None:
    pytester.makepyfile(SPEC)
    result = run(pytester, "--atom-replay=nowhere", *mode)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.str().count("does not exist") == 1
    assert "INFRA ERROR" not in result.stdout.str()


def test_a_trace_directory_with_other_ranks_than_the_case_is_inconclusive(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.atom_case(model='m', tp=4)\ndef test_it(atom_trace): pass\n")
    result = run(pytester, f"--atom-replay={healthy(pytester)}")
    result.assert_outcomes(errors=1)
    assert "H01 rank-set" in result.stdout.str()
    assert "rank_2, rank_3" in result.stdout.str()


def test_without_a_gpu_specs_skip_with_the_way_out(pytester: pytest.Pytester, mode: tuple[str, ...]) -> None:
    pytester.makepyfile(SPEC)
    result = run(pytester, "-rs", "-m", "gpu", *mode)
    result.assert_outcomes(skipped=7)
    assert result.ret == pytest.ExitCode.OK
    assert "--atom-backend=sim" in result.stdout.str()
    assert "--atom-replay" in result.stdout.str()
    assert last_failed(pytester) == set()


def test_require_gpu_turns_the_skip_into_an_error(pytester: pytest.Pytester, mode: tuple[str, ...]) -> None:
    pytester.makepyfile(SPEC)
    result = run(pytester, "--atom-require-gpu", *mode)
    result.assert_outcomes(errors=7)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert set(map(tuple, junit(pytester).values())) == {("error",)}


@pytest.mark.parametrize(("test", "code"), [("test_too_few_steps", 75), ("test_missing_kernel", 1), ("test_passes", 0)])
def test_no_answer_can_have_an_exit_code_of_its_own(
    pytester: pytest.Pytester, mode: tuple[str, ...], test: str, code: int
) -> None:
    pytester.makepyfile(SPEC)
    result = run(pytester, f"--atom-replay={healthy(pytester)}", "--atom-error-exit=75", "-k", test, *mode)
    assert result.ret == code


def test_a_failure_beside_no_answer_keeps_exit_code_one(pytester: pytest.Pytester, mode: tuple[str, ...]) -> None:
    pytester.makepyfile(SPEC)
    result = run(pytester, f"--atom-replay={healthy(pytester)}", "--atom-error-exit=75", *mode)
    assert result.ret == 1


def test_reruns_do_not_turn_no_answer_into_something_else(pytester: pytest.Pytester, mode: tuple[str, ...]) -> None:
    pytest.importorskip("pytest_rerunfailures")
    pytester.makepyfile(SPEC)
    result = run(pytester, f"--atom-replay={healthy(pytester)}", "--reruns=1", *mode)
    counts = result.parseoutcomes()
    assert (counts["passed"], counts["failed"], counts["errors"], counts["xfailed"]) == (1, 2, 3, 1)
    assert junit(pytester)["test_too_few_steps"][-1] == "error"


def test_a_subtest_without_an_answer_is_an_error(pytester: pytest.Pytester) -> None:
    if not hasattr(pytest, "Subtests"):
        pytest.skip("subtests are part of pytest from version 9 on")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.atom_case(model="m", tp=2)
        def test_parts(atom_trace, subtests):
            with subtests.test("no answer"):
                atom_trace.assert_step_time("decode", p99="1 s")
            with subtests.test("fine"):
                atom_trace.assert_kernel_called("mfma_moe1_*")
        """
    )
    result = run(pytester, f"--atom-replay={healthy(pytester)}")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    assert "INCONCLUSIVE" in text
    assert "SUBFAIL" not in text


def test_asking_in_a_wider_fixture_is_answered_with_what_to_write(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture(scope="module")
        def shared(atom_trace): return atom_trace

        @pytest.mark.atom_case(model="m", tp=2)
        def test_it(shared): pass
        """
    )
    result = run(pytester, f"--atom-replay={healthy(pytester)}")
    result.assert_outcomes(errors=1)
    assert "make the fixture function-scoped" in result.stdout.str()


def test_the_summary_appears_once_with_cases_and_failed_checks(
    pytester: pytest.Pytester, mode: tuple[str, ...]
) -> None:
    pytester.makepyfile(SPEC)
    result = run(pytester, f"--atom-replay={healthy(pytester)}", *mode)
    lines = result.stdout.str().splitlines()
    assert sum("= atomtrace =" in line for line in lines) == 1
    assert sum(line.startswith("m-tp2-isl1024-osl128-conc64") or " m-tp2-isl" in line for line in lines) >= 1
    assert sum(line.startswith("FAIL  ") for line in lines) == 2
    assert sum(line.startswith("INCONCLUSIVE  ") for line in lines) == 1
    reason = lines.index("      for the same reason:")
    assert [line.split("::")[1].split("[")[0] for line in lines[reason + 1 : reason + 3]] == [
        "test_no_answer_is_never_xfail",
        "test_no_answer_in_a_fixture",
    ]


def test_a_failing_check_hides_our_frames_and_leads_with_a_sentence(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SPEC)
    result = run(pytester, f"--atom-replay={healthy(pytester)}", "-k", "test_missing_kernel")
    text = result.stdout.str()
    assert "E       AssertionError: no_such_kernel is not called during decode on any of 2 ranks." in text
    assert "verdicts/trace.py" not in text
    assert "\x1b[" not in (pytester.path / "junit.xml").read_text()


def test_printed_ids_select_exactly_their_item(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SPEC.replace("tp=2", "tp=2, conc=[32, 64]"))
    saved = healthy(pytester)
    listed = pytester.runpytest_subprocess("--collect-only", "-q").stdout.lines
    ids = [line for line in listed if "::" in line]
    assert len(ids) == 14
    for node in ids[:6]:
        result = pytester.runpytest_subprocess("-v", f"--atom-replay={saved}", node)
        ran = [line.split(" ")[0] for line in result.stdout.lines if line.startswith("test_") and "::" in line]
        assert set(ran) == {node}


def test_last_failed_runs_exactly_the_failures(pytester: pytest.Pytester, mode: tuple[str, ...]) -> None:
    pytester.makepyfile(SPEC)
    saved = healthy(pytester)
    run(pytester, f"--atom-replay={saved}", *mode)
    again = run(pytester, f"--atom-replay={saved}", "--lf", *mode)
    again.assert_outcomes(failed=2, errors=3)


def test_every_test_with_a_case_is_selected_by_gpu(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.atom_case(model="m", tp=2)
        def test_with_case(atom_trace): pass

        def test_without(): pass
        """
    )
    result = run(pytester, f"--atom-replay={healthy(pytester)}", "-m", "gpu")
    result.assert_outcomes(passed=1, deselected=1)


def test_a_launch_that_failed_shows_its_log_once(pytester: pytest.Pytester, mode: tuple[str, ...]) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.atom_case(model="openai/gpt-oss-120b", osl=40, conc=[2, 4], server_args=["--no-such-flag"])
        @pytest.mark.parametrize("number", range(3))
        def test_it(atom_trace, number): pass
        """
    )
    result = run(pytester, "--atom-backend=sim", f"--atom-lock-dir={pytester.path / 'locks'}", "-rN", *mode)
    result.assert_outcomes(errors=6)
    errors = result.stdout.str().partition("= ERRORS =")[2].partition("= atomtrace =")[0]
    assert errors.count("  | api_server.py: error: unrecognized arguments: --no-such-flag") == 1
    assert errors.count("did not start: the command line was refused") == 6
