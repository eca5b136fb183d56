"""docs/export.md: its table of columns is the schema, and its queries find what was done to simulated runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_atomtrace.cli import main
from pytest_atomtrace.report.export_schema import schema_markdown
from pytest_atomtrace.verdicts.trace import load_trace
from tests.acceptance.site import Site

duckdb = pytest.importorskip("duckdb", reason="DuckDB asks the page's queries (the extra dev)")
pytest.importorskip("pyarrow", reason="an export needs the extra parquet")

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
SPEC = """
import pytest

@pytest.mark.atom_case(model="deepseek-ai/DeepSeek-V4-Pro", tp=2, isl=16, osl=34, conc=2)
def test_v4(atom_trace):
    pass

@pytest.mark.atom_case(model="openai/gpt-oss-120b", tp=2, isl=16, osl=34, conc=4)
def test_gpt_oss(atom_trace):
    pass
"""
MUTATIONS = ("", "", "slow:mfma_moe2_*=1.3@phase=decode", "slow:*=1.08@phase=decode@rank=1")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Four runs of the simulator with other seeds and mutations, exported."""
    place = Site(tmp_path_factory.mktemp("exported") / "site")
    place.write(SPEC)
    for number, mutation in enumerate(MUTATIONS):
        env = {"ATOMTRACE_SIM_SEED": str(number + 1), "ATOMTRACE_SIM_LAYERS": "4"}
        done = place.run(env=env | ({"ATOMTRACE_SIM_MUTATE": mutation} if mutation else {}))
        assert done.code == 0, done.stdout
    assert main(["export", "--parquet", str(place.folder / "out"), str(place.store)]) == 0
    yield place
    place.close()


def ask(site: Site, number: int) -> list[dict[str, Any]]:
    query = QUERIES[number].replace("'out/", f"'{site.folder}/out/")
    cursor = duckdb.connect().execute(query)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def test_the_page_has_three_queries_with_their_output() -> None:
    answered = re.findall(r"```sql\n.*?```\n\n```text\n(.+?)```", PAGE, re.DOTALL)
    assert (len(QUERIES), len(answered)) == (3, 3)
    assert all("│" in answer for answer in answered)
    assert re.search(r"\$ atomtrace export --parquet out \.atomtrace\n6 runs, ", PAGE)


def test_its_table_of_columns_is_the_schema() -> None:
    assert schema_markdown() in PAGE
    script = ROOT / "scripts" / "kept_runs_pages.py"
    assert subprocess.run([sys.executable, script, "--check"], check=False, cwd=ROOT).returncode == 0


def test_the_first_query_gives_the_step_times_of_the_summary(site: Site) -> None:
    rows = ask(site, 0)
    assert [row["no"] for row in rows] == [1, 2, 3, 4] * 2
    runs = sorted((site.store / "runs").iterdir())
    for row in rows:
        trace = load_trace(runs[row["no"] - 1] / "captures" / row["slug"] / "1")
        slowest = max(trace.decode.rank(name).steady().gpu_busy.p50_ns for name in trace.ranks)
        assert row["p50_us"] == round(slowest / 1e3, 1)


def test_the_second_query_finds_the_slower_kernel(site: Site) -> None:
    first = ask(site, 1)[0]
    assert first["family"] == "moe_gemm"
    assert first["kernel"].startswith("mfma_moe2_")
    assert first["after_us"] / first["before_us"] == pytest.approx(1.3, abs=0.05)


def test_the_third_query_finds_the_slow_rank(site: Site) -> None:
    rows = ask(site, 2)
    assert {(row["no"], row["slowest"]) for row in rows[:2]} == {(4, "rank_1")}
    assert rows[0]["spread_pct"] == pytest.approx(8, abs=1.5)
    assert rows[2]["spread_pct"] < 2
