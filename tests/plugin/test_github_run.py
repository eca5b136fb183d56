"""A run on GitHub: step summary and annotations, within GitHub's limits, once, and no command but ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.plugin.dry_run import NO_ANNOTATOR, SPEC, commands, dry_run, kinds
from tests.report.rows import PAYLOADS
from tests.traces import Recipe

if TYPE_CHECKING:
    from tests.plugin.dry_run import DryRun

CHECKS = 300
YAML = """\
case: {model: m, tp: 2}
kernels:
  - called: mfma_moe1_*
  - called: no_such_kernel
    during: decode
    per_step: 4
"""


def check_limits(run: DryRun, checks: int) -> None:
    """What must hold for any number of failing checks above ten."""
    assert run.result.parseoutcomes() == {"failed": checks, "passed": 1, "errors": 1}
    assert run.result.ret == pytest.ExitCode.TESTS_FAILED
    assert len(run.summary.encode()) < 1024 * 1024
    blocks = re.findall(r"<details><summary>\S+ ([a-z ]+):", run.summary)
    assert blocks[0] == "inconclusive"
    assert set(blocks[1:]) == {"fail"}
    cut = re.search(r"\*\*([\d,]+) more checks? did not pass and (?:is|are) left out here", run.summary)
    left_out = int(cut[1].replace(",", "")) if cut else 0
    assert len(blocks) + left_out == checks + 1
    lines = run.commands
    assert kinds(lines) == ["error"] * 10 + ["notice"]
    assert "line=14,title=inconclusive" in lines[0]
    assert f"{checks + 1 - 10:,} more checks did not pass" in lines[-1]


def test_three_hundred_failing_checks(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SPEC.format(checks=CHECKS)
    one = dry_run(pytester, monkeypatch, *NO_ANNOTATOR, "--tb=no", spec=spec)
    check_limits(one, CHECKS)
    assert (
        "::error file=perf/test_spec.py,line=8,title=failed%3A called no_such_kernel_0 during decode::"
        in one.commands[1]
    )
    two = dry_run(pytester, monkeypatch, *NO_ANNOTATOR, "--tb=no", "-n", "2", spec=spec)
    assert two.commands == one.commands
    assert without_id(two.summary) == without_id(one.summary)


def without_id(summary: str) -> str:
    return re.sub("; run <code>.*?</code>", "", summary)


def test_the_plugin_that_annotates_failures_keeps_them_to_itself(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pytest_github_actions_annotate_failures")
    run = dry_run(pytester, monkeypatch, spec=SPEC.format(checks=3))
    lines = run.commands
    assert kinds(lines) == ["error"] * 4
    assert all(sum(f"no_such_kernel_{number}" in line for line in lines) == 1 for number in range(3))
    assert sum("test_no_answer" in line for line in lines) == 1


def test_github_can_be_switched_off(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    run = dry_run(pytester, monkeypatch, *NO_ANNOTATOR, "--atom-github=off", spec=SPEC.format(checks=1))
    assert (run.commands, run.summary) == ([], "")


def test_elsewhere_nothing_is_a_command(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    run = dry_run(pytester, monkeypatch, *NO_ANNOTATOR, spec=SPEC.format(checks=1))
    assert run.commands
    monkeypatch.delenv("GITHUB_ACTIONS")
    pytester.path.joinpath("summary.md").unlink()
    result = pytester.runpytest_subprocess(f"--atom-replay={pytester.path / 'saved'}", *NO_ANNOTATOR)
    assert not [line for line in result.outlines if line.startswith("::")]
    assert not pytester.path.joinpath("summary.md").exists()


def test_the_summary_is_added_to_what_other_steps_wrote_and_keeps_within_the_rest(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    dry_run(pytester, monkeypatch, *NO_ANNOTATOR, spec=SPEC.format(checks=1))
    summary = pytester.path / "summary.md"
    options = (f"--atom-replay={pytester.path / 'saved'}", *NO_ANNOTATOR)
    summary.write_text("before\n" * 1000)
    pytester.runpytest_subprocess(*options)
    assert summary.read_text().startswith("before\nbefore\n")
    assert "## " in summary.read_text()
    summary.write_text("x" * 1_020_000)
    result = pytester.runpytest_subprocess(*options)
    assert summary.stat().st_size == 1_020_000
    assert "nothing was added" in result.stdout.str()


@pytest.mark.parametrize("payload", PAYLOADS[:-1])
def test_no_kernel_name_becomes_a_command_a_tag_or_a_colour(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, payload: str
) -> None:
    spec = """
import pytest

@pytest.mark.atom_case(model="m", tp=2)
def test_absent(atom_trace):
    atom_trace.assert_kernel_not_called("re:.*evil.*", during="decode")

@pytest.mark.atom_case(model="m", tp=2)
def test_log(atom_trace):
    from pytest_atomtrace.errors import InfraError
    raise InfraError("the server died", "", [NAME, "::warning::from the log"])
""".replace("NAME", repr(f"{payload}evil"))
    recipe = Recipe(renamed={"mfma_moe2_a_t32": f"{payload}evil{payload}"})
    run = dry_run(pytester, monkeypatch, *NO_ANNOTATOR, spec=spec, recipe=recipe)
    run.result.assert_outcomes(failed=1, errors=1)
    assert kinds(run.commands) == ["error", "error"], run.commands
    assert "\x1b[31m" not in run.result.stdout.str()
    assert "evil" in run.result.stdout.str()
    assert "<script" not in run.summary
    assert "<img" not in run.summary


def test_a_check_of_a_yaml_spec_is_marked_at_its_entry(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    dry_run(pytester, monkeypatch, *NO_ANNOTATOR, spec="")
    (pytester.path / "perf" / "m.atom.yaml").write_text(YAML)
    result = pytester.runpytest_subprocess(f"--atom-replay={pytester.path / 'saved'}", *NO_ANNOTATOR)
    (line,) = commands(result)
    title = "failed%3A called no_such_kernel during decode 4 per step"
    assert line.startswith(f"::error file=perf/m.atom.yaml,line=4,title={title}::")
