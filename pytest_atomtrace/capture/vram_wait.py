"""The worker's part of waiting for GPU memory: the keeper looks, the worker narrates and decides when it is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.errors import InfraError, LaunchError
from pytest_atomtrace.units import format_seconds

if TYPE_CHECKING:
    from pytest_atomtrace.capture.clock import Clock
    from pytest_atomtrace.capture.keeper_link import KeeperLink
    from pytest_atomtrace.capture.progress import Progress

__all__ = ["wait_for_idle", "wait_for_return"]

_POLL_S = 0.1
# A look through amd-smi takes seconds.
_LOOK_S = 60.0


def wait_for_idle(link: KeeperLink, *, timeout_s: float, progress: Progress, clock: Clock) -> None:
    """Before a launch: wait until the leased GPUs' memory is at its idle level.

    Raises:
        LaunchError: it is not within `timeout_s`; who holds it is named, and left alone.

    """
    excess, tenants = _wait(link, timeout_s, progress, clock)
    blind = link.request("memory", timeout_s=_LOOK_S).get("blind")
    if blind:
        progress.done(f"warning: GPU memory cannot be watched: {blind}")
    if excess:
        raise LaunchError(
            f"no server was launched: after {format_seconds(timeout_s)}, {excess}",
            "Whoever is named below was left alone. Wait for them, choose other GPUs with ROCR_VISIBLE_DEVICES, or "
            "remove the gpu-*.level files of the lock directory to take the present level for idle.",
            tenants or _NOBODY,
        )


def wait_for_return(link: KeeperLink, *, timeout_s: float, progress: Progress, clock: Clock) -> InfraError | None:
    """After a stop: wait until the memory is back; the error that tells of a leak, None if there is none."""
    excess, tenants = _wait(link, timeout_s, progress, clock)
    if not excess:
        return None
    # What stays is not charged to the next server.
    link.request("memory", give_up=True, timeout_s=_LOOK_S)
    return InfraError(
        f"the server is gone and has not given its GPU memory back: after {format_seconds(timeout_s)}, {excess}",
        "A process that hangs in the driver keeps it; `dmesg` and a reset of the GPU (amd-smi reset) are its owner's.",
        tenants or _NOBODY,
    )


_NOBODY = ["no process holds memory there as far as /sys/class/kfd/kfd/proc shows"]


def _wait(link: KeeperLink, timeout_s: float, progress: Progress, clock: Clock) -> tuple[str, list[str]]:
    start_s = clock.monotonic_s()
    said = False
    while True:
        reply = link.request("memory", timeout_s=_LOOK_S)
        excess, listed = str(reply["excess"]), reply["tenants"]
        tenants = [str(one) for one in listed] if isinstance(listed, list) else []
        if not excess or clock.monotonic_s() - start_s >= timeout_s:
            return excess, tenants
        # The driver needs some hundred milliseconds after a process has ended: no news.
        if clock.monotonic_s() - start_s > 1.0:
            text = excess + (f"; {'; '.join(tenants[:4])}" if tenants else "")
            if not said:
                progress.stage(f"waiting: {text}", name="waiting for GPU memory", limit_s=timeout_s)
            progress.update(text)
            said = True
        clock.sleep_s(_POLL_S)
