"""`atomtrace history` in words: a line a run, each value on one axis with the band of the baseline in force then."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import TYPE_CHECKING

from pytest_atomtrace.report.escape import printable
from pytest_atomtrace.report.tables import facts, signed_percent
from pytest_atomtrace.verdicts.evidence import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_atomtrace.report.history import Band, History, Point, Series
    from pytest_atomtrace.report.history_metric import Metric
    from pytest_atomtrace.report.tables import Line

__all__ = ["Signs", "axis_of", "baseline_text", "history_lines", "local_time"]

_LEAST_PLOT, _MOST_PLOT = 8, 60
# A value this many times further from the middle than usual ones stands at the edge, or the rest is one column.
_FAR = 8.0


@dataclass(frozen=True)
class Signs:
    """What a plot is drawn with."""

    value: str
    band: str
    rest: str
    left: str
    right: str
    mark: str

    @classmethod
    def of(cls, encoding: str | None) -> Signs:
        """Drawing characters where the encoding has them, else ASCII."""
        fine = cls("●", "▒", "─", "◂", "▸", "◆")
        try:
            "".join((fine.value, fine.band, fine.rest, fine.left, fine.right, fine.mark)).encode(encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            return cls("o", "=", "-", "<", ">", "*")
        return fine


def local_time(unix_s: float) -> str:
    """To the minute, in the reader's time zone."""
    return datetime.fromtimestamp(unix_s).strftime("%Y-%m-%d %H:%M")


def axis_of(series: Series) -> tuple[float, float]:
    """Both ends of the value axis: all bands and all values but those far out."""
    values = [point.value for point in series.points if point.value is not None]
    ends = [end for point in series.points if point.band is not None for end in (point.band.low, point.band.high)]
    if values:
        middle = median(values)
        usual = max(median(abs(value - middle) for value in values), 0.06 * abs(middle))
        ends += [value for value in values if abs(value - middle) <= _FAR * usual]
    if not ends:
        return 0.0, 1.0
    low, high = min(ends), max(ends)
    margin = 0.04 * (high - low) or 0.02 * abs(high) or 1.0
    return low - margin, high + margin


def history_lines(found: History, *, width: int, signs: Signs) -> Iterator[Line]:
    """Every series, then what was left out."""
    yield "title", clipped_plain(f"{found.metric.name} of {printable(found.case)}", width)
    yield from ((("dim", line)) for line in textwrap.wrap(found.metric.about, width))
    for series in found.series:
        yield "", ""
        yield from _series(series, found.metric, width, signs)
    if not found.series:
        yield "yellow", "No run measured it."
    yield from _foot(found, width)


def clipped_plain(text: str, width: int) -> str:
    """Cut at the end with three ASCII dots."""
    return text if len(text) <= width else text[: width - 3] + "..."


def _series(series: Series, metric: Metric, width: int, signs: Signs) -> Iterator[Line]:
    kind = "simulated: times are made up" if series.simulated else "real"
    machine = printable(series.machine) or "unknown GPU"
    rows = [("machine", f"{machine} ({kind}), {count_of(len(series.points), 'run')}")]
    rows.append(("baseline", baseline_text(series, metric)))
    yield from facts(rows, width=width)
    yield "", ""
    shown = [_Row.of(point, metric) for point in series.points]
    widths = _Widths.of(shown)
    room = min(_MOST_PLOT, width - widths.rest)
    axis = axis_of(series)
    if room >= _LEAST_PLOT:
        low, high = metric.shown(axis[0]), metric.shown(axis[1])
        if len(low) + len(high) < room:
            yield "dim", f"{'':<{widths.before}}{low}{high:>{room - len(low)}}"
    for row, point in zip(shown, series.points, strict=True):
        for mark in point.marks:
            yield from _mark(mark.kind, mark.text, width, signs)
        plot = _plot(point.value, point.band, axis, room, signs) if room >= _LEAST_PLOT else ""
        text = (
            f"{row.when:<{widths.when}}  {row.value:>{widths.value}}  {row.change:>{widths.change}}  "
            f"{plot}{'  ' if plot else ''}{row.outcome}"
        )
        yield _style(point), text.rstrip()
        if point.problem:
            yield from _mark("", point.problem, width, signs)


def baseline_text(series: Series, metric: Metric) -> str:
    """The baseline that holds today, in words."""
    if not series.baseline:
        return "none of this case on this machine"
    band = series.last_band
    if band is None:
        return f"{series.baseline} has nothing to compare {metric.name} with"
    commit = f", commit {band.commit}" if band.commit else ", not committed"
    limits = f"{metric.shown(band.low)} to {metric.shown(band.high)}"
    launches = count_of(band.launches, "launch", "launches")
    return f"{metric.shown(band.middle)}, one launch may be {limits} ({launches}{commit})"


@dataclass(frozen=True)
class _Row:
    when: str
    value: str
    change: str
    outcome: str

    @classmethod
    def of(cls, point: Point, metric: Metric) -> _Row:
        value = metric.shown(point.value) if point.value is not None else "-"
        change = signed_percent(point.change) if point.change is not None else ""
        words = [point.outcome or "no report", *([point.judged] if point.judged in ("worse", "better") else [])]
        return cls(local_time(point.taken_unix_s), value, change, ", ".join(words))


@dataclass(frozen=True)
class _Widths:
    when: int
    value: int
    change: int
    outcome: int

    @classmethod
    def of(cls, rows: Sequence[_Row]) -> _Widths:
        return cls(*(max(len(getattr(row, key)) for row in rows) for key in ("when", "value", "change", "outcome")))

    @property
    def before(self) -> int:
        """Columns before the plot."""
        return self.when + self.value + self.change + 6

    @property
    def rest(self) -> int:
        """Columns beside the plot."""
        return self.before + 2 + self.outcome


def _plot(value: float | None, band: Band | None, axis: tuple[float, float], room: int, signs: Signs) -> str:
    low, high = axis

    def column(at: float) -> int:
        return round((at - low) / (high - low) * (room - 1))

    cells = [signs.rest] * room
    if band is not None:
        first, last = column(band.low), column(band.high)
        cells[first : last + 1] = signs.band * (last - first + 1)
    if value is not None:
        place = column(value)
        inside = 0 <= place < room
        cells[min(max(place, 0), room - 1)] = signs.value if inside else signs.left if place < 0 else signs.right
    return "".join(cells)


def _mark(kind: str, text: str, width: int, signs: Signs) -> Iterator[Line]:
    head = f"  {signs.mark} {kind}: " if kind else "    "
    lines = textwrap.wrap(printable(text), width, initial_indent=head, subsequent_indent="    ", break_on_hyphens=False)
    yield from (("blue" if kind else "dim", line) for line in lines)


def _style(point: Point) -> str:
    if point.value is None:
        return "yellow"
    if point.outcome in ("fail", "regression") or point.judged == "worse":
        return "red"
    return "green" if point.judged == "better" else ""


def _foot(found: History, width: int) -> Iterator[Line]:
    notes = []
    if any(point.change is not None for series in found.series for point in series.points):
        better = "Higher" if not found.metric.bigger_is_worse else "Lower"
        notes.append(
            f"{better} is better; changes are to the run before; the band is what the baseline of then allows."
        )
    if found.replays:
        notes.append(f"{count_of(found.replays, 'run')} judged saved captures again and measured nothing: left out.")
    if notes:
        yield "", ""
        yield from (("dim", line) for line in textwrap.wrap(" ".join(notes), width))
