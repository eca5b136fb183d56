"""Waivers: owner, reason and last day; they are visible, they end, and nobody forgets them."""

from __future__ import annotations

import datetime as dt

import pytest

from pytest_atomtrace import ConfigError, Outcome
from pytest_atomtrace.verdicts.outcome import Verdict
from pytest_atomtrace.verdicts.waivers import Waiver, parse_waivers, waived

TEXT = """
- check: no regression*
  case: DeepSeek-*
  owner: moe team
  reason: "tuned config of gfx950 is on its way"
  expires: "2026-09-30"
"""
LAST_DAY, DAY_AFTER = dt.date(2026, 9, 30), dt.date(2026, 10, 1)
FAILED = Verdict("no regression of decode.gpu_busy", Outcome.REGRESSION, "a decode step is slower.", ("  x",))
PASSED = Verdict("no regression of decode.gpu_busy", Outcome.PASS, "fine.")


def waivers() -> tuple[Waiver, ...]:
    return parse_waivers(TEXT.encode(), "perf_specs/waivers.yaml")


def test_a_waived_failure_passes_with_a_note_that_says_who_why_and_until_when() -> None:
    verdict = waived(FAILED, "DeepSeek-R1-tp8", waivers(), LAST_DAY)
    assert verdict.outcome is Outcome.PASS
    assert verdict.notes == (
        "WAIVED by moe team, until 2026-09-30: tuned config of gfx950 is on its way (perf_specs/waivers.yaml:2). "
        "It says: a decode step is slower.",
    )
    assert verdict.facts["waived"] == "regression"


def test_an_expired_waiver_fails_and_says_that_it_is_over() -> None:
    verdict = waived(FAILED, "DeepSeek-R1-tp8", waivers(), DAY_AFTER)
    assert verdict.outcome is Outcome.REGRESSION
    assert verdict.lines[-1].startswith("  waiver    expired: moe team, until 2026-09-30")


@pytest.mark.parametrize(("day", "said"), [(LAST_DAY, "its waiver can go"), (DAY_AFTER, "has expired and can go")])
def test_a_waiver_that_is_not_needed_is_said_to_be_one(day: dt.date, said: str) -> None:
    verdict = waived(PASSED, "DeepSeek-R1-tp8", waivers(), day)
    assert verdict.outcome is Outcome.PASS
    assert said in verdict.notes[0]


def test_other_cases_and_checks_are_not_waived() -> None:
    assert waived(FAILED, "gpt-oss-120b-tp1", waivers(), LAST_DAY) is FAILED
    other = Verdict("x is called", Outcome.FAIL, "no.")
    assert waived(other, "DeepSeek-R1-tp8", waivers(), LAST_DAY) is other


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  owner: moe team\n", "", "owner is missing"),
        ("2026-09-30", "next week", "write the last day as"),
        ("owner:", "ownr:", "'ownr' is none of"),
        ("reason: ", "reason: [", "no YAML"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_place(old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"w\.yaml") as caught:
        parse_waivers(TEXT.replace(old, new).encode(), "w.yaml")
    assert said in str(caught.value)


def test_every_fault_of_a_file_is_in_one_message() -> None:
    text = TEXT + TEXT.replace("owner", "ownr").replace("2026-09-30", "soon")
    with pytest.raises(ConfigError) as caught:
        parse_waivers(text.encode(), "w.yaml")
    assert len(str(caught.value).splitlines()) == 3


def test_an_empty_file_waives_nothing() -> None:
    assert parse_waivers(b"# nothing yet\n", "w.yaml") == ()


def test_a_file_that_is_no_list_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"w\.yaml: waivers are a list"):
        parse_waivers(b"check: x\n", "w.yaml")


def test_a_check_name_pasted_from_a_report_fits_itself_whatever_brackets_it_holds() -> None:
    name = "called re:gemm_[0-9]+zz"
    pasted = parse_waivers(TEXT.replace("no regression*", f'"{name}"').encode(), "w.yaml")
    failed = Verdict(name, Outcome.FAIL, "no.")
    assert waived(failed, "DeepSeek-R1-tp8", pasted, LAST_DAY).outcome is Outcome.PASS


def test_a_key_that_is_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"w\.yaml:2: owner is given twice \(again in line 7\)"):
        parse_waivers((TEXT + "  owner: somebody else\n").encode(), "w.yaml")
