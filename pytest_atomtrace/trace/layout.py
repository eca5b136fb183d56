"""Where ATOM's workers leave their traces: rank directories, file names, and which file counts.

Only paths and names; nothing here opens a file, so capture can use it while workers are still writing.
Source of the rules: ATOM `atom/model_engine/model_runner.py` (rank directory names, `_ts_` file names,
`capture_traces/`) and `engine_core_mgr.py` (data parallel numbering).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = [
    "RankFiles",
    "expected_global_rank",
    "expected_ranks",
    "find_ranks",
    "is_rank_name",
    "is_trace_name",
    "rank_sort_key",
    "tp_groups",
]

_RANK = re.compile(
    r"(?:(?P<role>prefill|decode)/)?"
    r"(?:(?:pp(?P<pp>\d+)_)?rank_(?P<rank>\d+)|(?:pp(?P<pp2>\d+)_)?dp(?P<dp>\d+)_tp(?P<tp>\d+))"
)
_STAMP = re.compile(r"_ts_(\d{8})_(\d{6})_(\d{3})(?=\.)")
_TRACE_SUFFIXES = (".json.gz", ".json")


@dataclass(frozen=True)
class RankFiles:
    """The files of one rank.

    `trace` is the newest whole candidate, None if there is none; `traces` are all candidates, oldest first
    (more than one is a finding: two windows wrote into one directory). `json_left` are `.pt.trace.json`
    files, the state between kineto's export and the end of gzip. `capture_traces` are graph capture traces
    of either era, which must never be taken for the run's trace.
    """

    rank: str
    trace: Path | None = None
    traces: tuple[Path, ...] = ()
    json_left: tuple[Path, ...] = ()
    capture_traces: tuple[Path, ...] = ()


def expected_ranks(*, tp: int, dp: int = 1, pp: int = 1, dp_attention: bool = False) -> tuple[str, ...]:
    """Names of the rank directories that a server of this parallelism makes, in order.

    With `dp_attention` ATOM turns `-tp N` into N engines of TP 1, so the names are `dp0_tp0 .. dpN-1_tp0`.
    """
    if min(tp, dp, pp) < 1:
        raise ValueError(f"tp, dp and pp must be at least 1, got tp={tp} dp={dp} pp={pp}")
    if dp_attention:
        dp, tp = tp * dp, 1
        if dp > 1:
            return tuple(f"{_stage(pp, p)}dp{d}_tp0" for p in range(pp) for d in range(dp))
    if dp > 1:
        return tuple(f"{_stage(pp, p)}dp{d}_tp{t}" for p in range(pp) for d in range(dp) for t in range(tp))
    return tuple(f"{_stage(pp, p)}rank_{t}" for p in range(pp) for t in range(tp))


def _stage(pp: int, stage: int) -> str:
    return f"pp{stage}_" if pp > 1 else ""


def expected_global_rank(name: str, names: Iterable[str]) -> int | None:
    """Global rank (`distributedInfo.rank`) that directory `name` must carry among `names`.

    Tensor parallel ranks count fastest, then pipeline stages; every data parallel engine has a process
    group of its own, so the count starts again in each. None if `name` is not a rank name.
    """
    match = _RANK.fullmatch(name)
    if match is None:
        return None
    local = int(match["rank"] if match["rank"] is not None else match["tp"])
    stage = int(match["pp"] or match["pp2"] or 0)
    if stage == 0:
        return local
    others = [m for m in map(_RANK.fullmatch, names) if m and int(m["pp"] or m["pp2"] or 0) == 0]
    width = max((int(m["rank"] if m["rank"] is not None else m["tp"]) for m in others), default=-1) + 1
    return stage * width + local if width else None


def is_rank_name(name: str) -> bool:
    """True for `rank_0`, `dp0_tp1`, `pp1_rank_0`, `prefill/rank_0`, `decode/rank_0`."""
    return _RANK.fullmatch(name) is not None


def is_trace_name(name: str) -> bool:
    """True for a file name that may hold a run's trace (graph capture traces are told apart)."""
    return name.endswith(_TRACE_SUFFIXES) and not name.startswith("capture_graph_")


def rank_sort_key(name: str) -> tuple[int, str, int, int, int, str]:
    """Order of ranks: by role, stage, data parallel and tensor parallel number; other names come last."""
    match = _RANK.fullmatch(name)
    if match is None:
        return (1, "", 0, 0, 0, name)
    stage = int(match["pp"] or match["pp2"] or 0)
    local = int(match["rank"] if match["rank"] is not None else match["tp"])
    # Prefill comes before decode as it does in time.
    role = {"prefill": "0", "decode": "1"}.get(match["role"] or "", "")
    return (0, role, stage, int(match["dp"] or 0), local, name)


def tp_groups(names: Iterable[str]) -> dict[str, list[str]]:
    """Ranks by tensor-parallel group: ``dp0_tp0, dp0_tp1`` are one, ``pp0_rank_0`` and ``pp1_rank_0`` are two."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"(?:rank_|_tp)\d+$", "", name) or "all", []).append(name)
    return groups


def find_ranks(directory: Path) -> dict[str, RankFiles]:
    """Ranks found at `directory`, ordered by `rank_sort_key`.

    `directory` is a trace directory as `--torch-profiler-dir` leaves it, one capture of the store (the same
    rank directories beside a manifest), one rank's own directory, or a single trace file. A file, or loose
    trace files, belong to the rank that their directory is named after, else to `rank_0`.
    Empty rank directories are listed with no trace: ATOM makes them long before the first export.
    """
    if directory.is_file():
        rank = _rank_of(directory.parent)
        return {rank: RankFiles(rank, directory, (directory,), (), ())}
    found: dict[str, RankFiles] = {}
    if is_rank_name(directory.name) or _has_traces(directory):
        rank = _rank_of(directory)
        files = _rank_files(rank, directory)
        if files.traces or files.json_left or is_rank_name(directory.name):
            found[rank] = files
    for child in _directories(directory):
        if is_rank_name(child.name):
            found[child.name] = _rank_files(child.name, child)
        elif child.name in {"prefill", "decode"}:
            for grandchild in _directories(child):
                name = f"{child.name}/{grandchild.name}"
                if is_rank_name(name):
                    found[name] = _rank_files(name, grandchild)
    return dict(sorted(found.items(), key=lambda item: rank_sort_key(item[0])))


def _rank_of(directory: Path) -> str:
    if not is_rank_name(directory.name):
        return "rank_0"
    role = f"{directory.parent.name}/{directory.name}"
    return role if is_rank_name(role) else directory.name


def _directories(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return sorted(child for child in directory.iterdir() if child.is_dir())


def _has_traces(directory: Path) -> bool:
    # In a store the manifest and the bench result are .json too; only kineto's own suffix or a .gz counts.
    return directory.is_dir() and any(_is_candidate(child) for child in directory.iterdir())


def _is_candidate(path: Path) -> bool:
    name = path.name
    if not path.is_file() or not is_trace_name(name):
        return False
    return name.endswith((".json.gz", ".trace.json"))


def _rank_files(rank: str, directory: Path) -> RankFiles:
    whole: list[Path] = []
    left: list[Path] = []
    captures: list[Path] = []
    for path in sorted(directory.iterdir()):
        if path.name.startswith("capture_graph_") and path.name.endswith(_TRACE_SUFFIXES):
            captures.append(path)
        elif not _is_candidate(path):
            continue
        elif path.name.endswith(".json"):
            left.append(path)
        else:
            whole.append(path)
    capture_directory = directory / "capture_traces"
    if capture_directory.is_dir():
        captures += sorted(p for p in capture_directory.iterdir() if p.name.endswith(_TRACE_SUFFIXES))
    whole.sort(key=_age_key)
    # A plain .json with no .gz anywhere is a finished export of another tool or a gunzipped file. Beside a
    # .gz it is ATOM's half-done export, and the .gz may still be growing.
    candidates = whole or left
    newest = candidates[-1] if candidates else None
    return RankFiles(rank, newest, tuple(candidates), tuple(left), tuple(captures))


def _age_key(path: Path) -> tuple[str, str]:
    # By the time in the name, not by mtime: a copied directory has mtimes of the copy.
    match = _STAMP.search(path.name)
    return ("".join(match.groups()) if match else "", path.name)
