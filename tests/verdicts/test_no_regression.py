"""The check against a baseline, on small traces with known times: recording, judging, confirming, drifting."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace import Case, ConfigError, InconclusiveError, InsufficientStepsError, NoBaselineError, Outcome
from pytest_atomtrace.trace.finding import Finding
from tests.traces import Recipe, write_ranks
from tests.verdicts.launches import CASE, USUAL, Bench, slower

if TYPE_CHECKING:
    from pathlib import Path

FIVE = [slower(factor) for factor in (0.995, 1.0, 1.0, 1.0, 1.005)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Baselines of five launches."""
    place = Bench(tmp_path_factory.mktemp("recorded"))
    place.record(*FIVE)
    return place.baselines


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: Path) -> Bench:
    """A bench with a baseline of five launches."""
    monkeypatch.chdir(tmp_path)
    place = Bench(tmp_path)
    shutil.copytree(recorded, place.baselines)
    return place


def test_a_recording_takes_five_launches_says_so_first_and_writes_baseline_and_anchor(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.record(*FIVE)
    assert bench.said == [f"recording the baseline of {CASE.slug}: 4 launches after this one, about 4 min"]
    assert bench.asked == [1, 2, 3, 4, 5]
    (verdict,) = bench.verdicts
    assert verdict.outcome is Outcome.PASS
    assert "5 launches, 5 windows" in verdict.notes[0]
    names = sorted(path.name for path in bench.baselines.glob("*/*"))
    assert names == [f"{CASE.slug}.anchor.json", f"{CASE.slug}.json"]
    data = json.loads((bench.baselines / "gpu" / f"{CASE.slug}.json").read_text())
    assert data["metrics"]["decode.gpu_busy"] == [[1194000], [1200000], [1200000], [1200000], [1206000]]
    assert data["kernels"]["mfma_moe1_a_t32"] == {"calls": 40, "ns": 400000}


def test_two_recordings_of_equal_launches_are_equal_bytes(bench: Bench) -> None:
    files = {path: path.read_bytes() for path in bench.baselines.glob("*/*")}
    bench.record(*FIVE)
    assert {path: path.read_bytes() for path in bench.baselines.glob("*/*")} == files


def test_an_unchanged_case_passes_and_asks_for_no_second_launch(bench: Bench) -> None:
    bench.trace(slower(1.01), slower(1.5)).assert_no_regression()
    (verdict,) = bench.verdicts
    assert verdict.outcome is Outcome.PASS
    assert verdict.sentence.startswith("a decode step takes 1.212 ms, +1.0 % against its baseline (limit 3.0 %")
    assert verdict.notes == ()
    assert bench.asked == [1]


def test_always_slower_fails_with_both_launches_in_the_evidence(bench: Bench) -> None:
    with pytest.raises(AssertionError) as caught:
        bench.trace(slower(1.06), slower(1.05)).assert_no_regression()
    text = str(caught.value)
    assert text.startswith("a decode step is 6.0 % slower than its baseline: 1.272 ms against 1.200 ms (+72.00 us")
    assert "confirmed by a second launch" in text
    assert "launch 1: " in text
    assert "launch 2: " in text
    assert len(text.splitlines()) < 60
    assert bench.verdicts[-1].outcome is Outcome.REGRESSION
    assert bench.verdicts[-1].facts["attempts"] == 2


def test_slow_once_passes_with_a_note(bench: Bench) -> None:
    bench.trace(slower(1.3), slower(1.0)).assert_no_regression()
    (verdict,) = bench.verdicts
    assert verdict.outcome is Outcome.PASS
    assert "slow once: a decode step +30.0 %, then +0.0 %" in verdict.notes[0]


def test_a_family_is_caught_where_the_step_hides_it_and_a_small_change_is_not(bench: Bench) -> None:
    seven = slower(1.0, attention_kernel=1.075)
    with pytest.raises(AssertionError, match=r"attention in a decode step is 7\.5 % slower") as caught:
        bench.trace(seven, seven).assert_no_regression()
    assert "grew attention_kernel (40 calls)" in str(caught.value)
    bench.trace(slower(1.0, attention_kernel=1.01)).assert_no_regression()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"confirm": "never"}, "--atom-confirm=never"), ({}, "the GPUs were not free within 3 h: held by somebody")],
    ids=["switched off", "no lease"],
)
def test_without_a_second_launch_it_fails_and_says_that_it_is_not_confirmed(
    bench: Bench, settings: dict[str, object], reason: str
) -> None:
    with pytest.raises(AssertionError, match="not confirmed: ") as caught:
        bench.trace(slower(1.2), **settings).assert_no_regression()
    assert f"launch 2: not confirmed: {reason}" in str(caught.value)
    assert bench.verdicts[-1].facts["confirmed"] is False


def test_a_confirming_window_that_cannot_be_believed_confirms_nothing(bench: Bench) -> None:
    short = dataclasses.replace(USUAL, decode_steps=20)
    with pytest.raises(AssertionError, match="not confirmed: Insufficient steps"):
        bench.trace(slower(1.2), short).assert_no_regression()


def test_faster_passes_and_is_not_taken_over(bench: Bench) -> None:
    before = (bench.baselines / "gpu" / f"{CASE.slug}.json").read_bytes()
    bench.trace(slower(0.9)).assert_no_regression()
    assert "improved: decode.gpu_busy -10.0 %" in bench.verdicts[-1].notes[0]
    assert (bench.baselines / "gpu" / f"{CASE.slug}.json").read_bytes() == before


def test_a_tolerance_of_the_check_or_of_the_run_is_obeyed(bench: Bench) -> None:
    bench.trace(slower(1.06)).assert_no_regression(tolerance="8 %")
    bench.trace(slower(1.06), tolerance="8 %").assert_no_regression()
    with pytest.raises(AssertionError):
        bench.trace(slower(1.06), slower(1.06), tolerance="8 %").assert_no_regression(tolerance="2 %")


def test_no_baseline_is_no_answer_and_comes_with_the_command(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(NoBaselineError, match="--atom-update-baselines=missing") as caught:
        bench.trace(USUAL).assert_no_regression()
    assert caught.value.reason == "missing"
    assert bench.verdicts == []


@pytest.mark.parametrize(("key", "reason"), [("hardware", "hardware"), ("profiler", "profiler"), ("model", "model")])
def test_a_baseline_of_something_else_is_named_and_not_compared(bench: Bench, key: str, reason: str) -> None:
    path = bench.baselines / "gpu" / f"{CASE.slug}.json"
    data = json.loads(path.read_text())
    data[key]["an_earlier"] = "thing"
    path.write_text(json.dumps(data))
    with pytest.raises(NoBaselineError, match="an_earlier was 'thing' and is 'not recorded'") as caught:
        bench.trace(slower(5.0)).assert_no_regression()
    assert caught.value.reason == reason


def test_a_baseline_of_another_gfx_is_named(bench: Bench) -> None:
    (bench.baselines / "gpu").rename(bench.baselines / "gfx942")
    with pytest.raises(NoBaselineError, match="there is one for gfx942, none for gpu") as caught:
        bench.trace(USUAL).assert_no_regression()
    assert caught.value.reason == "hardware"


def edit(bench: Bench, **sections: object) -> None:
    """Change sections of the baseline's file as a careless hand would."""
    path = bench.baselines / "gpu" / f"{CASE.slug}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **sections}))


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"metrics": {"decode.gpu_busy": []}}, "it has no launch"),
        ({"metrics": {"decode.gpu_busy": [[0]] * 5}}, "launch 1, window 1 is 0"),
        ({"metrics": {"decode.gpu_busy": [[float("nan")]] * 5}}, "launch 1, window 1 is NaN"),
        ({"case": "another"}, "case is 'another'"),
        ({"kernels": {}}, "it lists no kernels"),
    ],
    ids=["empty", "zero", "nan", "another case", "no kernels"],
)
def test_a_damaged_baseline_is_no_answer_and_comes_with_the_command(
    bench: Bench, sections: dict[str, object], said: str
) -> None:
    edit(bench, **sections)
    with pytest.raises(NoBaselineError, match=said) as caught:
        bench.trace(slower(5.0)).assert_no_regression()
    assert caught.value.reason == "damaged"
    assert f"{CASE.slug}.json" in str(caught.value)
    assert caught.value.command == "pytest test_it.py --atom-update-baselines=all"
    assert bench.verdicts == []


def test_a_damaged_baseline_is_replaced_by_recording_all(bench: Bench) -> None:
    edit(bench, metrics=3)
    bench.record(*FIVE)
    bench.trace(slower(1.01)).assert_no_regression()
    assert bench.verdicts[-1].outcome is Outcome.PASS


@pytest.mark.parametrize("asked", [["families"], ["decode.gpu_busy"], None], ids=str)
def test_times_asked_of_a_baseline_of_counts_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str] | None
) -> None:
    monkeypatch.chdir(tmp_path)
    bench = Bench(tmp_path)
    bench.trace(USUAL, update_baselines="all").assert_no_regression(metrics=["counts"])
    with pytest.raises(NoBaselineError, match=r"it has counts only, no times") as caught:
        bench.trace(slower(1.0)).assert_no_regression(metrics=asked)
    assert caught.value.reason == "metric"
    assert caught.value.command.endswith("--atom-update-baselines=all")


MI300X: dict[str, object] = {"name": "AMD Instinct MI300X", "computeMajor": 9, "computeMinor": 4, "numSms": 304}
MI325X = {**MI300X, "name": "AMD Instinct MI325X"}


def test_two_devices_of_one_gfx_have_a_baseline_and_an_anchor_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bench = Bench(tmp_path)
    bench.device = MI300X
    bench.record(*FIVE)
    first = {path.name: path.read_bytes() for path in bench.baselines.glob("gfx942/*")}
    assert sorted(first) == [f"{CASE.slug}.anchor.json", f"{CASE.slug}.json"]
    bench.device = MI325X
    with pytest.raises(NoBaselineError, match=r"there is one for gfx942 \(AMD Instinct MI300X\)") as caught:
        bench.trace(slower(0.8)).assert_no_regression()
    assert "none for gfx942 (AMD Instinct MI325X)" in str(caught.value)
    assert caught.value.reason == "hardware"
    assert caught.value.command.endswith("=missing")
    bench.trace(*[slower(0.8)] * 5, update_baselines="missing").assert_no_regression()
    both = {path.name: path.read_bytes() for path in bench.baselines.glob("gfx942/*")}
    assert set(both) - set(first) == {f"{CASE.slug}@MI325X.anchor.json", f"{CASE.slug}@MI325X.json"}
    assert {name: both[name] for name in first} == first
    bench.trace(slower(0.805)).assert_no_regression()
    with pytest.raises(AssertionError, match="% slower than its baseline"):
        bench.trace(slower(1.0), slower(1.0)).assert_no_regression()
    bench.record(*[slower(0.8)] * 5)
    bench.device = MI300X
    bench.trace(slower(1.0)).assert_no_regression()
    assert {path.name: path.read_bytes() for path in bench.baselines.glob("gfx942/*")} == both


def test_missing_records_what_is_missing_and_judges_the_rest(bench: Bench) -> None:
    with pytest.raises(AssertionError, match="slower than its baseline"):
        bench.trace(slower(1.2), slower(1.2), update_baselines="missing").assert_no_regression()


def test_a_run_that_records_all_does_so_once_and_its_other_checks_say_so(bench: Bench) -> None:
    trace = bench.trace(*[slower(1.05)] * 5, update_baselines="all")
    trace.assert_no_regression()
    asked = list(bench.asked)
    trace.assert_no_regression()
    trace.assert_no_regression(metrics=["counts"])
    assert bench.asked == asked
    assert [verdict.sentence for verdict in bench.verdicts] == [
        f"The baseline of {CASE.slug} was recorded.",
        f"The baseline of {CASE.slug} was recorded in this run: another check.",
        f"The baseline of {CASE.slug} was recorded in this run: another check.",
    ]


def test_a_check_of_counts_records_the_times_that_another_one_compares(bench: Bench) -> None:
    before = {path: path.read_bytes() for path in bench.baselines.glob("*/*")}
    trace = bench.trace(*FIVE, update_baselines="all")
    bench.times_wanted = True
    trace.assert_no_regression(metrics=["counts"])
    trace.assert_no_regression()
    assert {path: path.read_bytes() for path in bench.baselines.glob("*/*")} == before
    assert [len(verdict.notes) for verdict in bench.verdicts] == [1, 0], "one of them records"


def test_a_check_of_times_that_nobody_expected_records_over_counts_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    trace = bench.trace(*FIVE, update_baselines="missing")
    trace.assert_no_regression(metrics=["counts"])
    assert bench.asked == [1]
    trace.assert_no_regression()
    (path,) = bench.baselines.glob("*/*conc64.json")
    assert len(json.loads(path.read_text())["metrics"]["decode.gpu_busy"]) == 5


def test_a_disturbed_window_becomes_no_baseline(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    trace = bench.trace(*FIVE, update_baselines="all")
    bench.findings[3] = Finding("H11", "contended", False, "times", "a foreign process used GPU 3", "", 1)
    with pytest.raises(InconclusiveError, match="a foreign process used GPU 3"):
        trace.assert_no_regression()
    assert not list(bench.baselines.glob("*/*"))


@pytest.mark.parametrize("code", ["H09", "H11", "H13"])
def test_what_disturbed_a_launch_stands_in_the_evidence_of_a_regression(bench: Bench, code: str) -> None:
    trace = bench.trace(slower(1.2), slower(1.2))
    bench.findings[2] = Finding(code, "disturbed", False, "times", "something else went on", "rank_1", 1)
    with pytest.raises(AssertionError) as caught:
        trace.assert_no_regression()
    assert f"\n  health    launch 2: {code} disturbed: rank_1: something else went on\n" in str(caught.value)
    assert "the times may not be the program's alone" in str(caught.value)


def test_a_launch_that_was_slow_once_says_what_disturbed_it(bench: Bench) -> None:
    bench.findings[1] = Finding("H09", "overlaps", False, "times", "2 % of steps are touched", "", 1)
    bench.trace(slower(1.2), slower(1.0)).assert_no_regression()
    assert "disturbed: launch 1: H09 overlaps: 2 % of steps are touched" in bench.verdicts[-1].notes


def test_a_second_launch_that_was_throttled_is_named_as_the_reason_for_no_confirmation(bench: Bench) -> None:
    trace = bench.trace(slower(1.2), slower(1.2))
    bench.findings[2] = Finding("H11", "contended", True, "times", "card0 was throttled by PROCHOT", "", 1)
    with pytest.raises(AssertionError) as caught:
        trace.assert_no_regression()
    said = "not confirmed: the second launch cannot be believed: H11 contended: card0 was throttled by PROCHOT"
    assert str(caught.value).count(said) == 2


def test_too_few_steps_become_no_baseline(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(InsufficientStepsError):
        bench.record(*[dataclasses.replace(USUAL, decode_steps=20)] * 5)
    assert not list(bench.baselines.glob("*/*"))


def test_two_launches_are_a_suspicion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bench = Bench(tmp_path)
    bench.saved = 2
    bench.record(USUAL, USUAL)
    bench.trace(slower(1.5)).assert_no_regression()
    (said,) = (note for note in bench.verdicts[-1].notes if note.startswith("suspicious: "))
    assert "the baseline has 2 launches where 3 are needed to fail" in said


def test_one_percent_a_day_is_green_every_day_and_red_at_the_limit_of_the_drift(bench: Bench) -> None:
    factor = 1.01**6  # six days went by in one recording
    bench.record(*[slower(factor)] * 5)
    for _ in range(7, 10):
        factor *= 1.01
        bench.trace(slower(factor)).assert_no_regression()
        bench.record(*[slower(factor)] * 5)
    tenth = slower(factor * 1.01)
    with pytest.raises(AssertionError, match=r"has drifted by 10\.5 % since its anchor") as caught:
        bench.trace(tenth, tenth).assert_no_regression()
    assert "accept    if it is meant: move the anchor: delete perf_specs/baselines/gpu/" in str(caught.value)


def test_half_of_the_drift_is_a_note(bench: Bench) -> None:
    bench.record(*[slower(1.06)] * 5)
    bench.trace(slower(1.06)).assert_no_regression()
    assert "drift: +6.0 % since the anchor (limit 10 %)" in bench.verdicts[-1].notes


@pytest.mark.parametrize(
    ("damage", "reason", "said"),
    [
        (None, "missing", r"there is no anchor perf_specs/baselines/gpu/model-tp2-.*\.anchor\.json"),
        ({"hardware": {"device": "AMD Instinct MI300X"}}, "hardware", r"is of other hardware \(device was 'AMD Inst"),
        ({"profiler": {"roctracer": 1}}, "profiler", r"is of another profiler \(roctracer was 1 and is 'not recorded'"),
    ],
    ids=["deleted", "hardware", "profiler"],
)
def test_an_anchor_that_is_gone_or_of_something_else_is_named_and_written_anew_by_recording(
    bench: Bench, damage: dict[str, object] | None, reason: str, said: str
) -> None:
    path = bench.baselines / "gpu" / f"{CASE.slug}.anchor.json"
    if damage is None:
        path.unlink()
    else:
        path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    bench.trace(slower(1.01)).assert_no_regression()
    (note,) = bench.verdicts[-1].notes
    assert re.match(f"drift is not watched: .*{said}", note)
    assert bench.verdicts[-1].facts["no_drift"] == reason
    with pytest.raises(AssertionError, match="drift     not watched: "):
        bench.trace(slower(1.2), slower(1.2)).assert_no_regression()
    bench.record(*FIVE)
    recorded = bench.verdicts[-1].notes[0]
    assert recorded.startswith("baseline recorded, and its anchor")
    assert ("anew (the old one was of" in recorded) == (damage is not None)
    bench.trace(slower(1.01)).assert_no_regression()
    assert bench.verdicts[-1].notes == ()
    assert "drift" in bench.verdicts[-1].facts


def test_a_damaged_anchor_is_no_answer_and_is_written_anew_by_recording(bench: Bench) -> None:
    path = bench.baselines / "gpu" / f"{CASE.slug}.anchor.json"
    path.write_text(path.read_text().replace("1200000", "0"))
    with pytest.raises(NoBaselineError, match=r"anchor\.json: metrics.*launch 1, window 1 is 0") as caught:
        bench.trace(slower(1.01)).assert_no_regression()
    assert caught.value.reason == "damaged"
    bench.record(*FIVE)
    assert "and its anchor anew (the old one was damaged: metrics" in bench.verdicts[-1].notes[0]
    bench.trace(slower(1.01)).assert_no_regression()
    assert bench.verdicts[-1].outcome is Outcome.PASS


def test_recording_leaves_a_good_anchor_alone_whatever_it_records(bench: Bench) -> None:
    path = bench.baselines / "gpu" / f"{CASE.slug}.anchor.json"
    before = path.read_bytes()
    bench.record(*[slower(1.06)] * 5)
    assert path.read_bytes() == before
    assert "anchor" not in bench.verdicts[-1].notes[0]


def test_a_launch_that_stumbles_in_a_recording_is_named_with_the_limit_that_it_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bench = Bench(tmp_path)
    stumbling = [*FIVE[:2], slower(1.15), *FIVE[3:]]
    bench.record(*stumbling)
    wide = (
        "launch 3 of 5 is 15.0 % slower than the others (decode.gpu_busy 1.380 ms against 1.200 ms): the limit becomes "
        "18.6 %, without it 3.0 %"
    )
    assert f"warning: the baseline of {CASE.slug}: {wide}" in bench.said
    assert bench.verdicts[-1].notes[1].startswith(f"{wide}. If the machine was disturbed, record again")
    (path,) = (path for path in bench.baselines.glob("*/*") if "anchor" not in path.name)
    first = path.read_bytes()
    assert json.loads(first)["recorded"]["warning"] == wide
    bench.record(*stumbling)
    assert path.read_bytes() == first
    bench.trace(slower(1.1)).assert_no_regression()
    assert f"the baseline's limit is wide: {wide}; record it again" in bench.verdicts[-1].notes[0]
    with pytest.raises(AssertionError, match=r"wide      launch 3 of 5 is 15\.0 % slower"):
        bench.trace(slower(1.4), slower(1.4)).assert_no_regression()


def test_counts_are_exact_and_need_one_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bench = Bench(tmp_path)
    bench.trace(USUAL, update_baselines="missing").assert_no_regression(metrics=["counts"])
    assert bench.asked == [1]
    bench.trace(slower(3.0)).assert_no_regression(metrics=["counts"])
    other = dataclasses.replace(USUAL, renamed={"mfma_moe1_a_t32": "moe_fallback"})
    with pytest.raises(AssertionError, match="moe_fallback is new") as caught:
        bench.trace(other).assert_no_regression(metrics=["counts"])
    assert "\n  accept    if it is meant: pytest test_it.py --atom-update-baselines=all\n" in str(caught.value)
    assert bench.verdicts[-1].outcome is Outcome.FAIL


def test_other_kernels_are_noted_where_only_times_were_asked(bench: Bench) -> None:
    bench.trace(dataclasses.replace(USUAL, renamed={"attention_kernel": "attention_kernel_v2"})).assert_no_regression()
    assert any("attention_kernel_v2 is new" in note for note in bench.verdicts[-1].notes)


def test_a_metric_can_be_chosen(bench: Bench) -> None:
    seven = slower(1.0, attention_kernel=1.075)
    bench.trace(seven).assert_no_regression(metrics=["decode.gpu_busy"])
    with pytest.raises(AssertionError):
        bench.trace(seven, seven).assert_no_regression(metrics=["decode.family.attention"])
    with pytest.raises(NoBaselineError, match=r"it has no draft\.gpu_busy") as caught:
        bench.trace(USUAL).assert_no_regression(metrics=["draft.gpu_busy"])
    assert caught.value.reason == "metric"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"metrics": ["decode.gpu_bussy"]}, r"did you mean 'decode\.gpu_busy'"),
        ({"metrics": []}, "metrics must be a list"),
        ({"tolerance": "5"}, "is not a share"),
    ],
)
def test_a_wrong_question_is_refused(bench: Bench, arguments: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        bench.trace(USUAL).assert_no_regression(**arguments)  # type: ignore[arg-type]  # that is the point


def test_a_family_alone_is_explained_by_what_the_whole_step_gained(bench: Bench) -> None:
    slow = slower(1.0, attention_kernel=1.1)
    with pytest.raises(AssertionError) as caught:
        bench.trace(slow, slow).assert_no_regression(metrics=["decode.family.attention"])
    text = str(caught.value)
    assert "the step takes +40.00 us, 100 % of it explained by" in text
    assert "+0 ns" not in text


def test_a_drift_that_is_beyond_the_limit_of_the_baseline_too_is_not_called_within_it(bench: Bench) -> None:
    bench.record(*[slower(1.06)] * 5)
    with pytest.raises(AssertionError, match="has drifted by 10") as caught:
        # The second launch drifted as far, and is within the limit; the first one is not.
        bench.trace(slower(1.12), slower(1.105)).assert_no_regression(tolerance="5 %")
    assert "though" not in str(caught.value)


def test_random_weights_have_counts_and_no_times(bench: Bench) -> None:
    trace = bench.trace(USUAL)
    trace.case = Case(model="org/model", tp=2, load_dummy=True)
    with pytest.raises(ConfigError, match="random weights"):
        trace.assert_no_regression()


def test_a_slow_rank_is_named_in_the_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bench = Bench(tmp_path)
    four: list[list[Recipe]] = [[USUAL] * 4] * 5
    bench.trace(*four, update_baselines="all").assert_no_regression()
    slow = [USUAL, USUAL, slower(1.0, mfma_moe2_a_t32=1.3), USUAL]
    with pytest.raises(AssertionError) as caught:
        bench.trace(slow, slow).assert_no_regression()
    assert "grew mfma_moe2_a_t32 (40 calls, only on rank_2)" in str(caught.value)


def test_a_trace_read_from_a_file_has_no_baseline_of_its_own(tmp_path: Path) -> None:
    from pytest_atomtrace import load_trace

    with pytest.raises(ConfigError, match="this trace has none"):
        load_trace(write_ranks(tmp_path / "t", USUAL)).assert_no_regression()


def test_a_kernel_that_one_rank_calls_otherwise_is_a_difference_of_counts(bench: Bench) -> None:
    odd = dataclasses.replace(USUAL, renamed={"attention_kernel": "mfma_moe1_a_t32"})
    with pytest.raises(AssertionError) as caught:
        bench.trace([USUAL, odd]).assert_no_regression(metrics=["counts"])
    text = str(caught.value)
    assert "mfma_moe1_a_t32 40 -> 80 calls on rank_1" in text
    assert "attention_kernel 40 -> 0 calls on rank_1" in text


def test_ranks_that_always_differ_are_in_the_baseline_and_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bench = Bench(tmp_path)
    odd = dataclasses.replace(USUAL, renamed={"attention_kernel": "mfma_moe1_a_t32"})
    bench.trace([USUAL, odd], update_baselines="all").assert_no_regression(metrics=["counts"])
    data = json.loads((bench.baselines / "gpu" / f"{CASE.slug}.json").read_text())
    assert data["kernels"]["mfma_moe1_a_t32"]["ranks"] == {"rank_1": 80}
    assert data["kernels"]["attention_kernel"]["ranks"] == {"rank_1": 0}
    bench.trace([USUAL, odd]).assert_no_regression(metrics=["counts"])
    with pytest.raises(AssertionError, match=r"mfma_moe1_a_t32 80 -> 40 calls on rank_1"):
        bench.trace([USUAL, USUAL]).assert_no_regression(metrics=["counts"])
