"""Checks of spec files are test items like any other, on every supported pytest."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

from tests.traces import Recipe, write_ranks

if TYPE_CHECKING:
    from pathlib import Path

FILE = "spec.atom.yaml"
SLUG = "m-tp2-isl1024-osl128-conc64"
SPEC = """\
# a comment
case: {model: m, tp: 2}
kernels:
  - called: aiter::moe_forward
    during: prefill
  - called: mfma_moe1_*
    during: decode
    per_step: 3
  - not_called: no_such_*
    example: no_such_kernel
    marks: [extra]
  - called: no_such_kernel
    xfail: known
  - called: also_missing
    skip: not on this stack
steps:
  decode:
    p50: 1 us
    p99: 1 s
    xfail: budgets are being moved
"""
NAMES = {
    "called-aiter-moe_forward-prefill": "PASSED",
    "called-mfma_moe1-decode": "FAILED",
    "not_called-no_such": "PASSED",
    "called-no_such_kernel": "XFAIL",
    "called-also_missing": "SKIPPED",
    "steps-decode-p50": "XFAIL",
    "steps-decode-p99": "INCONCLUSIVE",
}
INI = "[pytest]\nmarkers = extra: of this test\naddopts = --strict-markers -p no:randomly\n"


@pytest.fixture
def place(pytester: pytest.Pytester) -> pytest.Pytester:
    write_ranks(pytester.path / "saved", Recipe(), Recipe())
    (pytester.path / FILE).write_text(SPEC)
    pytester.makeini(INI)
    return pytester


def run(place: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    # In this process where it can be: a process a run would make this file take minutes.
    start = place.runpytest_subprocess if "-n" in arguments or "-s" in arguments else place.runpytest_inprocess
    return start("--atom-replay=saved", *arguments)


def words(result: pytest.RunResult) -> dict[str, str]:
    """Outcome by id, as the terminal printed them."""
    pattern = re.compile(r"(?:\[gw\d\] +\[ *\d+%\] +)?(?:([A-Z]+) )?(\S+::\S+)(?: ([A-Z]+))?")
    found = {}
    for line in result.stdout.lines:
        match = pattern.match(line)
        if match and (match[1] or match[3]) and "%]" in line:
            found[match[2]] = match[1] or match[3]
    return found


def ids(place: pytest.Pytester, *arguments: str) -> list[str]:
    result = run(place, "--collect-only", "-q", *arguments)
    return [line for line in result.stdout.lines if "::" in line]


@pytest.mark.parametrize("mode", [(), ("-n", "2"), ("-p", "no:xdist")], ids=["no xdist", "two workers", "xdist off"])
def test_each_check_is_an_item_with_an_outcome_of_its_own(place: pytest.Pytester, mode: tuple[str, ...]) -> None:
    result = run(place, "-v", *mode)
    assert words(result) == {f"{FILE}::{SLUG}::{name}": word for name, word in NAMES.items()}
    result.assert_outcomes(passed=2, failed=1, errors=1, xfailed=2, skipped=1)


def test_every_printed_id_selects_its_item(place: pytest.Pytester) -> None:
    printed = list(words(run(place, "-v")))
    assert printed == ids(place)
    assert printed == [f"{FILE}::{SLUG}::{name}" for name in NAMES]
    for one in printed:
        assert ids(place, one) == [one]
    assert ids(place, f"{FILE}::{SLUG}") == printed


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        (("-m", "gpu"), 7),
        (("-m", "not gpu"), 0),
        (("-m", "extra"), 1),
        (("-k", "moe1"), 1),
        (("-k", "steps and p99"), 1),
        (("-k", "conc64"), 7),
        (("-k", "nothing"), 0),
        (("--deselect", f"{FILE}::{SLUG}::steps-decode-p99"), 6),
        (("--ignore", FILE), 0),
    ],
)
def test_selection_works_as_for_functions(place: pytest.Pytester, arguments: tuple[str, ...], number: int) -> None:
    assert len(ids(place, *arguments)) == number


def test_a_failure_shows_the_entry_and_its_line(place: pytest.Pytester) -> None:
    result = run(place, "-k", "moe1")
    result.stdout.fnmatch_lines(
        [
            "*_ called-mfma_moe1-decode _*",
            "    - called: mfma_moe1_[*]",
            "      during: decode",
            ">     per_step: 3",
            "E     AssertionError: mfma_moe1_[*] is called 4 times in decode step 6 of rank_0, expected 3 in every *",
            f"{FILE}:8: AssertionError",
        ]
    )
    assert "yaml_items.py" not in result.stdout.str()
    assert "^^" not in result.stdout.str()


def test_every_style_of_traceback_works(place: pytest.Pytester) -> None:
    assert run(place, "--tb=short", "-k", "moe1").ret == pytest.ExitCode.TESTS_FAILED
    for style in ("long", "line", "native", "no"):
        assert run(place, f"--tb={style}", "-k", "moe1").ret == pytest.ExitCode.TESTS_FAILED


def test_last_failed_and_stepwise_know_them(place: pytest.Pytester) -> None:
    run(place)
    remembered = json.loads((place.path / ".pytest_cache/v/cache/lastfailed").read_text())
    wanted = [f"{FILE}::{SLUG}::called-mfma_moe1-decode", f"{FILE}::{SLUG}::steps-decode-p99"]
    assert list(remembered) == wanted
    assert ids(place, "--lf") == wanted
    first = run(place, "--sw", "-v")
    assert list(words(first))[-1] == wanted[0]
    second = run(place, "--sw", "--sw-skip", "-v")
    assert list(words(second))[-1] == wanted[1]


def test_junit_has_a_case_per_check(place: pytest.Pytester) -> None:
    run(place, "--junitxml=junit.xml")
    cases = {str(c.get("name")): c for c in ET.parse(place.path / "junit.xml").iter("testcase")}
    assert set(cases) == set(NAMES)
    assert {str(case.get("classname")) for case in cases.values()} == {f"{FILE}.{SLUG}"}
    verdicts = {name: [child.tag for child in case if child.tag != "properties"] for name, case in cases.items()}
    assert verdicts["called-mfma_moe1-decode"] == ["failure"]
    assert verdicts["steps-decode-p99"] == ["error"]


def test_autouse_fixtures_of_every_scope_apply(place: pytest.Pytester) -> None:
    place.makeconftest(
        """
        import pytest

        @pytest.fixture(autouse=True, scope="session")
        def of_session(): print("SESSION")

        @pytest.fixture(autouse=True, scope="package")
        def of_package(): print("PACKAGE")

        @pytest.fixture(autouse=True, scope="module")
        def of_module(request): print("MODULE", request.module.__name__)

        @pytest.fixture(autouse=True, scope="class")
        def of_class(): print("CLASS")

        @pytest.fixture(autouse=True)
        def of_function(request, atom_case): print("FUNCTION", request.node.name, atom_case.tp)

        def pytest_pyfunc_call(pyfuncitem): print("PYFUNC", pyfuncitem.name)
        """
    )
    result = run(place, "-s", "-k", "moe_forward")
    result.assert_outcomes(passed=1, deselected=6)
    text = result.stdout.str()
    for word in ("SESSION", "PACKAGE", "MODULE spec", "CLASS", "FUNCTION called-aiter-moe_forward-prefill 2", "PYFUNC"):
        assert word in text


def test_two_endings_are_collected_and_others_not(place: pytest.Pytester) -> None:
    for name in ("other.atom.yml", "plain.yaml", "atom.yaml", "x.atom.yaml.bak"):
        (place.path / name).write_text(SPEC)
    (place.path / "sub").mkdir()
    (place.path / "sub" / FILE).write_text(SPEC)
    assert {one.partition("::")[0] for one in ids(place)} == {FILE, "other.atom.yml", f"sub/{FILE}"}


def test_a_matrix_has_one_collector_per_case(place: pytest.Pytester) -> None:
    (place.path / FILE).write_text("case: {model: m, tp: 2, conc: [4, 8]}\nlaunch: {mean: 1 s}\n")
    result = run(place, "--collect-only")
    result.stdout.fnmatch_lines(
        [
            "*<SpecFile spec.atom.yaml>",
            "*<CaseCollector m-tp2-isl1024-osl128-conc4>",
            "*<CheckItem launch-hipGraphLaunch>",
            "*<CaseCollector m-tp2-isl1024-osl128-conc8>",
            "*<CheckItem launch-hipGraphLaunch>",
        ]
    )


def test_two_files_whose_different_cases_share_a_name_are_refused(place: pytest.Pytester) -> None:
    (place.path / "a.atom.yaml").write_text("case: {model: one/M}\nlaunch: {mean: 1 s}\n")
    (place.path / "b.atom.yaml").write_text("case: {model: two/M}\nlaunch: {mean: 1 s}\n")
    result = run(place)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "two different cases share the name M-tp1" in result.stderr.str()


def test_mistakes_of_specs_and_of_marks_are_one_message(place: pytest.Pytester) -> None:
    (place.path / FILE).write_text("case: {model: m, tpp: 2}\nlaunch: {mean: 1}\n")
    place.makepyfile("import pytest\n@pytest.mark.atom_case(model='m', cnc=3)\ndef test_it(atom_trace): pass\n")
    for mode in ((), ("-n", "2")):
        result = run(place, *mode)
        text = result.stdout.str() + result.stderr.str()
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert text.count("atomtrace found 3 mistakes in the specs") == 1
        assert f"{FILE}:1:18: case: unknown key 'tpp'" in text
        assert f"{FILE}:2:16: launch.mean: '1' is not a duration" in text
        assert "unknown key 'cnc' (did you mean 'conc'?)" in text


@pytest.mark.parametrize(
    ("mark", "says"),
    [
        ("extar", "'extar' not found in `markers`"),
        ("not a word", "is no name of a mark"),
        ("__class__", "'__class__' is no name of a mark"),
    ],
)
def test_a_mark_that_nobody_registered_is_a_mistake(place: pytest.Pytester, mark: str, says: str) -> None:
    (place.path / FILE).write_text(f"case: {{model: m}}\nlaunch:\n  mean: 1 s\n  marks: [{mark}]\n")
    result = run(place)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"{FILE}:4:11: launch.marks[0]: " in result.stderr.str()
    assert says in result.stderr.str()
    assert "atomtrace found 1 mistake in" in result.stderr.str()


def test_a_mark_of_the_whole_file_is_told_at_its_own_place(place: pytest.Pytester) -> None:
    (place.path / FILE).write_text("case: {model: m}\nlaunch:\n  mean: 1 s\nmarks: [extra, extar]\n")
    text = run(place).stderr.str()
    assert f"{FILE}:4:16: marks[1]: 'extar' not found in `markers`" in text
    assert "atomtrace found 1 mistake in" in text


def test_a_mark_that_nobody_registered_warns_once_at_its_line_where_pytest_is_not_strict(
    place: pytest.Pytester,
) -> None:
    place.makeini("[pytest]\n")
    (place.path / FILE).write_text("case: {model: m, tp: 2}\nlaunch:\n  mean: 1 s\n  marks: [extar]\n")
    result = place.runpytest_subprocess("--atom-replay=saved", "-p", "no:randomly")
    result.assert_outcomes(passed=1, warnings=1)
    assert f"{FILE}:4: PytestUnknownMarkWarning: launch.marks[0]: Unknown pytest.mark.extar" in result.stdout.str()


@pytest.mark.parametrize(
    ("marks", "says"),
    [
        ("xfail", "write xfail: REASON, which expects a failed check and nothing else"),
        ("skip", "write skip: REASON"),
        ("skipif", "write skip: REASON, or the check in Python"),
        ("parametrize", "lists in the fields of the case make a matrix"),
        ("usefixtures", "an autouse fixture in conftest.py"),
        ("filterwarnings", "in the settings of pytest"),
        ("timeout", "deadlines of their own"),
        ("atom_case", "write case: {model: .., tp: ..}"),
        ("atom_catalog", "write from_catalog: {model: ..}"),
    ],
)
def test_a_mark_that_needs_more_than_its_name_is_refused(place: pytest.Pytester, marks: str, says: str) -> None:
    text = (
        f"case: {{model: m, tp: 2}}\nkernels:\n  - {{called: a, ranks: rank_7, marks: [{marks}]}}\nmarks: [{marks}]\n"
    )
    (place.path / FILE).write_text(text)
    result = run(place)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = f"the mark '{marks}' cannot be given by its name alone: "
    assert f"{FILE}:3:40: kernels[0].marks[0]: {said}" in result.stderr.str()
    assert f"{FILE}:4:9: marks[0]: {said}" in result.stderr.str()
    assert result.stderr.str().count(says) == 2


def test_names_of_every_script_are_ids_of_their_own(place: pytest.Pytester) -> None:
    names = ("квантование", "量子化", "कि", "का", "über::moe [1]")
    checks = "".join(
        f"  - {{called: attention_kernel, at_least: {n}, name: '{name}'}}\n" for n, name in enumerate(names, 1)
    )
    (place.path / FILE).write_text(f"case: {{model: m, tp: 2}}\nkernels:\n{checks}", encoding="utf-8")
    found = ids(place)
    assert [one.rpartition("::")[2] for one in found] == ["квантование", "量子化", "कि", "का", "über-moe_1"]
    for one in found:
        run(place, one).assert_outcomes(passed=1)


def test_the_summary_of_skips_has_the_line_of_the_entry(place: pytest.Pytester) -> None:
    for mode in ((), ("-n", "2")):
        result = run(place, "-rs", *mode)
        result.stdout.fnmatch_lines([f"SKIPPED [[]1[]] {FILE}:14: not on this stack"])
    (place.path / FILE).write_text("from_catalog: small\nkernels: [{called: x}]\n")
    run(place, "-rs").stdout.fnmatch_lines([f"SKIPPED [[]1[]] {FILE}:1: no catalog of models: *"])


def test_a_whole_file_can_be_skipped_or_expected_to_fail(place: pytest.Pytester) -> None:
    path: Path = place.path / FILE
    path.write_text("case: {model: m, tp: 2}\nskip: bring-up\nkernels: [{called: none}, {called: nothing}]\n")
    run(place).assert_outcomes(skipped=2)
    path.write_text(
        "case: {model: m, tp: 2}\nxfail: bring-up\nkernels: [{called: none}]\nsteps: {decode: {p99: 1 s}}\n"
    )
    run(place).assert_outcomes(xfailed=1, errors=1)


def test_the_full_set_runs_when_asked_for(place: pytest.Pytester) -> None:
    (place.path / FILE).write_text("case: {model: m, tp: 2}\nmarks: [atom_full]\nlaunch: {mean: 1 s}\n")
    (place.path / "small.atom.yaml").write_text("case: {model: m, tp: 2}\nlaunch: {mean: 1 s}\n")
    run(place).assert_outcomes(passed=1, deselected=1)
    run(place, "-n", "2").assert_outcomes(passed=1)
    run(place, "--atom-full").assert_outcomes(passed=2)
    run(place, "--atom-full", "-n", "2").assert_outcomes(passed=2)
    run(place, FILE).assert_outcomes(passed=1)
    run(place, f"{FILE}::{SLUG}::launch-hipGraphLaunch").assert_outcomes(passed=1)


def test_what_is_seldom_meant_warns_with_its_line(place: pytest.Pytester) -> None:
    (place.path / FILE).write_text("case:\n  {model: m, tp: 2, prompts_per_slot: 10}\nlaunch: {mean: 1 s}\n")
    # In its own process: here warnings are errors.
    result = place.runpytest_subprocess("--atom-replay=saved")
    result.assert_outcomes(passed=1, warnings=1)
    assert f"{FILE}:2: prompts_per_slot=10: a trace grows with every request" in result.stdout.str()


def test_skipped_checks_need_no_capture(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = pytester.path / "ledger.jsonl"
    monkeypatch.setenv("ATOMTRACE_SIM_LEDGER", str(ledger))
    (pytester.path / FILE).write_text(
        "case: {model: openai/gpt-oss-120b, isl: 64, conc: 2}\nkernels: [{called: x, skip: not yet}]\n"
    )
    pytester.runpytest_subprocess("--atom-backend=sim").assert_outcomes(skipped=1)
    assert not ledger.exists()
