"""Specs that somebody got wrong, 200 of them: each gives located problems, never a traceback."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import pytest

from tests.specs.reading import located, read_bytes
from tests.specs.test_grammar import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NUMBER = 200
PLACE = re.compile(r"\d+:\d+: .+")


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def misspell_a_key(text: str, dice: random.Random) -> str:
    keys = sorted(set(re.findall(r"\b(?!A\b)([a-z_]{2,})(?=: )", text)))
    key = dice.choice([key for key in keys if key not in ("family", "aiter")])
    place = dice.randrange(len(key))
    return re.sub(rf"\b{key}(?=: )", key[:place] + "q" + key[place:], text, count=1)


def lose_a_unit(text: str, dice: random.Random) -> str:
    found = dice.choice(list(re.finditer(r"(\d) (ms|us|%)", text)))
    return text[: found.start() + 1] + text[found.end() :]


def wrong_type(text: str, dice: random.Random) -> str:
    found = dice.choice(list(re.finditer(r"(tp|isl|per_step|at_most|bs): \d+", text)))
    return (
        text[: found.start()]
        + found[1]
        + ": "
        + dice.choice(["x", "[[1]]", "{a: 1}", "-3", "1.5", "yes"])
        + text[found.end() :]
    )


def repeat_a_line(text: str, dice: random.Random) -> str:
    lines = _lines(text)
    keyed = [index for index, line in enumerate(lines) if re.match(r"\s*[a-z_]+:", line)]
    index = dice.choice(keyed)
    return "".join([*lines[: index + 1], lines[index], *lines[index + 1 :]])


def cut_anywhere_in_a_flow(text: str, dice: random.Random) -> str:
    opened = dice.choice([found.start() for found in re.finditer(r"[\[{]", text)])
    return text[: opened + 1 + dice.randrange(3)]


def break_a_quote(text: str, dice: random.Random) -> str:
    place = dice.choice([found.start() for found in re.finditer('"', text)])
    return text[:place] + text[place + 1 :]


def bad_word(text: str, dice: random.Random) -> str:
    word = dice.choice(["decode", "iteration", "moe_gemm"])
    place = dice.choice([found.start() for found in re.finditer(rf"(?<=[ :{{]){word}", text)])
    return text[:place] + word[:-1] + "ing" + text[place + len(word) :]


def odd_byte(text: str, dice: random.Random) -> str:
    place = dice.randrange(len(text))
    return text[:place] + dice.choice(["\x00", "\x07", "\t- ", "]", "}", "@", "`", "&", "!x "]) + text[place:]


def indent(text: str, dice: random.Random) -> str:
    lines = _lines(text)
    index = dice.choice([n for n, line in enumerate(lines) if line.startswith("    ") and ":" in line])
    return "".join([*lines[:index], " " + lines[index], *lines[index + 1 :]])


MISTAKES = (
    misspell_a_key,
    lose_a_unit,
    wrong_type,
    repeat_a_line,
    cut_anywhere_in_a_flow,
    break_a_quote,
    bad_word,
    odd_byte,
    indent,
)


def malformed(seed: int) -> bytes:
    dice = random.Random(seed)
    mistake: Callable[[str, random.Random], str] = MISTAKES[seed % len(MISTAKES)]
    return mistake(EVERYTHING.lstrip(), dice).encode("utf-8", "surrogateescape")


def wrong_ones(folder: Path) -> list[bytes]:
    """The first 200 of the series that the reader finds wrong; a mutation may hit a comment or stay valid."""
    found: list[bytes] = []
    for seed in range(4 * NUMBER):
        data = malformed(seed)
        if read_bytes(folder, data).problems:
            found.append(data)
        if len(found) == NUMBER:
            break
    return found


def test_two_hundred_malformed_specs_give_located_problems(tmp_path: Path) -> None:
    found = wrong_ones(tmp_path)
    assert len(found) == NUMBER
    for data in found:
        problems = located(read_bytes(tmp_path, data))
        lines = data.count(b"\n") + 2
        for problem in problems:
            assert PLACE.fullmatch(problem), problem
            assert "Traceback" not in problem
            assert 1 <= int(problem.partition(":")[0]) <= lines
            assert len(problem) < 1000


def test_nearly_every_mutation_is_noticed(tmp_path: Path) -> None:
    # What is not: an inserted blank that YAML does not mind, or a byte inside a reason.
    unnoticed = sum(not read_bytes(tmp_path, malformed(seed)).problems for seed in range(NUMBER))
    assert unnoticed < NUMBER * 0.15


@pytest.mark.parametrize("mode", [(), ("-n", "2"), ("-p", "no:xdist")], ids=["no xdist", "two workers", "xdist off"])
def test_two_hundred_malformed_files_are_one_usage_error_and_start_nothing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, mode: tuple[str, ...]
) -> None:
    ledger = pytester.path / "ledger.jsonl"
    monkeypatch.setenv("ATOMTRACE_SIM_LEDGER", str(ledger))
    wrong = wrong_ones(pytester.path)
    (pytester.path / "spec.atom.yaml").unlink()
    for number, data in enumerate(wrong):
        (pytester.path / f"wrong_{number:03}.atom.yaml").write_bytes(data)
    pytester.makepyfile("def test_plain(): open('ran', 'w').close()")
    (pytester.path / "right.atom.yml").write_text("case: {model: openai/gpt-oss-120b}\nlaunch: {mean: 1 ms}\n")
    result = pytester.runpytest_subprocess("--atom-backend=sim", *mode)
    text = result.stdout.str() + result.stderr.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert text.count("atomtrace found") == 1
    for number in range(NUMBER):
        assert re.search(rf"^  wrong_{number:03}\.atom\.yaml:\d+:\d+: ", text, re.MULTILINE), number
    for word in ("Traceback", "INTERNALERROR", "right.atom.yml"):
        assert word not in text
    assert not ledger.exists()
    assert not (pytester.path / "ran").exists()
    assert not (pytester.path / ".atomtrace").exists()
