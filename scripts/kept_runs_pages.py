"""Write the outputs in docs/export.md and docs/history.md, from runs of the simulator, and the table of columns.

With --check nothing is run: only the table of columns is compared with the schema in the code. A directory as argument
keeps the runs there, and uses them if they are there already.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from pytest_atomtrace.report.export_schema import schema_markdown

ROOT = Path(__file__).resolve().parents[1]
EXPORT, HISTORY = ROOT / "docs" / "export.md", ROOT / "docs" / "history.md"
SCHEMA = re.compile(r"(?<=<!-- schema -->\n).*?(?=<!-- /schema -->)", re.DOTALL)
QUERY = re.compile(r"```sql\n(?P<query>.*?)```\n\n```text\n(?P<answer>.*?)```", re.DOTALL)
COMMAND = re.compile(r"```console\n\$ (?P<command>[^\n]+)\n(?P<answer>.*?)```", re.DOTALL)
WIDTH = 100
SPEC = """
import pytest

CASES = [
    {"model": "deepseek-ai/DeepSeek-V4-Pro", "tp": 4, "isl": 16, "osl": 40, "conc": 2},
    {"model": "openai/gpt-oss-120b", "tp": 2, "isl": 16, "osl": 40, "conc": 4},
]

@pytest.mark.atom_case(**CASES[0])
def test_v4(atom_trace):
    atom_trace.assert_no_regression()

@pytest.mark.atom_case(**CASES[1])
def test_gpt_oss(atom_trace):
    atom_trace.assert_no_regression()
"""
SLOW_KERNEL = "slow:mfma_moe2_*=1.3@phase=decode"
SLOW_RANK = "slow:*=1.08@phase=decode@rank=1"
# What each run does to the simulator, and to the baselines.
RUNS = (
    ("", "missing"),
    ("", ""),
    (SLOW_KERNEL, ""),
    (SLOW_RANK, ""),
    (SLOW_KERNEL, "all"),
    (SLOW_KERNEL, ""),
)


def environment(place: Path, number: int = 0, mutation: str = "") -> dict[str, str]:
    """Variables of one run, and nothing of ours inherited."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("ATOMTRACE_", "PYTEST_", "GIT_"))}
    env |= {"COLUMNS": str(WIDTH), "PYTHONUTF8": "1", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"}
    env |= {"ATOMTRACE_LOCK_DIR": str(place / "locks"), "ATOMTRACE_CONFIRM": "never", "ATOMTRACE_SIM_LAYERS": "8"}
    env |= {"ATOMTRACE_SIM_SEED": "7", "ATOMTRACE_SIM_LAUNCH": str(100 * number)}
    return env | ({"ATOMTRACE_SIM_MUTATE": mutation} if mutation else {})


def take_runs(place: Path) -> None:
    """Six runs, and the commits of their baselines."""
    (place / "test_spec.py").write_text(SPEC)
    (place / "pytest.ini").write_text("[pytest]\n")
    git(place, "init", "-q")
    for number, (mutation, update) in enumerate(RUNS):
        words = [sys.executable, "-m", "pytest", "-q", "--atom-backend=sim", "-p", "no:cacheprovider"]
        words += [f"--atom-update-baselines={update}"] * bool(update)
        env = environment(place, number, mutation)
        done = subprocess.run(words, cwd=place, env=env, capture_output=True, text=True, check=False)
        print(f"run {number + 1}: {done.stdout.strip().splitlines()[-1]}")
        if done.returncode not in (0, 1):
            sys.exit(done.stdout + done.stderr)
        if update:
            git(place, "add", "-f", "perf_specs")
            git(place, "commit", "-q", "-m", "Baselines")


def git(place: Path, *words: str) -> None:
    """Run git there as nobody in particular."""
    who = ["-c", "user.name=docs", "-c", "user.email=docs@example.org"]
    subprocess.run(["git", *who, *words], cwd=place, env=environment(place), check=True)


def answers(place: Path, text: str) -> str:
    """The page with the outputs of its commands and queries, in the order in which they stand."""

    def command(match: re.Match[str]) -> str:
        words = shlex.split(match["command"])
        done = subprocess.run(words, cwd=place, env=environment(place), capture_output=True, text=True, check=True)
        return f"```console\n$ {match['command']}\n{done.stdout}```"

    return QUERY.sub(lambda match: answer(place, match["query"]), COMMAND.sub(command, text))


def answer(place: Path, query: str) -> str:
    """A query and what DuckDB prints for it."""
    import duckdb

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        duckdb.connect().sql(query.replace("'out/", f"'{place}/out/")).show(max_width=WIDTH)
    lines = [line.rstrip() for line in printed.getvalue().rstrip().splitlines()]
    return f"```sql\n{query}```\n\n```text\n" + "\n".join(lines) + "\n```"


def with_schema(text: str) -> str:
    """The page with the table of columns as the code has it."""
    return SCHEMA.sub(lambda _: f"\n{schema_markdown()}\n", text)


def main() -> int:
    """Write or check; the exit code of a check says whether the table of columns is stale."""
    text = with_schema(EXPORT.read_text(encoding="utf-8"))
    if "--check" in sys.argv[1:]:
        if EXPORT.read_text(encoding="utf-8") != text:
            print(f"{EXPORT} is stale: python scripts/kept_runs_pages.py")
            return 1
        return 0
    with tempfile.TemporaryDirectory(prefix="atomtrace-docs-") as folder:
        place = Path(sys.argv[1] if sys.argv[1:] else folder).resolve()
        if not (place / ".atomtrace").is_dir():
            place.mkdir(exist_ok=True)
            take_runs(place)
        EXPORT.write_text(answers(place, text), encoding="utf-8")
        HISTORY.write_text(answers(place, HISTORY.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
