"""Engines: how a server of a case is started. The real ATOM and its simulator take the same command line."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pytest_atomtrace.errors import WorkloadError
from pytest_atomtrace.trace.layout import expected_ranks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.settings import Settings

__all__ = [
    "RUN_TOKEN",
    "AtomEngine",
    "Engine",
    "Launch",
    "SimEngine",
    "engine_of",
    "ranks_of",
    "refuse_unsupported",
    "server_arguments",
]

RUN_TOKEN = "ATOMTRACE_RUN_TOKEN"  # noqa: S105  # marks our processes, opens nothing
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
# Inherited by accident: they belong to the test run, or bind the profiler by another route than ours.
_DROPPED = ("ENABLE_TORCH_PROFILER", "ATOM_TORCH_PROFILER_DIR", "KINETO_CONFIG", "USE_ATOMESH_ENTRYPOINTS")


@dataclass(frozen=True)
class Launch:
    """A server's command line and environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


class Engine(Protocol):
    """What a capture needs to know about where servers come from."""

    @property
    def name(self) -> str:
        """``sim`` or ``atom``."""

    def launch(self, case: Case, *, trace_dir: Path, port: int, base_env: Mapping[str, str], token: str) -> Launch:
        """Command line and environment of a server for `case`, its profiler bound to `trace_dir`."""


@dataclass(frozen=True)
class SimEngine:
    """The built-in simulator."""

    name: str = "sim"

    def launch(self, case: Case, *, trace_dir: Path, port: int, base_env: Mapping[str, str], token: str) -> Launch:
        """Start the simulator with this interpreter."""
        argv = (
            sys.executable,
            "-m",
            "pytest_atomtrace.simulator",
            *server_arguments(case, trace_dir=trace_dir, port=port),
        )
        return Launch(argv, _environment(case, base_env, token, first_on_path=_PACKAGE_PARENT))


@dataclass(frozen=True)
class AtomEngine:
    """The real server, started without ATOM's shell scripts (they kill by name, host-wide)."""

    python: str
    root: str
    name: str = "atom"

    def launch(self, case: Case, *, trace_dir: Path, port: int, base_env: Mapping[str, str], token: str) -> Launch:
        """Start ``atom.entrypoints.openai_server``, `root` first on its path."""
        argv = (
            self.python,
            "-m",
            "atom.entrypoints.openai_server",
            *server_arguments(case, trace_dir=trace_dir, port=port),
        )
        root = Path(self.root).resolve() if self.root else None
        return Launch(argv, _environment(case, base_env, token, first_on_path=root))


def engine_of(settings: Settings, name: str) -> Engine:
    """The engine called `name` (``sim`` or ``atom``)."""
    if name == "sim":
        return SimEngine()
    return AtomEngine(python=settings.atom_python, root=settings.root)


def server_arguments(case: Case, *, trace_dir: Path, port: int) -> list[str]:
    """ATOM's server arguments in their registered spelling, which old and new parsers accept alike.

    Source: ATOM `atom/model_engine/arg_utils.py` and `atom/entrypoints/openai/api_server.py`. Every value is
    one element of a list, so JSON-valued arguments arrive as they were written.
    """
    arguments = ["--model", case.model, "--host", "127.0.0.1", "--server-port", str(port)]
    arguments += ["--tensor-parallel-size", str(case.tp)]
    if case.dp != 1:
        arguments += ["--data-parallel-size", str(case.dp)]
    if case.pp != 1:
        arguments += ["--pipeline-parallel-size", str(case.pp)]
    arguments += ["--enable-dp-attention"] * case.dp_attention
    # Its value is optional in newer ATOM and unknown to older: bare, and before a flag that ends it.
    arguments += ["--load_dummy"] * case.load_dummy
    arguments += ["--torch-profiler-dir", str(trace_dir)]
    arguments += ["--mark-trace"] * case.mark_trace
    return [*arguments, *case.server_args]


def _environment(case: Case, base_env: Mapping[str, str], token: str, *, first_on_path: Path | None) -> dict[str, str]:
    env = {k: v for k, v in base_env.items() if k not in _DROPPED and not k.startswith("PYTEST_")}
    env.setdefault("AITER_LOG_LEVEL", "INFO")
    env["PYTHONUNBUFFERED"] = "1"
    env |= dict(case.env)
    env["ATOM_PROFILER_MORE"] = "1" if case.profiler_more else "0"
    env[RUN_TOKEN] = token
    if first_on_path is not None:
        inherited = env.get("PYTHONPATH", "")
        env["PYTHONPATH"] = f"{first_on_path}:{inherited}" if inherited else str(first_on_path)
    return env


def ranks_of(case: Case) -> tuple[str, ...]:
    """Rank directories that a server of `case` makes, prefill context parallel and rapidserve included."""
    names = [argument.partition("=")[0].replace("_", "-") for argument in case.server_args]
    if "--enable-rapidserve" in names:
        per_role = expected_ranks(tp=case.tp)
        return tuple(f"{role}/{rank}" for role in ("prefill", "decode") for rank in per_role)
    width = case.tp * _context_parallel(case.server_args)
    return expected_ranks(tp=width, dp=case.dp, pp=case.pp, dp_attention=case.dp_attention)


def _context_parallel(arguments: tuple[str, ...]) -> int:
    for index, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        if flag.replace("_", "-") in ("-pcp", "--prefill-context-parallel-size"):
            text = value or (arguments[index + 1] if index + 1 < len(arguments) else "1")
            return int(text) if text.isdecimal() else 1
    return 1


def refuse_unsupported(case: Case) -> None:
    """Refuse, before anything is started, what the built-in workload would silently leave out.

    Raises:
        WorkloadError: the case asks for benchmark arguments or for a chat template.

    """
    if case.bench_args:
        raise WorkloadError(
            f"the built-in workload takes no benchmark arguments, the case has {list(case.bench_args)}",
            "Leave bench_args out of the case.",
        )
    if case.chat_template:
        raise WorkloadError(
            "the built-in workload sends plain text and cannot wrap prompts in a chat template",
            "Leave chat_template out of the case (its acceptance rate will be that of plain text).",
        )
