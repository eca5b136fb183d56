"""The document: records of any number of workers, joined and ordered."""

from __future__ import annotations

import random

from tests.report.rows import document, entry, failing


def test_the_order_in_which_workers_report_does_not_matter() -> None:
    rows = [failing(0, "s", slug="b"), entry(1, slug="a"), failing(2, "s", slug="c"), entry(3, slug="b")]
    rows.append(entry(4, slug="a", outcome="failed", trouble="infra", text="died"))
    expected = document(*rows)
    assert [row.slug for row in expected.cases] == ["a", "b", "c"]
    for seed in range(10):
        shuffled = random.Random(seed).sample(rows, len(rows))
        assert document(*shuffled) == expected


def test_the_test_of_a_dead_worker_belongs_to_the_case_that_its_id_names() -> None:
    lost = entry(1, slug="", nodeid="test_spec.py::test_x[m-tp2-x2]", outcome="failed", trouble="infra", text="gone")
    made = document(entry(0, slug="m-tp2"), entry(2, slug="m-tp2-x2"), lost)
    assert [(row.slug, row.outcome, row.total) for row in made.cases] == [
        ("m-tp2-x2", "infra", 2),
        ("m-tp2", "pass", 1),
    ]


def test_an_expected_failure_is_kept_apart() -> None:
    made = document({**failing(0, "s"), "outcome": "skipped", "expected": True}, failing(1, "t"))
    assert [row.sentence for row in made.failed] == ["t"]
    assert [row.sentence for row in made.expected] == ["s"]


def test_a_failure_of_the_test_itself_has_its_text_and_line() -> None:
    (row,) = document(entry(0, outcome="failed", text="assert 1 == 2\n  more", line=7)).failed
    assert (row.sentence, row.evidence, row.file, row.line) == ("assert 1 == 2", "  more", "test_spec.py", 7)
