"""Why a trace may lack the steps that a check asks about, and what to change."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_atomtrace.verdicts.evidence import count_of, near_path

if TYPE_CHECKING:
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["few_steps_hint", "no_steps_hint"]


def no_steps_hint(trace: TraceView, kind: str) -> str:
    """What explains that no step of `kind` is in the trace, as far as its case and manifest tell."""
    if kind == "draft":
        return _no_draft(trace)
    if kind == "prefill":
        return _no_prefill(trace)
    if kind == "decode" and trace.case is not None:
        return (
            f"No token after a first one was made in the window: raise osl (now {trace.case.output_tokens}), or "
            f"profile longer; see {_steps_command(trace)}"
        )
    return f"See {_steps_command(trace)}"


def few_steps_hint(trace: TraceView, kind: str) -> str:
    """How to get more steps of `kind` that a check may look at."""
    if kind.startswith("prefill"):
        return (
            "The last step of a window, and one whose kernels lie outside of it, do not count: more requests (conc, "
            f"prompts_per_slot) or a smaller --max-num-batched-tokens make more; see {_steps_command(trace)}"
        )
    if trace.case is None:
        return "Steady steps are counted after the first 5 and before the last 2 of a run of equal steps."
    return (
        f"Raise osl (now {trace.case.output_tokens}) or keep the batch steady "
        f"(prompts_per_slot=1, range_ratio=1.0); see {_steps_command(trace)}"
    )


def _no_draft(trace: TraceView) -> str:
    if trace.case is None:
        return f"Drafts are there with speculative decoding (MTP) only; see {_steps_command(trace)}"
    drafts = trace.case.speculative_tokens
    if not drafts:
        return (
            "The case has no speculative decoding (MTP): its server_args have no --method and "
            "--num-speculative-tokens. Ask about drafts in a case that has them."
        )
    return f"The case asks for {count_of(drafts, 'draft')} a step, so look at what ran: {_steps_command(trace)}"


def _no_prefill(trace: TraceView) -> str:
    workload = trace.manifest.get("workload")
    opened_late = workload.get("window_steps") if isinstance(workload, Mapping) else None
    if opened_late:
        return (
            f"The window was opened when all slots were decoding (--atom-window-steps={opened_late}), after their "
            "prefill: capture without that option for checks of prefill."
        )
    osl = f" (osl is {trace.case.output_tokens})" if trace.case is not None else ""
    return (
        f"The window is short and lies between two prefills{osl}: profile the whole workload, so that requests begin "
        f"inside it, or raise prompts_per_slot for more of them; see {_steps_command(trace)}"
    )


def _steps_command(trace: TraceView) -> str:
    return f"atomtrace steps {shlex.quote(near_path(trace.directory))}"
