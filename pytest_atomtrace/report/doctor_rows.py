"""`atomtrace doctor` in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.report.tables import Column, facts, paragraph, table
from pytest_atomtrace.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_atomtrace.capture.doctor import Examination, GpuRow
    from pytest_atomtrace.report.tables import Line

__all__ = ["doctor_lines"]

_COLUMNS = (
    Column("GPU"),
    Column("PCI", left=True),
    Column("part", left=True, drop=1),
    Column("name", left=True),
    Column("CUs"),
    Column("mode", left=True, drop=2),
    Column("memory"),
    Column("cap", drop=3),
    Column("uuid", left=True, drop=4),
    Column("visible", left=True),
)


def doctor_lines(found: Examination, *, width: int) -> Iterator[Line]:
    """GPUs, locks, software, then what stands in the way."""
    yield "title", "machine"
    where = found.container and f"in a container ({found.container})"
    yield from facts(
        [
            ("root", found.machine if found.machine != "/" else "/ (this machine)"),
            ("container", where or "no sign of one"),
            ("ROCm", found.rocm_version or "none in /opt/rocm"),
            ("driver", found.driver_version or "amdgpu gives no version"),
        ],
        width=width,
    )
    yield from _gpus(found, width)
    yield from _locks(found, width)
    yield "", ""
    yield "title", "software"
    rows = [("python", found.python)]
    rows += [(one.name, " at ".join(filter(None, (one.text, one.place))) or "not there") for one in found.packages]
    rows += [("profiler", path) for path in found.profilers] or [("profiler", "no library in ROCm or torch")]
    rows.append(("traces by", found.reader))
    yield from facts(rows, width=width)
    yield "", ""
    yield from facts([("auto is", found.backend)], width=width)
    if not found.problems:
        yield "green", "Nothing stands in the way of a capture from the real server."
        return
    yield "red", "In the way of a capture from the real server:"
    for problem in found.problems:
        yield from paragraph(f"- {problem}", width=width, indent=2, style="")


def _gpus(found: Examination, width: int) -> Iterator[Line]:
    yield "", ""
    hidden = f", {found.hidden} more hidden from us" if found.hidden else ""
    yield "title", f"GPUs: {len(found.gpus)}{hidden}"
    yield from table(_COLUMNS, [_row(gpu) for gpu in found.gpus], width=width)
    variables = ", ".join(f"{name}={value}" for name, value in found.variables.items())
    rows = [("variables", variables or "none set, all are visible")]
    rows += [("tenant", tenant) for tenant in found.tenants]
    if found.gpus:
        rows.append(("throttle", "counters are read" if _counted(found) else "no counters: H11 sees tenants only"))
        rows.append(("tenants", "") if not found.tenants else ("", ""))
    yield from facts([(key, value) for key, value in rows if value], width=width)


def _counted(found: Examination) -> bool:
    return all(gpu.throttle_counters for gpu in found.gpus)


def _row(gpu: GpuRow) -> list[str]:
    used, total = gpu.vram_used_bytes, gpu.vram_total_bytes
    memory = f"{format_bytes(used)} of {format_bytes(total)}" if used is not None and total is not None else "?"
    return [
        str(gpu.index),
        gpu.pci,
        gpu.partition,
        gpu.gfx,
        str(gpu.compute_units),
        gpu.mode,
        memory,
        f"{gpu.power_cap_w} W" if gpu.power_cap_w is not None else "",
        gpu.uuid,
        "yes" if gpu.visible else "no",
    ]


def _locks(found: Examination, width: int) -> Iterator[Line]:
    place = found.lock_place
    yield "", ""
    yield "title", "lease"
    rows = [("directory", place.path if place.exists else f"{place.path} (made at the first capture)")]
    rows.append(("mount", place.mount or "unknown"))
    rows += [("held", f"{holder.lock} by {holder.text}") for holder in place.holders] or [("held", "by nobody")]
    rows += [("waiting", text) for text in place.queue] or [("waiting", "nobody")]
    yield from facts(rows, width=width)
    if place.warning:
        yield from paragraph(place.warning, width=width, style="yellow")
