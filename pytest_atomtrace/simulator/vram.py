"""A worker's memory on a pretended machine: entries of KFD's process list in a file tree below ATOMTRACE_SIM_VRAM_TREE.

The tree is shaped as a machine's root (``sys/class/kfd/kfd/...``) and is made by whoever pretends the machine. The
worker only says what it holds; the driver's part, the sums per card and the freeing of a dead process's memory, is
``python -m pytest_atomtrace.simulator.driver TREE``, which must not be a child of the server: a driver survives it.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

__all__ = ["allocate", "map_libraries"]

_GIB = 1 << 30


def allocate(tree: str, rank: int, *, gib: float, leak: bool) -> None:
    """Enter this process with `gib` on the rank-th visible GPU; a leak stays when the process is gone."""
    kfd = Path(tree) / "sys" / "class" / "kfd" / "kfd"
    gpus = _gpu_ids(kfd)
    if not gpus:
        raise RuntimeError(f"No HIP GPUs are available (no GPU node below {kfd})")
    gpu = gpus[rank % len(gpus)]
    entry = kfd / "proc" / str(os.getpid())
    queue = entry / "queues" / "0"
    queue.mkdir(parents=True, exist_ok=True)
    (queue / "gpuid").write_text(f"{gpu}\n")
    if leak:
        (entry / "leak").touch()
    (entry / f"vram_{gpu}").write_text(f"{int(gib * _GIB)}\n")


def _gpu_ids(kfd: Path) -> list[int]:
    nodes = sorted((kfd / "topology" / "nodes").iterdir(), key=lambda node: int(node.name))
    found = [int((node / "gpu_id").read_text()) for node in nodes]
    gpus = [gpu for gpu in found if gpu]
    for name in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        words = os.environ.get(name, "")
        if words and all(word.strip().isdecimal() for word in words.split(",")):
            gpus = [gpus[int(word)] for word in words.split(",") if int(word) < len(gpus)]
    return gpus


def map_libraries(tree: str) -> list[mmap.mmap]:
    """Map the tree's shared libraries, so that this process's maps name them as a real worker's do."""
    found = []
    for path in sorted((Path(tree) / "opt").rglob("*.so*")):
        with path.open("rb") as stream:
            found.append(mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ))
    return found
