"""Write the console blocks of the pages in docs/ by running their commands.

A block is marked by a comment before it: `<!-- console: COMMAND -->`, or `<!-- console fails: COMMAND -->` where the
exit code must be 1. A page's commands run in one new directory, in the order in which they stand, after its files:
a block after `<!-- file: NAME -->` is written there first. With --check the commands that launch nothing (`atomtrace`
with --help, --version or `spec check`) are run and compared; numbers count as equal, whatever they are. Everything is
run on the simulator.
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
BLOCK = re.compile(
    r"<!-- console(?P<fails> fails)?: (?P<command>[^\n]+) -->\n\n```console\n(?P<shown>.*?)```\n", re.DOTALL
)
FILE = re.compile(r"<!-- file: (?P<name>[\w.]+) -->\n\n```\w*\n(?P<text>.*?)```\n", re.DOTALL)
CHEAP = re.compile(r"atomtrace (?:[\w ]*--help|--version|spec check [\w./]+)$")
WIDTH = 100
# What a run is named is of no interest, and of another length on another day.
RUN_ID = re.compile(r"\b\d{8}-\d{6}-\d+-[0-9a-f]{4}\b")
SHOWN_ID = "20261124-090000-4711-0e5f"
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


def written(text: str, place: Path) -> str:
    """The page with the output of its commands."""
    for file in FILE.finditer(text):
        (place / file["name"]).write_text(file["text"], encoding="utf-8")
    (place / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n", encoding="utf-8")

    def block(match: re.Match[str]) -> str:
        command, fails = match["command"], match["fails"] or ""
        out = run(command, place, fails=bool(fails))
        return f"<!-- console{fails}: {command} -->\n\n```console\n$ {command}\n{out}```\n"

    return BLOCK.sub(block, text)


def masked(text: str) -> str:
    """The structure of an output: numbers and the widths that follow from them are not compared."""
    text = re.sub(r"\d[\d,.]*", "#", text)
    return re.sub(r"[ \n]+", " ", re.sub(r"-{3,}", "--", text)).strip()


def stale(path: Path, place: Path) -> list[str]:
    """Cheap commands of a page that print something else than it shows, and blocks without an output."""
    text = path.read_text(encoding="utf-8")
    for file in FILE.finditer(text):
        (place / file["name"]).write_text(file["text"], encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        shown, command = match["shown"], match["command"]
        head = f"$ {command}\n"
        empty = not shown.startswith(head) or not shown[len(head) :].strip()
        if empty or (CHEAP.match(command) and masked(run(command, place)) != masked(shown[len(head) :])):
            found.append(command)
    return found


def main() -> int:
    """Write the named pages (default: all), or check all; the exit code of a check says whether one is stale."""
    names = [word for word in sys.argv[1:] if word != "--check"]
    pages = [DOCS / name for name in names] or sorted(DOCS.glob("*.md"))
    bad = 0
    for path in pages:
        text = path.read_text(encoding="utf-8")
        if "<!-- console" not in text:
            continue
        place = Path(tempfile.mkdtemp(prefix="atomtrace-docs-")).resolve()
        try:
            if "--check" in sys.argv[1:]:
                for command in stale(path, place):
                    print(f"{path}: the output of `{command}` is stale: python scripts/docs_console.py {path.name}")
                    bad = 1
            else:
                path.write_text(written(text, place), encoding="utf-8")
        finally:
            shutil.rmtree(place)
    return bad


if __name__ == "__main__":
    sys.exit(main())
