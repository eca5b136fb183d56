"""What is kept of a window: its files, the graph capture traces, no token; what a failed one leaves."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, cast

import pytest

from pytest_atomtrace.capture.clock import SYSTEM_CLOCK
from pytest_atomtrace.capture.collect import Taken, collect, quarantine
from pytest_atomtrace.capture.engines import Launch
from pytest_atomtrace.capture.identity import Identity
from pytest_atomtrace.capture.rankstate import RankState, files_now
from pytest_atomtrace.capture.redact import Redactor
from pytest_atomtrace.capture.server import Server
from pytest_atomtrace.capture.serverlog import ServerLog
from pytest_atomtrace.capture.store import capture_at
from pytest_atomtrace.errors import ExportError
from tests.capture.conftest import small_case

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_atomtrace.capture.keeper_link import KeeperLink

WHOLE = gzip.compress(b'{"traceEvents": []}')
FILE = "M_ts_20260101_000000_000.pt.trace.json.gz"
CASE = small_case(tp=1, env={"HF_TOKEN": "hf_casesecret"})


def server_at(folder: Path) -> Server:
    argv = ("python", "--api-key", "sk-argsecret", "--torch-profiler-dir", "x")
    env = {"HF_TOKEN": "hf_casesecret", "HOME": "/home/me", "AITER_LOG_LEVEL": "INFO"}
    redactor = Redactor(env, argv)
    (folder / "trace" / "rank_0" / "capture_traces").mkdir(parents=True)
    (folder / "trace" / "rank_0" / "capture_traces" / "bs_4_q_1_rank0.json.gz").write_bytes(WHOLE)
    (folder / "server.log").write_text("started with hf_casesecret and sk-argsecret\n")
    log = ServerLog(folder / "server.log", redactor)
    log.poll()
    return Server(
        engine="sim",
        case=CASE,
        launch=Launch(argv, env),
        identity=Identity.own(),
        url="http://127.0.0.1:1",
        trace_dir=folder / "trace",
        ranks=("rank_0",),
        log=log,
        link=cast("KeeperLink", None),  # collecting asks the keeper nothing
        redactor=redactor,
        clock=SYSTEM_CLOCK,
    )


def window_of(server: Server, stale: frozenset[Path]) -> Taken:
    file = server.trace_dir / "rank_0" / FILE
    file.write_bytes(WHOLE)
    return Taken(
        case=CASE,
        number=1,
        states={"rank_0": RankState("rank_0", "done", "", file, len(WHOLE))},
        stale=stale,
        bench={"completed": 4},
        stages=[],
        window_log=(0, 10),
        stop_status=200,
        capture_s=1.5,
        run_id="run",
        test_id="t",
        created_unix_s=1.0,
    )


def test_the_trace_moves_and_graph_capture_traces_stay_for_the_next_window(tmp_path: Path) -> None:
    server = server_at(tmp_path)
    target = tmp_path / "store" / "1"
    collect(server, window_of(server, files_now(server.trace_dir)), target)
    capture = capture_at(target, CASE)
    assert capture is not None
    assert capture.ranks == {"rank_0": target / "rank_0" / FILE}
    graphs = target / "rank_0" / "capture_traces" / "bs_4_q_1_rank0.json.gz"
    assert graphs.read_bytes() == WHOLE
    assert (server.trace_dir / "rank_0").is_dir(), "the live server writes its next trace there"
    assert not (server.trace_dir / "rank_0" / FILE).exists()
    assert (server.trace_dir / "rank_0" / "capture_traces" / graphs.name).exists()
    collect(server, window_of(server, files_now(server.trace_dir)), tmp_path / "store" / "2")
    assert (tmp_path / "store" / "2" / "rank_0" / "capture_traces" / graphs.name).exists()


def test_no_token_is_in_any_file_of_a_capture(tmp_path: Path) -> None:
    server = server_at(tmp_path)
    target = tmp_path / "store" / "1"
    collect(server, window_of(server, frozenset()), target)
    text = "".join(path.read_text() for path in target.iterdir() if path.is_file())
    manifest = json.loads((target / "manifest.json").read_text())
    assert manifest["server"]["env"] == {"AITER_LOG_LEVEL": "INFO", "HF_TOKEN": "<redacted>"}
    assert manifest["case"]["env"] == {"HF_TOKEN": "<redacted>"}
    assert "hf_casesecret" not in text
    assert "sk-argsecret" not in text


def test_a_second_trace_that_came_late_is_an_error_and_no_manifest_is_written(tmp_path: Path) -> None:
    server = server_at(tmp_path)
    taken = window_of(server, frozenset())
    (server.trace_dir / "rank_0" / FILE.replace("000000", "000001")).write_bytes(WHOLE)
    with pytest.raises(ExportError, match="rank_0 has 2 new traces"):
        collect(server, taken, tmp_path / "store" / "1")
    assert not (tmp_path / "store" / "1" / "manifest.json").exists()


def test_a_quarantine_takes_the_windows_files_only_and_tells_why(tmp_path: Path) -> None:
    server = server_at(tmp_path)
    old = server.trace_dir / "rank_0" / FILE.replace("000000", "000009")
    old.write_bytes(WHOLE)
    stale = files_now(server.trace_dir)
    (server.trace_dir / "rank_0" / FILE.removesuffix(".gz")).write_bytes(b"{half")
    target = tmp_path / "quarantine" / "x-1"
    quarantine(server, target, stale=stale, error=ExportError("rank_0 orphaned", "look at hf_casesecret"))
    assert [path.name for path in (target / "rank_0").iterdir()] == [FILE.removesuffix(".gz")]
    assert old.exists()
    reason = (target / "reason.txt").read_text()
    assert reason.startswith("ExportError: rank_0 orphaned\nlook at <redacted>")
    assert "--api-key <redacted>" in reason
