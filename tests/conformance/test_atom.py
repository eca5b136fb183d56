"""ATOM's own parser, client and trace tools against what is built on them.

Needs a checkout: ATOM_ROOT=DIR (or ATOMTRACE_ROOT). Where its heavy packages are missing, stand-ins take their place
(see without_gpus.py): what is tested is the command line, the HTTP traffic, the result file and the trace's shape.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_atomtrace.capture.engines import server_arguments
from pytest_atomtrace.cases.catalog import find_catalog, load_catalog
from tests.capture.conftest import Rig, small_case
from tests.capture.conftest import rig as rig  # noqa: PLC0414  # the fixture

ROOT = Path(os.environ.get("ATOM_ROOT") or os.environ.get("ATOMTRACE_ROOT") or "/nonexistent").resolve()
RUNNER = Path(__file__).with_name("without_gpus.py")

pytestmark = pytest.mark.skipif(
    not (ROOT / "atom" / "entrypoints").is_dir(), reason="no ATOM checkout: name one with ATOM_ROOT=DIR"
)


def run(*arguments: str, stdin: str = "") -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments], input=stdin, env=env, capture_output=True, text=True, timeout=110, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def parsed(lines: list[list[str]]) -> list[dict[str, str]]:
    answers = json.loads(run(str(RUNNER), "-m", "parse", stdin=json.dumps(lines)).splitlines()[-1])
    assert len(answers) == len(lines)
    return list(answers)


def test_the_server_s_parser_takes_the_command_line_of_every_entry_of_its_catalog() -> None:
    path = find_catalog("auto", str(ROOT), base=ROOT)
    assert path is not None
    catalog = load_catalog(path)
    load = {} if all(variant.scenarios for variant in catalog.variants) else {"conc": 64}
    cases = [
        case
        for model in dict.fromkeys(variant.model for variant in catalog.variants)
        for case in catalog.expand(model, fields={"isl": 1024, "osl": 64, "mark_trace": True, **load})
    ]
    by_key = {case.server_key: case for case in cases}
    answers = parsed([server_arguments(case, trace_dir=Path("/t"), port=4711) for case in by_key.values()])
    assert len(answers) >= 20
    for case, answer in zip(by_key.values(), answers, strict=True):
        assert "refused" not in answer, (case.slug, answer)
        assert (answer["model"], answer["tensor_parallel_size"]) == (case.model, str(case.tp))
        assert (answer["torch_profiler_dir"], answer["mark_trace"], answer["server_port"]) == ("/t", "True", "4711")
        assert answer["enable_dp_attention"] == str(case.dp_attention)


def test_every_field_of_a_case_arrives_at_the_server_s_parser() -> None:
    value = '{"a": ["b c", 1]}'
    cases = [
        small_case(tp=2, dp=2, load_dummy=True),
        small_case(pp=2, server_args=("--hf-overrides", value)),
        small_case(server_args=("--no-such-flag",)),
    ]
    dummy, pipeline, wrong = parsed([server_arguments(case, trace_dir=Path("/t"), port=1) for case in cases])
    assert (dummy["data_parallel_size"], dummy["load_dummy"]) in (("2", "empty"), ("2", "True"))  # before 2026: a flag
    assert (pipeline["pipeline_parallel_size"], pipeline["hf_overrides"]) == ("2", str(json.loads(value)))
    assert wrong == {"refused": "2"}


@pytest.fixture
def python(tmp_path: Path) -> str:
    """An interpreter that runs modules of the checkout with or without its heavy packages."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {RUNNER} "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("fields", [{}, {"range_ratio": 0.8}], ids=["exact", "ranges"])
def test_the_client_s_result_is_read_and_every_request_counted(
    rig: Rig, python: str, fields: dict[str, object]
) -> None:
    case = small_case(conc=2, prompts_per_slot=2, **fields)
    settings = {"workload": "atom", "python": python, "root": str(ROOT), "workload_timeout": 60.0, "bench": "on"}
    capture = rig.session_with(settings).obtain(case, needed=[case], test_id="t")
    bench = json.loads((capture.directory / "bench.json").read_text())
    for figures in (bench, bench["unprofiled"]):
        assert (figures["workload"], figures["requests"], figures["completed"], figures["failed"]) == ("atom", 4, 4, 0)
        assert figures["ttft_ms"]["mean"] > 0
        assert figures["tpot_ms"]["p50"] > 0
        assert figures["output_tokens_per_s"] > 0
        assert figures["output_tokens"] == 4 * 16 or case.range_ratio < 1
    assert isinstance(capture.manifest["profiler_overhead"], float)
    rig.assert_nothing_left()


@pytest.mark.parametrize("tool", ["parse_trace.py", "analyze_trace_summary.py"])
def test_the_trace_tools_read_a_simulated_capture(rig: Rig, tmp_path: Path, tool: str) -> None:
    case = small_case(osl=40, mark_trace=True)
    capture = rig.session().obtain(case, needed=[case], test_id="t")
    path = capture.ranks["rank_0"]
    if tool == "analyze_trace_summary.py":
        assert "decode" in run(str(ROOT / "tools" / tool), str(path)).lower()
        return
    table = tmp_path / "decode.csv"
    text = run(str(ROOT / "tools" / tool), str(path), "--output", str(table))
    assert "Matching capture graph" in text
    assert len(table.read_text().splitlines()) > 10
