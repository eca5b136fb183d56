"""`atomtrace export --parquet`: what other engines read equals our own numbers, whatever state the runs are in."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pytest_atomtrace.cli import main
from pytest_atomtrace.report.export_schema import ACTIVITIES, SCHEMA, TABLES
from pytest_atomtrace.trace.data import PHASES
from pytest_atomtrace.verdicts.kernel_view import view_kernels
from pytest_atomtrace.verdicts.step_view import view_steps
from pytest_atomtrace.verdicts.trace import Trace, load_trace
from tests.report.kept import CASE, KeptRun, check
from tests.traces import NAME, Recipe, write_rank, write_ranks

duckdb = pytest.importorskip("duckdb", reason="DuckDB reads what is exported (the extra dev)")
parquet = pytest.importorskip("pyarrow.parquet", reason="an export needs the extra parquet")

if TYPE_CHECKING:
    from collections.abc import Callable

STEADY = "kind = 'decode' AND steady"
MEMORY = """
import resource, sys
from pytest_atomtrace.cli import main
code = main(["export", "--raw", "--parquet", sys.argv[2], sys.argv[1]])
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


class Out:
    """The directory of an export, asked in SQL; a table's name stands for its files."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._connection = duckdb.connect()
        for table in (*TABLES, ACTIVITIES):
            if (place / table.name).is_dir():
                self._connection.execute(
                    f"CREATE VIEW {table.name} AS SELECT * FROM read_parquet('{place}/{table.name}/*.parquet')"
                )

    def rows(self, query: str) -> list[dict[str, Any]]:
        cursor = self._connection.execute(query)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def one(self, query: str) -> dict[str, Any]:
        (row,) = self.rows(query)
        return row

    @property
    def files(self) -> set[str]:
        return {str(path.relative_to(self.place)) for path in self.place.rglob("*") if path.is_file()}


@pytest.fixture
def export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Out, str]]:
    """Run the command; the exit code, what it left, and standard error."""

    def run(*words: object) -> tuple[int, Out, str]:
        capsys.readouterr()
        code = main(["export", "--parquet", str(tmp_path / "out"), *map(str, words)])
        return code, Out(tmp_path / "out"), capsys.readouterr().err

    return run


def test_steps_read_by_duckdb_are_our_own(tmp_path: Path, export: Callable[..., tuple[int, Out, str]]) -> None:
    run = KeptRun(3, recipes=(Recipe(slow={7: 1.5}), Recipe(duration_us=11.0, layers=5)))
    run.write(tmp_path)
    code, out, err = export(tmp_path)
    assert (code, err) == (0, "")
    trace = load_trace(run.window(tmp_path))
    for rank in ("rank_0", "rank_1"):
        ours = view_steps(trace, rank=rank).rows
        theirs = out.rows(f"SELECT * FROM steps WHERE rank = '{rank}' ORDER BY step")
        assert len(ours) == 41
        for mine, row in zip(ours, theirs, strict=True):
            assert (row["run"], row["slug"], row["launch_no"], row["window_no"]) == (run.name, CASE.slug, 1, 1)
            for column, value in {
                "step": mine.step, "kind": mine.kind, "label": mine.label, "n_kernels": mine.kernels,
                "gpu_busy_ns": mine.gpu_busy_ns, "gpu_span_ns": mine.gpu_span_ns, "host_ns": mine.host_label_ns,
                "period_ns": mine.period_ns, "steady": mine.steady, "edge": mine.edge, "source": mine.source,
            }.items():  # fmt: skip
                assert row[column] == value, column
    busy = out.rows(
        "SELECT rank, quantile_disc(gpu_busy_ns, 0.5) p50 FROM steps WHERE kind='decode' AND steady GROUP BY 1"
    )
    assert {row["rank"]: row["p50"] for row in busy} == {
        rank: trace.decode.rank(rank).steady().gpu_busy.p50_ns for rank in ("rank_0", "rank_1")
    }


def test_kernels_read_by_duckdb_are_our_own(tmp_path: Path, export: Callable[..., tuple[int, Out, str]]) -> None:
    run = KeptRun(3, recipes=(Recipe(replaced={3: "attention_kernel", 20: "attention_kernel"}), Recipe()))
    run.write(tmp_path)
    _, out, _ = export(tmp_path)
    trace = load_trace(run.window(tmp_path))
    seen = 0
    for rank in ("rank_0", "rank_1"):
        for phase in PHASES:
            rows = out.rows(f"SELECT * FROM kernels WHERE rank = '{rank}' AND phase = '{phase}'")
            view = view_kernels(trace, during=phase, rank=rank, per_step=phase in ("decode", "prefill"))
            assert {row["name"] for row in rows} == {row.name for row in view.rows}
            for row in rows:
                mine = next(one for one in view.rows if one.name == row["name"])
                seen += 1
                assert (row["calls"], row["total_ns"]) == (mine.calls, mine.total_ns)
                assert (row["family"], row["base_name"]) == (mine.family, mine.base_name)
                assert (row["calls_per_step_min"], row["calls_per_step_max"]) == (
                    mine.calls_per_step_min,
                    mine.calls_per_step_max,
                )
    assert seen > 10
    stand_in = out.one("SELECT * FROM kernels WHERE name = 'stand_in_kernel'")
    assert (stand_in["calls"], stand_in["calls_per_step_max"], stand_in["steps"]) == (2, 1, 33)
    assert stand_in["calls_per_step"] == pytest.approx(1 / 33)


def test_exposed_times_of_kernels_add_up_to_the_steps_busy_time(
    tmp_path: Path, export: Callable[..., tuple[int, Out, str]]
) -> None:
    KeptRun(3).write(tmp_path)
    _, out, _ = export(tmp_path)
    of_kernels = out.rows(
        "SELECT rank, sum(exposed_ns_per_step) ns FROM kernels WHERE phase='decode' GROUP BY 1 ORDER BY 1"
    )
    of_steps = out.rows(
        "SELECT rank, avg(gpu_busy_ns) ns FROM steps WHERE kind='decode' AND steady GROUP BY 1 ORDER BY 1"
    )
    assert [row["ns"] for row in of_kernels] == pytest.approx([row["ns"] for row in of_steps])


def test_raw_has_a_row_for_every_launch(tmp_path: Path, export: Callable[..., tuple[int, Out, str]]) -> None:
    run = KeptRun(3)
    run.write(tmp_path)
    _, out, _ = export(tmp_path, "--raw")
    rank = load_trace(run.window(tmp_path)).data.ranks["rank_1"]
    rows = out.rows("SELECT * FROM activities WHERE rank = 'rank_1'")
    assert [row["start_ns"] for row in rows] == rank.start_ns.tolist()
    assert [row["dur_ns"] for row in rows] == rank.dur_ns.tolist()
    assert [row["name"] for row in rows] == [rank.names[number] for number in rank.name_id.tolist()]
    assert [row["phase"] for row in rows] == [PHASES[number] for number in rank.phase.tolist()]
    assert [row["step"] for row in rows] == [step if step >= 0 else None for step in rank.step.tolist()]
    assert {row["graph"] for row in rows} == {True, False}
    again = out.one("SELECT count(*) n, sum(dur_ns) ns FROM activities")
    kernels = out.one("SELECT sum(calls) n, sum(total_ns) ns FROM kernels")
    assert again == kernels


def test_a_run_a_capture_and_their_facts(tmp_path: Path, export: Callable[..., tuple[int, Out, str]]) -> None:
    environment = {
        "rocm_version": "7.1.0",
        "atom": {"version": "0.3", "commit": "c" * 40, "edits": "clean", "place": "/src/atom"},
        "profiler": {"library": "librocprofiler-sdk", "version": "1.1.0", "path": "/opt/x.so"},
    }
    bench = {"completed": 4, "failed": 0, "output_tokens": 160, "tpot_ms": {"p50": 9.25, "p99": 11.0}}
    checks = [check("pass"), check("regression", notes=("suspicious: x",)), check("fail", expected=True)]
    report = {"checks": checks, "health": ["H09"], "capture": f"/elsewhere/captures/{CASE.slug}/1"}
    run = KeptRun(3, environment=environment, bench=bench, report=report)
    run.write(tmp_path)
    run.write_capture(run.place(tmp_path) / "launches" / "2" / "captures" / CASE.slug / "1")
    _, out, _ = export(tmp_path)
    row = out.one("SELECT * FROM runs")
    assert (row["run"], row["engine"], row["simulated"], row["host"]) == (run.name, "atom", False, "node-1")
    assert row["taken_utc"].replace(tzinfo=timezone.utc).timestamp() == run.taken
    assert (row["rocm_version"], row["atom_commit"], row["atom_edits"]) == ("7.1.0", "c" * 40, "clean")
    assert (row["profiler"], row["hardware_key"], row["gfx"]) == ("librocprofiler-sdk 1.1.0", "0123456789ab", "gfx950")
    # The failure that its test expected is no failure of the run.
    assert (row["captures"], row["checks"], row["failed"]) == (2, 2, 1)
    assert json.loads(row["environment"])["profiler.version"] == "1.1.0"
    assert "/src/atom" not in row["environment"]
    capture, second = out.rows("SELECT * FROM captures ORDER BY launch_no")
    assert (capture["health"], second["health"]) == (["H09"], None)
    assert (capture["model"], capture["tp"], capture["osl"]) == ("org/Some-Model", 2, 40)
    assert (capture["tpot_p50_ns"], capture["completed"], capture["ranks"]) == (9_250_000, 4, 2)
    assert (capture["missing_ranks"], capture["environment_id"]) == ([], row["environment_id"])
    verdicts = out.rows("SELECT outcome, expected, notes, facts->>'$.rank' AS rank FROM verdicts ORDER BY outcome")
    assert [one["outcome"] for one in verdicts] == ["fail", "pass", "regression"]
    assert verdicts[0]["expected"]
    assert (verdicts[2]["notes"], verdicts[2]["rank"]) == (["suspicious: x"], "rank_1")


def test_every_launch_window_and_side_is_told_apart(
    tmp_path: Path, export: Callable[..., tuple[int, Out, str]]
) -> None:
    run = KeptRun(3)
    place = run.write(tmp_path)
    run.write_capture(run.window(tmp_path, 2))
    for other in ("launches/2", "sides/A", "sides/A/launches/3"):
        run.write_capture(place / other / "captures" / CASE.slug / "1")
    _, out, _ = export(place)
    found = out.rows("SELECT side, launch_no, window_no, count(*) n FROM captures GROUP BY ALL ORDER BY ALL")
    assert [tuple(row.values()) for row in found] == [
        ("", 1, 1, 1), ("", 1, 2, 1), ("", 2, 1, 1), ("A", 1, 1, 1), ("A", 3, 1, 1),
    ]  # fmt: skip
    assert out.one("SELECT count(DISTINCT (side, launch_no, window_no)) n FROM steps")["n"] == 5


def test_many_runs_lie_side_by_side_and_a_second_export_changes_no_byte(
    tmp_path: Path, export: Callable[..., tuple[int, Out, str]]
) -> None:
    for day in (3, 4, 5):
        KeptRun(day, us=10.0 + day).write(tmp_path)
    _, out, _ = export(tmp_path / "runs")
    assert out.one("SELECT count(DISTINCT run) n FROM steps")["n"] == 3
    before = {name: (out.place / name).read_bytes() for name in out.files}
    assert len(before) == 15
    # One of them again, named as a whole and in part: the whole counts once.
    _, out, _ = export(KeptRun(4).place(tmp_path), KeptRun(4).window(tmp_path))
    assert {name: (out.place / name).read_bytes() for name in out.files} == before


def test_single_captures_and_plain_traces_are_exported_too(
    tmp_path: Path, export: Callable[..., tuple[int, Out, str]]
) -> None:
    run = KeptRun(3)
    run.write(tmp_path)
    write_ranks(tmp_path / "plain", Recipe(), Recipe())
    single = write_rank(tmp_path / "single" / "rank_0", Recipe())
    code, out, err = export(run.window(tmp_path), tmp_path / "plain", single)
    assert (code, err) == (0, "")
    found = {row["slug"]: row for row in out.rows("SELECT * FROM captures")}
    assert found[CASE.slug]["run"] == run.name
    assert (found["plain"]["engine"], found["plain"]["simulated"], found["plain"]["ranks"]) == ("file", None, 2)
    assert out.one("SELECT count(*) n FROM steps")["n"] == 5 * 41


def test_what_cannot_be_read_is_named_and_the_rest_is_written(
    tmp_path: Path, export: Callable[..., tuple[int, Out, str]]
) -> None:
    for day in (3, 4, 5, 6, 7):
        KeptRun(day).write(tmp_path)
    torn = KeptRun(3).window(tmp_path) / "rank_1" / NAME
    torn.write_bytes(torn.read_bytes()[:-40])
    (KeptRun(4).window(tmp_path) / "manifest.json").write_text("{")
    (KeptRun(5).window(tmp_path) / "manifest.json").unlink()
    shutil.rmtree(KeptRun(6).window(tmp_path) / "rank_0")
    code, out, err = export(tmp_path)
    assert code == 1
    lines = err.splitlines()
    assert [line for line in lines if str(torn) in line and "rank_1" in line]
    assert [line for line in lines if "manifest.json is damaged" in line]
    assert [line for line in lines if "has no manifest.json: its capture is not finished" in line]
    assert [line for line in lines if line.endswith("rank_0 has no trace")]
    assert len([line for line in lines if "nothing of it can be read, so it has no files" in line]) == 2
    found = {row["run"]: row for row in out.rows("SELECT * FROM captures")}
    assert {run: row["missing_ranks"] for run, row in found.items()} == {
        KeptRun(3).name: ["rank_1"], KeptRun(6).name: ["rank_0"], KeptRun(7).name: [],
    }  # fmt: skip
    assert {row["run"] for row in out.rows("SELECT run FROM runs")} == set(found)


def test_a_damaged_report_is_named_and_the_captures_are_written(
    tmp_path: Path, export: Callable[..., tuple[int, Out, str]]
) -> None:
    (KeptRun(3).write(tmp_path) / "report.json").write_text('{"schema": "another/9"}')
    code, out, err = export(tmp_path)
    assert code == 1
    assert "schema 'another/9', this version reads atomtrace-report/1" in err
    assert out.one("SELECT captures, checks FROM runs") == {"captures": 1, "checks": None}


def test_of_traces_that_were_not_kept_the_figures_and_verdicts_remain(
    tmp_path: Path, export: Callable[..., tuple[int, Out, str]]
) -> None:
    run = KeptRun(3, bench={"completed": 4}, report={"checks": [check("pass")]})
    run.write(tmp_path)
    window = run.window(tmp_path)
    (window / "manifest.json").rename(window / "dropped.json")
    shutil.rmtree(window / "rank_0")
    shutil.rmtree(window / "rank_1")
    code, out, err = export(tmp_path)
    assert (code, err) == (0, "")
    capture = out.one("SELECT ranks, missing_ranks, completed, gfx FROM captures")
    assert capture == {"ranks": 0, "missing_ranks": ["rank_0", "rank_1"], "completed": 4, "gfx": "gfx950"}
    assert out.one("SELECT count(*) n FROM verdicts")["n"] == 1
    assert out.one("SELECT count(*) n FROM steps")["n"] == 0


@pytest.mark.parametrize("what", ["nowhere", "empty"])
def test_a_path_without_anything_is_one_line_and_leaves_nothing(
    tmp_path: Path, export: Callable[..., tuple[int, Out, str]], what: str
) -> None:
    (tmp_path / "empty").mkdir()
    code, out, err = export(tmp_path / what)
    assert code == 2
    assert err.startswith("atomtrace export: error: ")
    assert err.count("\n") == 1
    assert not out.place.exists()


def test_an_export_that_cannot_be_finished_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    KeptRun(3).write(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "kernels").write_text("in the way")
    assert main(["export", "--parquet", str(out), str(tmp_path)]) == 2
    assert "kernels" in capsys.readouterr().err
    assert [path.name for path in out.rglob("*") if path.is_file()] == ["kernels"]


def test_files_carry_the_schema_and_its_words(tmp_path: Path, export: Callable[..., tuple[int, Out, str]]) -> None:
    KeptRun(3).write(tmp_path)
    _, out, _ = export(tmp_path, "--raw")
    for table in (*TABLES, ACTIVITIES):
        (path,) = (out.place / table.name).iterdir()
        schema = parquet.read_schema(path)
        assert schema.metadata[b"atomtrace.schema"].decode() == SCHEMA
        assert schema.metadata[b"atomtrace.table"].decode() == table.name
        assert tuple(schema.names) == table.names
        for column in table.columns:
            assert schema.field(column.name).metadata[b"about"].decode() == column.about
    names = parquet.read_schema(out.place / "kernels" / f"{KeptRun(3).name}.parquet").field("name")
    assert str(names.type).startswith("dictionary<")


def test_no_column_needs_quotes_in_sql() -> None:
    reserved = {
        word
        for (word,) in duckdb.connect()
        .execute("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'")
        .fetchall()
    }
    assert len(reserved) > 50
    for table in (*TABLES, ACTIVITIES):
        assert not {*table.names, table.name} & reserved
        assert len(set(table.names)) == len(table.names)


def test_names_that_are_no_text_are_exported_as_text(
    tmp_path: Path, export: Callable[..., tuple[int, Out, str]]
) -> None:
    odd = 'k"\\ud800<script>'
    KeptRun(3, recipes=(Recipe(renamed={"attention_kernel": odd}), Recipe())).write(tmp_path)
    code, out, _ = export(tmp_path, "--raw")
    assert code == 0
    assert out.one("SELECT sum(calls) > 100 many FROM kernels WHERE name LIKE 'k\"%<script>'")["many"]


def test_memory_does_not_grow_with_the_ranks(tmp_path: Path) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    path = write_rank(tmp_path / "one", Recipe(decode_steps=600, layers=120))
    for place, ranks in ((few, 3), (many, 12)):
        for number in range(ranks):
            (place / f"rank_{number}").mkdir(parents=True)
            shutil.copy(path, place / f"rank_{number}" / NAME)
    used = {}
    for place in (few, many):
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(place), str(tmp_path / f"out-{place.name}")],
            capture_output=True,
            text=True,
            timeout=240,
            cwd=Path(__file__).parents[2],
        )
        code, kilobytes = done.stdout.splitlines()[-1].split()
        assert (code, done.returncode) == ("0", 0), done.stderr
        used[place] = int(kilobytes) / 1024
    rows = Out(tmp_path / "out-many").one("SELECT count(*) n FROM activities")["n"]
    assert rows > 12 * 200_000
    # The columns of nine more ranks would be 120 MB and more.
    assert used[many] < used[few] + 40, used


def test_without_pyarrow_one_sentence_names_the_extra(tmp_path: Path) -> None:
    KeptRun(3).write(tmp_path)
    script = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pytest_atomtrace.cli import main\n"
        f"raise SystemExit(main(['export', '--parquet', {str(tmp_path / 'out')!r}, {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'pytest-atomtrace[parquet]'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_json_says_what_was_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = KeptRun(3)
    run.write(tmp_path)
    assert main(["export", "--parquet", str(tmp_path / "out"), str(tmp_path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["command"], answer["runs"], answer["captures"], answer["ranks"]) == ("export", [run.name], 1, 2)
    assert answer["rows"]["steps"] == 82
    assert sorted(answer["files"]) == sorted(str(path) for path in (tmp_path / "out").rglob("*.parquet"))


def test_a_real_trace_survives_the_round_trip(export: Callable[..., tuple[int, Out, str]]) -> None:
    data = Path(__file__).parents[3] / "shared" / "data" / "mi300x"
    traces = sorted(data.rglob("*.json.gz")) if data.is_dir() else []
    if not traces:
        pytest.skip("the real traces (../shared/data) are not here")
    smallest = min(traces, key=lambda path: path.stat().st_size)
    code, out, _ = export(smallest, "--raw")
    assert code == 0
    trace: Trace = load_trace(smallest)
    (data_of,) = trace.data.ranks.values()
    raw = out.one("SELECT count(*) n, sum(dur_ns) ns FROM activities")
    assert (raw["n"], raw["ns"]) == (len(data_of.dur_ns), int(np.sum(data_of.dur_ns)))
    assert out.one("SELECT count(*) n FROM steps")["n"] == len(data_of.steps)
