"""The wrong things the simulator can be asked to do, one row each."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

__all__ = ["FAULTS", "Fault", "FaultError", "Faults", "parse_faults"]

RANK_0 = "rank, default 0"
ALL_RANKS = "rank, default all"

#: name -> (meaning of the arguments, what really happens)
FAULTS: dict[str, tuple[str, str]] = {
    "late_ready": ("seconds, default 3", "the engines report ready that much later"),
    "never_ready": ("", "an engine hangs after loading; HTTP never listens, the process lives"),
    "die_loading": ("exit code, default 1", "an engine core dies while loading; the server exits non-zero"),
    "shutdown_line": ("", "an engine core asks for shutdown during initialization; the server exits non-zero"),
    "port_other_model": ("model id", "/v1/models answers with another model's id"),
    "worker_killed": ("rank, default 0; steps, default 5", "SIGKILL of a worker in the window; HTTP stays up"),
    "export_error": (RANK_0, "the export raises; both files are deleted, the log says so, HTTP says 200"),
    "enospc": (RANK_0, "the export's write meets a full device (/dev/full); as export_error"),
    "kill_in_json": (RANK_0, "SIGKILL of the worker in the middle of the json file"),
    "kill_in_gzip": (RANK_0, "SIGKILL of the worker in the middle of the gz file, json complete"),
    "slow_rank": ("rank, default 0; seconds, default 2", "the export of one rank pauses between json and gz"),
    "stop_timeout": ("seconds, default 0.5; late by, default 2", "stop answers 500, the files appear later"),
    "async_stop": ("", "start and stop return at once without `traces`, as ATOM before 2026-06-05"),
    "no_profiler": ("", "profiler calls answer 200 and do nothing, as without --torch-profiler-dir"),
    "rank_not_started": (RANK_0, "the profiler of one rank does not start, the others record"),
    "start_already_running": ("", "a window is open before the first client comes"),
    "fail_requests": ("every n-th, default 1", "completions are answered with 500"),
    "stall_stream": ("after n tokens, default 3", "streams stop in the middle and stay open"),
    "print_environment": ("", "the server logs its whole environment while loading, as for debugging; harmless"),
    "untuned": ("", "AITER logs shapes without a tuned config and a default fused MoE while loading; harmless"),
    "aiter_build": ("seconds, default 0.01", "AITER compiles a module that long from the window's start on"),
    "ignore_sigterm": ("", "the server ignores SIGINT and SIGTERM"),
    "leak_process": ("seconds, default 300", "a process in a session of its own survives the server"),
    "leak_vram": (RANK_0, "memory of a worker stays in use after its end (with ATOMTRACE_SIM_VRAM_TREE)"),
    "no_kernels": (ALL_RANKS, "the trace holds no GPU activity"),
    "lossy_graph": (RANK_0, "one graph launch in the middle of the window loses 40 % of its kernels"),
    "empty_steps": (RANK_0, "three decode steps in the middle of the window have no GPU activity"),
    "missing_label": (ALL_RANKS, "the trace holds no step labels"),
    "row_cap": ("rank, default 0; rows, default 20000", "the profiler stops recording after that many rows"),
    "truncated_gz": (RANK_0, "the gz file ends at 60 % of its bytes, the json is gone"),
    "extra_rank": ("", "a stale rank directory of an earlier, larger run with a trace in it"),
    "missing_rank": ("rank, default the last", "the rank's directory vanishes before its export"),
    "two_traces": (RANK_0, "the rank's window leaves two trace files"),
}


class FaultError(ValueError):
    """A fault that the simulator does not know, or an argument it cannot read."""


@dataclass(frozen=True)
class Fault:
    """One requested fault with its raw arguments."""

    name: str
    args: tuple[str, ...] = ()

    def number(self, index: int, default: float) -> float:
        """Argument ``index`` as a number, ``default`` where it was left out."""
        return float(self.args[index]) if len(self.args) > index and self.args[index] else default


class Faults:
    """All faults of this server; ranks count over the whole server (DP rank x workers + local rank)."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self._by_name = {fault.name: fault for fault in faults}

    def get(self, name: str) -> Fault | None:
        """The fault if it was asked for."""
        if name not in FAULTS:
            raise FaultError(name)
        return self._by_name.get(name)

    def on_rank(self, name: str, rank: int) -> Fault | None:
        """The fault if it was asked for and strikes this rank (an omitted rank means the row's default)."""
        fault = self.get(name)
        if fault is None:
            return None
        if not fault.args or not fault.args[0]:
            return fault if FAULTS[name][0] == ALL_RANKS or rank == 0 else None
        return fault if fault.args[0] == "all" or int(fault.args[0]) == rank else None


def parse_faults(text: str) -> tuple[Fault, ...]:
    """``"late_ready:5,slow_rank:3:1.5"`` as faults; raises FaultError with the nearest known name."""
    faults = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, *args = item.split(":")
        if name not in FAULTS:
            near = difflib.get_close_matches(name, FAULTS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise FaultError(f"unknown fault {name!r}{hint} (known: {', '.join(sorted(FAULTS))})")
        _check_arguments(name, args)
        faults.append(Fault(name, tuple(args)))
    return tuple(faults)


def _check_arguments(name: str, args: list[str]) -> None:
    meaning = FAULTS[name][0]
    wanted = [part for part in meaning.split(";") if part]
    if len(args) > len(wanted):
        raise FaultError(f"fault {name!r} takes {len(wanted)} argument(s) ({meaning or 'none'}), got {args}")
    if name == "port_other_model":
        return
    for value in args:
        if value and value != "all":
            try:
                float(value)
            except ValueError:
                raise FaultError(f"fault {name!r}: {value!r} is not a number ({meaning})") from None
