"""Files of a run: whole or not at all, written once by the controller, and never a reason to fail."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from pytest_atomtrace.report.json_report import report_schema
from tests.traces import Recipe, write_ranks

if TYPE_CHECKING:
    from pathlib import Path


SPEC = """
    import pytest

    pytestmark = pytest.mark.atom_case(model="m", tp=2, conc=[4, 8])

    def test_passes(atom_trace):
        atom_trace.assert_kernel_called("mfma_moe1_*", during="decode", per_step=4)

    def test_two_questions(atom_trace):
        atom_trace.assert_kernel_called("mfma_moe1_*", during="decode", per_step=4)
        atom_trace.assert_kernel_called("no_such_kernel", during="decode")

    def test_too_few_steps(atom_trace):
        atom_trace.assert_step_time("decode", p99="1 s")

    def test_of_their_own(atom_trace):
        assert len(atom_trace.ranks) == 3

    def test_unproven(atom_trace):
        atom_trace.assert_kernel_not_called("fallback_*")

    @pytest.mark.skip(reason="not today")
    def test_skipped(atom_trace): pass

    @pytest.mark.xfail(reason="known")
    def test_expected(atom_trace):
        atom_trace.assert_kernel_called("no_such_kernel", during="decode")
"""


@pytest.fixture
def saved(pytester: pytest.Pytester) -> Path:
    pytester.makepyfile(test_spec=SPEC)
    return write_ranks(pytester.path / "saved", Recipe(), Recipe())


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:pytest_github_actions_annotate_failures", *arguments)


def report(path: Path) -> dict[str, Any]:
    """The valid report in `path`, without the run's id."""
    made: dict[str, Any] = json.loads(path.read_bytes())
    jsonschema.validate(made, report_schema())
    del made["run"]["id"]
    return made


def test_every_check_is_in_the_report_with_its_place(pytester: pytest.Pytester, saved: Path) -> None:
    result = run(pytester, f"--atom-replay={saved}", "--atom-json=out/r.json")
    made = report(pytester.path / "out" / "r.json")
    result.stdout.fnmatch_lines(["JSON report: out/r.json"])
    lines = (pytester.path / "test_spec.py").read_text().splitlines()
    found = {
        (row["test"].split("::")[1].split("[")[0], row["outcome"], row["expected"], lines[row["line"] - 1].strip())
        for row in made["checks"]
        if row["case"].endswith("conc4")
    }
    asked = 'atom_trace.assert_kernel_called("mfma_moe1_*", during="decode", per_step=4)'
    missing = 'atom_trace.assert_kernel_called("no_such_kernel", during="decode")'
    assert found == {
        ("test_passes", "pass", False, asked),
        ("test_two_questions", "pass", False, asked),
        ("test_two_questions", "fail", False, missing),
        ("test_too_few_steps", "inconclusive", False, 'atom_trace.assert_step_time("decode", p99="1 s")'),
        ("test_of_their_own", "fail", False, "assert len(atom_trace.ranks) == 3"),
        ("test_unproven", "pass", False, 'atom_trace.assert_kernel_not_called("fallback_*")'),
        ("test_skipped", "skip", False, '@pytest.mark.skip(reason="not today")'),
        ("test_expected", "fail", True, missing),
    }
    assert made["run"]["checks"] == {
        "passed": 6, "skipped": 2, "failed": 4, "regressed": 0, "inconclusive": 2, "infra": 0, "wrong": 0,
        "expected": 2,
    }  # fmt: skip
    assert (made["run"]["outcome"], made["run"]["exit_status"]) == ("inconclusive", 1)
    (evidence,) = (
        row["evidence"]
        for row in made["checks"]
        if row["sentence"].startswith("no_such") and "conc4" in row["case"] and not row["expected"]
    )
    assert any("nearest" in line for line in evidence)


def test_two_workers_write_what_one_process_writes(pytester: pytest.Pytester, saved: Path) -> None:
    for name, arguments in {"one": (), "two": ("-n", "2", "--dist=worksteal")}.items():
        options = [f"--atom-json={name}.json", f"--atom-markdown={name}.md", f"--junitxml={name}.xml"]
        run(pytester, f"--atom-replay={saved}", *options, *arguments)
    assert report(pytester.path / "one.json") == report(pytester.path / "two.json")
    one, two = ((pytester.path / f"{name}.md").read_text().splitlines() for name in ("one", "two"))
    assert [line for line in one if "; run " not in line] == [line for line in two if "; run " not in line]
    assert properties(pytester.path / "one.xml") == properties(pytester.path / "two.xml")


def test_the_same_run_gives_the_same_bytes(pytester: pytest.Pytester, saved: Path) -> None:
    made = []
    for _ in range(2):
        run(pytester, f"--atom-replay={saved}", "--atom-json=r.json", "-k", "conc4")
        text = (pytester.path / "r.json").read_text()
        made.append(text.replace(json.loads(text)["run"]["id"], ""))
    assert made[0] == made[1]


def properties(path: Path) -> dict[str, dict[str, str]]:
    """Properties by test; a name that is there twice is an error."""
    found: dict[str, dict[str, str]] = {}
    for case in ET.parse(path).iter("testcase"):
        pairs = [(str(one.get("name")), str(one.get("value"))) for one in case.iter("property")]
        assert len(pairs) == len(dict(pairs)), pairs
        found[str(case.get("name"))] = dict(pairs)
    return found


@pytest.mark.parametrize("family", ["xunit1", "xunit2"])
def test_junit_has_a_few_flat_properties(
    pytester: pytest.Pytester, saved: Path, mode: tuple[str, ...], family: str
) -> None:
    run(pytester, f"--atom-replay={saved}", "--junitxml=j.xml", "-o", f"junit_family={family}", *mode)
    slug = "m-tp2-isl1024-osl128-conc4"
    found = {name.split("[")[0]: row for name, row in properties(pytester.path / "j.xml").items() if slug in name}
    assert found["test_two_questions"] == {
        "atomtrace.case": slug,
        "atomtrace.outcome": "fail",
        "atomtrace.check": "called no_such_kernel during decode",
        "atomtrace.engine": "replay",
        "atomtrace.decode_p50_us": "120.000",
        "atomtrace.capture": str(saved),
    }
    outcomes = {name: row["atomtrace.outcome"] for name, row in found.items()}
    assert outcomes == {
        "test_passes": "pass",
        "test_two_questions": "fail",
        "test_too_few_steps": "inconclusive",
        "test_of_their_own": "fail",
        "test_unproven": "pass",
        "test_skipped": "skip",
        "test_expected": "xfail",
    }


def test_properties_can_be_left_out_and_a_rerun_has_them_once(pytester: pytest.Pytester, saved: Path) -> None:
    run(pytester, f"--atom-replay={saved}", "--junitxml=j.xml", "--atom-junit=off")
    assert not any(properties(pytester.path / "j.xml").values())
    run(pytester, f"--atom-replay={saved}", "--junitxml=j.xml", "--reruns=2", "-k", "two_questions")
    assert all(len(row) == 6 for row in properties(pytester.path / "j.xml").values())


def test_a_test_that_passes_in_the_second_attempt_has_no_failed_check(pytester: pytest.Pytester, saved: Path) -> None:
    pytester.makepyfile(
        test_spec="""
        import pytest

        seen = []

        @pytest.mark.atom_case(model="m", tp=2)
        def test_flaky(atom_trace):
            seen.append(1)
            atom_trace.assert_kernel_called("no_such_kernel" if len(seen) == 1 else "mfma_moe1_*", during="decode")
        """
    )
    result = run(pytester, f"--atom-replay={saved}", "--reruns=1", "--atom-json=r.json")
    assert result.ret == pytest.ExitCode.OK
    assert report(pytester.path / "r.json")["run"]["checks"]["failed"] == 0


@pytest.mark.parametrize("option", ["--atom-json", "--atom-markdown", "--atom-dashboard", "--atom-html"])
def test_a_report_that_cannot_be_written_is_one_line_and_changes_nothing(
    pytester: pytest.Pytester, saved: Path, mode: tuple[str, ...], option: str
) -> None:
    (pytester.path / "file").write_text("in the way")
    arguments = [f"--atom-replay={saved}", "-k", "passes", *mode]
    result = run(pytester, *arguments, f"{option}=file/report", "--atom-json=good.json")
    if option != "--atom-json":
        report(pytester.path / "good.json")
        warnings = [line for line in result.stdout.lines if line.startswith("WARNING  no ")]
        assert len(warnings) == 1, result.stdout.str()
        assert "file/report" in warnings[0]
        assert "Not a directory" in warnings[0] or "exists" in warnings[0]
    assert result.ret == pytest.ExitCode.OK
    quiet = run(pytester, *arguments, "-q", f"{option}=file/report")
    assert quiet.ret == pytest.ExitCode.OK
    assert sum(line.startswith("WARNING  no ") for line in quiet.stdout.lines) == 1


def test_a_full_disk_is_such_a_line(pytester: pytest.Pytester, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/dev/full")
    result = run(pytester, f"--atom-replay={saved}", "-k", "passes")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["WARNING  no GitHub step summary: /dev/full cannot be written: No space left*"])


@pytest.mark.parametrize("arguments", [("--collect-only",), ("--help",), ("--markers",)])
def test_without_a_run_nothing_is_written(
    pytester: pytest.Pytester, saved: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    summary = pytester.path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    before = set(pytester.path.rglob("*"))
    run(pytester, f"--atom-replay={saved}", "--atom-json=r.json", "--atom-dashboard=d", *arguments)
    new = {path.name for path in set(pytester.path.rglob("*")) - before if "cache" not in str(path)}
    assert not new & {"r.json", "d", "summary.md", ".atomtrace"}


def test_a_run_without_any_case_replaces_an_old_report(pytester: pytest.Pytester, saved: Path) -> None:
    (pytester.path / "r.json").write_text("old")
    result = run(pytester, f"--atom-replay={saved}", "--atom-json=r.json", "-k", "nothing_is_called_so")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert report(pytester.path / "r.json")["run"]["outcome"] is None


def test_real_runs_of_the_simulator_give_valid_reports(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, mode: tuple[str, ...]
) -> None:
    monkeypatch.setenv("ATOMTRACE_SIM_LAYERS", "2")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.atom_case(model="openai/gpt-oss-120b", osl=40, conc=4)
        @pytest.mark.parametrize("kernel", ["mfma_moe1_*", "no_such_kernel"])
        def test_kernel(atom_trace, kernel):
            atom_trace.assert_kernel_called(kernel, during="decode")

        @pytest.mark.atom_case(model="openai/gpt-oss-120b", osl=40, conc=2, server_args=["--no-such-flag"])
        def test_never_starts(atom_trace): pass
        """
    )
    options = ("--atom-backend=sim", f"--atom-lock-dir={pytester.path / 'locks'}", "--atom-bench=on")
    monkeypatch.setenv("HF_TOKEN", "hf_do_not_tell_anybody")
    result = run(pytester, *options, "--atom-json=r.json", "--atom-dashboard=d", *mode)
    made = report(pytester.path / "r.json")
    (kept,) = (pytester.path / ".atomtrace" / "runs").glob("*/report.json")
    assert kept.read_bytes() == (pytester.path / "r.json").read_bytes()
    assert [row["outcome"] for row in made["cases"]] == ["infra", "fail"]
    dead, alive = made["cases"]
    assert (alive["simulated"], alive["engine"], alive["ranks"]) == (True, "sim", 1)
    assert alive["per_token_p50_ns"] >= alive["decode_p50_ns"] > 0
    assert (alive["gpu"], alive["rocm"][:6]) == ("AMD Instinct MI355X", "HIP 7.")
    assert alive["bench"]["tpot_mean_ns"] > 0
    assert "--no-such-flag" in next(row["sentence"] for row in made["checks"] if row["case"] == dead["slug"])
    entries = [
        one
        for name in ("Bigger", "Smaller")
        for one in json.loads((pytester.path / "d" / f"custom{name}IsBetter.json").read_bytes())
    ]
    assert {one["name"].split(" ")[0] for one in entries} == {"[simulated]"}
    assert any(one["name"].endswith("ATOM::gpt-oss-120b 1024/40 c=4 TPOT (ms)") for one in entries)
    result.stdout.fnmatch_lines([f"captures: .atomtrace/runs/{kept.parent.name} (*--atom-replay*)"])
    made_up = "of the built-in simulator: their times are made up"
    assert "E         engine    sim: simulated, its times are made up" in result.stdout.lines
    assert made_up in result.stdout.str()
    replayed = run(pytester, f"--atom-replay={kept.parent}", "--atom-dashboard=d2", "--atom-html=p.html")
    assert "E         engine    replay of sim: simulated, its times are made up" in replayed.stdout.lines
    assert any(line.split()[1:4] == ["replay", "of", "sim"] for line in replayed.stdout.lines if line)
    assert made_up in replayed.stdout.str()
    assert made_up in (pytester.path / "p.html").read_text()
    quiet = run(pytester, f"--atom-replay={kept.parent}", "-q", "--tb=no", "-rN")
    assert made_up in quiet.stdout.str()
    assert json.loads((pytester.path / "d2" / "customSmallerIsBetter.json").read_bytes()) == []
    assert "this is no simulator run" in replayed.stdout.str()


def test_no_secret_of_the_environment_reaches_a_report(
    pytester: pytest.Pytester, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = 'hf_"x9q7"<&>|value'
    monkeypatch.setenv("HF_TOKEN", secret)
    pytester.makepyfile(
        test_spec="""
        import os, pytest

        @pytest.mark.atom_case(model="m", tp=2)
        def test_tells(atom_trace):
            raise AssertionError("the token is " + os.environ["HF_TOKEN"])
        """
    )
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "s.md"))
    result = run(pytester, f"--atom-replay={saved}", "--atom-json=r.json", "--atom-markdown=r.md", "--tb=no", "-rN")
    for text in [
        result.stdout.str(),
        *(str((pytester.path / name).read_text()) for name in ("r.json", "r.md", "s.md")),
    ]:
        assert "x9q7" not in text
        assert "redacted" in text


def test_a_check_in_a_subtest_is_reported_once(pytester: pytest.Pytester, saved: Path) -> None:
    if not hasattr(pytest, "Subtests"):
        pytest.skip("subtests are part of pytest from version 9 on")
    pytester.makepyfile(
        test_spec="""
        import pytest

        @pytest.mark.atom_case(model="m", tp=2)
        def test_parts(atom_trace, subtests):
            for kernel in ("no_such_kernel", "mfma_moe1_*"):
                with subtests.test(kernel):
                    atom_trace.assert_kernel_called(kernel, during="decode")
        """
    )
    run(pytester, f"--atom-replay={saved}", "--atom-json=r.json")
    found = [(row["check"], row["outcome"]) for row in report(pytester.path / "r.json")["checks"]]
    assert found == [("called no_such_kernel during decode", "fail"), ("called mfma_moe1_* during decode", "pass")]


def test_an_interrupted_run_reports_what_it_knows(pytester: pytest.Pytester, saved: Path) -> None:
    pytester.makepyfile(
        test_spec="""
        import pytest

        pytestmark = pytest.mark.atom_case(model="m", tp=2)

        def test_first(atom_trace):
            atom_trace.assert_kernel_called("no_such_kernel", during="decode")

        def test_second(atom_trace):
            raise KeyboardInterrupt

        def test_third(atom_trace): pass
        """
    )
    result = run(pytester, f"--atom-replay={saved}", "--atom-json=r.json")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    made = report(pytester.path / "r.json")
    assert (made["run"]["exit_status"], len(made["checks"]), made["cases"][0]["tests"]) == (2, 1, 1)
