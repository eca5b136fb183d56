"""The stand-ins of rocm-smi and amd-smi: real shapes, numbers of the pretended machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.capture.machines import GIB, FakeMachine

ROOT = Path(__file__).parents[2]


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path / "machine", cards=2).build()


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-m", "pytest_atomtrace.simulator", "--write-tools", str(tmp_path / "bin")],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.split() == [str(tmp_path / "bin" / name) for name in ("rocm-smi", "amd-smi")]
    return tmp_path / "bin"


def call(tools: Path, machine: FakeMachine | None, *argv: str, **controls: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": f"{tools}:{os.environ['PATH']}", **controls}
    if machine is not None:
        env["ATOMTRACE_SIM_VRAM_TREE"] = str(machine.root)
    return subprocess.run([str(tools / argv[0]), *argv[1:]], capture_output=True, text=True, check=False, env=env)


def answer(tools: Path, machine: FakeMachine, *argv: str, **controls: str) -> object:
    done = call(tools, machine, *argv, "--json", **controls)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_rocm_smi_tells_bytes_as_text_by_card_and_processes_as_comma_lists(tools: Path, machine: FakeMachine) -> None:
    machine.used(1, 5 * GIB)
    machine.tenant(os.getpid(), 1, 3 * GIB)
    total = str(288 * GIB)
    assert answer(tools, machine, "rocm-smi", "--showmeminfo", "vram", "--showbus") == {
        "card0": {
            "PCI Bus": "0000:05:00.0",
            "VRAM Total Memory (B)": total,
            "VRAM Total Used Memory (B)": str(300 << 20),
        },
        "card1": {
            "PCI Bus": "0000:15:00.0",
            "VRAM Total Memory (B)": total,
            "VRAM Total Used Memory (B)": str(5 * GIB),
        },
    }
    name = Path("/proc/self/comm").read_text().strip()
    assert answer(tools, machine, "rocm-smi", "--showpids") == {
        "system": {f"PID{os.getpid()}": f"{name}, 1, {3 * GIB}, 0, 0"}
    }
    text = call(tools, machine, "rocm-smi", "--showmeminfo", "vram", "-d", "1").stdout
    assert f"GPU[1]\t\t: VRAM Total Used Memory (B): {5 * GIB}" in text
    assert "GPU[0]" not in text


@pytest.mark.parametrize(("release", "wrapped"), [("6", False), ("7", True)])
def test_amd_smi_has_the_shape_of_its_release(tools: Path, machine: FakeMachine, release: str, wrapped: bool) -> None:
    machine.throttle(0, cycles=900, power=4)
    document = answer(tools, machine, "amd-smi", "metric", "--mem-usage", "--throttle", ATOMTRACE_SIM_SMI=release)
    if wrapped:
        assert isinstance(document, dict)
        document = document["gpu_data"]
    assert isinstance(document, list)
    assert [row["gpu"] for row in document] == [0, 1]
    assert document[0]["mem_usage"]["used_vram"] == {"value": 300, "unit": "MB"}
    assert document[0]["throttle"]["accumulation_counter"] == 900
    assert document[0]["throttle"]["ppt_accumulated"] == 4


def test_amd_smi_lists_addresses_and_processes(tools: Path, machine: FakeMachine) -> None:
    listing = answer(tools, machine, "amd-smi", "list")
    assert isinstance(listing, list)
    assert [(row["gpu"], row["bdf"], row["kfd_id"]) for row in listing] == [
        (0, "0000:05:00.0", 40000),
        (1, "0000:15:00.0", 40001),
    ]
    machine.tenant(os.getpid(), 1, 7)
    rows = answer(tools, machine, "amd-smi", "process")
    assert isinstance(rows, list)
    assert rows[0]["process_list"] == [{"process_info": "No running processes detected"}]
    info = rows[1]["process_list"][0]["process_info"]
    assert (info["pid"], info["memory_usage"]["vram_mem"]) == (os.getpid(), {"value": 7, "unit": "B"})
    assert "GPU: 0" in call(tools, machine, "amd-smi", "list").stdout


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (("amd-smi", "metric", "--mem"), 0, ""),
        (("amd-smi", "mertic"), 2, "invalid choice"),
        (("amd-smi", "metric", "-g", "9"), 1, "Can not find a device: 9"),
        (("rocm-smi", "--showmeminfo", "ram"), 2, "invalid choice"),
        (("rocm-smi", "--showbus", "-d", "2"), 1, "No such device card2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_arguments_end_as_the_tools_do(
    tools: Path, machine: FakeMachine, argv: tuple[str, ...], status: int, words: str
) -> None:
    done = call(tools, machine, *argv)
    assert (done.returncode, words in done.stderr) == (status, True), done.stderr


def test_without_a_pretended_machine_there_are_no_gpus_to_tell_about(tools: Path, machine: FakeMachine) -> None:
    done = call(tools, None, "amd-smi", "list", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "ATOMTRACE_SIM_VRAM_TREE names no pretended machine" in done.stderr
    done = call(tools, machine, "amd-smi", "list", ATOMTRACE_SIM_SMI="5")
    assert "not one of 6, 7" in done.stderr


def test_a_tool_does_not_spend_a_fault_that_strikes_one_server_only(
    tools: Path, machine: FakeMachine, tmp_path: Path
) -> None:
    call(tools, machine, "amd-smi", "list", ATOMTRACE_SIM_ONCE=str(tmp_path / "once"))
    assert not (tmp_path / "once").exists()
