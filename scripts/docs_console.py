"""Write the console blocks of the pages in docs/ by running their commands.

A block is marked by a comment before it: `<!-- console: COMMAND -->`, or `<!-- console fails: COMMAND -->` where the
exit code must be 1. A page's commands run in one new directory, in the order in which they stand. In its turn a block
after `<!-- file: NAME -->` is written there, and `<!-- quietly: COMMAND -->` is run and not shown. Everything is run on
the simulator.

With --check all commands are run and compared, with --check --quick only those that launch nothing (`atomtrace` with
--help, --version or `spec check`); numbers count as equal, whatever they are, and progress as said.

README.md is checked against the output of its own command, since it shows the run of this checkout shortened at dots:
`--readme LOG` compares its block with what was printed into LOG.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
STEP = re.compile(
    r"<!-- console(?P<fails> fails)?: (?P<command>[^\n]+) -->\n\n```console\n(?P<shown>.*?)```\n"
    r"|<!-- file: (?P<name>[\w./]+) -->\n\n```\w*\n(?P<text>.*?)```\n"
    r"|<!-- quietly: (?P<quiet>[^\n]+) -->\n",
    re.DOTALL,
)
CHEAP = re.compile(r"atomtrace (?:[\w ]*--help|--version|spec check [\w./]+)$")
INI = "[pytest]\naddopts = -p no:cacheprovider\n"
WIDTH = 100
# What a run is named is of no interest, and of another length on another day.
RUN_ID = re.compile(r"\b\d{8}-\d{6}-\d+-[0-9a-f]{4}\b")
SHOWN_ID = "20261124-090000-4711-0e5f"
PROGRESS = re.compile(r"^atomtrace \[.*\n", re.MULTILINE)
PLUGINS = re.compile(r"^(?:platform linux|Test order|plugins:|rootdir:|configfile:).*\n", re.MULTILINE)


def environment(place: Path) -> dict[str, str]:
    """Variables of the commands, and nothing of ours inherited."""
    hidden = ("ATOMTRACE_", "PYTEST_", "GITHUB_", "CI")
    env = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    env |= {"COLUMNS": str(WIDTH), "PYTHONUTF8": "1", "NO_COLOR": "1", "TERM": "dumb"}
    env |= {"ATOMTRACE_LOCK_DIR": str(place / "locks"), "ATOMTRACE_SIM_SEED": "7"}
    return env | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"}


def run(command: str, place: Path, *, fails: bool = False) -> str:
    """What the command prints in `place`.

    Raises:
        SystemExit: it ended otherwise than the page says.

    """
    done = subprocess.run(
        ["bash", "-c", command], cwd=place, env=environment(place), stdout=-1, stderr=-2, text=True, check=False
    )
    if done.returncode != (1 if fails else 0):
        sys.exit(f"{command}\nended with {done.returncode}:\n{done.stdout}")
    text = RUN_ID.sub(SHOWN_ID, done.stdout.replace(str(place), "/work"))
    return "\n".join(line.rstrip() for line in PLUGINS.sub("", text).strip("\n").splitlines()) + "\n"


def begin(place: Path) -> None:
    """What every page's directory has."""
    (place / "pytest.ini").write_text(INI, encoding="utf-8")


def prepared(step: re.Match[str], place: Path, *, quick: bool = False) -> bool:
    """Do what is not shown: write a file, run a quiet command; whether the step was one of these."""
    if step["name"]:
        target = place / step["name"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(step["text"], encoding="utf-8")
    elif step["quiet"] and not quick:
        run(step["quiet"], place)
    return not step["command"]


def written(text: str, place: Path) -> str:
    """The page with the output of its commands."""
    begin(place)

    def block(step: re.Match[str]) -> str:
        if prepared(step, place):
            return step[0]
        command, fails = step["command"], step["fails"] or ""
        out = run(command, place, fails=bool(fails))
        return f"<!-- console{fails}: {command} -->\n\n```console\n$ {command}\n{out}```\n"

    return STEP.sub(block, text)


def masked(text: str) -> str:
    """The structure of an output: numbers and the widths that follow from them are not compared."""
    text = re.sub(r"\d[\d,.]*", "#", PROGRESS.sub("", text))
    # pytest says "in 61.20s (0:01:01)" after a minute.
    text = re.sub(r"s \(#:#:#\)", "s", re.sub(r"[-=_]{3,}", "--", text))
    return re.sub(r"[ \n]+", " ", text).strip()


def stale(path: Path, place: Path, *, quick: bool) -> list[str]:
    """Commands of a page that print something else than it shows (with where it begins), and blocks without output."""
    begin(place)
    found = []
    for step in STEP.finditer(path.read_text(encoding="utf-8")):
        if prepared(step, place, quick=quick):
            continue
        shown, command = step["shown"], step["command"]
        head = f"$ {command}\n"
        empty = not shown.startswith(head) or not shown[len(head) :].strip()
        if quick and not CHEAP.match(command):
            found += [f"`{command}` is not shown"] * empty
            continue
        now, then = masked(run(command, place, fails=bool(step["fails"]))), masked(shown[len(head) :])
        if empty or now != then:
            at = next((n for n, (a, b) in enumerate(zip(now, then, strict=False)) if a != b), min(len(now), len(then)))
            found.append(
                f"`{command}` prints {now[max(0, at - 60) : at + 60]!r}, shown is {then[max(0, at - 60) : at + 60]!r}"
            )
    return found


def readme_stale(log: str) -> list[str]:
    """What README's sample run shows and the run did not print: the first such line of each piece between dots.

    A piece must be there whole, so that lines which the run prints now and did not print then are missed. Of progress
    each line must be there: a slow machine says more.
    """
    page = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    sample = re.search(r"^```\n(\.\.\.\n.*?)^```", page, re.DOTALL | re.MULTILINE)
    if sample is None:
        return ["(there is no block that starts with dots)"]
    said = {line_masked(line) for line in PROGRESS.findall(log)}
    found = [line.strip() for line in PROGRESS.findall(sample[1]) if line_masked(line) not in said]
    printed = "".join(map(line_masked, PROGRESS.sub("", log).splitlines()))
    for piece in re.split(r"^\.\.\.$", PROGRESS.sub("", sample[1]), flags=re.MULTILINE):
        lines = piece.strip("\n").splitlines()
        texts = ["".join(map(line_masked, lines[: count + 1])) for count in range(len(lines))]
        found += [line for line, text in zip(lines, texts, strict=True) if text not in printed][:1]
    return found


def line_masked(line: str) -> str:
    """A line of which neither the numbers nor the widths that follow from them count, with its end."""
    # How full the line of dots is depends on the number of tests before it.
    line = re.sub(r"^\.+ +", ". ", re.sub(r"\d[\d,.:]*", "#", RUN_ID.sub("#", line)))
    line = re.sub(r"s \(#\)", "s", re.sub(r"[-=]{3,}", "--", line))
    return re.sub(r" +", " ", line).strip() + "\n"


def main() -> int:
    """Write the named pages (default: all), or check all; the exit code of a check says whether one is stale."""
    words = sys.argv[1:]
    if words[:1] == ["--readme"]:
        lines = readme_stale(Path(words[1]).read_text(encoding="utf-8"))
        for line in lines:
            print(f"README.md shows what its command does not print: {line}")
        return 1 if lines else 0
    names = [word for word in words if not word.startswith("--")]
    pages = [DOCS / name for name in names] or sorted(DOCS.glob("*.md"))
    bad = 0
    for path in pages:
        text = path.read_text(encoding="utf-8")
        if "<!-- console" not in text:
            continue
        place = Path(tempfile.mkdtemp(prefix="atomtrace-docs-")).resolve()
        try:
            if "--check" in words:
                for problem in stale(path, place, quick="--quick" in words):
                    print(f"{path}: {problem}; write it anew: python scripts/docs_console.py {path.name}")
                    bad = 1
            else:
                path.write_text(written(text, place), encoding="utf-8")
        finally:
            shutil.rmtree(place)
    return bad


if __name__ == "__main__":
    sys.exit(main())
