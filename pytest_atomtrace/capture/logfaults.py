"""Lines in ATOM's log that mean something, as a table.

Sources: ATOM `scripts/wait_server_ready.sh` and `wait_infer_drain.sh` (fault words), `model_engine/async_proc.py`,
`engine_core.py`, `engine_core_mgr.py`, `model_runner.py` and `scheduler.py` (texts). All are unanchored: lines of
several processes interleave, and ATOM_LOG_MORE=1 changes what stands before the message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["EVENTS", "FAULTS", "Fault", "fault_in"]


@dataclass(frozen=True)
class Fault:
    """A line after which the server is lost: `name` says what it is, `hint` what to do."""

    pattern: re.Pattern[str]
    name: str
    hint: str
    example: str


def _fault(pattern: str, name: str, hint: str, example: str) -> Fault:
    return Fault(re.compile(pattern), name, hint, example)


FAULTS: tuple[Fault, ...] = (
    _fault(
        r"cluster_dims|InductorError",
        "the compile of the model failed",
        'server_args=["--level", "0"] goes around it, and measures another program.',
        "torch._inductor.exc.InductorError: AttributeError: 'KernelMetadata' has no attribute 'cluster_dims'",
    ),
    _fault(
        r"Failed to allocate kv cache|torch\.OutOfMemoryError|HIP out of memory",
        "the GPUs' memory does not suffice",
        "Look for other tenants of the GPUs, or lower --gpu-memory-utilization or --max-model-len.",
        "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB.",
    ),
    _fault(
        r"Memory access fault|HSA_STATUS_ERROR|MEMORY_VIOLATION|ASSERT_TRAP|stopped, reason",
        "a GPU fault",
        "The kernel log (dmesg) and a run with AMD_LOG_LEVEL=3 in env tell more.",
        "Memory access fault by GPU node-3 (Agent handle: 0x55d) on address 0x7f00.",
    ),
    _fault(
        r"proc died",
        "a worker process died",
        "Exit code -9 is a kill from outside, most often by the host's out-of-memory killer (dmesg).",
        "AsyncIOProcManager(ModelRunner): [ModelRunner3/8] proc died unexpectedly (exitcode=-9), shutting down.",
    ),
    _fault(
        r"SHUTDOWN signal",
        "an engine core gave up while starting",
        "The cause stands above it in the server's log.",
        "Engine Core Mgr: Received unexpected SHUTDOWN signal from DP rank 0 during initialization",
    ),
    _fault(
        r"run_engine: exception",
        "an engine core raised an exception",
        "The traceback stands below it in the server's log.",
        "EngineCore.run_engine: exception: list index out of range",
    ),
    _fault(
        r"will never be scheduled",
        "a request cannot fit the server's limits",
        "isl + osl must fit --max-model-len, and isl --max-num-batched-tokens unless prefill is chunked.",
        "Request 17 will never be scheduled: needs 2049 blocks, 1024 exist",
    ),
)

#: Lines that are counted, not feared.
EVENTS: dict[str, re.Pattern[str]] = {
    # The first line and the last of a start; a log may hold several lives of a server (``>> server.log``).
    "server_starting": re.compile(r"Initializing engine with model |Starting server on \S+:\d+"),
    # ATOM's own line and uvicorn's.
    "listening": re.compile(r"(?:Starting server on |Uvicorn running on https?://)\S+:(?P<port>\d+)"),
    "profiler_started": re.compile(r"profiler started \(detailed=\w*(?:, dir=(?P<dir>.*)\))?"),
    "engine_started": re.compile(r"Engine Core: profiler started"),
    "export_failed": re.compile(r"failed to export trace to (?P<path>\S+)"),
    "stop_failed": re.compile(r"profiler stop failed"),
    # AITER `jit/core.py` and its lookups of tuned configs; every rank logs each once.
    "build_start": re.compile(r"start build(?: \[(?P<module>[^\]]+)\])?"),
    "build_finish": re.compile(r"finish build(?: \[(?P<module>[^\]]+)\](?:, cost (?P<cost>\d+(?:\.\d+)?))?)?"),
    "untuned": re.compile(
        r"shape is M:(?P<m>\d+), N:(?P<n>\d+), K:(?P<k>\d+).*?not found tuned config in (?P<table>[^,]+)"
    ),
    "moe_default": re.compile(r"\[fused_moe\] using (?P<stages>\d)stage default for (?P<shape>\(.*\))"),
    # A rank whose window really ends says the first; before 2026-06-05 the engine core said the second.
    "profiler_stopping": re.compile(r"Rank \d+: stopping profiler|Profiler stopping\.\.\."),
    "profiler_stopped": re.compile(r"profiler stop completed in"),
    "baton": re.compile(r"waiting for baton release at (?P<path>\S+)"),
}


def fault_in(line: str) -> Fault | None:
    """The row that `line` matches, None for an innocent line."""
    return next((fault for fault in FAULTS if fault.pattern.search(line)), None)
