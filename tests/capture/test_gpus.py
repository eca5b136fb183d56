"""GPUs of fake machines: what is there, what a process would see, and what errors say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.capture.cards import find_cards
from pytest_atomtrace.capture.gpus import Topology, read_topology, visible
from pytest_atomtrace.capture.tenants import foreign, holders_of_kfd, read_tenants
from pytest_atomtrace.errors import LeaseError
from tests.capture.machines import GIB, FakeMachine

if TYPE_CHECKING:
    from pathlib import Path


def machine(tmp_path: Path, cards: int = 2, partitions: int = 1) -> FakeMachine:
    return FakeMachine(tmp_path / "machine", cards, partitions).build()


def test_nodes_with_simds_are_gpus_and_say_what_they_are(tmp_path: Path) -> None:
    found = read_topology(machine(tmp_path, cards=8).root)
    assert [gpu.index for gpu in found.gpus] == list(range(8))
    last = found.gpus[7]
    assert (last.gfx, last.compute_units, last.device_id) == ("gfx950", 256, 0x75A3)
    assert (last.node, last.gpu_id, last.render_minor) == (8, 40007, 135)
    assert last.pci == "0000:75:00.0"
    assert last.uuid == "GPU-a1b2c3d400000007"
    assert last.partitions == 1


def test_partitions_are_gpus_of_one_card_and_one_lock(tmp_path: Path) -> None:
    site = machine(tmp_path, cards=2, partitions=8).site
    assert len(site.gpus) == 16
    assert site.cards == ("0000:05:00.0", "0000:15:00.0")
    assert [gpu.partition for gpu in site.gpus[:9]] == [*range(8), 0]
    assert site.gpus[0].compute_units == 32
    assert site.gpus[9].label == "GPU 9 (0000:15:00.0, partition 1)"


@pytest.mark.parametrize(
    ("version", "name"), [(90402, "gfx942"), (90500, "gfx950"), (90010, "gfx90a"), (110000, "gfx1100")]
)
def test_gfx_versions_read_as_llvm_reads_them(tmp_path: Path, version: int, name: str) -> None:
    fake = machine(tmp_path, cards=1)
    fake.node(1, {"simd_count": 4, "gfx_target_version": version, "drm_render_minor": 128}, gpu_id=7)
    assert read_topology(fake.root).gpus[0].gfx == name


def test_without_the_drivers_device_there_is_no_gpu_whatever_sysfs_shows(tmp_path: Path) -> None:
    fake = machine(tmp_path)
    (fake.root / "dev" / "kfd").unlink()
    found = read_topology(fake.root)
    assert found.gpus == ()
    assert "--device /dev/kfd" in found.why_none
    with pytest.raises(LeaseError, match=r"no GPU can be leased: there is no .*/dev/kfd"):
        visible(found, {})


def test_gpus_that_a_container_was_not_given_are_hidden_and_not_counted(tmp_path: Path) -> None:
    fake = machine(tmp_path, cards=4)
    (fake.root / "dev/dri/renderD128").unlink()
    # What the kernel's device cgroup answers with EPERM is a directory here: root reads any file.
    properties = fake.root / "sys/class/kfd/kfd/topology/nodes/2/properties"
    properties.unlink()
    properties.mkdir()
    found = read_topology(fake.root)
    assert found.hidden == 2
    assert [(gpu.index, gpu.pci) for gpu in found.gpus] == [(0, "0000:25:00.0"), (1, "0000:35:00.0")]


@pytest.mark.parametrize(
    ("env", "indices"),
    [
        ({}, [0, 1, 2, 3]),
        ({"ROCR_VISIBLE_DEVICES": "3, 1"}, [3, 1]),
        ({"ROCR_VISIBLE_DEVICES": "GPU-a1b2c3d400000002,0"}, [2, 0]),
        ({"ROCR_VISIBLE_DEVICES": "gpu-A1B2C3D400000001"}, [1]),
        ({"HIP_VISIBLE_DEVICES": "2"}, [2]),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, [1, 0]),
        ({"HIP_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "1"}, [0]),
        ({"HIP_VISIBLE_DEVICES": "", "CUDA_VISIBLE_DEVICES": "1"}, [1]),
        ({"ROCR_VISIBLE_DEVICES": "3,2,1", "HIP_VISIBLE_DEVICES": "2,0"}, [1, 3]),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_visible_devices_are_resolved_as_the_runtime_does(
    tmp_path: Path, env: dict[str, str], indices: list[int]
) -> None:
    assert [gpu.index for gpu in visible(read_topology(machine(tmp_path, cards=4).root), env)] == indices


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"ROCR_VISIBLE_DEVICES": "0,9"}, r"ROCR_VISIBLE_DEVICES=0,9: there is no GPU '9' among the 4 \(0 to 3\)"),
        ({"ROCR_VISIBLE_DEVICES": "GPU-ffff"}, r"there is no GPU 'GPU-ffff'"),
        ({"ROCR_VISIBLE_DEVICES": "GPU-a1b2"}, r"there is no GPU 'GPU-a1b2'"),  # a prefix of all four
        ({"ROCR_VISIBLE_DEVICES": "0,1,0"}, r"names GPU 0 \(0000:05:00.0\) twice"),
        ({"ROCR_VISIBLE_DEVICES": ""}, r"ROCR_VISIBLE_DEVICES is empty, which hides every GPU"),
        ({"HIP_VISIBLE_DEVICES": "-1"}, r"there is no GPU '-1'"),
        (
            {"ROCR_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": "2"},
            r"HIP_VISIBLE_DEVICES=2: there is no GPU '2' among the 2 that ROCR_VISIBLE_DEVICES leaves \(0 to 1\)",
        ),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_a_wrong_visible_device_is_an_error_and_no_smaller_set(
    tmp_path: Path, env: dict[str, str], message: str
) -> None:
    with pytest.raises(LeaseError, match=message):
        visible(read_topology(machine(tmp_path, cards=4).root), env)


def test_no_gpu_at_all_says_why() -> None:
    with pytest.raises(LeaseError, match="because"):
        visible(Topology((), 0, "because"), {})


def test_a_card_tells_memory_partitions_cap_and_sensors(tmp_path: Path) -> None:
    fake = machine(tmp_path)
    card = find_cards(fake.root, fake.site.cards)[fake.pci(1)]
    assert card.vram_used == 300 << 20
    assert card.vram_total == 288 * GIB
    assert (card.compute_partition, card.memory_partition, card.power_cap_w) == ("SPX", "NPS1", 1400)
    assert card.sensors == {"gfx_mhz": 2400, "junction_c": 61}


@pytest.mark.parametrize("revision", [6, 7, 8])
def test_throttle_counters_are_read_from_each_known_layout(tmp_path: Path, revision: int) -> None:
    fake = machine(tmp_path, cards=1)
    fake.throttle(0, revision=revision, cycles=900, prochot=1, power=2, socket_thermal=3, vr_thermal=4, hbm_thermal=5)
    counters = find_cards(fake.root, fake.site.cards)[fake.pci(0)].throttle_counters()
    assert counters == {
        "cycles": 900,
        "prochot": 1,
        "power": 2,
        "socket_thermal": 3,
        "vr_thermal": 4,
        "hbm_thermal": 5,
    }


@pytest.mark.parametrize("data", [b"", b"\1\2\1\7", b"\x00\x01\x02\x03" + bytes(200), b"\x00\x01\x01\x05" + bytes(200)])
def test_an_unknown_layout_of_counters_is_not_guessed_at(tmp_path: Path, data: bytes) -> None:
    fake = machine(tmp_path, cards=1)
    (fake.root / fake.device(0) / "gpu_metrics").write_bytes(data)
    assert find_cards(fake.root, fake.site.cards)[fake.pci(0)].throttle_counters() is None


def test_tenants_are_named_with_memory_and_cards(tmp_path: Path) -> None:
    fake = machine(tmp_path)
    fake.tenant(os.getpid(), 0, 3 * GIB)
    fake.tenant(os.getpid(), 1, GIB)
    fake.tenant(4_000_001, 1, 0)
    fake.put("sys/class/kfd/kfd/proc/4000001/queues/0/gpuid", f"{fake.gpu_id(1)}\n")
    fake.put("sys/class/kfd/kfd/proc/4000002/pasid", "1\n")
    mine, other = read_tenants(fake.root, fake.site.gpus)
    assert (mine.pid, mine.vram_bytes, mine.cards) == (os.getpid(), 4 * GIB, (fake.pci(0), fake.pci(1)))
    assert mine.user
    assert str(other) == "pid 4000001, 0 B on 0000:15:00.0"
    assert [tenant.pid for tenant in read_tenants(fake.root, fake.site.gpus[:1])] == [os.getpid()]


def test_in_one_pid_namespace_ours_are_known_by_pid(tmp_path: Path) -> None:
    fake = machine(tmp_path)
    for pid in (11, 12, 13):
        fake.tenant(pid, 0, GIB)
    tenants = read_tenants(fake.root, fake.site.gpus)
    strangers, more = foreign(tenants, ours={11, 12}, before=set(), holding=2)
    assert [tenant.pid for tenant in strangers] == [13]
    assert more == 0


def test_inside_a_container_ours_are_known_by_difference(tmp_path: Path) -> None:
    fake = machine(tmp_path)
    for pid in (90001, 90002, 90003, 90004):
        fake.tenant(pid, 0, GIB)
    tenants = read_tenants(fake.root, fake.site.gpus)
    # Our two processes are 21 and 22 in here; the host calls them something else.
    assert [tenant.pid for tenant in foreign(tenants, ours={21, 22}, before={90001, 90002}, holding=2)[0]] == [
        90001,
        90002,
    ]
    assert foreign(tenants, ours={21, 22}, before={90001, 90002}, holding=2)[1] == 0
    assert foreign(tenants, ours={21, 22}, before={90001}, holding=2)[1] == 1


def test_who_holds_the_drivers_device_is_seen_in_its_descriptors(tmp_path: Path) -> None:
    fake = machine(tmp_path)
    assert holders_of_kfd(fake.root, [os.getpid(), 2**22 + 1]) == set()
    with (fake.root / "dev" / "kfd").open():
        assert holders_of_kfd(fake.root, [os.getpid(), 2**22 + 1]) == {os.getpid()}
