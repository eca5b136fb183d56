"""Text of a trace file in bounded pieces, whether plain or gzip, with located errors.

isal inflates several times faster than zlib. Pieces are small (about 256 KB) so that text, events and
columns of one piece stay in the processor's cache: 32 MB pieces cost 2.5 times the time.
"""

from __future__ import annotations

import os
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TYPE_CHECKING, Protocol, cast

from isal import isal_zlib

from pytest_atomtrace.errors import EmptyTraceError, MalformedTraceError, TraceFileError, TruncatedTraceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["AHEAD_PIECE_BYTES", "PIECE_BYTES", "ahead", "open_trace", "pieces"]

PIECE_BYTES = 1 << 18
# Between threads every piece costs a change of hands: 928 MB in 0.38 s by 256 KB, 0.30 s by 1 MB.
AHEAD_PIECE_BYTES = 1 << 20
_AHEAD = 4
_READ_BYTES = 1 << 16
_MAGIC = b"\x1f\x8b"
# The stubs call isal's exception class an instance.
_DAMAGE = cast("type[Exception]", isal_zlib.error)


class _Inflater(Protocol):
    eof: bool
    unused_data: bytes
    unconsumed_tail: bytes

    def decompress(self, data: bytes, max_length: int = 0, /) -> bytes: ...


def open_trace(path: Path, *, rank: str = "") -> BinaryIO:
    """Open `path` for reading; a path that cannot be a trace file raises TraceFileError at once."""
    try:
        stream = path.open("rb", buffering=0)
    except IsADirectoryError:
        raise MalformedTraceError(str(path), "is a directory, not a trace file", rank) from None
    except FileNotFoundError:
        raise TraceFileError(str(path), "there is no such file", rank) from None
    except OSError as error:
        raise TraceFileError(str(path), f"cannot be opened: {error.strerror or error}", rank) from error
    return stream


def pieces(path: Path, *, rank: str = "", piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
    """Yield the text of `path` in order, in pieces of at most `piece_bytes`.

    gzip is told by its magic, not by the name; several members are read as one text; zero padding after the
    last member is ignored. Raises EmptyTraceError (no bytes), TruncatedTraceError (the stream ends early, or
    a checksum is wrong), MalformedTraceError (anything but a member after a member).
    """
    with open_trace(path, rank=rank) as stream:
        head = stream.read(_READ_BYTES)
        if not head:
            raise EmptyTraceError(str(path), "the file is empty (0 bytes)", rank)
        if _MAGIC.startswith(head[:2]):
            yield from _members(stream, head, str(path), rank, piece_bytes)
            return
        while head:
            yield head
            head = stream.read(piece_bytes)


def _members(stream: BinaryIO, head: bytes, path: str, rank: str, piece_bytes: int) -> Iterator[bytes]:
    size = os.fstat(stream.fileno()).st_size
    data = head
    consumed = len(head)
    while True:
        inflater: _Inflater = isal_zlib.decompressobj(31)
        while not inflater.eof:
            try:
                text = inflater.decompress(data, piece_bytes)
            except _DAMAGE as error:
                raise _damaged(path, rank, consumed - len(data), str(error)) from error
            data = inflater.unconsumed_tail
            if text:
                yield text
            if not data and not inflater.eof:
                if len(text) == piece_bytes:
                    continue  # the inflater may hold more output for input that it has taken whole
                data = stream.read(_READ_BYTES)
                consumed += len(data)
                if not data:
                    problem = f"the gzip stream ends early, the file has {size:,} bytes"
                    raise TruncatedTraceError(path, problem, rank, size, compressed_offset=True)
        data = inflater.unused_data
        data, consumed = _skip_padding(stream, data, consumed)
        if not data:
            return
        if not _MAGIC.startswith(data[:2]):
            place = consumed - len(data)
            raise MalformedTraceError(
                path, "bytes that are no gzip member follow the gzip stream", rank, place, compressed_offset=True
            )


def _skip_padding(stream: BinaryIO, data: bytes, consumed: int) -> tuple[bytes, int]:
    while True:
        data = data.lstrip(b"\0")
        if data and len(data) > 1:
            return data, consumed
        more = stream.read(_READ_BYTES)
        consumed += len(more)
        if not more:
            return data, consumed
        data += more


def _damaged(path: str, rank: str, offset: int, detail: str) -> TraceFileError:
    if "checksum" in detail.lower() or "data error" in detail.lower():
        problem = f"the gzip checksum is wrong ({detail})"
    else:
        problem = f"the gzip stream is damaged ({detail})"
    return TruncatedTraceError(path, problem, rank, max(offset, 0), compressed_offset=True)


def ahead(source: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces of `source`, made in a thread of their own, at most a few before they are asked for.

    Inflating does not hold the interpreter lock, so it goes on beside a reader that does not hold it either. An
    error of `source` is raised here, in its place.
    """
    made: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
    room = Semaphore(_AHEAD)
    stopped = Event()

    def work() -> None:
        try:
            for piece in source:
                made.put(piece)
                room.acquire()
                if stopped.is_set():
                    return
            made.put(None)
        except BaseException as error:  # noqa: BLE001  (whatever it is, it belongs to the thread that asks)
            made.put(error)

    worker = Thread(target=work, name="atomtrace-inflate", daemon=True)
    worker.start()
    try:
        while (piece := made.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
            room.release()
    finally:
        stopped.set()
        room.release()
        worker.join()
