"""`atomtrace open`: one rank's trace, or a slice of it, to be fetched by Perfetto."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from pytest_atomtrace.cli.answer import Answer
from pytest_atomtrace.cli.open_target import find_place, noted_steps, of_slice, rank_files
from pytest_atomtrace.cli.serving import ORIGIN, PERFETTO_PORT, FileServer
from pytest_atomtrace.errors import ConfigError
from pytest_atomtrace.units import format_seconds

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from pytest_atomtrace.cli.open_target import Place
    from pytest_atomtrace.cli.screen import Screen
    from pytest_atomtrace.trace.data import RankData

__all__ = ["open_in_perfetto"]

# Room beside the step in the view, so that its edges are seen.
_MARGIN = 0.1


@dataclass(frozen=True)
class _Shown:
    """What is served: a file of one rank, and the ns of the trace's clock that the view begins and ends with."""

    path: Path
    rank: str
    what: str
    view_ns: tuple[int, int] | None = None


def open_in_perfetto(arguments: argparse.Namespace, screen: Screen) -> Answer:
    """`atomtrace open`."""
    place = find_place(arguments.target, arguments.output)
    held = contextlib.ExitStack()
    try:
        scratch = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="atomtrace-open-")))
        shown = _choose(place, arguments, scratch, screen)
        server = FileServer(shown.path, port=arguments.port)
        held.callback(server.close)
    except BaseException:
        held.close()
        raise
    link = _link(server.url, shown.view_ns)
    record = {
        "link": link,
        "url": server.url,
        "rank": shown.rank,
        "step": arguments.step,
        "file": str(shown.path),
        "what": shown.what,
        "view_ns": list(shown.view_ns) if shown.view_ns else None,
        "bytes": shown.path.stat().st_size,
    }

    def serve(screen: Screen) -> int:
        with held, server:
            if arguments.browser:
                import webbrowser

                if not webbrowser.open_new_tab(link):
                    screen.complain("atomtrace open: no browser could be started here; open the link by hand")
            if not server.fetched.wait(arguments.timeout):
                screen.complain(f"atomtrace open: nobody fetched it within {format_seconds(arguments.timeout)}")
                return 1
        screen.complain("fetched; Perfetto has its own copy now")
        return 0

    return Answer(0, record, lambda _: _lines(shown, link, arguments), then=serve)


def _lines(shown: _Shown, link: str, arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    yield "", f"{shown.what} ({shown.path.stat().st_size / 1e6:,.1f} MB)"
    if arguments.port != PERFETTO_PORT:
        yield "yellow", f"{ORIGIN} refuses to fetch from another port than {PERFETTO_PORT}"
    yield "title", link
    yield "dim", f"serving until it was fetched; Ctrl-C or {format_seconds(arguments.timeout)} ends it"


def _link(url: str, view_ns: tuple[int, int] | None) -> str:
    # visStart and visEnd are raw timestamps in ns, as in the trace processor's tables; of a JSON trace: ts * 1000.
    view = f"&visStart={view_ns[0]}&visEnd={view_ns[1]}" if view_ns else ""
    return f"{ORIGIN}/#!/?url={quote(url, safe=':/')}{view}"


def _choose(place: Place, arguments: argparse.Namespace, scratch: Path, screen: Screen) -> _Shown:
    files = rank_files(place)
    if arguments.rank is not None and arguments.rank not in files:
        raise ConfigError(f"no rank {arguments.rank!r} in {place.path}; there are: {', '.join(files)}", "--rank")
    ranks = [arguments.rank] if arguments.rank is not None else list(files)
    if arguments.step is None:
        rank = ranks[0]
        return _Shown(files[rank][-1], rank, f"{'slice of ' * place.sliced}{rank} of {place.path}{_others(ranks)}")
    seen: list[str] = []
    for rank in ranks:
        for path in files[rank]:
            with screen.watching(f"reading {path}"):
                data = _load(path, rank)
            number = _position(data, arguments.step)
            if number is not None:
                return _step(data, number, arguments, scratch, screen)
            seen.append(f"{rank} has {_numbers(data)}")
    raise ConfigError(f"there is no step {arguments.step} in {place.path}: {'; '.join(seen[:4])}", "--step")


def _load(path: Path, rank: str) -> RankData:
    from pytest_atomtrace.trace.load import load

    return load({rank: path}).ranks[rank]


def _others(ranks: list[str]) -> str:
    return f"; other ranks with --rank: {', '.join(ranks[1:4])}{' ...' * (len(ranks) > 4)}" if len(ranks) > 1 else ""


def _position(data: RankData, step: int) -> int | None:
    """Where a step is in `data`, whose steps have the numbers of the whole trace if it is a slice."""
    note = of_slice(data.meta)
    if note is None:
        return step if step < len(data.steps) else None
    numbers = noted_steps(note)
    return numbers.index(step) if step in numbers[: len(data.steps)] else None


def _numbers(data: RankData) -> str:
    note: Mapping[str, object] | None = of_slice(data.meta)
    if note is not None:
        return f"steps {', '.join(map(str, noted_steps(note)))} (a slice)"
    return f"steps 0 to {len(data.steps) - 1}" if data.steps else "no steps"


def _step(data: RankData, number: int, arguments: argparse.Namespace, scratch: Path, screen: Screen) -> _Shown:
    from pytest_atomtrace.capture.slices import write_slice

    step = data.steps[number]
    low, high = step.range_ns
    margin = max(1, round((high - low) * _MARGIN))
    view = (low - margin, high + margin)
    what = f"{data.name} step {arguments.step} {step.label.text}"
    if arguments.whole or of_slice(data.meta) is not None:
        return _Shown(data.path, data.name, f"{what}, in the whole of {data.path}", view)
    with screen.watching(f"cutting {data.path}"):
        cut = write_slice(data, [number], scratch)
    if cut is None:
        raise ConfigError(f"step {number} alone is over 5 MB; look at the whole trace with --whole", "--step")
    left_out = f", without {cut.left_out}" if cut.left_out else ""
    return _Shown(cut.path, data.name, f"{what}, slice of steps {cut.steps[0]} to {cut.steps[-1]}{left_out}", view)
