"""Captures where sysfs hides the GPUs' memory: amd-smi or rocm-smi tell it, end to end."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.capture.smi import smi_throttles, smi_vram_used
from pytest_atomtrace.capture.vram import read_levels
from pytest_atomtrace.errors import InfraError, LaunchError
from tests.capture.conftest import ROOT, small_case, wait_for
from tests.capture.machines import GIB, FakeMachine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.capture.conftest import Rig

IDLE = 300 << 20


@pytest.fixture
def machine(rig: Rig) -> Iterator[FakeMachine]:
    """The machine as its driver has it; `hidden` is what our container shows of it."""
    machine = FakeMachine(rig.tmp_path / "machine").build()
    rig.sim(VRAM_TREE=machine.root)
    machine.drive()
    yield machine
    machine.end()


@pytest.fixture(params=["amd-smi", "amd-smi of ROCm 6", "rocm-smi"])
def tools(rig: Rig, request: pytest.FixtureRequest) -> Path:
    """One tool on PATH."""
    name = str(request.param)
    folder = write_tools(rig.tmp_path / "bin")
    (folder / ("rocm-smi" if name.startswith("amd") else "amd-smi")).unlink()
    rig.sim(SMI=6 if name.endswith("6") else 7)
    rig.monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def write_tools(folder: Path) -> Path:
    argv = [sys.executable, "-m", "pytest_atomtrace.simulator", "--write-tools", str(folder)]
    subprocess.run(argv, check=True, capture_output=True, cwd=ROOT)
    return folder


def test_the_level_is_read_by_the_tool_before_and_after_a_capture(rig: Rig, machine: FakeMachine, tools: Path) -> None:
    root = machine.container(rig.tmp_path / "container")
    assert tools.is_dir()
    case = small_case(tp=2)
    capture = rig.session_with({"machine_root": str(root), "vram_timeout": 10.0}).obtain(
        case, needed=[case], test_id="t"
    )
    assert capture.ranks
    assert not [line for line in rig.lines if "cannot be watched" in line]
    notes = sorted((rig.tmp_path / "locks").glob("*.level"))
    assert [f'"used": {IDLE}' in note.read_text() for note in notes] == [True, True]
    rig.assert_nothing_left()


def test_a_leak_that_only_the_tool_sees_errs_its_own_case_and_is_the_next_ones_idle_level(
    rig: Rig, machine: FakeMachine, tools: Path
) -> None:
    root = machine.container(rig.tmp_path / "container")
    assert tools.is_dir()
    rig.sim(FAULT="leak_vram:1")
    settings = {"machine_root": str(root), "vram_timeout": 1.5}
    case, other = small_case(), small_case(server_args=("--level", "0"))
    with pytest.raises(InfraError, match=r"has not given its GPU memory back: after 1.5 s") as failed:
        rig.session_with(settings).obtain(case, needed=[case], test_id="t")
    assert f"{machine.pci(1)} holds 200.3 GiB, idle is 300.0 MiB + 1.0 GiB" in failed.value.problem
    assert machine.pci(0) not in failed.value.problem
    rig.sim(FAULT="", VRAM_GIB=10)
    assert rig.session_with(settings).obtain(other, needed=[other], test_id="t2").ranks
    rig.assert_nothing_left()


def test_memory_of_others_that_only_the_tool_sees_keeps_a_server_from_its_launch(
    rig: Rig, machine: FakeMachine, tools: Path
) -> None:
    root = machine.container(rig.tmp_path / "container")
    assert tools.is_dir()
    settings = {"machine_root": str(root), "vram_timeout": 1.0}
    first, second = small_case(), small_case(server_args=("--level", "0"))
    rig.session_with(settings).obtain(first, needed=[first], test_id="t")
    launches = rig.launches()
    machine.tenant(1, 0, 50 * GIB)
    wait_for(lambda: machine.used(0) > 50 * GIB, seconds=5, what="the driver counts it")
    with pytest.raises(LaunchError, match=r"no server was launched: .* 0000:05:00.0 holds 50.3 GiB"):
        rig.session_with(settings).obtain(second, needed=[second], test_id="t2")
    assert rig.launches() == launches


def test_of_many_cards_amd_smi_tells_about_those_that_are_leased(rig: Rig) -> None:
    """Its metrics name no address; on a shared machine they list more cards than ours."""
    machine = FakeMachine(rig.tmp_path / "eight", cards=8).build()
    folder = write_tools(rig.tmp_path / "bin")
    (folder / "rocm-smi").unlink()
    machine.used(2, 5 * GIB)
    machine.throttle(2, cycles=77, hbm_thermal=3)
    env = {"PATH": f"{folder}:/usr/bin:/bin", "ATOMTRACE_SIM_VRAM_TREE": str(machine.root)}
    wanted = (machine.pci(2), machine.pci(5))
    assert smi_vram_used(wanted, env=env) == {wanted[0]: 5 * GIB, wanted[1]: IDLE}
    assert smi_throttles(wanted, env=env)[wanted[0]]["hbm_thermal"] == 3


def test_words_before_a_tools_json_are_no_reason_to_be_blind(rig: Rig) -> None:
    machine = FakeMachine(rig.tmp_path / "machine").build()
    folder = write_tools(rig.tmp_path / "bin")
    real = (folder / "rocm-smi").rename(folder / "real-rocm-smi")
    (folder / "amd-smi").unlink()
    (folder / "rocm-smi").write_text(
        f'#!/bin/sh\necho "WARNING: AMD GPU device(s) is/are in a low-power state."\nexec {real} "$@"\n'
    )
    (folder / "rocm-smi").chmod(0o755)
    env = {"PATH": f"{folder}:/usr/bin:/bin", "ATOMTRACE_SIM_VRAM_TREE": str(machine.root)}
    container = FakeMachine(rig.tmp_path / "container")
    machine.container(container.root)
    assert read_levels(container.site, env=env) == ({machine.pci(0): IDLE, machine.pci(1): IDLE}, "")
