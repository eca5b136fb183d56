"""Who takes part: command, environment and preparation of every contender, or why it is absent."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import as_installed
from pytest_atomtrace.trace.reader import has_scanner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Contender", "Sites", "contenders", "without_index"]

_HERE = Path(__file__).parent
_ROOT = _HERE.parent
_CACHE = Path(tempfile.gettempdir()) / "atomtrace-benchmark-bytecode"


@dataclass(frozen=True)
class Sites:
    """Where what is not installed here may be found; None: nowhere."""

    floor: Path | None
    atom: Path | None = None
    tracelens_python: Path | None = None
    tracelens_root: Path | None = None
    side_python: Path | None = None
    perfetto_shell: Path | None = None


@dataclass(frozen=True)
class Contender:
    """One way to the answer; `processes` is what it may use, `answers` what `judge` makes of its output."""

    name: str
    command: Callable[[Sequence[Path]], list[str]]
    processes: int = 1
    answers: str = "common"
    absent: str = ""
    slow: bool = False
    prepare: Callable[[Sequence[Path]], None] = lambda _: None
    environment: Mapping[str, str] = field(default_factory=dict)

    def environ(self) -> dict[str, str]:
        """The whole environment of its process."""
        return {**as_installed(_CACHE), "PYTHONPATH": str(_ROOT), **self.environment}


def without_index(traces: Sequence[Path]) -> None:
    """Remove what an earlier load has left beside the traces."""
    for trace in traces:
        trace.with_name(trace.name + ".index").unlink(missing_ok=True)


def _texts(paths: Sequence[Path]) -> list[str]:
    return [str(path) for path in paths]


def _script(name: str, *words: str, python: Path | None = None) -> Callable[[Sequence[Path]], list[str]]:
    start = [str(python or sys.executable), str(_HERE / "contenders" / name), *words]
    return lambda traces: [*start, *_texts(traces)]


def _ours() -> list[Contender]:
    def summary(traces: Sequence[Path]) -> list[str]:
        place = traces[0] if len(traces) == 1 else traces[0].parents[1]
        return [sys.executable, "-m", "pytest_atomtrace.cli", "summary", "--json", str(place)]

    def indexed(traces: Sequence[Path]) -> None:
        missing = [trace for trace in traces if not trace.with_name(trace.name + ".index").exists()]
        if missing:
            environment = {**as_installed(_CACHE), "PYTHONPATH": str(_ROOT)}
            subprocess.run(_script("ours.py", "2")(traces), check=True, stdout=subprocess.DEVNULL, env=environment)

    built = "" if has_scanner() else "the compiled scanner is not built, so these are the times of ours"
    return [
        Contender("ours, 1 process", _script("ours.py", "1"), prepare=without_index),
        Contender("ours, 2 processes", _script("ours.py", "2"), 2, prepare=without_index),
        *(
            Contender(
                f"without the compiled scanner, {count} process{'es' * (count > 1)}",
                _script("ours.py", "--plain", str(count)),
                count,
                prepare=without_index,
                absent=built,
            )
            for count in (1, 2)
        ),
        Contender("ours, second load", _script("ours.py", "1"), prepare=indexed),
        Contender("atomtrace summary, second load", summary, answers="summary", prepare=indexed),
    ]


def _floors(floor: Path | None) -> list[Contender]:
    absent = "" if floor else "could not be built (benchmarks/floor/build says what is missing)"
    return [
        Contender(
            f"C++ floor, {count} process{'es' * (count > 1)}",
            lambda traces, count=count: [str(floor), "-j", str(count), *_texts(traces)],  # type: ignore[misc]
            count,
            absent=absent,
        )
        for count in (1, 2)
    ]


def _has(python: Path | None, module: str) -> bool:
    if python is None:
        return importlib.util.find_spec(module) is not None
    probe = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([str(python), "-c", probe], check=False, stderr=subprocess.DEVNULL).returncode == 0


def _scripts(sites: Sites) -> list[Contender]:
    side = sites.side_python
    shell = str(_HERE / "contenders" / "one_liner.sh")
    polars = "" if _has(side, "polars") else "polars is not installed"
    orjson = "" if _has(side, "orjson") else "orjson is not installed"
    return [
        Contender(
            "one-liner (zcat, json.load)",
            lambda traces: [shell, sys.executable, *_texts(traces)],
            slow=True,
            absent="" if shutil.which("zcat") else "there is no zcat",
        ),
        Contender("orjson, whole file, gc on", _script("orjson_whole.py", "gc", python=side), absent=orjson, slow=True),
        Contender("orjson, whole file, gc off", _script("orjson_whole.py", "nogc", python=side), absent=orjson),
        Contender("our cuts + polars NDJSON", _script("polars_pieces.py", python=side), absent=polars),
    ]


def _tools(sites: Sites) -> list[Contender]:
    tool = sites.atom / "tools" / "analyze_trace_summary.py" if sites.atom else Path()
    found = bool(sites.atom) and tool.is_file()
    tracelens = sites.tracelens_python
    root = {"PYTHONPATH": str(sites.tracelens_root)} if sites.tracelens_root else {}
    has_tracelens = tracelens is not None and (bool(sites.tracelens_root) or _has(tracelens, "TraceLens"))
    has_hta = sites.side_python is not None and _has(sites.side_python, "hta")
    processor = shutil.which(str(sites.perfetto_shell or "trace_processor_shell"))
    has_perfetto = sites.side_python is not None and _has(sites.side_python, "perfetto") and processor is not None
    return [
        Contender(
            "ATOM analyze_trace_summary.py",
            lambda traces: [sys.executable, str(tool), str(traces[0])],
            answers="atom",
            slow=True,
            absent="" if found else "no ATOM checkout given (--atom-root)",
        ),
        Contender(
            "TraceLens",
            _script("tracelens_table.py", python=tracelens),
            slow=True,
            environment=root,
            absent="" if has_tracelens else "not installed (--tracelens-python, --tracelens-root)",
        ),
        Contender(
            "HolisticTraceAnalysis",
            _script("hta_table.py", python=sites.side_python),
            slow=True,
            absent="" if has_hta else "not installed (--side-python)",
        ),
        Contender(
            "Perfetto trace_processor",
            _script("perfetto_table.py", processor or "-", python=sites.side_python),
            slow=True,
            absent="" if has_perfetto else "no trace_processor_shell here (--perfetto-shell)",
        ),
    ]


def contenders(sites: Sites) -> list[Contender]:
    """Everyone, ours and the floor first; the first of all is the floor, whose answer is the reference."""
    return [*_floors(sites.floor), *_ours(), *_scripts(sites), *_tools(sites)]
