"""Which GPU kernels and graph launches carry an External id: the one fact that a rank's columns do not hold."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from pytest_atomtrace.trace.events import decode_loose
from pytest_atomtrace.trace.inflate import pieces
from pytest_atomtrace.trace.jsontext import find_events, last_boundary, scan_events
from pytest_atomtrace.trace.steps import is_graph_launch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["ExternalIds", "read_external_ids"]


@dataclass(frozen=True)
class ExternalIds:
    """Per kernel its correlation and whether it has an id; per graph launch whether it has one."""

    kernel_correlation: NDArray[np.int64]
    kernel_has_id: NDArray[np.bool_]
    graph_launch_has_id: NDArray[np.bool_]


class _Args(msgspec.Struct, gc=False):
    correlation: int = -1
    external: object = msgspec.field(default=None, name="External id")


class _Event(msgspec.Struct, gc=False):
    cat: str = ""
    name: str = ""
    args: _Args | None = None


_decode = msgspec.json.Decoder(list[_Event]).decode


def read_external_ids(path: Path) -> ExternalIds:
    """One pass in bounded memory over a file that `read_rank` could read.

    Raises:
        TraceFileError: it cannot be read after all.

    """
    links, kernels, launches = array("q"), array("b"), array("b")
    for events in _blocks(path):
        for event in events:
            args = event.args
            if args is None:
                continue
            if event.cat == "kernel":
                links.append(args.correlation)
                kernels.append(args.external is not None)
            elif is_graph_launch(event.name) and event.cat.startswith("cuda_"):
                launches.append(args.external is not None)
    return ExternalIds(np.array(links, np.int64), np.array(kernels, np.bool_), np.array(launches, np.bool_))


def _blocks(path: Path) -> Iterator[list[_Event]]:
    """All events of the document, some thousand at a time."""
    source = pieces(path)
    text = b""
    start = None
    while start is None:
        text += next(source, b"")
        start = find_events(text)
    text = text[max(start, 0) :]
    ended = False
    while not ended:
        # An event larger than a piece is looked at again only when twice as much text has come.
        wanted = 2 * len(text)
        while not ended and len(text) <= wanted:
            piece = next(source, None)
            ended = piece is None
            text += piece or b""
        cut = 0 if ended else last_boundary(text, len(text))
        events = _decoded(text[:cut]) if cut else None
        if events is None:
            # A cheap cut may lie inside a name or behind the array's end; only the exact walk knows.
            scan = scan_events(text)
            cut, ended = scan.cut, ended or scan.array_end >= 0
            events = _decoded(text[:cut])
        yield events or []
        text = text[cut:].lstrip(b" \t\r\n,")


def _decoded(text: bytes) -> list[_Event] | None:
    """Events of `text`, None if it was cut in the wrong place."""
    block = b"[" + text + b"]"
    try:
        return _decode(block)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    try:
        return [_loose(row) for row in decode_loose(block, exact=False)]
    except (ValueError, TypeError):
        return None


def _loose(row: dict[str, object]) -> _Event:
    category, name, args = str(row.get("cat", "")), str(row.get("name", "")), row.get("args")
    if not isinstance(args, dict):
        return _Event(category, name)
    link = args.get("correlation")
    number = link if isinstance(link, int) and abs(link) < 1 << 62 else -1
    return _Event(category, name, _Args(number, args.get("External id")))
