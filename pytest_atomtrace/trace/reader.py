"""One rank file becomes columns, in one streaming pass.

The text is inflated by small pieces, whose events go to a compiled scanner where there is one (`scanpass`), else to
a typed decoder (`textpass`), which also takes whatever the scanner leaves and has the last word on every error.
"""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import TraceFileError
from pytest_atomtrace.trace.document import NeedExactTimes
from pytest_atomtrace.trace.inflate import AHEAD_PIECE_BYTES, PIECE_BYTES, ahead, pieces
from pytest_atomtrace.trace.scanpass import ScanPass, scanner_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from pytest_atomtrace.trace.rankevents import RankEvents

__all__ = ["has_scanner", "read_rank", "read_share", "read_text"]


def has_scanner() -> bool:
    """Whether this installation has the compiled scanner, which needs a C compiler when it is built."""
    return scanner_module() is not None


def read_rank(
    path: Path,
    *,
    rank: str = "",
    detail: bool = False,
    piece_bytes: int = 0,
    compiled: bool = True,
    threads: bool = False,
) -> RankEvents:
    """Read a kineto trace, `.json` or gzip, of any JSON layout.

    `detail` also keeps the names of launched kernels (`args.kernel`), which capture traces need. `compiled=False`
    does without the compiled scanner: equal events, in another order of names. `threads` inflates in a second
    thread, which helps the scanner only. `piece_bytes` is what is inflated at once, 0 what suits.

    Raises EmptyTraceError, TruncatedTraceError, MalformedTraceError or TraceFileError with rank, file and place.
    """

    def text() -> Iterator[bytes]:
        beside = threads and has_scanner()
        size = piece_bytes or (AHEAD_PIECE_BYTES if beside else PIECE_BYTES)
        found = pieces(path, rank=rank, piece_bytes=size)
        return ahead(found) if beside else found

    return _read(text, str(path), rank, detail=detail, compiled=compiled)


def read_share(path: Path, *, rank: str, share: int, of: int) -> RankEvents:
    """Read one of `of` shares of a trace's blocks, without the scanner; all is inflated, which is cheap.

    Blocks of other shares are cut but not decoded, so their cuts are not proven: whoever puts shares together
    must check that all of them cut alike (`merge_shares` does).
    """

    def text() -> Iterator[bytes]:
        return pieces(path, rank=rank)

    with _without_gc():
        return _decoded(text, str(path), rank, detail=False, share=share, of=of)


def read_text(
    chunks: Iterable[bytes], *, name: str = "<text>", rank: str = "", detail: bool = False, compiled: bool = True
) -> RankEvents:
    """The same for text that is already at hand, in any division into chunks."""
    kept = [chunk for chunk in chunks if chunk]
    return _read(lambda: iter(kept), name, rank, detail=detail, compiled=compiled)


def _read(source: Callable[[], Iterator[bytes]], path: str, rank: str, *, detail: bool, compiled: bool) -> RankEvents:
    with _without_gc():
        if compiled and scanner_module() is not None:
            # An error is for the decoder to tell, which then meets it too.
            with contextlib.suppress(TraceFileError):
                return _scanned(source, path, rank, detail=detail)
        return _decoded(source, path, rank, detail=detail)


def _scanned(source: Callable[[], Iterator[bytes]], path: str, rank: str, *, detail: bool) -> RankEvents:
    module = scanner_module()
    assert module is not None
    with contextlib.suppress(NeedExactTimes):
        return ScanPass(module, source(), path, rank, exact=False, detail=detail).run()
    return ScanPass(module, source(), path, rank, exact=True, detail=detail).run()


def _decoded(
    source: Callable[[], Iterator[bytes]], path: str, rank: str, *, detail: bool, share: int = 0, of: int = 1
) -> RankEvents:
    # msgspec and decimal, which the scanner does without.
    from pytest_atomtrace.trace.events import Columns, decoder
    from pytest_atomtrace.trace.textpass import TextPass

    def attempt(*, exact: bool) -> RankEvents:
        columns = Columns(decoder(exact=exact, detail=detail))
        return TextPass(source(), path, rank, columns, share=share, of=of).run(part=of > 1)

    with contextlib.suppress(NeedExactTimes):
        return attempt(exact=False)
    return attempt(exact=True)


@contextlib.contextmanager
def _without_gc() -> Iterator[None]:
    # The collector walks every live object again and again while millions are made (3 times the time).
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
