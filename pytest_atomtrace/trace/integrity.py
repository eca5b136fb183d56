"""Is an exported file whole? Asked by capture for every rank before it believes an export."""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import EmptyTraceError, MalformedTraceError, TruncatedTraceError
from pytest_atomtrace.trace.inflate import open_trace, pieces

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_export"]

_TAIL_BYTES = 4096
_HEAD_BYTES = 4096
# A member needs 10 bytes of header, 2 of an empty block and 8 of trailer.
_SMALLEST_GZIP = 20


def check_export(path: Path, *, quick: bool = False, rank: str = "") -> None:
    """Raise unless `path` is a whole trace export.

    The full check inflates everything (about 4 GB of text a second) and so verifies every checksum, and
    looks at both ends of the text: `{` or `[` first, `}` or `]` last. `quick` reads both ends of the file
    only: magic, first inflated bytes, and a trailer whose size field is plausible. It cannot see a damaged
    middle and is meant for polling.

    Raises EmptyTraceError, TruncatedTraceError, MalformedTraceError or TraceFileError (no such file).
    """
    if quick:
        _check_ends(path, rank)
        return
    first = b""
    last = b""
    total = 0
    for piece in pieces(path, rank=rank, piece_bytes=1 << 20):
        if not first:
            first = piece.lstrip()[:1]
        # A piece of white space alone must not hide the bracket before it.
        last = piece.rstrip()[-1:] or last
        total += len(piece)
    _check_text(path, rank, first, last, total)


def _check_text(path: Path, rank: str, first: bytes, last: bytes, total: int) -> None:
    if not first:
        raise EmptyTraceError(str(path), "the file holds no text", rank)
    if first not in b"{[\xef":
        raise MalformedTraceError(str(path), f"is not JSON: it starts with {first!r}", rank, 0)
    if last not in (b"}", b"]"):
        raise TruncatedTraceError(str(path), "the JSON text ends inside a value", rank, total)


def _check_ends(path: Path, rank: str) -> None:
    with open_trace(path, rank=rank) as stream:
        size = os.fstat(stream.fileno()).st_size
        if not size:
            raise EmptyTraceError(str(path), "the file is empty (0 bytes)", rank)
        head = stream.read(_HEAD_BYTES)
        stream.seek(max(0, size - _TAIL_BYTES))
        tail = stream.read(_TAIL_BYTES)
    if not head.startswith(b"\x1f\x8b"):
        _check_text(path, rank, head.lstrip()[:1], tail.rstrip()[-1:], size)
        return
    if size < _SMALLEST_GZIP:
        raise TruncatedTraceError(
            str(path), f"a gzip file of {size} bytes cannot be whole", rank, size, compressed_offset=True
        )
    try:
        text = zlib.decompressobj(31).decompress(head, _HEAD_BYTES)
    except zlib.error as error:
        raise TruncatedTraceError(
            str(path), f"the gzip stream is damaged ({error})", rank, 0, compressed_offset=True
        ) from error
    if text.lstrip()[:1] not in (b"{", b"[", b"\xef", b""):
        raise MalformedTraceError(str(path), f"is not JSON: it starts with {text.lstrip()[:1]!r}", rank, 0)
    _check_trailer(path, rank, size, tail)


def _check_trailer(path: Path, rank: str, size: int, tail: bytes) -> None:
    # The trailer's length field counts modulo 2**32. Deflate cannot shrink below 1:1032 nor grow by more
    # than 5 bytes in 16 KB, so a size field outside these bounds is not a trailer but cut data.
    length = int.from_bytes(tail[-4:], "little")
    deflated = size - 18
    lowest = max(0, deflated - deflated // 1000 - 1024)
    highest = deflated * 1032 + 1024
    if highest < 1 << 32 and not lowest <= length <= highest:
        raise TruncatedTraceError(
            str(path),
            f"the gzip trailer is implausible (it claims {length:,} bytes of text)",
            rank,
            size,
            compressed_offset=True,
        )
