"""The figures of a case that leave the run: for reports, dashboards and JUnit, as builtin types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import InconclusiveError
from pytest_atomtrace.verdicts.bench import bench_of
from pytest_atomtrace.verdicts.measure import measure
from pytest_atomtrace.verdicts.steps import Timing

if TYPE_CHECKING:
    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["case_figures", "gpu_name"]


def case_figures(trace: TraceView) -> dict[str, object]:
    """What was measured (`asked`), on what, and the figures beside step times.

    ``per_token_ns`` is the p50 of whole decode iterations per token that a sequence gains, on the slowest rank; it is
    left out where the accepted length is unknown or a rank has too few steady steps. ``bench`` are the figures of the
    pass without the profiler where there was one (``profiled`` says which).
    """
    figures: dict[str, object] = {"simulated": trace.simulated, "gpu": gpu_name(trace), "rocm": _rocm(trace)}
    if trace.case is not None:
        figures["asked"] = _asked(trace.case)
    per_token = _per_token_ns(trace)
    if per_token is not None:
        figures["per_token_ns"] = per_token
    bench = _bench(trace)
    if bench:
        figures["bench"] = bench
    return figures


def _asked(case: Case) -> dict[str, object]:
    # Neither arguments nor environment: they may hold what no report should, and the slug tells them apart.
    names = ("model", "tp", "dp", "pp", "dp_attention", "isl", "conc", "load_dummy")
    return {
        **{name: getattr(case, name) for name in names},
        "osl": case.output_tokens,
        "speculative_tokens": case.speculative_tokens,
        "variant": _variant(case),
    }


def _variant(case: Case) -> str:
    """What ATOM's catalog puts behind a model's name: ``MTP3``, ``DPA``, ``DPA TBO``."""
    words = " ".join(case.server_args).replace("=", " ").split()
    drafts = case.speculative_tokens
    method = words[words.index("--method") + 1] if drafts and "--method" in words[:-1] else "draft"
    parts = [f"{method.upper()}{drafts}"] * (drafts > 0) + ["DPA"] * case.dp_attention
    return " ".join([*parts, *["TBO"] * ("--enable-tbo" in words)])


def _per_token_ns(trace: TraceView) -> int | None:
    length = trace.accepted_length
    if length is None:
        return None
    found: list[int] = []
    for rank in trace.data.ranks.values():
        try:
            values = measure("per_token", rank, trace.steady_steps(rank, "decode"), accepted_length=length)
        except InconclusiveError:
            return None
        if len(values) < trace.settings.steady_min:
            return None
        found.append(Timing(values).p50_ns)
    return max(found, default=None)


def _bench(trace: TraceView) -> dict[str, object]:
    bench = bench_of(trace.bench)
    if bench is None:
        return {}
    figures: dict[str, object] = {
        "profiled": bench.profiled,
        "requests": bench.requests,
        "completed": bench.completed,
        "output_tokens_per_s": bench.output_tokens_per_s,
        "total_tokens_per_s": _total_rate(bench.raw),
        "ttft_mean_ns": bench.ttft.mean_ns if bench.ttft else None,
        "tpot_mean_ns": bench.tpot.mean_ns if bench.tpot else None,
        "acceptance_rate": bench.acceptance_rate,
        "acceptance_length": bench.acceptance_length,
    }
    return {key: value for key, value in figures.items() if value is not None}


def _total_rate(raw: Mapping[str, object]) -> float | None:
    """Prompt and output tokens per second of the client's wall time."""
    prompts, tokens, seconds = (raw.get(name) for name in ("input_tokens", "output_tokens", "duration_s"))
    if not isinstance(prompts, int) or not isinstance(tokens, int) or not isinstance(seconds, (int, float)):
        return None
    return round((prompts + tokens) / seconds, 3) if prompts and seconds > 0 else None


def gpu_name(trace: TraceView) -> str:
    """What the profiler calls the first device, "" where it does not say."""
    devices = trace.environment.get("deviceProperties")
    first = devices[0] if isinstance(devices, list) and devices else None
    return str(first.get("name") or "") if isinstance(first, Mapping) else ""


def _rocm(trace: TraceView) -> str:
    version, hip = (trace.environment.get(key) for key in ("rocm_version", "hip_runtime_version"))
    if isinstance(version, str) and version:
        return version
    # major * 10^7 + minor * 10^5 + patch, as hip_version.h has it.
    return f"HIP {hip // 10**7}.{hip // 10**5 % 100}.{hip % 10**5}" if isinstance(hip, int) and hip >= 10**7 else ""
