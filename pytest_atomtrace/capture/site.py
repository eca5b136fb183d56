"""Which GPUs a capture leases, and whether the place of the locks keeps others off them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.gpus import GpuSite, read_topology, visible
from pytest_atomtrace.capture.mounts import container_sign, judge_lock_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_atomtrace.settings import Settings

__all__ = ["check_lock_directory", "find_site"]

_MOUNTS = Path("/proc/self/mountinfo")


def find_site(settings: Settings, engine: str, env: Mapping[str, str]) -> GpuSite | None:
    """The GPUs that a server with this environment would use; None for a simulator, which uses none.

    A simulator on a fake machine (`machine_root`) leases that machine's GPUs. Those of an attached server are not ours
    to lease.

    Raises:
        LeaseError: there is no GPU, or the environment hides or misnames them.

    """
    if engine == "attach" or (engine != "atom" and not settings.machine_root):
        return None
    topology = read_topology(settings.machine)
    if engine == "atom" and not topology.gpus and not settings.machine_root:
        # A stand-in named atom runs anywhere; that the real one cannot is told by its own log.
        return None
    return GpuSite(settings.machine, visible(topology, env))


def check_lock_directory(settings: Settings, *, site: GpuSite | None, env: Mapping[str, str], ci: bool) -> str:
    """A warning about the lock directory's place, "" if it is good.

    Raises:
        LeaseError: see `mounts.judge_lock_directory`.

    """
    try:
        table = _MOUNTS.read_text()
    except OSError:  # no /proc: nothing can be said
        return ""
    return judge_lock_directory(
        settings.lock_directory,
        table=table,
        container=container_sign(settings.machine, env),
        shared=site is not None,
        ci=ci,
    )
