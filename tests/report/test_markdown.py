"""The run as Markdown: bounded, worst first, and closed to what names hold."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from pytest_atomtrace.report.markdown import LIMIT_BYTES, MOST_CASES, markdown
from tests.report.rows import PAYLOADS, document, entry, failing


class Tags(HTMLParser):
    """Every tag of a text, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not attrs, (tag, attrs)
        self.seen.append(tag)


def summaries(text: str) -> list[str]:
    return re.findall(r"<summary>(.*?)</summary>", text)


def test_what_needs_somebody_first_comes_first_then_the_order_of_the_run() -> None:
    rows = [
        entry(0, slug="good"),
        failing(1, "too slow", slug="slow"),
        failing(2, "slower than before", outcome="regression", slug="regressed"),
        entry(3, slug="dead", outcome="failed", trouble="infra", text="the server died"),
        failing(4, "too slow too", slug="another"),
        entry(5, slug="blind", outcome="failed", trouble="inconclusive", text="The trace is truncated"),
    ]
    text = markdown(document(*rows))
    table = [line for line in text.splitlines() if line.startswith("| ") and "<code>" in line]
    slugs = [re.search("<code>(.*?)</code>", line)[1] for line in table]  # type: ignore[index]  # seen above
    assert slugs == ["dead", "blind", "regressed", "slow", "another", "good"]
    assert [line.split("<")[0].split(" ", 1)[1] for line in summaries(text)] == [
        "infra error: ",
        "inconclusive: ",
        "regression: ",
        "fail: ",
        "fail: ",
    ]
    assert text.splitlines()[0].endswith("atomtrace: 1 infra error, 1 inconclusive, 1 regression, 2 fail")


def test_a_long_run_is_cut_at_the_limit_with_the_number_of_what_is_missing() -> None:
    lines = [f"  counts    rank_{number}: 57 of 58" for number in range(50)]
    rows = [failing(number, f"kernel_{number} is missing", lines=lines) for number in range(3000)]
    rows.append(entry(3000, outcome="failed", trouble="infra", text="the server died"))
    text = markdown(document(*rows))
    assert len(text.encode()) <= LIMIT_BYTES < 1024 * 1024
    shown = summaries(text)
    assert "infra error" in shown[0]
    left_out = re.search(r"\*\*([\d,]+) more checks did not pass and are left out", text)
    assert left_out is not None
    assert int(left_out[1].replace(",", "")) + len(shown) == 3001


@pytest.mark.parametrize("limit_bytes", [4096, 20_000])
def test_any_limit_is_kept(limit_bytes: int) -> None:
    rows = [failing(number, "ä" * 5000, slug=f"case{number}") for number in range(20)]
    assert len(markdown(document(*rows), limit_bytes=limit_bytes).encode()) <= limit_bytes


def test_a_thousand_cases_fit_and_the_rest_is_counted() -> None:
    rows = [entry(number, slug=f"case-{number}") for number in range(1000)]
    text = markdown(document(*rows))
    assert text.count("| <code>case-") == MOST_CASES
    assert f"{1000 - MOST_CASES} more cases left out" in text


@pytest.mark.parametrize("payload", PAYLOADS)
def test_names_end_no_cell_no_block_and_open_no_tag(payload: str) -> None:
    rows = [
        failing(0, payload, check=payload, slug=payload, lines=[payload]),
        entry(1, verdicts=[{"check": "c", "outcome": "pass", "sentence": "", "notes": [payload]}]),
    ]
    text = markdown(document(*rows, remarks=(payload,)))
    assert set(Tags(text).seen) <= {"details", "summary", "code", "pre"}
    assert text.count("<pre>") == text.count("</pre>") == text.count("<details>") == text.count("</details>") == 1
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {10}
    assert "\x1b" not in text
    outside = re.sub(r"<pre>.*?</pre>", "", text, flags=re.S)
    assert not [line for line in outside.splitlines() if line.startswith(("::", "# ", "```"))]


def test_a_run_without_cases_says_so() -> None:
    assert "No test with a case ran." in markdown(document())
