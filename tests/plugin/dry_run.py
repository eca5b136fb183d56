"""A dry run on GitHub: its variables, a summary file, and specs of as many failing checks as one likes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.traces import Recipe, write_ranks

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

__all__ = ["NO_ANNOTATOR", "SPEC", "DryRun", "commands", "dry_run", "kinds"]

NO_ANNOTATOR = ("-p", "no:pytest_github_actions_annotate_failures")
SPEC = """
import pytest

pytestmark = pytest.mark.atom_case(model="m", tp=2)

@pytest.mark.parametrize("number", range({checks}))
def test_kernel(atom_trace, number):
    atom_trace.assert_kernel_called(f"no_such_kernel_{{number}}", during="decode")

def test_passes(atom_trace):
    atom_trace.assert_kernel_called("mfma_moe1_*", during="decode")

def test_no_answer(atom_trace):
    atom_trace.assert_step_time("decode", p99="1 s")
"""


@dataclass(frozen=True)
class DryRun:
    """What a finished run left: pytest's result and the step summary."""

    result: pytest.RunResult
    summary: str

    @property
    def commands(self) -> list[str]:
        return commands(self.result)


def commands(result: pytest.RunResult) -> list[str]:
    """Lines that GitHub's runner obeys, of both streams."""
    lines = [*result.outlines, *result.errlines]
    return [line for line in lines if line.lstrip().startswith("::") or "##[" in line]


def kinds(lines: list[str]) -> list[str]:
    return [str(re.split("[: ]", line.lstrip().removeprefix("::"), maxsplit=1)[0]) for line in lines]


def dry_run(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    *arguments: str,
    spec: str,
    recipe: Recipe | None = None,
    below: str = "perf",
) -> DryRun:
    """Run `spec` in a folder `below` the checkout on a saved trace of `recipe`."""
    folder = pytester.path / below
    folder.mkdir(exist_ok=True)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_spec.py").write_text(spec)
    saved = pytester.path / "saved"
    if not saved.exists():
        write_ranks(saved, recipe or Recipe(), recipe or Recipe())
    summary: Path = pytester.path / "summary.md"
    summary.unlink(missing_ok=True)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path))
    monkeypatch.chdir(folder)
    result = pytester.runpytest_subprocess(f"--atom-replay={saved}", *arguments)
    return DryRun(result, summary.read_text(encoding="utf-8") if summary.exists() else "")
