"""The terminal's summary as lines: worst first, honest about files, and as short as was asked for."""

from __future__ import annotations

import pytest

from pytest_atomtrace.report.terminal import lines
from tests.report.rows import document, entry, failing

WROTE = (("", "JSON report: out/r.json"), ("yellow", "WARNING  no HTML report: the disk is full"))
CAPTURE = {"engine": "sim", "directory": "/x/.atomtrace/runs/r1/captures/case/1", "ranks": 1, "p50_ns": 5_000_000}


def texts(*entries: dict[str, object], verbosity: int = 0, width: int = 100) -> list[str]:
    return [text for _, text in lines(document(*entries), WROTE, width=width, verbosity=verbosity)]


@pytest.mark.parametrize("width", [60, 100, 200])
def test_cases_stand_worst_first_and_then_in_the_order_of_the_run(width: int) -> None:
    rows = [
        entry(0, slug="zebra", case=CAPTURE),
        failing(1, "too slow", slug="yak", case=CAPTURE),
        entry(2, slug="ant", case=CAPTURE),
        failing(3, "too slow", slug="bee", case=CAPTURE),
        entry(4, slug="cow", outcome="failed", trouble="infra", text="died"),
    ]
    found = texts(*rows, width=width)
    order = [next(word for word in ("zebra", "yak", "ant", "bee", "cow") if word in line) for line in found[1:]
             if any(word in line for word in ("zebra", "yak", "ant", "bee", "cow"))][:5]  # fmt: skip
    assert order == ["cow", "yak", "bee", "zebra", "ant"]


def test_a_green_run_says_where_the_captures_and_reports_are() -> None:
    found = texts(entry(0, case=CAPTURE))
    root = "/x/.atomtrace/runs/r1"
    assert f"captures: {root} (judge them again without a GPU: pytest --atom-replay={root})" in found
    assert found[-2:] == [text for _, text in WROTE]


def test_a_place_with_a_blank_is_quoted_where_it_is_to_be_pasted() -> None:
    (line,) = (one for one in texts(entry(0, case={**CAPTURE, "directory": "/my runs/r1"})) if "captures:" in one)
    assert "pytest --atom-replay='/my runs/r1'" in line


def test_a_replay_does_not_advise_a_replay() -> None:
    assert not [line for line in texts(entry(0, case={**CAPTURE, "engine": "replay"})) if "captures:" in line]


def test_captures_that_are_not_kept_are_not_advised_for_a_replay() -> None:
    def captures(keep: str, *entries: dict[str, object]) -> int:
        found = lines(document(*entries), width=100, verbosity=0, keep=keep)
        return sum("--atom-replay" in text for _, text in found)

    good, bad = entry(0, slug="good", case=CAPTURE), failing(1, "too slow", slug="bad", case=CAPTURE)
    assert [captures(keep, good) for keep in ("all", "failed", "none")] == [1, 0, 0]
    assert [captures(keep, good, bad) for keep in ("all", "failed", "none")] == [1, 1, 0]


def test_skips_are_told_once_with_their_number_and_need_no_table() -> None:
    rows = [entry(number, outcome="skipped", skipped="no AMD GPU is visible") for number in range(5)]
    found = texts(*rows)
    assert found[:2] == ["atomtrace", "SKIPPED  5 tests: no AMD GPU is visible"]
    assert "decode p50" not in "\n".join(found)


def test_quiet_leaves_the_failures_and_what_could_not_be_written() -> None:
    assert texts(failing(0, "too slow"), entry(1, case=CAPTURE), verbosity=-1) == [
        "FAIL case: too slow",
        "All captures are of the built-in simulator: their times are made up and say nothing about a GPU.",
        "WARNING  no HTML report: the disk is full",
    ]


WAIVED = "WAIVED by moe team, until 2026-09-30: a tuned config is on its way (waivers.yaml:2). It says: too slow."
UNPROVEN = "unproven: the pattern has matched nothing and has no example"


def noted(place: int, check: str, note: str) -> dict[str, object]:
    verdict = {"check": check, "outcome": "pass", "sentence": "s", "notes": [note]}
    return entry(place, verdicts=[verdict], case=CAPTURE)


def test_quiet_tells_in_a_line_each_what_is_green_and_proves_little() -> None:
    rows = [noted(0, "no regression", WAIVED), noted(1, "not called x", UNPROVEN), entry(2, case=CAPTURE)]
    made = document(*rows, remarks=("no check of this run is 'x' of 'y': a waiver",))
    assert [text for _, text in lines(made, width=80, verbosity=-1)] == [
        f"NOTE case: no regression: {WAIVED}",
        f"NOTE case: not called x: {UNPROVEN}",
        "NOTE no check of this run is 'x' of 'y': a waiver",
    ]
    assert [text for _, text in lines(made, width=80, verbosity=-2)] == []


def test_quiet_says_why_everything_was_skipped() -> None:
    rows = [entry(number, outcome="skipped", skipped="no AMD GPU is visible") for number in range(5)]
    assert texts(*rows, verbosity=-1)[0] == "SKIPPED  5 tests: no AMD GPU is visible"


def test_quiet_says_how_much_it_leaves_out() -> None:
    found = texts(*(failing(number, "too slow") for number in range(25)), verbosity=-1)
    assert "... and 5 more (without -q, -v shows all)" in found
    found = texts(*(noted(number, "not called x", UNPROVEN) for number in range(25)), verbosity=-1)
    assert "... and 5 more notes (without -q all are shown)" in found


def test_made_up_times_are_called_so_wherever_they_come_from() -> None:
    replayed = {**CAPTURE, "engine": "replay", "simulated": True}
    found = "\n".join(texts(entry(0, case=replayed), entry(1, slug="b", case={**replayed, "simulated": False})))
    assert "replay of sim" in found
    assert (
        "1 of 2 captures are of the built-in simulator: their times are made up and say nothing about a GPU." in found
    )


def test_errors_of_one_cause_are_listed_together() -> None:
    def died(place: int, cause: str) -> dict[str, object]:
        return entry(place, outcome="failed", trouble="infra", text=f"{cause} died", cause=cause)

    rows = [died(0, "a"), died(1, "b"), died(2, "a"), died(3, "a"), failing(4, "too slow")]
    found = texts(*rows)
    assert [line for line in found if line.startswith(("INFRA", "FAIL"))] == [
        "INFRA ERROR  test_spec.py::test_0",
        "INFRA ERROR  test_spec.py::test_1",
        "FAIL  test_spec.py::test_4",
    ]
    assert found.count("      and 2 more tests for the same reason (-v lists them)") == 1
    listed = texts(*rows, verbosity=1)
    place = listed.index("      for the same reason:")
    assert listed[place + 1 : place + 3] == ["      test_spec.py::test_2", "      test_spec.py::test_3"]
    assert texts(*rows, verbosity=-1)[:3] == [
        "INFRA ERROR case: a died (3 tests)",
        "INFRA ERROR case: b died",
        "FAIL case: too slow",
    ]


def test_twenty_failures_are_shown_and_all_with_v() -> None:
    rows = [failing(number, "too slow") for number in range(25)]
    assert sum(line.startswith("FAIL  ") for line in texts(*rows)) == 20
    assert "... and 5 more (-v shows all)" in texts(*rows)
    assert sum(line.startswith("FAIL  ") for line in texts(*rows, verbosity=1)) == 25
