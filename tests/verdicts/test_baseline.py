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
from pytest_atomtrace.verdicts.baseline import Baseline, baseline_path, others_of, read_baseline
from pytest_atomtrace.verdicts.fingerprint import Fingerprint
from pytest_atomtrace.verdicts.step_profile import Usage

if TYPE_CHECKING:
    from pathlib import Path

names = st.text(min_size=1, max_size=30)
facts = st.dictionaries(names, st.one_of(st.text(max_size=9), st.integers(-9, 9), st.booleans()), max_size=4)
windows = st.lists(st.lists(st.integers(1, 10**9), max_size=3).map(tuple), max_size=5).map(tuple)
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
    metrics=st.dictionaries(names, windows, max_size=4),
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
    again = read_baseline(path)
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
    assert others_of(tmp_path, "c") == ["gfx950"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no baseline can be read"),
        ("[]", "a JSON object"),
        ('{"schema": 99}', "this version reads 1"),
        (json.dumps({**json.loads(SOME.text()), "metrics": 3}), "damaged"),
        (json.dumps({**json.loads(SOME.text()), "kernels": {"k": {"calls": 1}}}), "damaged"),
    ],
)
def test_a_damaged_file_says_so_and_names_itself(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        read_baseline(path)
    assert caught.value.where == str(path)
