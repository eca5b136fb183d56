"""After the export: files out of the server's reach and into the store, the manifest last."""

from __future__ import annotations

import contextlib
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.files import link_or_copy, move, write_bytes, write_json
from pytest_atomtrace.capture.logfacts import log_facts
from pytest_atomtrace.capture.record import MANIFEST, MANIFEST_SCHEMA
from pytest_atomtrace.errors import ExportError
from pytest_atomtrace.trace.layout import find_ranks

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_atomtrace.capture.rankstate import RankState
    from pytest_atomtrace.capture.server import Server
    from pytest_atomtrace.cases.case import Case

__all__ = ["Taken", "collect", "profiler_overhead", "quarantine"]

# What can change a measurement; the rest of the environment is nobody's business.
_TELLING = re.compile(
    r"^(ATOM_|ATOMTRACE_|AITER_|HIP_|ROCR_|ROCM_|HSA_|AMD_|GPU_|CUDA_|NCCL_|RCCL_|TORCH|PYTORCH_|TRITON_|VLLM_|V4_|"
    r"KINETO|OMP_|MKL_|HF_|SAFETENSORS_|PYTHONPATH$|LD_PRELOAD$|LD_LIBRARY_PATH$)"
)


@dataclass(frozen=True)
class Taken:
    """What one window left to be kept; log offsets are bytes of the server's log."""

    case: Case
    number: int
    states: Mapping[str, RankState]
    stale: frozenset[Path]
    bench: Mapping[str, object]
    stages: list[dict[str, object]]
    window_log: tuple[int, int]
    stop_status: int | None
    capture_s: float
    run_id: str
    test_id: str
    created_unix_s: float
    workload: Mapping[str, object] = field(default_factory=dict)
    attempts: tuple[Mapping[str, object], ...] = ()
    contention: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)


def collect(server: Server, taken: Taken, target: Path) -> None:
    """Move the window's files to `target` (never the rank directories: the live server writes there again).

    Raises:
        ExportError: a rank has another new trace by now.
        StoreError: `target` cannot be written.

    """
    found = find_ranks(server.trace_dir)
    rows: dict[str, object] = {}
    shutil.rmtree(target, ignore_errors=True)  # remains of a collect that was killed: it has no manifest
    for rank, state in taken.states.items():
        new = [path for path in found[rank].traces if path not in taken.stale] if rank in found else []
        if state.file is None or new != [state.file]:
            raise ExportError(
                f"{rank} has {len(new)} new traces where one window leaves one", f"Look into {server.trace_dir}."
            )
        move(state.file, target / rank / state.file.name)
        graphs = []
        for path in found[rank].capture_traces:
            relative = path.relative_to(server.trace_dir / rank)
            # Made once at the server's start and valid for all its windows: the server's copy stays.
            link_or_copy(path, target / rank / relative)
            graphs.append(f"{rank}/{relative}")
        rows[rank] = {
            "file": f"{rank}/{state.file.name}",
            "size_bytes": state.size_bytes,
            "capture_traces": graphs,
        }
    write_json(target / "bench.json", server.redactor.value(dict(taken.bench)))
    write_bytes(target / "server.log", _log(server))
    write_json(target / MANIFEST, server.redactor.value(_manifest(server, taken, rows)))


def _log(server: Server) -> bytes:
    try:
        return server.redactor.data(server.log.path.read_bytes()[: server.log.size])
    except FileNotFoundError:
        return b""


def _manifest(server: Server, taken: Taken, rows: dict[str, object]) -> dict[str, object]:
    env = {name: value for name, value in server.launch.env.items() if _TELLING.match(name)}
    case = taken.case.as_dict()
    case["env"] = server.redactor.env(dict(taken.case.env))
    case["server_args"] = server.redactor.argv(taken.case.server_args)
    case["bench_args"] = server.redactor.argv(taken.case.bench_args)
    return {
        "schema": MANIFEST_SCHEMA,
        "slug": taken.case.slug,
        "case": case,
        "server_key": taken.case.server_key,
        "number": taken.number,
        "engine": server.engine,
        "run": taken.run_id,
        "test": taken.test_id,
        "created_unix_s": taken.created_unix_s,
        "capture_s": round(taken.capture_s, 3),
        "expected_ranks": list(server.ranks),
        "ranks": rows,
        "server": {
            "argv": server.redactor.argv(server.launch.argv),
            "env": server.redactor.env(env | dict(taken.case.env)),
            "pid": server.identity.pid,
        },
        "environment": dict(taken.environment),
        "contention": dict(taken.contention),
        "stages": taken.stages,
        "workload": dict(taken.workload),
        # How much longer a token took under the profiler than without it.
        "profiler_overhead": profiler_overhead(taken.bench),
        "attempts": [dict(attempt) for attempt in taken.attempts],
        # A time-out of the answer (500, or none) is ordinary: the files above are what counts.
        "stop_status": taken.stop_status,
        "log": log_facts(server.log, window=taken.window_log),
        "log_bytes": {"window_start": taken.window_log[0], "window_end": taken.window_log[1]},
        "versions": {"pytest-atomtrace": _version("pytest-atomtrace"), "python": platform.python_version()},
    }


def profiler_overhead(bench: Mapping[str, object]) -> float | None:
    """Median TPOT of the window over that of the unprofiled pass, None where one of them is missing."""
    honest = bench.get("unprofiled")
    profiled_ms, honest_ms = _median_tpot(bench), _median_tpot(honest if isinstance(honest, Mapping) else {})
    # A window that opened late was profiled for a part of its tokens only: the ratio would be too small.
    if profiled_ms is None or not honest_ms or bench.get("whole_window") is False:
        return None
    return round(profiled_ms / honest_ms, 4)


def _median_tpot(bench: Mapping[str, object]) -> float | None:
    figures = bench.get("tpot_ms")
    value = figures.get("p50") if isinstance(figures, Mapping) else None
    return float(value) if isinstance(value, (int, float)) else None


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


def quarantine(server: Server, target: Path, *, stale: frozenset[Path], error: BaseException) -> None:
    """Keep what a failed window left, with the reason; later windows must not find these files."""
    shutil.rmtree(target, ignore_errors=True)
    for rank, files in find_ranks(server.trace_dir).items():
        for path in {*files.traces, *files.json_left} - stale:
            with contextlib.suppress(OSError):  # an exporter that still lives may unlink it under our hands
                move(path, target / rank / path.name)
    server.log.poll(last=True)
    write_bytes(target / "server.log", _log(server))
    argv = " ".join(server.redactor.argv(server.launch.argv))
    reason = f"{type(error).__name__}: {server.redactor.text(str(error))}\n\ncommand line: {argv}\n"
    write_bytes(target / "reason.txt", reason.encode())
