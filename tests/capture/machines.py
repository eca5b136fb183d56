"""Fake machines: file trees shaped as /sys, /dev and /opt of a GPU host, made up by hand.

Nothing here was recorded on a real machine. Values follow the kernel's documentation and public sources (an MI355X
has 256 CUs and PCI device id 0x75a3); what an owner of GPUs writes with ``atomtrace doctor --dump`` is the real thing.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.gpus import GpuSite, read_topology

if TYPE_CHECKING:
    from collections.abc import Mapping

GIB = 1 << 30
MI355X = {"device_id": 0x75A3, "gfx_target_version": 90500, "simd_count": 1024, "simd_per_cu": 4}


@dataclass
class FakeMachine:
    """A tree below `root` with one CPU node and `cards` cards of `partitions` KFD nodes each."""

    root: Path
    cards: int = 2
    partitions: int = 1
    driver: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def build(self) -> FakeMachine:
        for folder in ("dev/dri", "sys/class/kfd/kfd/proc", "opt/rocm/.info", "opt/rocm/lib", "proc/sys/kernel/random"):
            (self.root / folder).mkdir(parents=True)
        (self.root / "FAKE").write_text("a made-up machine for tests\n")
        self.put("dev/kfd", "")
        self.put("opt/rocm/.info/version", "7.0.2\n")
        self.put("opt/rocm/lib/librocprofiler-sdk.so.1.0.0", "not a library, only mapped\n")
        self.put("sys/module/amdgpu/version", "6.14.14\n")
        self.put("proc/sys/kernel/random/boot_id", "11111111-2222-3333-4444-555555555555\n")
        self.node(0, {"simd_count": 0, "cpu_cores_count": 96}, gpu_id=0)
        for card in range(self.cards):
            for part in range(self.partitions):
                index = card * self.partitions + part
                facts = {
                    **MI355X,
                    "simd_count": 1024 // self.partitions,
                    "domain": 0,
                    # partition << 28 | bus << 8 | device << 3 | function
                    "location_id": (part << 28 if self.partitions > 1 else 0) | self.bus(card) << 8,
                    "drm_render_minor": 128 + index,
                    "unique_id": 0xA1B2C3D400000000 + index,
                }
                self.node(1 + index, facts, gpu_id=self.gpu_id(index))
                self.put(f"dev/dri/renderD{128 + index}", "")
            self.card(card)
        return self

    def node(self, number: int, facts: Mapping[str, int], *, gpu_id: int) -> None:
        place = f"sys/class/kfd/kfd/topology/nodes/{number}"
        self.put(f"{place}/properties", "".join(f"{key} {value}\n" for key, value in facts.items()))
        self.put(f"{place}/gpu_id", f"{gpu_id}\n")

    def card(self, number: int) -> None:
        device = self.device(number)
        files = {
            "uevent": f"DRIVER=amdgpu\nPCI_ID=1002:75A3\nPCI_SLOT_NAME={self.pci(number)}\n",
            "mem_info_vram_used": f"{300 << 20}\n",
            "mem_info_vram_total": f"{288 * GIB}\n",
            "current_compute_partition": "SPX\n" if self.partitions == 1 else "CPX\n",
            "current_memory_partition": "NPS1\n",
            "hwmon/hwmon0/power1_cap": "1400000000\n",
            "hwmon/hwmon0/freq1_input": "2400000000\n",
            "hwmon/hwmon0/temp2_input": "61000\n",
        }
        for name, text in files.items():
            self.put(f"{device}/{name}", text)
        self.throttle(number)

    def throttle(self, number: int, *, revision: int = 7, **counters: int) -> None:
        """Write gpu_metrics with these counters (names of `cards.THROTTLES` and cycles)."""
        names = ("cycles", "prochot", "power", "socket_thermal", "vr_thermal", "hbm_thermal")
        values = [counters.get(name, 0) for name in names]
        offset = 32 if revision == 6 else 40
        data = struct.pack("<HBB", 2208, 1, revision).ljust(offset, b"\0") + struct.pack("<6I", *values)
        path = self.root / self.device(number) / "gpu_metrics"
        path.write_bytes(data.ljust(256, b"\0"))

    def tenant(self, pid: int, gpu: int, size: int) -> None:
        """Let KFD list a process with memory on a GPU."""
        self.put(f"sys/class/kfd/kfd/proc/{pid}/vram_{self.gpu_id(gpu)}", f"{size}\n")

    def used(self, card: int, size: int | None = None) -> int:
        path = self.root / self.device(card) / "mem_info_vram_used"
        if size is not None:
            path.write_text(f"{size}\n")
        return int(path.read_text())

    def drive(self, *, delay_s: float = 0.0) -> None:
        """Start what stands for the kernel driver; see the simulator's driver.py."""
        argv = [sys.executable, "-m", "pytest_atomtrace.simulator.driver", str(self.root), str(delay_s)]
        root = Path(__file__).parents[2]
        self.driver = subprocess.Popen(argv, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.driver.stdout is not None
        assert self.driver.stdout.readline() == b"driving\n"

    def end(self) -> None:
        if self.driver is not None:
            self.driver.communicate(timeout=10)

    def container(self, root: Path) -> Path:
        """What a container shows of this machine that got its devices and not its sysfs: topology, no memory."""
        for name in ("dev", "sys/class/kfd/kfd/topology", "proc", "opt"):
            shutil.copytree(self.root / name, root / name)
        return root

    def put(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    @property
    def site(self) -> GpuSite:
        return GpuSite(self.root, read_topology(self.root).gpus)

    @staticmethod
    def bus(card: int) -> int:
        return 0x05 + 0x10 * card

    def pci(self, card: int) -> str:
        return f"0000:{self.bus(card):02x}:00.0"

    @staticmethod
    def device(card: int) -> str:
        return f"sys/class/drm/card{card + 1}/device"

    @staticmethod
    def gpu_id(index: int) -> int:
        return 40000 + index
