"""Slices on disk: a few steps of one rank as a file that opens anywhere, never over a size."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.files import whole_file
from pytest_atomtrace.trace.slice import slice_text, window_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from pytest_atomtrace.trace.data import RankData

__all__ = ["LIMIT_BYTES", "Slice", "slice_name", "write_slice"]

#: What a mail, an issue or an artifact store takes without a word.
LIMIT_BYTES = 5_000_000
_AROUND = 2
_STACKS = ("python_function",)
# What a step is made of, with the kernels and their launches kept.
_DETAIL = (*_STACKS, "cpu_op", "ac2g", "fwdbwd", "cpu_instant_event", "overhead")


@dataclass(frozen=True)
class Slice:
    """A written slice; `steps` are whole in it, `left_out` says what the size did not allow ("" for nothing)."""

    path: Path
    rank: str
    steps: tuple[int, ...]
    left_out: str
    size_bytes: int


class _TooLargeError(Exception):
    """Over the limit: nothing was kept."""


@dataclass(frozen=True)
class _Plan:
    steps: tuple[int, ...]
    around: int
    without: tuple[str, ...] = ()

    def left_out(self, asked: Sequence[int]) -> str:
        """What of `asked` and its neighbours this plan gives up."""
        missing = [str(step) for step in asked if step not in self.steps]
        parts = [f"steps {', '.join(missing)}"] * bool(missing)
        if self.around < _AROUND:
            parts.append(f"the neighbours but {self.around} on either side" if self.around else "all neighbours")
        if self.without == _STACKS:
            parts.append("Python stacks")
        elif self.without:
            parts.append("Python stacks, CPU ops and arrows")
        return "; ".join(parts)


def write_slice(
    rank: RankData, asked: Sequence[int], directory: Path, *, limit_bytes: int = LIMIT_BYTES
) -> Slice | None:
    """Write the steps `asked` of `rank` and two steps around each as ``<directory>/<rank>/steps-....json.gz``.

    Where that is over `limit_bytes`, neighbours are given up first, then all asked steps but the first, then Python
    stacks, then CPU ops; the file's own note says so. None if one step alone is too large. The directory is itself
    a trace directory that every command and `load_trace` read.

    Raises:
        ValueError: there is no such step.
        TraceFileError: the rank's trace cannot be read any more.
        StoreError: the place cannot be written.

    """
    for plan in _plans(tuple(dict.fromkeys(asked))):
        window = window_of(rank, plan.steps, around=plan.around)
        path = directory / rank.name / slice_name(window.steps)
        note = {
            "rank": rank.name,
            "source": rank.path.name,
            "asked": list(asked),
            "steps": [
                {"step": n, "label": rank.steps[n].label.text, "range_ns": list(rank.steps[n].range_ns)}
                for n in window.steps
            ],
            "left_out": plan.left_out(asked),
        }
        text = slice_text(rank.path, window, note=note, without=plan.without)
        try:
            _write(path, text, limit_bytes)
        except _TooLargeError:
            continue
        return Slice(path, rank.name, window.steps, plan.left_out(asked), path.stat().st_size)
    return None


def _write(path: Path, text: Iterable[bytes], limit_bytes: int) -> None:
    """Compress; equal text gives equal bytes."""
    with whole_file(path) as temporary, temporary.open("wb") as stream:
        with gzip.GzipFile("", "wb", 6, stream, mtime=0) as packed:
            for part in text:
                packed.write(part)
                if stream.tell() > limit_bytes:
                    raise _TooLargeError
        if stream.tell() > limit_bytes:
            raise _TooLargeError


def _plans(asked: tuple[int, ...]) -> Iterator[_Plan]:
    for steps in dict.fromkeys((asked, asked[:1])):
        for around in range(_AROUND, -1, -1):
            yield _Plan(steps, around)
    yield _Plan(asked[:1], 0, _STACKS)
    yield _Plan(asked[:1], 0, _DETAIL)


def slice_name(steps: Sequence[int]) -> str:
    """``steps-39-43.pt.trace.json.gz``; steps apart are joined by underscores: ``steps-4-8_39-43``."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and step == runs[-1][-1] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    parts = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return f"steps-{'_'.join(parts)}.pt.trace.json.gz"
