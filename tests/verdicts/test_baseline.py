"""Baselines on disk: what is written is read back, equal content gives equal bytes, diffs can be reviewed."""

from __future__ import annotations

import dataclasses
import difflib
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_atomtrace import ConfigError
from pytest_atomtrace.verdicts.baseline import Baseline
from pytest_atomtrace.verdicts.baseline_place import anchor_path, baseline_files, baseline_path, others_of
from pytest_atomtrace.verdicts.baseline_reading import read_baseline
from pytest_atomtrace.verdicts.fingerprint import Fingerprint
from pytest_atomtrace.verdicts.step_profile import Usage

if TYPE_CHECKING:
    from pathlib import Path

names = st.text(min_size=1, max_size=30)
facts = st.dictionaries(names, st.one_of(st.text(max_size=9), st.integers(-9, 9), st.booleans()), max_size=4)
windows = st.lists(st.integers(1, 10**9), min_size=1, max_size=3).map(tuple)


def metrics_of(launches: int) -> st.SearchStrategy[dict[str, tuple[tuple[int, ...], ...]]]:
    figures = st.lists(windows, min_size=launches, max_size=launches).map(tuple)
    more = st.dictionaries(names, figures, max_size=3)
    return st.tuples(more, figures).map(lambda both: {**both[0], "decode.gpu_busy": both[1]})


usages = st.builds(Usage, st.integers(1, 99), st.integers(0, 10**8).map(float))
baselines = st.builds(
    Baseline,
    case=names,
    simulated=st.booleans(),
    hardware=facts,
    profiler=facts,
    model=facts,
    recorded=facts,
    environment=facts,
    health=st.lists(st.sampled_from(["H08", "H14"]), max_size=2).map(tuple),
    metrics=st.one_of(st.just({}), st.integers(1, 5).flatmap(metrics_of)),
    kernels=st.dictionaries(names, usages, max_size=5),
)
SOME = Baseline(
    case="m-tp2",
    simulated=False,
    hardware={"device": "AMD Instinct MI355X", "compute_units": 256},
    profiler={"roctracer": 4.1},
    model={"tp": 2},
    recorded={"command": "pytest"},
    metrics={"decode.gpu_busy": ((10, 11, 12), (10, 11, 13)), "decode.family.gemm": ((4, 4, 4), (4, 4, 4))},
    kernels={"b_kernel": Usage(4, 10.0), "a_kernel": Usage(2, 5.0)},
)
NOW = Fingerprint("gfx950", False, SOME.hardware, SOME.profiler, SOME.model)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(baselines)
def test_what_is_written_is_read_back_and_written_the_same(tmp_path: Path, baseline: Baseline) -> None:
    path = tmp_path / "b.json"
    path.write_text(baseline.text(), encoding="utf-8")
    again = read_baseline(path, case=baseline.case)
    assert again == baseline
    assert again is not None
    assert again.text() == baseline.text()
    assert list(again.kernels) == list(baseline.kernels), "the order of the step is part of it"


def test_a_change_of_one_metric_is_a_change_of_one_line() -> None:
    changed = dataclasses.replace(SOME, metrics={**SOME.metrics, "decode.gpu_busy": ((10, 11, 12), (10, 11, 99))})
    diff = list(difflib.unified_diff(SOME.text().splitlines(), changed.text().splitlines(), n=0, lineterm=""))
    assert list(diff[3:]) == [
        '-  "decode.gpu_busy": [[10, 11, 12], [10, 11, 13]]',
        '+  "decode.gpu_busy": [[10, 11, 12], [10, 11, 99]]',
    ]


def test_a_new_kernel_is_one_new_line() -> None:
    kernels = {"b_kernel": Usage(4, 10.0), "new_kernel": Usage(1, 2.0), "a_kernel": Usage(2, 5.0)}
    diff = difflib.ndiff(SOME.text().splitlines(), dataclasses.replace(SOME, kernels=kernels).text().splitlines())
    assert [line for line in diff if line[0] in "+-"] == ['+   "new_kernel": {"calls": 1, "ns": 2},']


def test_the_order_in_which_facts_were_gathered_leaves_no_trace() -> None:
    turned = dataclasses.replace(
        SOME, hardware=dict(reversed([*SOME.hardware.items()])), metrics=dict(reversed([*SOME.metrics.items()]))
    )
    assert turned.text() == SOME.text()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"simulated": True}, "hardware"),
        ({"hardware": {"device": "AMD Instinct MI350X", "compute_units": 256}}, "hardware"),
        ({"profiler": {"roctracer": 4.0}}, "profiler"),
        ({"model": {"tp": 4}}, "model"),
    ],
)
def test_other_machines_and_models_are_not_compared(change: dict[str, object], reason: str) -> None:
    assert SOME.misfit(NOW) is None
    found = SOME.misfit(dataclasses.replace(NOW, **change))  # type: ignore[arg-type]  # the fields of the case
    assert found is not None
    assert found[0] == reason


def test_simulated_baselines_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    real = baseline_path(tmp_path, NOW, "c")
    made_up = baseline_path(tmp_path, dataclasses.replace(NOW, simulated=True), "c")
    assert (real.parent.name, made_up.parent.name) == ("gfx950", "sim-gfx950")
    real.parent.mkdir()
    real.write_text(SOME.text())
    assert others_of(tmp_path, "c") == ["gfx950 (AMD Instinct MI355X)"]


@pytest.mark.parametrize(
    ("there", "mine", "name"),
    [
        ({"device": "AMD Instinct MI355X"}, {"device": "AMD Instinct MI355X"}, "c.json"),
        ({"device": "AMD Instinct MI355X"}, {"device": "AMD Instinct MI350X"}, "c@MI350X.json"),
        ({"device": "AMD Instinct MI355X"}, {"device": "AMD Instinct MI355X", "power_cap_w": 1000}, "c.json"),
        ({"device": "AMD Instinct MI355X"}, {"device": "AMD/ATI ../Odd [x]"}, "c@ATI-..-Odd-x.json"),
        ({"device": "AMD Instinct MI355X"}, {}, "c.json"),
        ({}, {"device": "AMD Instinct MI350X"}, "c.json"),
        (None, {"device": "AMD Instinct MI350X"}, "c.json"),
        (
            {"device": "AMD Radeon Graphics", "pci_device_id": "0x75a0"},
            {"device": "AMD Radeon Graphics", "pci_device_id": "0x75a3"},
            "c@Radeon-Graphics-0x75a3.json",
        ),
    ],
)
def test_a_second_device_of_one_gfx_has_its_name_in_the_file(
    tmp_path: Path, there: dict[str, str | int] | None, mine: dict[str, str | int], name: str
) -> None:
    plain = tmp_path / "gfx950" / "c.json"
    plain.parent.mkdir()
    plain.write_text("damaged" if there is None else dataclasses.replace(SOME, hardware=there).text())
    now = dataclasses.replace(NOW, hardware=mine)
    path = baseline_path(tmp_path, now, "c")
    assert path.name == name
    assert anchor_path(tmp_path, now, "c").name == name.replace(".json", ".anchor.json")
    path.touch()
    anchor_path(tmp_path, now, "c").touch()
    assert baseline_files(tmp_path, "c") == sorted({plain, path})


def test_a_device_keeps_its_own_file_when_the_plain_one_goes(tmp_path: Path) -> None:
    own = tmp_path / "gfx950" / "c@MI355X.json"
    own.parent.mkdir()
    own.write_text(SOME.text())
    assert baseline_path(tmp_path, NOW, "c") == own


def damaged(**changed: object) -> str:
    return json.dumps({**json.loads(SOME.text()), **changed})


def metrics(step: object, **more: object) -> str:
    return damaged(metrics={"decode.gpu_busy": step, **more})


STEP = r'metrics\["decode.gpu_busy"\]'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no baseline can be read: Expecting value: line 1"),
        ("{", "no baseline can be read"),
        ("[" * 100_000, "no baseline can be read"),
        ("\xff", "no baseline can be read"),
        ("[]", "a JSON object"),
        ('{"schema": 99}', "schema is 99; this version reads 1"),
        ('{"schema": true}', "schema is true; this version reads 1"),
        ('{"schema": 1, "case": "a", "case": "b"}', "'case' is there twice"),
        ('{"schema": 1}', "case is missing"),
        (damaged(case="m-tp4"), "case is 'm-tp4', but the file is named for 'm-tp2': it was copied or renamed"),
        (damaged(case=3), "case is 3, which is no text"),
        (damaged(simulated="no"), 'simulated is "no", which is neither true nor false'),
        (damaged(hardware=[]), r"hardware is \[\], which is no object"),
        (damaged(model={"tp": None}), r"model\.tp is null, which is no text, finite number"),
        (damaged(profiler={"roctracer": float("nan")}), r"profiler\.roctracer is NaN"),
        (damaged(health="H08"), 'health is "H08", which is no list of texts'),
        (damaged(metrics=3), "metrics is 3, which is no object"),
        (metrics([]), STEP + r" is \[\]: it has no launch"),
        (metrics(7), STEP + " is 7, which is no list of launches"),
        (metrics([[]]), STEP + r", launch 1 is \[\]: it has no window"),
        (metrics([[5], 5]), STEP + ", launch 2 is 5, which is no list of windows"),
        (metrics([[5], [0]]), STEP + ", launch 2, window 1 is 0, which is no whole number of nanoseconds from 1"),
        (metrics([[5], [5, -5]]), STEP + ", launch 2, window 2 is -5,"),
        (metrics([[5], [float("nan")]]), STEP + ", launch 2, window 1 is NaN,"),
        (metrics([[float("inf")]]), STEP + ", launch 1, window 1 is Infinity,"),
        (metrics([[True]]), STEP + ", launch 1, window 1 is true,"),
        (metrics([["5"]]), STEP + ', launch 1, window 1 is "5",'),
        (metrics([[5.5]]), STEP + r", launch 1, window 1 is 5\.5,"),
        (metrics([[10**400]]), STEP + ", launch 1, window 1 is 1000"),
        (damaged(metrics={"decode.iteration": [[5]]}), r"metrics has no decode\.gpu_busy"),
        (metrics([[5], [5]], other=[[5]]), r"other has 1 launches where decode\.gpu_busy has 2"),
        (damaged(kernels={"k": {"calls": 1}}), r'kernels\["k"\]\.ns is missing'),
        (
            damaged(kernels={"k": {"calls": 0, "ns": 5}}),
            r'kernels\["k"\]\.calls is 0, which is no whole number of calls',
        ),
        (damaged(kernels={"k": {"calls": 1, "ns": -5}}), r'kernels\["k"\]\.ns is -5,'),
        (
            damaged(kernels={"k": {"calls": 1, "ns": 5, "ranks": {"rank_0": "2"}}}),
            r'kernels\["k"\]\.ranks\.rank_0 is "2",',
        ),
        (damaged(kernels={"k": []}), r'kernels\["k"\] is \[\], which is no object'),
    ],
)
def test_a_damaged_file_is_refused_with_the_field_its_value_and_what_to_do(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "b.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=said) as caught:
        read_baseline(path, case=SOME.case)
    assert caught.value.where == str(path)
    assert "--atom-update-baselines=all" in str(caught.value) or "this version reads" in str(caught.value)


def test_a_baseline_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "b.json").mkdir()
    with pytest.raises(ConfigError, match="no baseline can be read: Is a directory"):
        read_baseline(tmp_path / "b.json", case=SOME.case)
