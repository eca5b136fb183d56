r"""The HTML report: one file that loads nothing, for a browser, a phone, or a printer.

All that is drawn or listed comes from the document; the tables are plain HTML, so they are there without scripts, and
the scripts add charts, the kernel timeline, sorting and filters. Texts are untrusted: the templates escape every value,
control characters show as ``\x1b``, and the page's policy allows only the style and the script that are in it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import ConfigError
from pytest_atomtrace.report.document import RANKING
from pytest_atomtrace.report.html_data import payload
from pytest_atomtrace.report.html_page import COLOURS, MOST_TEXT, WORDS, missing_extra, render_page
from pytest_atomtrace.verdicts.evidence import count_of, shown_engine
from pytest_atomtrace.verdicts.times import needed_steps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_atomtrace.report.document import CheckRow, ReportDocument

__all__ = ["render"]

CASE_WORDS = {
    **WORDS,
    "infra": "with an infra error",
    "wrong_check": "with a wrong check",
    "regression": "with a regression",
}
# A run with 3,000 failing checks must still open on a phone: full texts up to this size, then sentences, then a count.
MOST_TEXTS, MOST_SENTENCES = 600_000, 1_000
KERNELS_SHOWN = 60
NOTES_SHOWN = 100
_SCRIPTS = ("charts.js", "timeline.js", "page.js")


@dataclass(frozen=True)
class _Checks:
    """Which failed checks are shown whole, which with their sentence only, and how many not at all."""

    whole: tuple[CheckRow, ...]
    plain: tuple[CheckRow, ...]
    left_out: int


def render(document: ReportDocument) -> str:
    """The page.

    Raises:
        ConfigError: jinja2 is not installed.

    """
    problem = missing_extra()
    if problem:
        raise ConfigError(problem)
    checks = _selected(document.failed)
    failed_of: dict[str, list[CheckRow]] = {}
    for row in document.failed:
        failed_of.setdefault(row.slug, []).append(row)
    need = needed_steps("p99", 20)
    return render_page(
        "report.html.j2",
        data={**payload(document), "colours": COLOURS},
        scripts=_SCRIPTS,
        document=document,
        details={detail.slug: detail for detail in document.details},
        anchors={row.slug: f"case-{place + 1}" for place, row in enumerate(document.cases)},
        failed_of=failed_of,
        checks=checks.whole,
        plain_checks=checks.plain,
        checks_left_out=checks.left_out,
        headline=_headline(document),
        subline=_subline(document),
        counts=_counts(document),
        simulated=document.simulated_note,
        skipped=Counter(row.sentence for row in document.checks if row.outcome == "skip").most_common(NOTES_SHOWN),
        notes_shown=NOTES_SHOWN,
        ranking=RANKING,
        case_words=CASE_WORDS,
        p99_need=need,
        unfirm=any(row.p99_ns is not None and not row.p99_firm for row in document.cases),
        kernels_shown=KERNELS_SHOWN,
    )


def _selected(failed: Sequence[CheckRow]) -> _Checks:
    whole: list[CheckRow] = []
    size = 0
    for row in failed:
        size += min(len(row.text), MOST_TEXT) + len(row.sentence)
        if size > MOST_TEXTS:
            break
        whole.append(row)
    plain = failed[len(whole) : len(whole) + MOST_SENTENCES]
    return _Checks(tuple(whole), tuple(plain), len(failed) - len(whole) - len(plain))


def _counts(document: ReportDocument) -> list[tuple[str, int]]:
    """Cases by outcome, worst first."""
    counted = Counter(row.outcome for row in document.cases)
    return [(outcome, counted[outcome]) for outcome in RANKING if counted[outcome]]


def _headline(document: ReportDocument) -> str:
    if not document.cases:
        return "Nothing was measured"
    total = sum(row.total for row in document.cases)
    passed = sum(row.passed for row in document.cases)
    cases = count_of(len(document.cases), "case")
    if all(row.outcome == "skip" for row in document.cases):
        return f"All {count_of(total, 'check')} were skipped" if total > 1 else "The only check was skipped"
    if all(row.outcome in ("pass", "skip") for row in document.cases) and not document.failed:
        skipped = f", {total - passed} skipped" if total > passed else ""
        return f"All {count_of(passed, 'check')} of {cases} passed{skipped}"
    counted = Counter(row.outcome for row in document.failed)
    parts = [_trouble(outcome, counted[outcome]) for outcome in RANKING if counted[outcome]]
    bad = len({row.slug for row in document.cases if row.outcome not in ("pass", "skip")})
    return f"{', '.join(parts) or 'Trouble'} in {bad} of {cases}"


def _trouble(outcome: str, number: int) -> str:
    nouns: Mapping[str, tuple[str, str]] = {
        "infra": ("infra error", "infra errors"),
        "wrong_check": ("wrong check", "wrong checks"),
        "inconclusive": ("check inconclusive", "checks inconclusive"),
        "regression": ("regression", "regressions"),
        "fail": ("check failed", "checks failed"),
    }
    one, many = nouns.get(outcome, (outcome, outcome))
    return count_of(number, one, many)


def _subline(document: ReportDocument) -> str:
    engines = sorted({shown_engine(row.engine, simulated=row.simulated) for row in document.cases if row.engine})
    parts = [count_of(document.verdicts, "verdict")]
    total, passed = sum(row.total for row in document.cases), sum(row.passed for row in document.cases)
    if document.failed:
        parts.append(f"{passed:,} of {count_of(total, 'test')} passed")
    if engines:
        parts.append(f"captures: {', '.join(engines)}")
    return " · ".join(parts)
