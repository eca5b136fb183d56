"""A history as one page that loads nothing: a chart and a table a series, with the report's style and rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.errors import ConfigError
from pytest_atomtrace.report.escape import printable
from pytest_atomtrace.report.history_text import baseline_text, local_time
from pytest_atomtrace.report.html_page import missing_extra, render_page
from pytest_atomtrace.report.tables import signed_percent
from pytest_atomtrace.verdicts.evidence import count_of

if TYPE_CHECKING:
    from pytest_atomtrace.report.history import History, Point

__all__ = ["history_page"]


def history_page(found: History) -> str:
    """The page.

    Raises:
        ConfigError: jinja2 is not installed.

    """
    problem = missing_extra()
    if problem:
        raise ConfigError(problem.replace("no HTML report", "no page"), "--html")
    return render_page(
        "history.html.j2",
        data=_data(found),
        scripts=("history.js",),
        styles=("history.css",),
        found=found,
        local_time=local_time,
        baselines=[f"Baseline: {baseline_text(series, found.metric)}." for series in found.series],
        replays=count_of(found.replays, "run"),
        shown=found.metric.shown,
    )


def _data(found: History) -> dict[str, object]:
    """What the chart draws; texts are shown as they are, so control characters are made visible here."""
    return {
        "metric": found.metric.name,
        "unit": found.metric.unit,
        "series": [[_point(point) for point in series.points] for series in found.series],
    }


def _point(point: Point) -> dict[str, object]:
    return {
        "when": local_time(point.taken_unix_s),
        "value": point.value,
        "change": signed_percent(point.change) if point.change is not None else "",
        "low": point.band.low if point.band is not None else None,
        "high": point.band.high if point.band is not None else None,
        "judged": point.judged,
        "outcome": printable(point.outcome),
        "problem": printable(point.problem),
        "marks": [[mark.kind, printable(mark.text)] for mark in point.marks],
    }
