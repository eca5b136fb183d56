"""`atomtrace doctor`: what it says of a machine, and what it writes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.capture.dump import dump_machine, plant_machine
from pytest_atomtrace.capture.gpus import read_topology
from pytest_atomtrace.capture.identity import Identity
from pytest_atomtrace.capture.lease import QUEUE_NAME, lock_name
from pytest_atomtrace.capture.locks import HostLock
from pytest_atomtrace.capture.tickets import TicketQueue
from pytest_atomtrace.cli import main
from tests.capture.machines import GIB, FakeMachine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    for name in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return FakeMachine(tmp_path / "machine", cards=2).build()


def doctor(machine: FakeMachine, tmp_path: Path, *words: str) -> int:
    return main(["doctor", "--machine-root", str(machine.root), "--lock-dir", str(tmp_path / "locks"), *words])


def test_gpus_memory_tenants_and_the_visible_set_are_shown(
    machine: FakeMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("COLUMNS", "160")  # a narrow table breaks "1400 W" over two lines
    machine.used(0, 100 * GIB)
    machine.tenant(4_100_000, 0, 99 * GIB)
    doctor(machine, tmp_path)
    text = capsys.readouterr().out
    rows = [line.split() for line in text.splitlines() if "gfx950" in line]
    assert [row[:3] for row in rows] == [["0", "0000:05:00.0", "gfx950"], ["1", "0000:15:00.0", "gfx950"]]
    assert [row[-1] for row in rows] == ["no", "yes"]
    assert "100.0 GiB of 288.0 GiB" in text
    assert "1400 W" in text
    assert "pid 4100000, 99.0 GiB on 0000:05:00.0" in text
    assert "variables ROCR_VISIBLE_DEVICES=1" in text
    assert "7.0.2" in text
    assert "librocprofiler-sdk.so.1.0.0" in text


def test_who_holds_a_gpu_and_who_waits_are_shown_and_nothing_is_touched(
    machine: FakeMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not (tmp_path / "locks").exists()
    doctor(machine, tmp_path)
    assert "made at the first capture" in capsys.readouterr().out
    assert not (tmp_path / "locks").exists()

    queue = TicketQueue(tmp_path / "locks" / QUEUE_NAME)
    lock = HostLock(tmp_path / "locks" / lock_name(machine.pci(1)))
    assert lock.try_acquire({"user": "alice", "pid": 12, "test": "test_a", "since": "08:15"})
    ticket = queue.take(Identity.own(), {"user": "bob", "pid": 13, "test": "test_b", "since": "08:20"})
    before = sorted(path.name for path in (tmp_path / "locks").rglob("*"))
    doctor(machine, tmp_path, "--json")
    place = json.loads(capsys.readouterr().out)["lock_place"]
    assert place["holders"] == [{"lock": "gpu-0000_15_00.0.lock", "text": "alice, pid 12 (test_a), since 08:15"}]
    assert place["queue"] == ["bob, pid 13 (test_b), since 08:20"]
    assert sorted(path.name for path in (tmp_path / "locks").rglob("*")) == before
    ticket.drop()
    lock.release()


def test_the_exit_code_says_whether_a_real_capture_could_run(
    machine: FakeMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "checkout"
    for module in ("atom/entrypoints", "aiter"):
        (root / module).mkdir(parents=True)
        (root / module.partition("/")[0] / "__init__.py").touch()
    assert doctor(machine, tmp_path) == 1
    assert "atom is not importable (--atom-root, --atom-python)" in capsys.readouterr().out
    assert doctor(machine, tmp_path, "--root", str(root)) == 0
    text = capsys.readouterr().out
    assert "Nothing stands in the way" in text
    assert "auto is   atom" in text
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "5")
    assert doctor(machine, tmp_path, "--root", str(root)) == 1
    assert "HIP_VISIBLE_DEVICES=5: there is no GPU '5'" in capsys.readouterr().out


def test_memory_that_cannot_be_watched_is_a_problem(
    machine: FakeMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (machine.root / machine.device(0) / "mem_info_vram_used").unlink()
    assert doctor(machine, tmp_path) == 1
    assert "GPU memory cannot be watched: no mem_info_vram_used of 0000:05:00.0" in capsys.readouterr().out


def test_a_dump_holds_what_a_capture_reads_and_can_be_looked_at_elsewhere(
    machine: FakeMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.throttle(1, cycles=77, hbm_thermal=200)
    doctor(machine, tmp_path, "--dump", str(tmp_path / "machine.json"))
    assert f"Wrote the machine's sysfs facts to {tmp_path / 'machine.json'}" in capsys.readouterr().out
    dump = json.loads((tmp_path / "machine.json").read_text())
    assert str(0xA1B2C3D400000000) not in json.dumps(dump), "serial numbers are masked"
    plant_machine(dump, tmp_path / "again")
    here, there = read_topology(machine.root).gpus, read_topology(tmp_path / "again").gpus
    assert [(gpu.pci, gpu.gfx, gpu.compute_units) for gpu in there] == [
        (gpu.pci, gpu.gfx, gpu.compute_units) for gpu in here
    ]
    assert len({gpu.unique_id for gpu in there}) == 2
    assert not {gpu.unique_id for gpu in there} & {gpu.unique_id for gpu in here}
    metrics = f"{machine.device(1)}/gpu_metrics"
    assert (tmp_path / "again" / metrics).read_bytes() == (machine.root / metrics).read_bytes()
    assert dump_machine(tmp_path / "again")["gpus"] == 2


def test_a_dump_into_a_directory_that_is_not_there_is_refused(
    machine: FakeMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(machine, tmp_path, "--dump", str(tmp_path / "misspelt" / "machine.json")) == 2
    assert f"--dump: {tmp_path / 'misspelt'} is no directory; make it first: mkdir -p" in capsys.readouterr().err
    assert not (tmp_path / "misspelt").exists()


def test_a_dump_from_elsewhere_cannot_write_outside_its_place(tmp_path: Path) -> None:
    plant_machine({"files": {"../outside": "x", "/etc/absolute": "y", "inside": "z"}}, tmp_path / "root")
    assert [path.name for path in tmp_path.rglob("*")] == ["root", "inside"]
