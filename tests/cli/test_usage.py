"""What every command has in common: exit codes, one-line errors, JSON, widths, pipes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.cli.screen import Screen
from tests.traces import Recipe, write_rank, write_ranks

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Result

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "summary",
    "kernels",
    "steps",
    "health",
    "diff",
    "check-layout",
    "layers",
    "traits",
    "open",
    "export",
    "history",
)


def one_line(result: Result) -> str:
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err
    return result.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "which command? summary, kernels"),
        (["summry", "x"], "did you mean 'summary'?"),
        (["nonsense"], "commands: summary"),
        (["kernels"], "required: PATH (see atomtrace kernels --help)"),
        (["kernels", "{}", "--limit", "few"], "'few' is no number"),
        (["summary", "{}/nowhere"], "there is no such file or directory"),
        (["summary", "{}/rank_0"], "holds no trace"),
        (["summary", "{}/empty.json.gz"], "0 bytes"),
        (["summary", "{}/words.json"], "is not JSON"),
        (["kernels", "{}/traces", "--match", "re:("], "--match: 're:(' is no regular expression"),
        (["kernels", "{}/traces", "--during", "decod"], "did you mean 'decode'?"),
        (["kernels", "{}/traces", "--rank", "rank_7"], "no rank 'rank_7' in"),
        (
            ["kernels", "{}/traces", "--during", "draft", "--per-step"],
            "no draft step; kinds here: prefill, decode",
        ),
        (["steps", "{}/traces", "--kind", "decoding"], "'decoding' is no kind of step"),
        (["steps", "{}/traces", "--kind", "draft"], "no draft step. Kinds seen: decode, prefill."),
        (["diff", "{}/traces", "{}/unlabelled"], "no step labels at all. Trace: {}/unlabelled"),
        (["check-layout", "{}/traces"], "no manifest.json that says so; give --tp N"),
        (["check-layout", "{}/traces", "--tp", "0"], "'0' is no positive whole number"),
        (["check-layout", "{}/words.json", "--tp", "1"], "is a file, not a trace directory"),
        (["health", "{}/traces", "--dp", "2"], "need --tp N"),
        (["layers", "{}/traces"], "start the server with --mark-trace"),
        (["layers", "{}/traces", "--step", "last"], "'last' is no decode step of rank_0"),
        (["layers", "{}/traces", "--capture-traces", "{}/gone"], "there is no such capture trace"),
        (["traits", "{}/traces", "--rank", "rank_7"], "no rank 'rank_7'"),
    ],
)
def test_wrong_usage_and_unreadable_input_are_one_line_and_exit_2(
    atomtrace: Callable[..., Result], tmp_path: Path, words: list[str], says: str
) -> None:
    write_rank(tmp_path / "traces" / "rank_0", Recipe(decode_steps=9))
    write_rank(tmp_path / "unlabelled" / "rank_0", Recipe(decode_steps=2, labels=False))
    (tmp_path / "rank_0").mkdir()
    (tmp_path / "empty.json.gz").write_bytes(b"")
    (tmp_path / "words.json").write_text("words")
    line = one_line(atomtrace(*(word.replace("{}", str(tmp_path)) for word in words)))
    prog = f"atomtrace {words[0]}" if words and words[0] in COMMANDS else "atomtrace"
    assert line.startswith(f"{prog}: error: ")
    assert says.replace("{}", str(tmp_path)) in line


def test_a_run_with_several_captures_asks_for_one_of_them(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    for slug in ("model-a", "model-b"):
        place = tmp_path / "captures" / slug / "1"
        write_rank(place / "rank_0", Recipe(decode_steps=9))
        manifest = {
            "schema": 1,
            "slug": slug,
            "ranks": {"rank_0": {"file": "x"}},
            "expected_ranks": ["rank_0", "rank_1"],
        }
        (place / "manifest.json").write_text(json.dumps(manifest))
    line = one_line(atomtrace("kernels", tmp_path))
    assert "holds 2 captures; name one, such as" in line
    assert f"{tmp_path / 'captures' / 'model-a' / '1'} (atomtrace summary {tmp_path} lists them)" in line
    alone = atomtrace("health", tmp_path / "captures" / "model-b", "--json")
    # The manifest says that a second rank belongs to the capture.
    assert alone.code == 1
    assert [finding["code"] for finding in alone.json["findings"] if finding["fatal"]] == ["H01"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_and_shows_examples(atomtrace: Callable[..., Result], command: str) -> None:
    result = atomtrace(command, "--help", width=80)
    assert (result.code, result.err) == (0, "")
    assert f"  atomtrace {command} " in result.out.partition("examples:")[2]
    assert max(map(len, result.out.splitlines())) <= 80


def test_version_and_overview(atomtrace: Callable[..., Result]) -> None:
    assert atomtrace("--version").out.startswith("atomtrace ")
    overview = atomtrace("--help", width=80).out
    assert [command for command in COMMANDS if f"    {command} " not in overview] == []


ANSWERS = (
    ("summary", "{}"),
    ("kernels", "{}", "--during", "decode", "--per-step"),
    ("kernels", "{}", "--layer", "op"),
    ("steps", "{}", "--first"),
    ("health", "{}"),
    ("diff", "{}", "{}"),
    ("check-layout", "{}", "--tp", "2"),
    ("traits", "{}", "{}"),
)


@pytest.mark.parametrize("words", ANSWERS, ids=lambda words: "-".join(words[:1] + words[2:]))
@pytest.mark.parametrize("width", [80, 120])
def test_answers_fit_the_terminal(
    atomtrace: Callable[..., Result],
    tmp_path: Path,
    words: tuple[str, ...],
    width: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long_name = "_ZN2ck32" + "kernel_of_a_very_long_name_" * 12
    write_ranks(tmp_path / "traces", *[Recipe(decode_steps=30, extra=(long_name,)) for _ in range(2)])
    monkeypatch.chdir(tmp_path)
    result = atomtrace(*(word.replace("{}", "traces") for word in words), width=width)
    assert result.code == 0, result.err
    assert "\x1b" not in result.out
    too_long = [line for line in result.out.splitlines() if len(line) > width]
    assert too_long == []
    assert not any(line != line.rstrip() for line in result.out.splitlines())


@pytest.mark.parametrize("words", ANSWERS, ids=lambda words: "-".join(words[:1] + words[2:]))
def test_json_is_one_object_whose_times_are_integers_of_named_unit(
    atomtrace: Callable[..., Result], tmp_path: Path, words: tuple[str, ...]
) -> None:
    traces = write_ranks(tmp_path, Recipe(decode_steps=30), Recipe(decode_steps=30))
    result = atomtrace(*(word.replace("{}", str(traces)) for word in words), "--json")
    document = result.json
    assert (document["command"], document["schema"], result.code) == (words[0], 1, 0)
    times: list[object] = []

    def walk(value: object, key: str) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, name)
        elif isinstance(value, list):
            for inner in value:
                walk(inner, key)
        elif key.endswith("_ns"):
            times.append(value)

    walk(document, "")
    assert all(value is None or isinstance(value, int) for value in times)
    assert not re.search(r'"\w*(?<!share)(?<!_ns)_(us|ms|s)":', result.out), "one unit for all times"


@pytest.mark.parametrize("words", [("summary",), ("health",), ("kernels", "--json")])
def test_a_reader_that_goes_away_costs_neither_a_traceback_nor_the_code(tmp_path: Path, words: tuple[str, ...]) -> None:
    traces = write_ranks(tmp_path, Recipe(decode_steps=30, lost=frozenset({12})), Recipe(decode_steps=30))
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "pytest_atomtrace.cli", words[0], str(traces), *words[1:]]
    try:
        ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, cwd=ROOT, timeout=60)
    finally:
        os.close(writing)
    assert ended.stderr == b""
    assert ended.returncode == (1 if words[0] == "health" else 0)


def test_it_runs_without_pytest(tmp_path: Path) -> None:
    traces = write_ranks(tmp_path, Recipe(decode_steps=30))
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from pytest_atomtrace.cli import main\n"
        f"raise SystemExit(main(['summary', {str(traces)!r}]))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "Phases on rank_0" in ended.stdout


class Terminal:
    """A stream that says it is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        return


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    Screen(terminal, Terminal()).lines([("red", "bad"), ("", "plain"), ("title", "")])  # type: ignore[arg-type]
    assert terminal.text == "\x1b[31mbad\x1b[0m\nplain\n\n"
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    Screen(plain, Terminal()).lines([("red", "bad")])  # type: ignore[arg-type]
    assert plain.text == "bad\n"


def test_progress_shows_only_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_atomtrace.cli.screen._PATIENCE_S", 0.01)
    terminal, quick = Terminal(), Terminal()
    screen = Screen(Terminal(), terminal)  # type: ignore[arg-type]
    with screen.watching("reading 8 ranks"):
        while "reading 8 ranks" not in terminal.text:
            pass
    assert terminal.text.endswith("\r\x1b[K"), "the line must be gone when the answer comes"
    monkeypatch.setattr("pytest_atomtrace.cli.screen._PATIENCE_S", 60.0)
    with Screen(Terminal(), quick).watching("reading"):  # type: ignore[arg-type]
        pass
    assert quick.text == ""
