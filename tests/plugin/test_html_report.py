"""The HTML report of a run: written once, by the controller, where it was asked for, and never a reason to fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.report.pages import Page
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

    def test_budget(atom_trace):
        atom_trace.assert_step_time("decode", p50="100 us")

    def test_its_own_assertion(atom_trace):
        assert atom_trace.decode.gpu_busy.p50_ns < 5, "too slow for <b>us</b>"

    def test_skipped(atom_trace):
        pytest.skip("not today")
"""
WITHOUT_JINJA = "import sys\nsys.modules['jinja2'] = None\n"


@pytest.fixture(autouse=True)
def saved(pytester: pytest.Pytester) -> Path:
    pytester.makepyfile(test_spec=SPEC)
    return write_ranks(pytester.path / "saved", Recipe(), Recipe(slow={20: 2.0}))


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("--atom-replay=saved", *arguments)


@pytest.mark.parametrize("mode", [(), ("-n", "2")], ids=["no xdist", "two workers"])
def test_a_replay_writes_the_page_that_was_asked_for(pytester: pytest.Pytester, mode: tuple[str, ...]) -> None:
    result = run(pytester, "--atom-html=out/page.html", *mode)
    result.assert_outcomes(passed=1, failed=3, skipped=1)
    assert result.ret == 1
    assert result.outlines.count("HTML report: out/page.html") == 1
    page = Page((pytester.path / "out" / "page.html").read_text("utf-8"))
    assert "3 checks failed in 1 of 1 case" in page.text
    assert "decode p50 is 120.0 us on rank_0, over the budget of 100.0 us" in page.text
    # The evidence too, as the failing test shows it.
    assert "no_such_kernel is not called during decode" in page.text
    assert "atomtrace kernels saved --during decode" in page.text
    assert "too slow for <b>us</b>" in page.text
    assert "1 test: not today" in page.text
    assert not list(pytester.path.glob(".atomtrace/**/report.html"))


def test_a_run_leaves_its_page_beside_its_captures(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_spec="""
        import pytest

        @pytest.mark.atom_case(model="openai/gpt-oss-120b", isl=64, osl=64, conc=4)
        def test_it(atom_trace):
            atom_trace.assert_step_time("decode", p50="1 s")
        """
    )
    result = pytester.runpytest_subprocess("--atom-backend=sim", "-n", "2")
    result.assert_outcomes(passed=1)
    pages = list(pytester.path.glob(".atomtrace/runs/*/report.html"))
    assert len(pages) == 1
    result.stdout.fnmatch_lines([f"HTML report: {pages[0].relative_to(pytester.path)}"])
    page = Page(pages[0].read_text("utf-8"))
    assert "All 1 check of 1 case passed" in page.text
    assert page.data["cases"][0]["timelines"]
    assert page.data["cases"][0]["budgets"][0][:4] == ["decode", "gpu_busy", "p50", 1_000_000_000]


@pytest.mark.parametrize(
    "arguments",
    [("--atom-html=none",), (), ("--atom-html=page.html", "--collect-only")],
    ids=["none", "a replay without a path", "collect-only"],
)
def test_no_page_where_none_is_due(pytester: pytest.Pytester, arguments: tuple[str, ...]) -> None:
    result = run(pytester, *arguments)
    result.stdout.no_fnmatch_line("*HTML report*")
    assert not list(pytester.path.rglob("*.html"))


def test_without_jinja_one_sentence_says_what_to_install_and_the_run_goes_on(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(WITHOUT_JINJA)
    result = run(pytester, "--atom-html=page.html", "-k", "test_passes")
    result.assert_outcomes(passed=1, deselected=4)
    assert result.ret == 0
    said = [line for line in result.outlines if "jinja2" in line]
    assert said == [
        "NOTE  no HTML report: it needs jinja2, which pip install 'pytest-atomtrace[report]' brings",
    ]
    assert not (pytester.path / "page.html").exists()


def test_a_page_that_cannot_be_written_is_a_warning_and_no_failure(pytester: pytest.Pytester) -> None:
    (pytester.path / "file").touch()
    result = run(pytester, "--atom-html=file/page.html", "-k", "test_passes")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["WARNING  no HTML report: *file*"])


def test_a_capture_that_is_gone_by_then_leaves_a_case_that_says_so(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_zz="""
        import shutil

        def test_cleans_up():
            shutil.rmtree("saved")
        """
    )
    run(pytester, "--atom-html=page.html").assert_outcomes(passed=2, failed=3, skipped=1)
    page = Page((pytester.path / "page.html").read_text("utf-8"))
    assert "The capture cannot be read" in page.text
    assert "3 checks failed in 1 of 1 case" in page.text


def test_a_secret_of_the_environment_is_not_in_the_page(
    pytester: pytest.Pytester, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_planted_secret_value")
    pytester.makepyfile(
        test_spec="""
        import pytest

        @pytest.mark.atom_case(model="m", tp=2)
        def test_it(atom_trace):
            assert not atom_trace, "hf_planted_secret_value"
        """
    )
    (saved / "manifest.json").write_text('{"environment": {"software": {"note": "hf_planted_secret_value"}}}')
    run(pytester, "--atom-html=page.html")
    assert "hf_planted_secret_value" not in (pytester.path / "page.html").read_text("utf-8")
