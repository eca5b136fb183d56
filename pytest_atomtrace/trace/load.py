"""Load a trace: find the ranks, read each, judge what could not be read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import EmptyTraceError, MalformedTraceError, TraceFileError
from pytest_atomtrace.trace.data import RankData, TraceData
from pytest_atomtrace.trace.finding import TITLES, Finding
from pytest_atomtrace.trace.health import check, rank_set_findings
from pytest_atomtrace.trace.layout import RankFiles, find_ranks, rank_sort_key

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["load", "load_rank"]


def load_rank(path: Path, *, rank: str = "rank_0") -> RankData:
    """Read one rank's trace file, without any index. Raises TraceFileError and its kin."""
    from pytest_atomtrace.trace.parallel import load_file

    return load_file(path, rank=rank, index=False)


def load(
    path: Path | Mapping[str, Path],
    *,
    ranks: Sequence[str] | None = None,
    expected: Sequence[str] | None = None,
    jobs: int | None = None,
    compiled: bool = True,
) -> TraceData:
    """Load the trace at `path`: a trace file, a rank's directory, a directory of ranks, or files by rank.

    `ranks` picks some by name; `expected` is the exact rank set that the server must have left (else H01);
    `jobs` limits the processes or threads (default: the CPUs, one for small input); `compiled=False` does without
    the compiled scanner, as an installation does that has none. One bad rank among good ones is a
    fatal finding with rank, file and place; when nothing can be loaded its error is raised. A `path` without
    any trace raises TraceFileError, an unknown name in `ranks` raises KeyError.
    """
    from pytest_atomtrace.trace.parallel import load_files

    source = Path(next(iter(path.values())).parent if isinstance(path, Mapping) and path else Path())
    if not isinstance(path, Mapping):
        source = path
    files = _files(path)
    if ranks is not None:
        unknown = [name for name in ranks if name not in files]
        if unknown:
            raise KeyError(f"no rank {', '.join(unknown)} in {source}; it has {', '.join(files)}")
        files = {name: found for name, found in files.items() if name in set(ranks)}
    results = load_files(
        {name: found.trace for name, found in files.items() if found.trace}, jobs=jobs, compiled=compiled
    )
    findings = list(_layout_findings(files, expected))
    loaded: dict[str, RankData] = {}
    errors: list[TraceFileError] = []
    for name, result in results.items():
        if isinstance(result, TraceFileError):
            errors.append(result)
            findings.append(_unreadable(name, result))
        else:
            loaded[name] = result
    if not loaded:
        if errors:
            raise errors[0]
        raise TraceFileError(str(source), "holds no trace (*.pt.trace.json.gz in rank directories)")
    ordered = dict(sorted(loaded.items(), key=lambda item: rank_sort_key(item[0])))
    data = TraceData(ordered, tuple(findings), source)
    data.findings = check(data, graph_references=_graph_references(data, files))
    return data


def _graph_references(data: TraceData, files: Mapping[str, RankFiles]) -> dict[tuple[int, int | None], int]:
    """What the graphs were captured with, where the server left capture traces (`--mark-trace`).

    All TP ranks capture the same graphs, so the first rank that has captures answers for all.
    """
    captures = next((files[name].capture_traces for name in data.ranks if files[name].capture_traces), ())
    if not captures:
        return {}
    from pytest_atomtrace.trace.ops import capture_references

    steps = (step for rank in data.ranks.values() for step in rank.steps)
    shapes = {(s.graph_bs, s.label.query_len) for s in steps if s.n_graph_launches == 1 and not s.edge}
    try:
        return capture_references(captures, sorted(shapes, key=str))
    except TraceFileError:
        # A broken capture trace says nothing about the run's own trace; its peers remain as reference.
        return {}


def _files(path: Path | Mapping[str, Path]) -> dict[str, RankFiles]:
    if isinstance(path, Mapping):
        return {name: RankFiles(name, file, (file,)) for name, file in path.items()}
    if not path.exists():
        raise TraceFileError(str(path), "there is no such file or directory")
    return find_ranks(path)


def _layout_findings(files: Mapping[str, RankFiles], expected: Sequence[str] | None) -> tuple[Finding, ...]:
    present = [name for name, found in files.items() if found.trace]
    doubled = {n: [p.name for p in f.traces] for n, f in files.items() if len(f.traces) > 1}
    findings = list(rank_set_findings(present, expected=expected, doubled=doubled))
    if expected is None:
        # A rank directory without a trace was made by a worker that exported nothing.
        empty = [name for name, found in files.items() if not found.trace]
        if empty:
            text = f"rank directories without a trace: {', '.join(empty)}"
            findings.append(Finding("H01", TITLES["H01"], True, "all", text, count=len(empty)))
    for name, found in files.items():
        half_done = [p.name for p in found.json_left if p not in found.traces]
        if half_done:
            text = f"{half_done[0]} lies beside the .gz: the export was not finished"
            findings.append(Finding("H02", TITLES["H02"], True, "all", text, name, len(half_done)))
    return tuple(findings)


def _unreadable(rank: str, error: TraceFileError) -> Finding:
    what = "malformed: " if isinstance(error, MalformedTraceError) else ""
    what = "empty: " if isinstance(error, EmptyTraceError) else what
    bare = type(error)(error.path, error.problem, "", error.offset, compressed_offset=error.compressed_offset)
    return Finding("H02", TITLES["H02"], True, "all", f"{what}{bare}", rank, 1)
