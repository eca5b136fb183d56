"""`atomtrace history`: one line a run, against the baseline of then, with what changed between the runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_atomtrace import Case
from pytest_atomtrace.cli import main
from pytest_atomtrace.verdicts.baseline import Baseline
from tests.report.kept import CASE, DAY, MI355X, T0, KeptRun, check
from tests.traces import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable

# A decode step of the built traces: 4 layers of 3 kernels.
KERNELS = 12
ANSI = re.compile(r"\x1b\[")


class Seen:
    """What the command printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def points(self) -> list[dict[str, Any]]:
        (series,) = self.json["series"]
        found: list[dict[str, Any]] = series["points"]
        return found

    @property
    def rows(self) -> list[str]:
        """Lines of runs."""
        return [line for line in self.out.splitlines() if re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d ", line)]


@pytest.fixture
def history(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Seen]:
    """Run the command on what lies in tmp_path."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, width: int = 100) -> Seen:
        monkeypatch.setenv("COLUMNS", str(width))
        capsys.readouterr()
        code = main(["history", "--runs", str(tmp_path), *words])
        caught = capsys.readouterr()
        return Seen(code, caught.out, caught.err)

    return run


def record(folder: Path, us: float, *, simulated: bool = False, hardware: dict[str, Any] | None = None) -> Path:
    """Write a baseline of five launches around steps of `us` per kernel."""
    step = round(KERNELS * us * 1000)
    launches = tuple((round(step * factor),) for factor in (0.99, 0.995, 1.0, 1.005, 1.01))
    baseline = Baseline(
        case=CASE.slug,
        simulated=simulated,
        hardware=hardware if hardware is not None else {k: v for k, v in MI355X.items() if k not in ("gfx", "count")},
        profiler={},
        model={},
        recorded={"command": "pytest --atom-update-baselines"},
        metrics={"decode.gpu_busy": launches},
    )
    path = folder / "perf_specs" / "baselines" / ("sim-gfx950" if simulated else "gfx950") / f"{CASE.slug}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(baseline.text())
    return path


def commit(folder: Path, when_s: float) -> str:
    """Commit everything below `folder` at a time; returns the commit."""
    stamp = f"{int(when_s)} +0000"
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
        "GIT_AUTHOR_DATE": stamp, "GIT_COMMITTER_DATE": stamp, "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }  # fmt: skip
    for words in (["init", "-q"], ["add", "perf_specs"], ["commit", "-q", "-m", "baseline"]):
        subprocess.run(["git", "-C", str(folder), *words], env=env, check=True, capture_output=True)
    done = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_line_a_run_with_value_change_and_outcome(tmp_path: Path, history: Callable[..., Seen]) -> None:
    KeptRun(3, us=10.0).write(tmp_path)
    KeptRun(4, us=11.0, report={"outcome": "fail", "decode_p50_ns": 132_000}).write(tmp_path)
    KeptRun(5, us=9.9).write(tmp_path)
    seen = history("Some-Model")
    assert (seen.code, seen.err) == (0, "")
    first, second, third = seen.rows
    assert "120.0 us" in first
    assert first.endswith("no report")
    assert re.search(r"132\.0 us +\+10\.0 % .* fail$", second)
    assert re.search(r"118\.8 us +-10\.0 % ", third)
    points = history("Some-Model", "--json").points
    assert [point["value"] for point in points] == [120_000, 132_000, 118_800]
    assert [point["run"] for point in points] == [KeptRun(day).name for day in (3, 4, 5)]
    assert points[1]["taken_unix_s"] == KeptRun(4).taken


def test_the_mark_of_a_value_stands_where_the_axis_says(tmp_path: Path, history: Callable[..., Seen]) -> None:
    for day, us in ((3, 10.0), (4, 10.5), (5, 11.0)):
        KeptRun(day, us=us).write(tmp_path)
    places = [row.index("●") for row in history("Some-Model").rows]
    assert places[0] < places[1] < places[2]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=1)


def test_the_baseline_in_force_then_draws_its_band_and_its_update_is_marked(
    tmp_path: Path, history: Callable[..., Seen]
) -> None:
    for day, us in ((3, 10.0), (4, 10.6), (5, 10.6)):
        KeptRun(day, us=us).write(tmp_path)
    record(tmp_path, 10.0)
    first = commit(tmp_path, T0 + 2 * DAY)
    record(tmp_path, 10.6)
    second = commit(tmp_path, T0 + 4.5 * DAY)
    points = history("Some-Model", "--json").points
    assert [point["band"]["middle"] for point in points] == [120_000, 120_000, 127_200]
    assert [point["band"]["commit"] for point in points] == [first[:8], first[:8], second[:8]]
    assert [point["judged"] for point in points] == ["within", "worse", "within"]
    assert [point["marks"] for point in points][:2] == [[], []]
    (mark,) = points[2]["marks"]
    assert mark == {"kind": "baseline", "text": f"updated, 120.0 us -> 127.2 us (commit {second[:8]})"}
    seen = history("Some-Model")
    lines = seen.out.splitlines()
    assert lines[lines.index(seen.rows[2]) - 1] == f"  ◆ baseline: {mark['text']}"
    assert seen.rows[1].endswith("no report, worse")
    assert "▒" in seen.rows[0]
    assert re.search(r"127\.2 us, one launch may be 12\d\.\d us to 13\d\.\d us \(5 launches, commit", seen.out)


def test_a_baseline_that_is_not_committed_counts_since_its_file_changed(
    tmp_path: Path, history: Callable[..., Seen]
) -> None:
    for day in (3, 4):
        KeptRun(day).write(tmp_path)
    path = record(tmp_path, 10.0)
    os.utime(path, (T0 + 3.5 * DAY, T0 + 3.5 * DAY))
    points = history("Some-Model", "--json").points
    assert [point["band"] is not None for point in points] == [False, True]
    assert points[1]["marks"] == [{"kind": "baseline", "text": "the first one, 120.0 us (not committed)"}]


def test_an_update_after_the_last_run_is_told_with_it(tmp_path: Path, history: Callable[..., Seen]) -> None:
    KeptRun(3).write(tmp_path)
    record(tmp_path, 10.0)
    commit(tmp_path, T0 + 2 * DAY)
    record(tmp_path, 11.0)
    commit(tmp_path, T0 + 6 * DAY)
    (point,) = history("Some-Model", "--json").points
    (mark,) = point["marks"]
    assert mark["text"].startswith("updated, 120.0 us -> 132.0 us (commit ")
    assert mark["text"].endswith("; the next run is judged by it")
    assert point["band"]["middle"] == 120_000


@pytest.mark.parametrize("anew", ["", " anew (the old one was of other hardware: a was 1 and is 2; b was 3 and is 4)"])
def test_a_run_that_recorded_a_baseline_says_so(tmp_path: Path, history: Callable[..., Seen], anew: str) -> None:
    note = f"baseline recorded, and its anchor{anew}: perf_specs/x.json (5 launches, 15 windows); review and commit it"
    KeptRun(3, report={"checks": [check("pass", notes=(note,))]}).write(tmp_path)
    (point,) = history("Some-Model", "--json").points
    assert point["marks"] == [{"kind": "baseline", "text": "this run recorded it (5 launches, 15 windows)"}]


def test_changes_of_the_environment_are_named_in_words(tmp_path: Path, history: Callable[..., Seen]) -> None:
    before = {
        "rocm_version": "7.0.0",
        "atom": {"commit": "a" * 40, "edits": "clean"},
        "aiter": {"commit": "b" * 40, "edits": "clean"},
        "aiter_jit": {"module_moe.so": "1" * 16, "module_norm.so": "2" * 16},
        "profiler": {"library": "librocprofiler-sdk", "version": "1.0.0", "path": "/opt/a"},
    }
    after = {
        "rocm_version": "7.1.0",
        "atom": {"commit": "c" * 40, "edits": "clean"},
        "aiter": {"commit": "b" * 40, "edits": "d" * 16},
        "aiter_jit": {"module_moe.so": "3" * 16, "module_norm.so": "4" * 16},
        "profiler": {"library": "librocprofiler-sdk", "version": "1.1.0", "path": "/opt/b"},
    }
    KeptRun(3, environment=before, env={"AITER_X": "1"}).write(tmp_path)
    # A run that could not find out is no change, and hides none.
    KeptRun(4, environment={"unknown": {"atom": "git: no answer"}}, env={"AITER_X": "1"}).write(tmp_path)
    KeptRun(5, environment=after, env={"HIP_Y": "1", "ATOMTRACE_LOCK_DIR": "/x"}).write(tmp_path)
    KeptRun(6, environment=after, env={"HIP_Y": "1"}).write(tmp_path)
    marks = [[mark["text"] for mark in point["marks"]] for point in history("Some-Model", "--json").points]
    assert marks == [
        [],
        [],
        [
            "ROCm 7.0.0 -> 7.1.0",
            f"ATOM commit {'a' * 10} -> {'c' * 10}",
            f"AITER local edits clean -> {'d' * 10}",
            "profiler library 1.0.0 -> 1.1.0",
            "AITER_X 1 -> unset",
            "HIP_Y unset -> 1",
            "2 AITER libraries changed (module_moe.so, ...)",
        ],
        [],
    ]
    assert "  ◆ environment: ROCm 7.0.0 -> 7.1.0" in history("Some-Model").out.splitlines()


def test_simulated_and_real_runs_and_other_gpus_never_share_a_series(
    tmp_path: Path, history: Callable[..., Seen]
) -> None:
    KeptRun(3).write(tmp_path)
    KeptRun(4, us=3.0, engine="sim").write(tmp_path)
    other = {"gpu": {**MI355X, "gfx": "gfx942", "compute_units": 304, "pci_device_id": "0x74a1"}}
    KeptRun(5, us=20.0, environment=other).write(tmp_path)
    KeptRun(6).write(tmp_path)
    record(tmp_path, 10.0)
    record(tmp_path, 3.0, simulated=True, hardware={"device": "AMD Instinct MI355X"})
    document = history("Some-Model", "--json").json
    found = [
        (series["simulated"], series["machine"], [point["run"][6:8] for point in series["points"]], series["baseline"])
        for series in document["series"]
    ]
    folder = "perf_specs/baselines"
    assert found == [
        (False, "gfx950", ["03", "06"], f"{folder}/gfx950/{CASE.slug}.json"),
        (False, "gfx942", ["05"], ""),
        (True, "MI355X", ["04"], f"{folder}/sim-gfx950/{CASE.slug}.json"),
    ]
    changes = [point["change"] for series in document["series"] for point in series["points"]]
    assert changes == [None, 0, None, None]
    text = history("Some-Model").out
    assert "MI355X (simulated: times are made up), 1 run" in text
    assert "gfx950 (real), 2 runs" in text


def test_a_run_that_judged_saved_captures_again_is_left_out(tmp_path: Path, history: Callable[..., Seen]) -> None:
    KeptRun(3).write(tmp_path)
    KeptRun(4, engine="replay", capture=False, report={"decode_p50_ns": 120_000}).write(tmp_path)
    seen = history("Some-Model")
    assert len(seen.rows) == 1
    assert "1 run judged saved captures again and measured nothing: left out." in seen.out


def test_of_dropped_traces_and_failed_runs_the_report_is_enough(tmp_path: Path, history: Callable[..., Seen]) -> None:
    KeptRun(3, report={"decode_p50_ns": 120_000}).write(tmp_path)
    KeptRun(4, capture=False, report={"decode_p50_ns": 121_000}).write(tmp_path)
    failed = {"outcome": "infra", "engine": "atom"}
    KeptRun(5, capture=False, report=failed).write(tmp_path)
    KeptRun(6, report={"outcome": "inconclusive", "decode_p50_ns": 50, "health": ["H05"]}).write(tmp_path)
    KeptRun(7, report={"decode_p50_ns": 122_000}).write(tmp_path)
    points = history("Some-Model", "--json").points
    assert [point["value"] for point in points] == [120_000, 121_000, None, None, 122_000]
    assert [point["problem"] for point in points][2:4] == ["nothing was captured", "not to be believed: H05"]
    # The change is to the last run with a value, not to a gap.
    assert points[4]["change"] == pytest.approx(1 / 121)
    assert re.search(r" -  .* infra\n    nothing was captured\n", history("Some-Model").out)


def test_figures_survive_the_traces_once_they_were_read(tmp_path: Path, history: Callable[..., Seen]) -> None:
    run = KeptRun(3)
    run.write(tmp_path)
    assert history("Some-Model", "--metric", "decode.mean", "--json").points[0]["value"] == 120_000
    window = run.window(tmp_path)
    (window / "manifest.json").rename(window / "dropped.json")
    for rank in ("rank_0", "rank_1"):
        shutil.rmtree(window / rank)
    assert history("Some-Model", "--metric", "decode.mean", "--json").points[0]["value"] == 120_000
    (window / "figures.json").unlink()
    (point,) = history("Some-Model", "--metric", "decode.mean", "--json").points
    assert (point["value"], point["problem"]) == (None, "its traces were not kept")


def test_figures_of_a_changed_trace_are_read_anew(tmp_path: Path, history: Callable[..., Seen]) -> None:
    run = KeptRun(3)
    run.write(tmp_path)
    assert history("Some-Model", "--json").points[0]["value"] == 120_000
    for rank in ("rank_0", "rank_1"):
        shutil.rmtree(run.window(tmp_path) / rank)
    run.us = 20.0
    run.write_capture(run.window(tmp_path))
    assert history("Some-Model", "--json").points[0]["value"] == 240_000
    (run.window(tmp_path) / "figures.json").write_text("{")
    assert history("Some-Model", "--json").points[0]["value"] == 240_000


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("decode.p50", 120_000, "120.0 us"),
        ("decode.gpu_busy", 120_000, "120.0 us"),
        ("decode.p99", 180_000, "180.0 us"),
        ("decode.kernels", 12, "12 kernels"),
        ("decode.family.moe_gemm", 80_000, "80.00 us"),
        ("bench.tpot.p50", 9_250_000, "9.250 ms"),
        ("bench.tokens_per_s", 1234.5, "1,234 tokens/s"),
        ("bench.unprofiled.tpot.p50", 8_000_000, "8.000 ms"),
    ],
)
def test_metrics_of_steps_families_and_the_client(
    tmp_path: Path, history: Callable[..., Seen], metric: str, value: float, shown: str
) -> None:
    bench = {
        "tpot_ms": {"p50": 9.25},
        "output_tokens_per_s": 1234.5,
        "unprofiled": {"tpot_ms": {"p50": 8.0}},
    }
    KeptRun(3, bench=bench, recipes=(Recipe(slow={20: 1.5}), Recipe())).write(tmp_path)
    assert history("Some-Model", "--metric", metric, "--json").points[0]["value"] == value
    assert shown in history("Some-Model", "--metric", metric).rows[0]


def test_a_metric_that_a_run_lacks_is_said_and_the_others_shown(tmp_path: Path, history: Callable[..., Seen]) -> None:
    KeptRun(3).write(tmp_path)
    seen = history("Some-Model", "--metric", "draft.gpu_busy")
    assert seen.code == 0
    assert "    the window has no draft.gpu_busy" in seen.out.splitlines()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["Some-Modl"], f"did you mean '{CASE.slug}'?"),
        (["zzzz"], f"has a case 'zzzz'; there are: {CASE.slug}, Some-Other-"),
        (["some-"], "'some-' is a part of 2 slugs: Some-Model-"),
        (["Some-Model", "--metric", "decode.p5"], "did you mean 'decode.p50'?"),
        (["Some-Model", "--metric", "x"], "there is no metric 'x' (decode.p50, "),
    ],
)
def test_wrong_questions_are_one_line(
    tmp_path: Path, history: Callable[..., Seen], words: list[str], says: str
) -> None:
    KeptRun(3).write(tmp_path)
    KeptRun(4, case=Case(model="org/Some-Other", tp=2, isl=64, osl=40, conc=4)).write(tmp_path)
    seen = history(*words)
    assert (seen.code, seen.out) == (2, "")
    assert seen.err.count("\n") == 1
    assert says in seen.err
    assert history(CASE.slug).code == 0


def test_unreadable_runs_are_named_and_the_others_shown(tmp_path: Path, history: Callable[..., Seen]) -> None:
    KeptRun(3).write(tmp_path)
    (KeptRun(4, report={}).write(tmp_path) / "report.json").write_text("[")
    KeptRun(5).write(tmp_path)
    (KeptRun(5).window(tmp_path) / "manifest.json").write_text("{")
    KeptRun(6).write(tmp_path)
    torn = KeptRun(6).window(tmp_path) / "rank_0"
    (trace,) = torn.iterdir()
    trace.write_bytes(trace.read_bytes()[:-30])
    seen = history("Some-Model")
    assert seen.code == 1
    assert len(seen.err.splitlines()) == 2
    assert "report.json is damaged" in seen.err
    assert f"{KeptRun(5).name}/captures/{CASE.slug}/1/manifest.json is damaged" in seen.err
    assert len(seen.rows) == 3
    assert "rank_0" in seen.out


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_fit_the_width(tmp_path: Path, history: Callable[..., Seen], width: int) -> None:
    KeptRun(3, env={"AITER_X": "1"}).write(tmp_path)
    long = {"AITER_CONFIG_GEMM": "/a/very/long/path/of/a/table/" * 3}
    KeptRun(4, us=14.0, env=long, report={"outcome": "regression"}).write(tmp_path)
    record(tmp_path, 10.0)
    commit(tmp_path, T0)
    seen = history("Some-Model", width=width)
    assert max(map(len, seen.out.splitlines())) <= width
    assert not ANSI.search(seen.out)


def test_a_value_far_out_stands_at_the_edge(tmp_path: Path, history: Callable[..., Seen]) -> None:
    for day in range(3, 9):
        KeptRun(day, us=10.0 + 0.1 * (day % 3)).write(tmp_path)
    KeptRun(9, us=400.0).write(tmp_path)
    rows = history("Some-Model").rows
    assert "▸" in rows[-1]
    assert len({row.index("●") for row in rows[:-1]}) == 3


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_unicode_gets_ascii(tmp_path: Path, encoding: str) -> None:
    KeptRun(3).write(tmp_path)
    KeptRun(4, us=10.1, env={"HIP_X": "1"}).write(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest_atomtrace.cli", "history", "Some", "--runs", str(tmp_path)],
        env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "90"},
        capture_output=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.decode("ascii").splitlines() if "120.0 us" in line or "121.2 us" in line]
    assert len([row for row in rows if "o-" in row or "-o" in row]) == 2


def test_a_hundred_runs_are_read_in_a_moment(tmp_path: Path, history: Callable[..., Seen]) -> None:
    KeptRun(1).write(tmp_path)
    kept = KeptRun(1).place(tmp_path)
    for number in range(2, 102):
        run = tmp_path / "runs" / f"202612{number % 28 + 1:02d}-{number:06d}-1-ab"
        shutil.copytree(kept, run)
        row = replace(KeptRun(1), report={"decode_p50_ns": 120_000 + number}).document()
        (run / "report.json").write_text(json.dumps(row))
        # Whoever opened a trace would fail.
        for path in run.rglob("*.json.gz"):
            path.write_bytes(b"no trace")
    start = time.perf_counter()
    seen = history("Some-Model")
    took = time.perf_counter() - start
    assert (seen.code, len(seen.rows)) == (0, 101)
    assert took < 5, f"{took:.1f} s"


def test_the_page_holds_the_series_and_loads_nothing(tmp_path: Path, history: Callable[..., Seen]) -> None:
    pytest.importorskip("jinja2", reason="a page needs the extra report")
    KeptRun(3).write(tmp_path)
    KeptRun(4, us=10.6, env={"AITER_X": "<script>alert(1)</script>"}).write(tmp_path)
    KeptRun(5, us=10.6, env={"AITER_X": "</script>\x1b[31m<b>"}).write(tmp_path)
    record(tmp_path, 10.0)
    commit(tmp_path, T0)
    page = tmp_path / "page" / "history.html"
    assert history("Some-Model", "--html", str(page)).code == 0
    text = page.read_text()
    assert "default-src 'none'; style-src 'sha256-" in unescape(text)
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert "alert(1)</script>" not in text
    assert "\x1b" not in text
    assert text.count("</script>") == 2
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    (points,) = data["series"]
    assert [point["value"] for point in points] == [120_000, 127_200, 127_200]
    assert [point["judged"] for point in points] == ["within", "worse", "worse"]
    assert points[2]["marks"][0][1] == "AITER_X <script>alert(1)</script> -> </script>\\x1b[31m<b>"
    assert "127.2 us" in text
