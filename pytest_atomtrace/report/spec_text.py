"""A drafted spec as commented YAML."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.public_case import public_fields
from pytest_atomtrace.cases.case import Case
from pytest_atomtrace.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_atomtrace.verdicts.spec_draft import SpecDraft

__all__ = ["spec_lines"]

# Head room over what one capture showed: a step's median repeats within a few percent, its tail does not.
STEP_P50, STEP_P99, FAMILY = 1.05, 1.15, 1.10
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./+-]*(?:::?[A-Za-z0-9_./+-]+)*")
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def spec_lines(draft: SpecDraft, *, schema: str) -> Iterator[str]:
    """The text of the file, line by line; `schema` is what the modeline names."""
    yield f"# yaml-language-server: $schema={schema}"
    yield f"# Drafted by: atomtrace spec new --from-capture {draft.source}"
    yield f"# {draft.steps} steady decode steps on {draft.ranks} rank{'s' * (draft.ranks != 1)}. Read it as a proposal:"
    yield "# keep what the change must not break, shorten tuned names to a glob (mfma_moe1_*), drop the rest."
    yield ""
    yield from _case(draft)
    yield ""
    yield from _kernels(draft)
    if draft.ranks > 1:
        yield ""
        yield "# Every rank of a tensor-parallel group calls the same kernels."
        yield "ranks:"
        yield "  decode: {counts: true}"
    yield from _steps(draft)


def scalar(value: object) -> str:
    """A value as YAML reads it back."""
    if isinstance(value, (bool, int, float)) or value is None:
        return json.dumps(value)
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return json.dumps(text)


def _case(draft: SpecDraft) -> Iterator[str]:
    yield "case:"
    if draft.case is None:
        yield "  # The directory holds no manifest, so fill in what was measured."
        yield "  model: ORGANISATION/MODEL"
        yield f"  tp: {draft.ranks}"
        return
    values, hidden = public_fields(draft.case)
    for field, name in hidden:
        where = "set it where pytest runs" if field == "env" else f"add it to {field}"
        yield f"  # {name} held a secret, which no capture keeps; before a launch {where}."
    for one in dataclasses.fields(Case):
        value = values[one.name]
        if value == one.default or (not value and one.default == ()):
            continue
        if isinstance(value, dict):
            pairs = ", ".join(f"{scalar(key)}: {json.dumps(str(item))}" for key, item in value.items())
            yield f"  {one.name}: {{{pairs}}}"
        elif isinstance(value, list):
            yield f"  {one.name}: [{', '.join(json.dumps(str(item)) for item in value)}]"
        else:
            yield f"  {one.name}: {scalar(value)}"


def _kernels(draft: SpecDraft) -> Iterator[str]:
    yield "kernels:"
    if draft.kernels:
        yield "  # Exact calls in every steady decode step of every rank, longest first."
    for kernel in draft.kernels:
        yield f"  - called: {scalar(kernel.name)}  # {kernel.family}, {kernel.share * 100:.1f} % of kernel time"
        yield "    during: decode"
        yield f"    per_step: {kernel.per_step}"
    if draft.prefill_ops:
        yield "  # CPU ops: they run in eager prefill only, replayed graphs do not dispatch them."
    for op in draft.prefill_ops:
        yield f"  - called: {scalar(op)}"
        yield "    during: prefill"
        yield "    layer: op"
    yield "  # CK's grouped GEMMs, a fallback of aiter's fused_moe.py (moe_ck2stages_gemm1_* is no kernel's name)."
    yield "  - not_called: 're:kernel_moe_(mx)?gemm'"
    yield "    during: decode"
    yield "    example: 'void ck::kernel_moe_mxgemm<ck::Grid>(int)'"
    if draft.families:
        yield f"  # GPU time per decode step by family; {(FAMILY - 1) * 100:.0f} % over what was measured."
    for family in draft.families:
        yield f"  - time: family:{family.family}  # {format_duration(family.p50_ns)}, {family.share * 100:.1f} %"
        yield "    during: decode"
        yield f"    per_step: {_budget(family.p50_ns, FAMILY)}"


def _steps(draft: SpecDraft) -> Iterator[str]:
    yield ""
    if draft.p50_ns is None:
        yield "# No time budgets: the capture's times cannot be believed, or it has too few steady steps."
        return
    if draft.simulated:
        yield "# The simulator made these times up: fit for trying things out, not for a gate."
    yield "# GPU busy time per decode step on the slowest rank, with head room for one machine's noise."
    yield "steps:"
    yield "  decode:"
    yield f"    p50: {_budget(draft.p50_ns, STEP_P50)}  # measured {format_duration(draft.p50_ns)}"
    if draft.p99_ns is not None:
        yield f"    p99: {_budget(draft.p99_ns, STEP_P99)}  # measured {format_duration(draft.p99_ns)}"


def _budget(ns: int, factor: float) -> str:
    """Rounded up to three digits, so that it never is tighter than it says."""
    value_us = ns * factor / 1e3
    step = 10 ** (math.floor(math.log10(value_us)) - 2) if value_us > 0 else 1
    value_us = math.ceil(value_us / step) * step
    return f"{value_us / 1e3:.4g} ms" if value_us >= 1e3 else f"{value_us:.4g} us"
