"""The reader with and without the compiled scanner: whatever one does, the other must do too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.errors import TraceFileError
from pytest_atomtrace.trace import reader
from pytest_atomtrace.trace.reader import has_scanner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pytest_atomtrace.trace.rankevents import EventTable, RankEvents

needs_scanner = pytest.mark.skipif(
    not has_scanner(), reason="the compiled scanner was not built here (no C compiler when the project was installed)"
)


def assert_same(one: RankEvents, other: RankEvents) -> None:
    """Every column, every name, every count."""
    for field in ("names", "threads", "meta", "event_count", "odd_times", "text_bytes"):
        assert repr(getattr(one, field)) == repr(getattr(other, field)), field
    for group in ("gpu", "calls", "ops", "notes", "gpu_notes"):
        left: EventTable = getattr(one, group)
        right: EventTable = getattr(other, group)
        for field in ("name_id", "start_ns", "dur_ns", "where", "link", "extra"):
            assert getattr(left, field).tolist() == getattr(right, field).tolist(), (group, field)
            assert getattr(left, field).dtype == getattr(right, field).dtype, (group, field)


def _attempt(read: Callable[[bool], RankEvents], compiled: bool) -> RankEvents | TraceFileError:
    try:
        return read(compiled)
    except TraceFileError as error:
        return error


def both(read: Callable[[bool], RankEvents]) -> RankEvents:
    """Read twice, compare, and give the answer or raise the error of both."""
    usual, plain = _attempt(read, True), _attempt(read, False)
    if isinstance(plain, TraceFileError):
        assert isinstance(usual, TraceFileError), usual
        assert (type(usual), str(usual), usual.offset) == (type(plain), str(plain), plain.offset)
        raise usual
    assert not isinstance(usual, TraceFileError), usual
    assert_same(usual, plain)
    return usual


def read_text(chunks: Iterable[bytes], *, detail: bool = False) -> RankEvents:
    kept = list(chunks)
    return both(lambda compiled: reader.read_text(kept, detail=detail, compiled=compiled))


def read_rank(path: Path, *, rank: str = "", detail: bool = False, piece_bytes: int = 1 << 18) -> RankEvents:
    return both(
        lambda compiled: reader.read_rank(path, rank=rank, detail=detail, piece_bytes=piece_bytes, compiled=compiled)
    )
