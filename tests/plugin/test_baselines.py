"""Baselines, waivers and drift in a run of pytest, on saved captures: no server, no GPU."""

from __future__ import annotations

import dataclasses
import json
import shlex
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.cases.case import Case
from tests.traces import Recipe, write_ranks

if TYPE_CHECKING:
    from pathlib import Path

CASE = Case(model="org/m", tp=2)
USUAL = Recipe(layers=40, decode_steps=28)
SLOW = dataclasses.replace(USUAL, times={"attention_kernel": 1.3})
SPEC = """
    import pytest

    @pytest.mark.atom_case(model="org/m", tp=2)
    def test_speed(atom_trace):
        atom_trace.assert_no_regression()
"""
WAIVERS = """
- check: no regression of *
  case: m-tp2-*
  owner: moe team
  reason: a fix is on its way
  expires: "{day}"
- check: no such check
  case: "*"
  owner: nobody
  reason: forgotten
  expires: "2999-01-01"
"""


def save(run: Path, *launches: Recipe) -> Path:
    """A run's store with one window per launch, as captures of a real server are kept."""
    for number, recipe in enumerate(launches, 1):
        place = run if number == 1 else run / "launches" / str(number)
        window = place / "captures" / CASE.slug / "1"
        write_ranks(window, recipe, recipe)
        files = {rank: next((window / rank).iterdir()) for rank in ("rank_0", "rank_1")}
        ranks = {rank: {"file": str(file.relative_to(window))} for rank, file in files.items()}
        manifest = {
            "schema": 1, "slug": CASE.slug, "case": CASE.as_dict(), "engine": "atom", "capture_s": 1.0, "ranks": ranks,
            "expected_ranks": list(ranks), "versions": {},
        }  # fmt: skip
        (window / "manifest.json").write_text(json.dumps(manifest))
    return run


def run(pytester: pytest.Pytester, saved: Path, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("--junitxml=junit.xml", f"--atom-replay={saved}", *arguments)


def words(result: pytest.RunResult) -> str:
    """The output without its line breaks."""
    return " ".join(result.stdout.str().split())


@pytest.fixture
def recorded(pytester: pytest.Pytester) -> pytest.Pytester:
    """A spec with a baseline of five saved launches."""
    pytester.makepyfile(SPEC)
    saved = save(pytester.path / "good", *[USUAL] * 5)
    result = run(pytester, saved, "--atom-update-baselines=missing")
    result.assert_outcomes(passed=1)
    assert "baseline recorded, and its anchor: perf_specs/baselines/gpu/m-tp2-" in words(result)
    return pytester


def baselines(pytester: pytest.Pytester) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (pytester.path / "perf_specs/baselines").glob("*/*.json")}


def test_recording_twice_from_the_same_captures_gives_the_same_bytes(recorded: pytest.Pytester) -> None:
    before = baselines(recorded)
    assert len(before) == 2
    run(recorded, recorded.path / "good", "--atom-update-baselines=all").assert_outcomes(passed=1)
    assert baselines(recorded) == before


def test_a_case_without_a_baseline_is_no_pass_and_says_how_to_record_one(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SPEC)
    result = run(pytester, save(pytester.path / "good", USUAL))
    result.assert_outcomes(errors=1)
    text = result.stdout.str()
    assert "No baseline for m-tp2-isl1024-osl128-conc64 (missing)" in text
    assert "--atom-update-baselines=missing" in text
    assert not baselines(pytester)


BOTH = """
    import pytest

    pytestmark = pytest.mark.atom_case(model="org/m", tp=2)

    def test_counts(atom_trace):
        atom_trace.assert_no_regression(metrics=["counts"])

    def test_speed(atom_trace):
        atom_trace.assert_no_regression()
"""


def sentences(pytester: pytest.Pytester) -> dict[str, list[str]]:
    """What the checks of a run with ``--atom-json=report.json`` said, by their names."""
    found: dict[str, list[str]] = {}
    for check in json.loads((pytester.path / "report.json").read_text())["checks"]:
        found.setdefault(check["check"].partition(" (")[0], []).append(check["sentence"])
    return found


def figures(pytester: pytest.Pytester) -> dict[str, list[list[int]]]:
    (path,) = pytester.path.glob("perf_specs/baselines/*/*conc64.json")
    found: dict[str, list[list[int]]] = json.loads(path.read_text())["metrics"]
    return found


@pytest.mark.parametrize("mode", ["missing", "all"])
@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["no xdist", "two workers"])
def test_one_check_records_for_all_checks_of_the_case_and_the_others_say_so(
    pytester: pytest.Pytester, workers: tuple[str, ...], mode: str
) -> None:
    pytester.makepyfile(BOTH)
    saved = save(pytester.path / "good", *[USUAL] * 5)
    result = run(pytester, saved, f"--atom-update-baselines={mode}", "--atom-json=report.json", *workers)
    result.assert_outcomes(passed=2)
    assert len(figures(pytester)["decode.gpu_busy"]) == 5
    assert words(result).count("baseline recorded, and its anchor: ") == 1
    said = [sentence for found in sentences(pytester).values() for sentence in found]
    once = "The baseline of m-tp2-isl1024-osl128-conc64 was recorded"
    (recorded,) = (sentence for sentence in said if sentence == f"{once}.")
    (other,) = (sentence for sentence in said if sentence != recorded)
    assert other.startswith(f"{once} in this run: {'by gw' if workers else 'for test_'}")
    assert "[m-tp2-isl1024-osl128-conc64]" in other


def test_recording_for_one_kind_of_check_keeps_the_times_of_the_baseline(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(BOTH)
    saved = save(pytester.path / "good", *[USUAL] * 5)
    run(pytester, saved, "--atom-update-baselines=all").assert_outcomes(passed=2)
    before = baselines(pytester)
    run(pytester, saved, "--atom-update-baselines=all", "-k", "test_counts").assert_outcomes(passed=1)
    assert baselines(pytester) == before


def pasted(pytester: pytest.Pytester, command: str, *more: str) -> pytest.RunResult:
    """Run a command of a message as a shell would."""
    program, *arguments = shlex.split(command)
    assert program == "pytest"
    return pytester.runpytest_subprocess(*arguments, *more)


@pytest.mark.parametrize("workers", [(), ("-n", "1", "--dist", "loadgroup")], ids=["no xdist", "loadgroup"])
def test_the_command_of_a_missing_baseline_records_it_when_pasted(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    pytester.makepyfile(SPEC.replace("    @pytest", "    @pytest.mark.xdist_group('gpus')\n    @pytest"))
    save(pytester.path / "a run", *[USUAL] * 5)
    below = pytester.mkdir("below")
    monkeypatch.chdir(below)
    spec = next(pytester.path.glob("test_*.py")).name
    options = ("--atom-replay=../a run", "--atom-baselines=specs/b", f"--rootdir={pytester.path}", "-c", "/dev/null")
    result = pytester.runpytest_subprocess(*options, f"../{spec}", *workers)
    result.assert_outcomes(errors=1)
    (said,) = {line.partition("Record one with: ")[2] for line in result.outlines if "Record one with: " in line}
    words = shlex.split(said)
    assert words[1].startswith(f"../{spec}::test_speed[m-tp2-")
    assert words[2:] == ["--atom-replay=../a run", "--atom-baselines=specs/b", "--atom-update-baselines=missing"]
    pasted(pytester, said, f"--rootdir={pytester.path}", "-c", "/dev/null").assert_outcomes(passed=1)
    assert len(list((pytester.path / "specs" / "b").glob("*/*.json"))) == 2


def test_the_command_in_the_file_records_it_anew_to_the_same_bytes(recorded: pytest.Pytester) -> None:
    before = baselines(recorded)
    (name,) = (name for name in before if ".anchor" not in name)
    command = json.loads(before[name])["recorded"]["command"]
    spec = next(recorded.path.glob("test_*.py")).name
    assert command == f"pytest {spec} -k m-tp2-isl1024-osl128-conc64 --atom-update-baselines=all"
    result = pasted(recorded, command, f"--atom-replay={recorded.path / 'good'}")
    result.assert_outcomes(passed=1)
    assert "baseline recorded" in words(result)
    assert baselines(recorded) == before


def test_the_command_for_a_check_of_counts_records_the_times_that_another_check_compares(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_spec=BOTH)
    saved = save(pytester.path / "good", *[USUAL] * 5)
    result = run(pytester, saved)
    result.assert_outcomes(errors=2)
    (said,) = {line.partition("Record one with: ")[2] for line in result.outlines if "Record one with: " in line}
    assert "::test_speed[" in said
    pasted(pytester, said).assert_outcomes(passed=1)
    run(pytester, saved).assert_outcomes(passed=2)


def test_a_damaged_baseline_is_an_error_that_names_file_field_and_value(recorded: pytest.Pytester) -> None:
    (path,) = recorded.path.glob("perf_specs/baselines/gpu/m-tp2-*conc64.json")
    data = json.loads(path.read_text())
    data["metrics"]["decode.gpu_busy"][3] = [0]
    path.write_text(json.dumps(data))
    result = run(recorded, recorded.path / "good")
    result.assert_outcomes(errors=1)
    text = words(result)
    assert "No baseline for m-tp2-isl1024-osl128-conc64 (damaged): " in text
    assert f'{path.name}: metrics["decode.gpu_busy"], launch 4, window 1 is 0, which is no whole number of' in text
    assert "INCONCLUSIVE" in text


def test_an_unchanged_replay_passes(recorded: pytest.Pytester) -> None:
    run(recorded, recorded.path / "good", "--atom-html=report.html").assert_outcomes(passed=1)
    assert "against baseline" in (recorded.path / "report.html").read_text()
    runs = list(recorded.path.glob(".atomtrace/runs/*"))
    run(recorded, recorded.path / "good", "--atom-update-baselines=missing").assert_outcomes(passed=1)
    assert list(recorded.path.glob(".atomtrace/runs/*")) == runs, "what records nothing leaves nothing"


def test_a_slow_replay_fails_as_a_regression_that_is_not_confirmed(recorded: pytest.Pytester) -> None:
    result = run(recorded, save(recorded.path / "slow", SLOW))
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert "not confirmed: a replay has no second launch" in text
    assert "REGRESSION  test_" in text
    assert "grew attention_kernel (40 calls)" in text
    assert "\x1b[" not in (recorded.path / "junit.xml").read_text()


def test_a_replay_with_a_second_launch_is_confirmed_by_it_or_not(recorded: pytest.Pytester) -> None:
    twice = run(recorded, save(recorded.path / "twice", SLOW, SLOW))
    twice.assert_outcomes(failed=1)
    assert "confirmed by a second launch" in twice.stdout.str()
    once = run(recorded, save(recorded.path / "once", SLOW, USUAL))
    once.assert_outcomes(passed=1)
    assert "slow once: " in words(once)


def test_a_waiver_lets_a_failure_pass_visibly_and_unused_ones_are_named(recorded: pytest.Pytester) -> None:
    (recorded.path / "perf_specs/waivers.yaml").write_text(WAIVERS.format(day="2999-12-31"))
    result = run(recorded, save(recorded.path / "slow", SLOW))
    result.assert_outcomes(passed=1)
    text = words(result)
    assert "WAIVED by moe team, until 2999-12-31: a fix is on its way (perf_specs/waivers.yaml:2)" in text
    assert "no check of this run is 'no such check' of '*': nobody" in text


def test_an_expired_waiver_fails(recorded: pytest.Pytester) -> None:
    (recorded.path / "perf_specs/waivers.yaml").write_text(WAIVERS.format(day="2020-01-01"))
    result = run(recorded, save(recorded.path / "slow", SLOW))
    result.assert_outcomes(failed=1)
    assert "waiver    expired: moe team, until 2020-01-01" in result.stdout.str()


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["no xdist", "two workers"])
def test_a_wrong_waivers_file_stops_the_run(recorded: pytest.Pytester, workers: tuple[str, ...]) -> None:
    (recorded.path / "perf_specs/waivers.yaml").write_text(WAIVERS.format(day="soon"))
    result = run(recorded, recorded.path / "good", *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "perf_specs/waivers.yaml:2: expires is 'soon'" in result.stderr.str()
