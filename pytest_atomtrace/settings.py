"""One table of settings: each row is an option ``--atom-x``, an ini key ``atom_x`` and a variable ``ATOMTRACE_X``.

The rows are the attributes of `Settings`; help texts, defaults, precedence (command line, then environment, then
ini, then default), error texts and the reference page all come from them. Environment variables are read in
this module only.

pytest imports this module at every start of every project that has the plugin installed. A dataclass of so many
fields spent 5 ms there on compiling its methods, more than the rest of the plugin, hence descriptors; and the errors
are loaded by whoever meets one.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_atomtrace.errors import ConfigError

__all__ = ["Row", "Settings", "config_error", "environment", "rows"]

ENV_PREFIX: Final = "ATOMTRACE_"
# Variables that are ours but no settings: the simulator's controls and the token that marks our processes.
_OURS: Final = (ENV_PREFIX + "SIM_", ENV_PREFIX + "RUN_TOKEN")
_LAST_PORT: Final = 65535


class Row:
    """One setting as the outside sees it, and the attribute of `Settings` that holds its value.

    `kind` is ``text``, ``path``, ``url``, ``flag``, ``count``, ``port``, ``share`` (text such as "3 %"), ``size`` (text
    such as "20 GB") or ``duration`` (seconds inside). `scope` is ``run`` (the controller decides for all workers) or
    ``host`` (each worker decides for its machine). `shown` is how help texts print the default; durations have a unit.
    """

    __slots__ = ("choices", "default", "help", "kind", "name", "scope", "shown")

    def __init__(self, kind: str, default: object, text: str, scope: str, choices: tuple[str, ...], shown: str) -> None:
        self.name = ""
        self.kind = kind
        self.default = default
        self.help = text
        self.scope = scope
        self.choices = choices
        self.shown = shown

    def __set_name__(self, owner: type[Settings], name: str) -> None:
        self.name = name
        _TABLE.append(self)

    def __get__(self, settings: Settings | None, owner: type[Settings]) -> object:
        return self if settings is None else settings.__dict__.get(self.name, self.default)

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
        if self.kind in ("count", "port"):
            return _whole_number(value, where=where, port=self.kind == "port")
        if self.kind == "duration":
            if isinstance(value, float):
                return value
            from pytest_atomtrace.units import parse_duration_ns

            text = f"{value} s" if isinstance(value, str) and value.strip().isdecimal() else value
            return parse_duration_ns(text, where=where) / 1e9
        text = str(value).strip()
        if self.kind == "share":
            from pytest_atomtrace.units import parse_growth

            parse_growth(text, where=where)
        if self.kind == "size":
            from pytest_atomtrace.units import parse_size

            parse_size(text, where=where)
        if self.choices and text not in self.choices:
            close = _close(text, self.choices)
            mean = f" Did you mean {close!r}?" if close else ""
            raise config_error()(f"{text!r} is not one of {', '.join(self.choices)}.{mean}", where)
        return text


def _refuse_half_an_attach(settings: Settings) -> None:
    if settings.backend != "attach":
        if settings.attach:
            raise config_error()(
                f"--atom-attach and --atom-backend={settings.backend} exclude each other", "--atom-attach"
            )
        return
    if not settings.attach or not settings.attach_trace_dir:
        raise config_error()(
            "needs the server's URL and the directory that it was started with: "
            "--atom-attach=http://127.0.0.1:8000 --atom-attach-trace-dir=DIR",
            "--atom-backend=attach",
        )
    if not settings.attach.startswith(("http://", "https://")):
        raise config_error()(f"{settings.attach!r} is no URL like http://127.0.0.1:8000", "--atom-attach")


def _unknown_variables(env: Mapping[str, str]) -> list[str]:
    known = {row.env.removeprefix(ENV_PREFIX) for row in rows()}
    found = []
    for key in env:
        word = key.removeprefix(ENV_PREFIX)
        if word != key and word not in known and not key.startswith(_OURS):
            # Without the prefix, which alone makes any two of them look alike.
            close = _close(word, known)
            hint = f"Did you mean {ENV_PREFIX}{close}?" if close else "pytest --help lists them all."
            found.append(f"environment variable {key} is no setting. {hint}")
    return found


def _flag(value: object, *, where: str) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in {"1", "true", "yes", "on"}:
        return True
    if text in {"0", "false", "no", "off", ""}:
        return False
    raise config_error()(f"{value!r} is neither true nor false", where)


def _whole_number(value: object, *, where: str, port: bool) -> int:
    number = -1
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and value.strip().isdecimal():
        number = int(value)
    if number < 0 or (port and number > _LAST_PORT):
        which = f"from 1 to {_LAST_PORT} (0: a free port)" if port else "of at least 0"
        raise config_error()(f"{value!r} is not a whole number {which}", where)
    return number


def _close(word: str, words: Iterable[str]) -> str:
    import difflib

    return next(iter(difflib.get_close_matches(word, list(words), n=1)), "")


def _row(
    kind: str,
    *,
    default: object,
    help: str,  # noqa: A002  # the word of every option parser
    scope: str = "run",
    choices: tuple[str, ...] = (),
    shown: str = "",
) -> Any:  # noqa: ANN401  # each attribute's annotation says what it reads as
    return Row(kind, default, help, scope, choices, shown)


_TABLE: Final[list[Row]] = []


class Settings:
    """Every setting, resolved once and never changed; what is below the plugin layer sees nothing else.

    Durations are seconds (`_s` is left out of the option's name: ``--atom-start-timeout="45 min"``), paths are
    text ("" means not given).
    """

    backend: str = _row(
        "text",
        default="auto",
        help="where captures come from; auto: the real ATOM if it is importable and a GPU is visible, else skip",
        choices=("auto", "atom", "attach", "sim", "replay"),
    )
    attach: str = _row(
        "url", default="", help="URL of a running server to capture from; implies the attach backend", scope="host"
    )
    attach_trace_dir: str = _row(
        "path", default="", help="the --torch-profiler-dir of the server that --atom-attach names", scope="host"
    )
    attach_log: str = _row(
        "path",
        default="",
        help="the log of the server that --atom-attach names, found by itself for a local server that writes to a "
        "file; none: there is none, and a profiler window that is open there is closed before ours",
        scope="host",
    )
    replay: str = _row("path", default="", help="directory with saved captures or traces; implies the replay backend")
    output: str = _row("path", default=".atomtrace", help="where runs are kept, relative to the rootdir")
    keep: str = _row(
        "text",
        default="all",
        help="whose traces stay on disk after the run: those of all cases, of cases that did not simply pass, or none; "
        "a slice of the failing steps (under 5 MB) and what failed captures left always stay",
        choices=("all", "failed", "none"),
    )
    keep_size: str = _row(
        "size",
        default="20 GB",
        help="most that all runs may take: beyond it the traces of older runs are removed, oldest first (never of this "
        "run or of one that is in use), then what is left of those runs",
    )
    require_gpu: bool = _row("flag", default=False, help="no GPU is an error instead of a skip")
    root: str = _row("path", default="", help="an ATOM checkout, put first on its path", scope="host")
    python: str = _row("path", default="", help="the interpreter that runs ATOM", scope="host", shown="this one")
    launcher: str = _row(
        "text",
        default="own",
        help="who starts the real server: this plugin, or ATOM's scripts/start_atom_server.sh (it ends other Python "
        "processes of the host by name)",
        choices=("own", "script"),
        scope="host",
    )
    workload: str = _row(
        "text",
        default="auto",
        help="what sends the requests: ATOM's benchmark_serving or the built-in client; auto: ATOM's for the real "
        "server if it is installed",
        choices=("auto", "atom", "builtin"),
    )
    window_steps: int = _row(
        "count",
        default=0,
        help="open the profiler only when all slots decode, and close it after that many steps (0: profile the whole "
        "workload)",
    )
    bench: str = _row(
        "text",
        default="off",
        help="run the workload once without the profiler before the window: honest times for assert_bench",
        choices=("off", "on"),
    )
    lock_dir: str = _row(
        "path",
        default="",
        help="directory of the GPU lease on local disk, shared by all users of the machine",
        scope="host",
        shown="atomtrace-locks in the system's temporary directory",
    )
    lock_timeout: float = _row("duration", default=10800.0, shown="3 h", help="longest wait for the GPU lease")
    start_timeout: float = _row(
        "duration", default=2700.0, shown="45 min", help="longest server start, from launch to ready"
    )
    stall_timeout: float = _row(
        "duration",
        default=600.0,
        shown="10 min",
        help="longest silence of a starting server's log, and of ranks whose profiler starts (a minute there at most)",
    )
    workload_timeout: float = _row(
        "duration", default=1800.0, shown="30 min", help="longest warm-up or profiled benchmark"
    )
    export_timeout: float = _row(
        "duration", default=900.0, shown="15 min", help="longest wait for trace files that do not grow"
    )
    stop_timeout: float = _row(
        "duration", default=60.0, shown="1 min", help="patience with SIGINT before SIGTERM, then SIGKILL"
    )
    catalog: str = _row(
        "path",
        default="auto",
        help="ATOM's models.json for atom_catalog and from_catalog; auto: the one of --atom-root",
    )
    full: bool = _row("flag", default=False, help="run the specs marked atom_full too")
    vram_timeout: float = _row(
        "duration",
        default=120.0,
        shown="2 min",
        help="longest wait for GPU memory to be idle before a launch, and back after a stop",
    )
    machine_root: str = _row(
        "path",
        default="",
        help="where /sys, /dev and /opt are looked for below; another tree than / is a fake machine, for tests",
        scope="host",
        shown="/",
    )
    port: int = _row("port", default=0, help="HTTP port of the server (1 to 65535; 0: a free one)", scope="host")
    steady_skip_first: int = _row("count", default=5, help="steps left out at the start of a run of equal steps")
    steady_skip_last: int = _row("count", default=2, help="steps left out at the end of a run of equal steps")
    steady_min: int = _row(
        "count", default=20, help="steady steps that a p50 or mean needs (p90: 2.5 times, p99: 10 times as many)"
    )
    baselines: str = _row(
        "path", default="perf_specs/baselines", help="where baselines are kept, relative to the rootdir"
    )
    update_baselines: str = _row(
        "text",
        default="",
        help="record baselines instead of judging: those that are missing, or all (5 launches of 3 windows a case)",
        choices=("missing", "all"),
    )
    tolerance: str = _row(
        "share", default="3 %", help="a change against the baseline that is never called a regression"
    )
    confirm: str = _row(
        "text",
        default="launch",
        help="before a regression fails: take a second, fresh launch (once per case), or never",
        choices=("launch", "never"),
    )
    drift: str = _row(
        "share", default="10 %", help="largest total change against the anchor, however often baselines moved"
    )
    waivers: str = _row(
        "path", default="perf_specs/waivers.yaml", help="checks that may fail for a while, relative to the rootdir"
    )
    error_exit: int = _row(
        "count",
        default=0,
        help="exit code of a run in which no test failed but some were inconclusive or infra errors, so that CI "
        "can requeue it (0: pytest's own 1)",
    )
    json: str = _row(
        "path", default="", help="write the run as one JSON document (its schema: atomtrace schema report)"
    )
    html: str = _row(
        "path",
        default="auto",
        help="the HTML report, one file: a path, none, or auto: report.html beside the captures of the run",
    )
    markdown: str = _row("path", default="", help="write the run as Markdown, cut at 900 KiB")
    github: str = _row(
        "text",
        default="auto",
        help="step summary and annotations; auto: on GitHub's runners. Failed tests are annotated by "
        "pytest-github-actions-annotate-failures where it is active",
        choices=("auto", "off"),
    )
    dashboard: str = _row(
        "path", default="", help="directory for two files of github-action-benchmark, one a direction"
    )
    junit: str = _row(
        "text",
        default="on",
        help="give every test with a case a few properties atomtrace.*, which JUnit files then have",
        choices=("on", "off"),
    )

    def __init__(self, **values: object) -> None:
        """Take values by the names of the rows; the others have their defaults."""
        unknown = [name for name in values if not isinstance(type(self).__dict__.get(name), Row)]
        if unknown:
            raise TypeError(f"no setting is called {', '.join(unknown)}")
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"settings never change: {name} (replace() makes a copy)")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash(tuple(self.as_dict().items()))

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"Settings({given})"

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
                except config_error() as error:
                    problems.append(str(error))
                break
        problems += _unknown_variables(env)
        if problems:
            raise config_error()("\n".join(problems))
        settings = cls(**values)
        if settings.replay and settings.backend == "auto":
            settings = settings.replace(backend="replay")
        if settings.attach and settings.backend == "auto":
            settings = settings.replace(backend="attach")
        _refuse_half_an_attach(settings)
        if settings.backend == "replay" and not settings.replay:
            raise config_error()(
                "needs the directory of the saved captures: --atom-replay=DIR", "--atom-backend=replay"
            )
        if settings.replay and settings.backend != "replay":
            raise config_error()(
                f"--atom-replay and --atom-backend={settings.backend} exclude each other", "--atom-replay"
            )
        return settings

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Settings:
        """Rebuild settings sent by `as_dict`."""
        names = {row.name for row in rows()}
        return cls(**{k: v for k, v in values.items() if k in names})

    def replace(self, **values: object) -> Settings:
        """A copy with other values."""
        return Settings(**{**self.__dict__, **values})

    def is_given(self, name: str) -> bool:
        """Whether the setting was named by anybody, even with its default."""
        return name in self.__dict__

    def as_dict(self, *, scope: str | None = None) -> dict[str, object]:
        """Builtin types only; `scope` keeps the rows of one scope."""
        return {row.name: getattr(self, row.name) for row in rows() if scope is None or row.scope == scope}

    @property
    def asks_for_files(self) -> bool:
        """Whether some report has a place of its own, besides the run's directory."""
        return bool(self.json or self.markdown or self.dashboard) or self.html not in ("auto", "none")

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


def config_error() -> type[ConfigError]:
    """The class, for ``raise`` and ``except`` clauses: neither is evaluated before something went wrong."""
    from pytest_atomtrace.errors import ConfigError

    return ConfigError


def rows() -> tuple[Row, ...]:
    """The table."""
    return tuple(_TABLE)


def environment() -> dict[str, str]:
    """A copy of the process environment: the one place that reads it."""
    return dict(os.environ)
