"""Engines: how a server of a case is started. The real ATOM and its simulator take the same command line."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pytest_atomtrace.errors import LaunchError
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
    "ScriptEngine",
    "SimEngine",
    "engine_of",
    "launch_environment",
    "ranks_of",
    "server_arguments",
]

RUN_TOKEN = "ATOMTRACE_RUN_TOKEN"  # noqa: S105  # marks our processes, opens nothing
_SIM_LAUNCH, _SIM_SEED = "ATOMTRACE_SIM_LAUNCH", "ATOMTRACE_SIM_SEED"
# Four times kineto's default: a window of 128 decode steps of the largest models stays far below it.
_ROW_CAP = 20_000_000
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
# Inherited by accident: they belong to the test run, or bind the profiler by another route than ours.
_DROPPED = ("ENABLE_TORCH_PROFILER", "ATOM_TORCH_PROFILER_DIR", "KINETO_CONFIG", "USE_ATOMESH_ENTRYPOINTS")


@dataclass(frozen=True)
class Launch:
    """A server's command line and environment.

    `files` are written before the start, what is in the directories `emptied` is removed. A `scripted` start is one
    by a shell script that goes away while the server stays.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    files: Mapping[Path, str] = field(default_factory=dict)
    emptied: tuple[Path, ...] = ()
    scripted: bool = False


class Engine(Protocol):
    """What a capture needs to know about where servers come from."""

    @property
    def name(self) -> str:
        """``sim``, ``atom`` or ``attach``."""

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
        env = _environment(case, base_env, token, first_on_path=root)
        return _with_kineto(Launch(argv, env, emptied=_caches(env)), trace_dir.parent)


@dataclass(frozen=True)
class ScriptEngine:
    """The real server, started by ATOM's own ``scripts/start_atom_server.sh``, of which nothing is believed.

    Its exit status is 0 without a server after 120 s, and its words are not read: the ready gate decides. It ends
    other processes of the host by name and empties ``~/.cache/atom`` itself, so it runs under the lease only; its
    counterpart that stops servers is never called.
    """

    python: str
    root: str
    name: str = "atom"

    def launch(self, case: Case, *, trace_dir: Path, port: int, base_env: Mapping[str, str], token: str) -> Launch:
        """``bash start_atom_server.sh MODEL TP PORT ...``: always all three, with fewer it takes them for extras.

        Raises:
            LaunchError: no checkout was named, or an argument would not survive the script's word splitting.

        """
        if not self.root:
            raise LaunchError(
                "--atom-launcher=script needs ATOM's checkout, which has the script", "Name it with --atom-root=DIR."
            )
        root = Path(self.root).resolve()
        extras = [*_parallelism(case), *_harness_arguments(case, trace_dir), *case.server_args]
        broken = [argument for argument in extras if not _survives_splitting(argument)]
        if broken:
            raise LaunchError(
                f"start_atom_server.sh would tear {broken[0]!r} apart: it expands its extra arguments unquoted",
                "Use --atom-launcher=own, or write the value without blanks and wildcards.",
            )
        argv = ("bash", str(root / "scripts" / "start_atom_server.sh"), case.model, str(case.tp), str(port), *extras)
        env = _environment(case, base_env, token, first_on_path=root)
        # The script calls `python`.
        env["PATH"] = f"{Path(self.python).parent}:{env.get('PATH', '/usr/bin:/bin')}"
        return _with_kineto(Launch(argv, env, scripted=True), trace_dir.parent)


def launch_environment(env: Mapping[str, str], engine: Engine, number: int) -> dict[str, str]:
    """The environment of the `number`-th launch of a server in one run.

    A seeded simulator is the same at every launch, which no machine is: each launch gets a nonce of its own.
    """
    seeded = _SIM_LAUNCH in env or _SIM_SEED in env
    if engine.name != "sim" or number == 1 or not seeded:
        return dict(env)
    first = env.get(_SIM_LAUNCH, "")
    return {**env, _SIM_LAUNCH: str((int(first) if first.isdecimal() else 0) + number - 1)}


def engine_of(settings: Settings, name: str) -> Engine:
    """The engine called `name` (``sim`` or ``atom``)."""
    if name == "sim":
        return SimEngine()
    if settings.launcher == "script":
        return ScriptEngine(python=settings.atom_python, root=settings.root)
    return AtomEngine(python=settings.atom_python, root=settings.root)


def server_arguments(case: Case, *, trace_dir: Path, port: int) -> list[str]:
    """ATOM's server arguments in their registered spelling, which old and new parsers accept alike.

    Source: ATOM `atom/model_engine/arg_utils.py` and `atom/entrypoints/openai/api_server.py`. Every value is
    one element of a list, so JSON-valued arguments arrive as they were written.
    """
    arguments = ["--model", case.model, "--host", "127.0.0.1", "--server-port", str(port)]
    arguments += ["--tensor-parallel-size", str(case.tp)]
    return [*arguments, *_parallelism(case), *_harness_arguments(case, trace_dir), *case.server_args]


def _parallelism(case: Case) -> list[str]:
    """What stands beside the tensor parallel size."""
    arguments: list[str] = []
    if case.dp != 1:
        arguments += ["--data-parallel-size", str(case.dp)]
    if case.pp != 1:
        arguments += ["--pipeline-parallel-size", str(case.pp)]
    arguments += ["--enable-dp-attention"] * case.dp_attention
    return arguments


def _harness_arguments(case: Case, trace_dir: Path) -> list[str]:
    # Its value is optional in newer ATOM and unknown to older: bare, and before a flag that ends it.
    arguments = ["--load_dummy"] * case.load_dummy
    arguments += ["--torch-profiler-dir", str(trace_dir)]
    arguments += ["--mark-trace"] * case.mark_trace
    return arguments


def _survives_splitting(argument: str) -> bool:
    return bool(argument) and not any(letter in argument for letter in " \t\n*?[")


def _with_kineto(launch: Launch, directory: Path) -> Launch:
    """Let kineto read a file of ours: the machine's own, or a script's, could change what is recorded.

    ``ROCTRACER_MAX_EVENTS`` is the row cap of roctracer and, in newer kineto, of rocprofiler-sdk (kineto
    ``Config.cpp``); past it the trace goes on without kernels. The start script exports a path of its own, which
    then wins.
    """
    path = directory / "kineto.conf"
    text = f"ROCTRACER_MAX_EVENTS={_ROW_CAP}\n"
    return replace(launch, env={**launch.env, "KINETO_CONFIG": str(path)}, files={path: text})


def _caches(env: Mapping[str, str]) -> tuple[Path, ...]:
    """ATOM's compile cache, which its CI and its start script empty before each launch."""
    home = env.get("HOME", "")
    return (Path(home) / ".cache" / "atom",) if home.startswith("/") else ()


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
