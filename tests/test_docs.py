"""The pages: their examples are accepted, their links lead somewhere, and nothing that they name is made up."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pytest_atomtrace.cases.specs.grammar import SECTIONS
from pytest_atomtrace.cli import main
from pytest_atomtrace.cli.arguments import _build
from pytest_atomtrace.settings import rows
from pytest_atomtrace.simulator.controls import PREFIX, TABLE
from pytest_atomtrace.trace.finding import TITLES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
CASE = "case: {model: openai/gpt-oss-120b}\n"
MARK = "import pytest\n\npytestmark = pytest.mark.atom_case(model='openai/gpt-oss-120b')\n\n"


def blocks(language: str) -> list[object]:
    found = [(page, one) for page, text in TEXTS.items() for one in BLOCK.finditer(text) if one[1] == language]
    return [pytest.param(one[2], id=f"{page.name}-{TEXTS[page].count(chr(10), 0, one.start())}") for page, one in found]


def anchors(page: Path) -> set[str]:
    text = BLOCK.sub("", TEXTS[page])
    heads = [re.sub(r"[`*]", "", head).strip().lower() for head in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("text", blocks("python"))
def test_every_python_example_is_collected(text: str, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_example=text if "atom_case" in text else MARK + text)
    done = pytester.runpytest_subprocess("--collect-only", "-q", "--atom-backend=sim")
    assert done.ret == 0, done.stdout.str() + done.stderr.str()
    done.stdout.re_match_lines([r"\d+ tests? collected.*"])


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_yaml_example_is_accepted(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = yaml.safe_load(text)
    if not isinstance(found, dict) or "jobs" in found:  # workflows, waivers, the editor's comment: valid YAML is all
        return
    spec = tmp_path / "example.atom.yaml"
    spec.write_text(text if "case" in found else CASE + text, encoding="utf-8")
    assert set(found) <= {"case", "cases", "from_catalog", "defaults", "marks", "skip", "xfail", *SECTIONS}
    assert main(["spec", "check", str(spec)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_section(page: Path) -> None:
    for target, anchor in LINK.findall(BLOCK.sub("", TEXTS[page])):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}#{anchor}"


def test_the_table_of_health_codes_is_complete() -> None:
    rows = re.findall(r"^\| (H\d\d) ([\w-]+) \|", TEXTS[ROOT / "docs" / "traces.md"], re.MULTILINE)
    assert dict(rows) == TITLES


def test_every_page_is_in_the_index() -> None:
    listed = {target for target, _ in LINK.findall(TEXTS[ROOT / "docs" / "README.md"])}
    assert {page.name for page in PAGES[1:]} - {"README.md"} == listed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_an_option_a_variable_or_a_command_that_does_not_exist(page: Path) -> None:
    text = TEXTS[page]
    assert set(re.findall(r"--atom-[a-z]+(?:-[a-z]+)*", text)) <= {row.option for row in rows()}
    known = {row.env for row in rows()} | {f"{PREFIX}{name}" for name in TABLE}
    assert set(re.findall(r"ATOMTRACE_[A-Z]+(?:_[A-Z]+)*", text)) <= known
    commands = set(re.findall(r"(?:`|\$ |^|\brun: )atomtrace ([a-z][a-z-]*)", text, re.MULTILINE))
    groups = [action for action in _build()[0]._actions if isinstance(action, argparse._SubParsersAction)]
    assert commands <= set(groups[0].choices)


@pytest.mark.parametrize("script", ["settings_page.py", "reference_pages.py", "kept_runs_pages.py"])
def test_the_generated_pages_are_up_to_date(script: str) -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", [page.name for page in PAGES if "<!-- console" in TEXTS[page]])
def test_a_page_shows_what_its_commands_print(page: str) -> None:
    words = [sys.executable, str(ROOT / "scripts" / "docs_console.py"), "--check", page]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_sample_of_the_readme_that_no_run_prints_is_found(tmp_path: Path) -> None:
    shown = re.search(r"^```\n(\.\.\.\n.*?)^```", TEXTS[ROOT / "README.md"], re.DOTALL | re.MULTILINE)
    assert shown is not None
    log = tmp_path / "run.log"
    words = [sys.executable, str(ROOT / "scripts" / "docs_console.py"), "--readme", str(log)]
    log.write_text(shown[1].replace("8 ", "12 "), encoding="utf-8")
    assert subprocess.run(words, capture_output=True, text=True).stdout == ""
    log.write_text(shown[1].replace("captured", "took"), encoding="utf-8")
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1
    assert "does not print: atomtrace [DeepSeek-V4-Pro" in done.stdout
    log.write_text(shown[1].replace("JSON report:", "One more line\nJSON report:"), encoding="utf-8")
    assert "does not print: JSON report:" in subprocess.run(words, capture_output=True, text=True).stdout


def test_the_readmes_spec_is_green_on_the_simulator(pytester: pytest.Pytester) -> None:
    (text,) = (one for one in BLOCK.findall(TEXTS[ROOT / "README.md"]) if one[0] == "python")
    pytester.makepyfile(test_sample=text[1])
    # The case with the longest steps; the other one of the matrix asks the same of a smaller batch.
    done = pytester.runpytest_subprocess("--atom-backend=sim", "-k", "conc64")
    done.assert_outcomes(passed=2, deselected=2)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    if not all(importlib.util.find_spec(name) for name in ("sphinx", "myst_parser", "furo")):
        pytest.skip("the site needs the extra docs")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    words = [str(ROOT / "scripts" / "docs"), str(tmp_path / "site")]
    done = subprocess.run(words, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (tmp_path / "site").glob("*.html")}
    assert "tutorial.html" in pages["README"]
    for page in PAGES[1:]:
        assert pages[page.stem].count("<h1>") == 1, f"{page.name}: a comment in an example became a title"
        assert "\N{EN DASH}atom" not in pages[page.stem], f"{page.name}: an option cannot be copied"


def test_options_are_shown_with_their_value_attached() -> None:
    # "--atom-replay 'my runs'": pytest takes a value that stands apart for a path too, and moves its rootdir there.
    apart = re.compile(r"--atom-[a-z-]+ (?:[A-Z]+\b|['\"{<./0-9]|https?:|none\b|off\b)")
    sources = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "pytest_atomtrace").rglob("*.py"))}
    wrong = [
        f"{path.name}: {found[0]}" for path, text in {**TEXTS, **sources}.items() for found in apart.finditer(text)
    ]
    assert wrong == []
