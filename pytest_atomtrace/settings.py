"""One table of settings: each row is an option ``--atom-x``, an ini key ``atom_x`` and a variable ``ATOMTRACE_X``.

The rows are the fields of `Settings`; help texts, defaults, precedence (command line, then environment, then
ini, then default), error texts and the reference page all come from them. Environment variables are read in
this module only.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_atomtrace.errors import ConfigError
from pytest_atomtrace.units import format_seconds, parse_duration_ns, parse_share

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Row", "Settings", "environment", "rows"]

ENV_PREFIX: Final = "ATOMTRACE_"


@dataclass(frozen=True)
class Row:
    """One setting as the outside sees it.

    `kind` is ``text``, ``path``, ``url``, ``flag``, ``count``, ``share`` (text such as "3 %") or ``duration``
    (seconds inside). `scope` is ``run`` (the controller decides for all workers) or ``host`` (each worker decides for
    its machine).
    """

    name: str
    kind: str
    default: object
    help: str
    scope: str
    choices: tuple[str, ...]
    shown: str

    @property
    def option(self) -> str:
        """The command line option."""
        return "--atom-" + self.name.replace("_", "-")

    @property
    def dest(self) -> str:
        """The name under which argument parsers keep it."""
        return "atom_" + self.name

    @property
    def ini(self) -> str:
        """The ini key."""
        return "atom_" + self.name

    @property
    def env(self) -> str:
        """The environment variable."""
        return ENV_PREFIX + self.name.upper()

    @property
    def shown_default(self) -> str:
        """The default as help texts print it."""
        if self.shown:
            return self.shown
        if self.kind == "duration" and isinstance(self.default, float):
            return format_seconds(self.default).replace(".0 s", " s")
        if self.kind == "flag":
            return "on" if self.default else "off"
        return str(self.default) if self.default not in (None, "") else "none"

    def parse(self, value: object, *, where: str) -> object:
        """Turn text (or a value of the right type) into the setting's type.

        Raises:
            ConfigError: the text is not of the row's kind; `where` and the accepted form are named.

        """
        if self.kind == "flag":
            return _flag(value, where=where)
        if self.kind == "count":
            if isinstance(value, int) and not isinstance(value, bool):
                return value
            if isinstance(value, str) and value.strip().isdecimal():
                return int(value)
            raise ConfigError(f"{value!r} is not a whole number", where)
        if self.kind == "duration":
            if isinstance(value, float):
                return value
            text = f"{value} s" if isinstance(value, str) and value.strip().isdecimal() else value
            return parse_duration_ns(text, where=where) / 1e9
        text = str(value).strip()
        if self.kind == "share":
            parse_share(text, where=where)
        if self.choices and text not in self.choices:
            close = difflib.get_close_matches(text, self.choices, n=1)
            mean = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"{text!r} is not one of {', '.join(self.choices)}.{mean}", where)
        return text


def _refuse_half_an_attach(settings: Settings) -> None:
    if settings.backend != "attach":
        if settings.attach:
            raise ConfigError(
                f"--atom-attach and --atom-backend={settings.backend} exclude each other", "--atom-attach"
            )
        return
    if not settings.attach or not settings.attach_trace_dir:
        raise ConfigError(
            "needs the server's URL and the directory that it was started with: "
            "--atom-attach http://127.0.0.1:8000 --atom-attach-trace-dir DIR",
            "--atom-backend=attach",
        )
    if not settings.attach.startswith(("http://", "https://")):
        raise ConfigError(f"{settings.attach!r} is no URL like http://127.0.0.1:8000", "--atom-attach")


def _flag(value: object, *, where: str) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in {"1", "true", "yes", "on"}:
        return True
    if text in {"0", "false", "no", "off", ""}:
        return False
    raise ConfigError(f"{value!r} is neither true nor false", where)


def _row(
    kind: str,
    default: object,
    help_text: str,
    *,
    scope: str = "run",
    choices: tuple[str, ...] = (),
    shown: str = "",
) -> dict[str, object]:
    return {
        "kind": kind,
        "default": default,
        "help": help_text,
        "scope": scope,
        "choices": choices,
        "shown": shown,
    }


@dataclass(frozen=True)
class Settings:
    """Every setting, resolved once; what is below the plugin layer sees nothing else.

    Durations are seconds (`_s` is left out of the option's name: ``--atom-start-timeout "45 min"``), paths are
    text ("" means not given).
    """

    backend: str = field(
        default="auto",
        metadata=_row(
            "text",
            "auto",
            "where captures come from; auto: the real ATOM if it is importable and a GPU is visible, else skip",
            choices=("auto", "atom", "attach", "sim", "replay"),
        ),
    )
    attach: str = field(
        default="",
        metadata=_row("url", "", "URL of a running server to capture from; implies the attach backend", scope="host"),
    )
    attach_trace_dir: str = field(
        default="",
        metadata=_row("path", "", "the --torch-profiler-dir of the server that --atom-attach names", scope="host"),
    )
    replay: str = field(
        default="",
        metadata=_row("path", "", "directory with saved captures or traces; implies the replay backend"),
    )
    output: str = field(
        default=".atomtrace",
        metadata=_row("path", ".atomtrace", "where runs are kept, relative to the rootdir"),
    )
    require_gpu: bool = field(
        default=False, metadata=_row("flag", default=False, help_text="no GPU is an error instead of a skip")
    )
    root: str = field(default="", metadata=_row("path", "", "an ATOM checkout, put first on its path", scope="host"))
    python: str = field(
        default="",
        metadata=_row("path", "", "the interpreter that runs ATOM", scope="host", shown="this one"),
    )
    launcher: str = field(
        default="own",
        metadata=_row(
            "text",
            "own",
            "who starts the real server: this plugin, or ATOM's scripts/start_atom_server.sh (it ends other Python "
            "processes of the host by name)",
            choices=("own", "script"),
            scope="host",
        ),
    )
    workload: str = field(
        default="auto",
        metadata=_row(
            "text",
            "auto",
            "what sends the requests: ATOM's benchmark_serving or the built-in client; auto: ATOM's for the real "
            "server if it is installed",
            choices=("auto", "atom", "builtin"),
        ),
    )
    window_steps: int = field(
        default=0,
        metadata=_row(
            "count",
            0,
            "open the profiler only when all slots decode, and close it after that many steps (0: profile the whole "
            "workload)",
        ),
    )
    bench: str = field(
        default="off",
        metadata=_row(
            "text",
            "off",
            "run the workload once without the profiler before the window: honest times for assert_bench",
            choices=("off", "on"),
        ),
    )
    lock_dir: str = field(
        default="",
        metadata=_row(
            "path",
            "",
            "directory of the GPU lease on local disk, shared by all users of the machine",
            scope="host",
            shown="atomtrace-locks in the system's temporary directory",
        ),
    )
    lock_timeout: float = field(default=10800.0, metadata=_row("duration", 10800.0, "longest wait for the GPU lease"))
    start_timeout: float = field(
        default=2700.0, metadata=_row("duration", 2700.0, "longest server start, from launch to ready")
    )
    stall_timeout: float = field(
        default=600.0, metadata=_row("duration", 600.0, "longest silence of a starting server's log")
    )
    workload_timeout: float = field(
        default=1800.0, metadata=_row("duration", 1800.0, "longest warm-up or profiled benchmark")
    )
    export_timeout: float = field(
        default=900.0, metadata=_row("duration", 900.0, "longest wait for trace files that do not grow")
    )
    stop_timeout: float = field(
        default=60.0, metadata=_row("duration", 60.0, "patience with SIGINT before SIGTERM, then SIGKILL")
    )
    catalog: str = field(
        default="auto",
        metadata=_row(
            "path",
            "auto",
            "ATOM's models.json for atom_catalog and from_catalog; auto: the one of --atom-root",
        ),
    )
    full: bool = field(
        default=False, metadata=_row("flag", default=False, help_text="run the specs marked atom_full too")
    )
    vram_timeout: float = field(
        default=120.0,
        metadata=_row(
            "duration", 120.0, "longest wait for GPU memory to be idle before a launch, and back after a stop"
        ),
    )
    machine_root: str = field(
        default="",
        metadata=_row(
            "path",
            "",
            "where /sys, /dev and /opt are looked for below; another tree than / is a fake machine, for tests",
            scope="host",
            shown="/",
        ),
    )
    port: int = field(default=0, metadata=_row("count", 0, "HTTP port of the server (0: a free one)", scope="host"))
    steady_skip_first: int = field(
        default=5, metadata=_row("count", 5, "steps left out at the start of a run of equal steps")
    )
    steady_skip_last: int = field(
        default=2, metadata=_row("count", 2, "steps left out at the end of a run of equal steps")
    )
    steady_min: int = field(
        default=20,
        metadata=_row("count", 20, "steady steps that a p50 or mean needs (p90: 2.5 times, p99: 10 times as many)"),
    )

    baselines: str = field(
        default="perf_specs/baselines",
        metadata=_row("path", "perf_specs/baselines", "where baselines are kept, relative to the rootdir"),
    )
    update_baselines: str = field(
        default="",
        metadata=_row(
            "text",
            "",
            "record baselines instead of judging: those that are missing, or all (5 launches of 3 windows a case)",
            choices=("missing", "all"),
        ),
    )
    tolerance: str = field(
        default="3 %",
        metadata=_row("share", "3 %", "a change against the baseline that is never called a regression"),
    )
    confirm: str = field(
        default="launch",
        metadata=_row(
            "text",
            "launch",
            "before a regression fails: take a second, fresh launch (once per case), or never",
            choices=("launch", "never"),
        ),
    )
    drift: str = field(
        default="10 %",
        metadata=_row("share", "10 %", "largest total change against the anchor, however often baselines moved"),
    )
    waivers: str = field(
        default="perf_specs/waivers.yaml",
        metadata=_row("path", "perf_specs/waivers.yaml", "checks that may fail for a while, relative to the rootdir"),
    )

    error_exit: int = field(
        default=0,
        metadata=_row(
            "count",
            0,
            "exit code of a run in which no test failed but some were inconclusive or infra errors, so that CI "
            "can requeue it (0: pytest's own 1)",
        ),
    )

    @classmethod
    def resolve(cls, *, cli: Mapping[str, object], env: Mapping[str, str], ini: Mapping[str, object]) -> Settings:
        """Read every row from command line, environment, ini and default, in this order.

        Keys are the rows' `dest`, `env` and `ini` names; None and an absent key mean "not given".

        Raises:
            ConfigError: all wrong values in one message, each with its source.

        """
        values: dict[str, object] = {}
        problems: list[str] = []
        for row in rows():
            sources = (
                (row.option, cli.get(row.dest)),
                (row.env, env.get(row.env)),
                (f"ini {row.ini}", ini.get(row.ini)),
            )
            for where, value in sources:
                if value is None or value == "":
                    continue
                try:
                    values[row.name] = row.parse(value, where=where)
                except ConfigError as error:
                    problems.append(str(error))
                break
        known = {row.env for row in rows()}
        for key in env:
            if key.startswith(ENV_PREFIX) and key not in known and not key.startswith(_OURS):
                close = difflib.get_close_matches(key, known, n=1)
                if close:
                    problems.append(f"environment variable {key} is no setting. Did you mean {close[0]}?")
        if problems:
            raise ConfigError("\n".join(problems))
        settings = cls(**values)  # type: ignore[arg-type]  # Row.parse gave each row its type
        if settings.replay and settings.backend == "auto":
            settings = dataclasses.replace(settings, backend="replay")
        if settings.attach and settings.backend == "auto":
            settings = dataclasses.replace(settings, backend="attach")
        _refuse_half_an_attach(settings)
        if settings.backend == "replay" and not settings.replay:
            raise ConfigError("needs the directory of the saved captures: --atom-replay DIR", "--atom-backend=replay")
        if settings.replay and settings.backend != "replay":
            raise ConfigError(
                f"--atom-replay and --atom-backend={settings.backend} exclude each other", "--atom-replay"
            )
        return settings

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Settings:
        """Rebuild settings sent by `as_dict`."""
        names = {f.name for f in dataclasses.fields(cls)}
        return cls(**{k: v for k, v in values.items() if k in names})  # type: ignore[arg-type]

    def as_dict(self, *, scope: str | None = None) -> dict[str, object]:
        """Builtin types only; `scope` keeps the rows of one scope."""
        return {row.name: getattr(self, row.name) for row in rows() if scope is None or row.scope == scope}

    @property
    def lock_directory(self) -> Path:
        """The lease's directory: `lock_dir`, else one below the system's temporary directory."""
        return Path(self.lock_dir) if self.lock_dir else Path(tempfile.gettempdir()) / "atomtrace-locks"

    @property
    def machine(self) -> Path:
        """The root of the machine whose GPUs are looked at."""
        return Path(self.machine_root or "/")

    @property
    def atom_python(self) -> str:
        """The interpreter that runs the server."""
        return self.python or sys.executable


# Variables that are ours but no settings: the simulator's controls and the token that marks our processes.
_OURS: Final = (ENV_PREFIX + "SIM_", ENV_PREFIX + "RUN_TOKEN")


@cache
def rows() -> tuple[Row, ...]:
    """The table."""
    return tuple(Row(name=f.name, **f.metadata) for f in dataclasses.fields(Settings))


def environment() -> dict[str, str]:
    """A copy of the process environment: the one place that reads it."""
    return dict(os.environ)
