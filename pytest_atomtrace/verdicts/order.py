"""Order of kernels within a step: exact, in every steady step of every selected rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pytest_atomtrace.errors import ConfigError, InsufficientStepsError
from pytest_atomtrace.trace.data import KERNEL
from pytest_atomtrace.trace.names import Pattern, short_name
from pytest_atomtrace.verdicts.evidence import block, count_of, listed, on_ranks, step_rows
from pytest_atomtrace.verdicts.missing_steps import few_steps_hint
from pytest_atomtrace.verdicts.occurrences import matching_ids, occurrences
from pytest_atomtrace.verdicts.outcome import Outcome, Verdict
from pytest_atomtrace.verdicts.question import parse_pattern, refuse_ranks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pytest_atomtrace.trace.data import RankData, Step
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["kernel_order"]

# Calls shown before and after the place where the order breaks.
AROUND = 3


def kernel_order(trace: TraceView, names: Sequence[str], *, during: str, ranks: str | Sequence[str]) -> Verdict:
    """Judge that the calls of `names`, taken together, repeat the given sequence in every steady step.

    The order of two calls is that of their starts on one stream; on two streams it exists only where one ends
    before the other starts, so an overlap breaks it.

    Raises:
        ConfigError: fewer than two names.
        InconclusiveError: the trace cannot answer.

    """
    if isinstance(names, str) or len(names) < 2:
        raise ConfigError(f"an order needs a list of at least two names, got {names!r}")
    patterns = [parse_pattern(name) for name in names]
    refuse_ranks(ranks, "all")
    trace.require("steps")
    trace.require_kind(during)
    selected = trace.select_ranks(ranks)
    wanted = " -> ".join(names)
    check = f"order {wanted} during {during}"
    seen_steps = 0
    repeats = 0
    for rank in selected:
        steps = trace.countable_steps(rank, during)
        if not steps:
            raise InsufficientStepsError(during, "an order", 0, 1, rank=rank.name, hint=few_steps_hint(trace, during))
        masks = np.stack([matching_ids(rank, pattern) for pattern in patterns])
        for step in steps:
            rows = _calls(rank, step, masks)
            problem = _first_break(rank, rows, masks)
            if problem is not None:
                position, words = problem
                lines = _lines(trace, rank, step, rows, position, names, during)
                sentence = f"The order {wanted} breaks in {during} step {step.index} of {rank.name}: {words}."
                facts: dict[str, str | int | float | bool] = {
                    "rank": rank.name,
                    "step": step.index,
                    "position": position,
                }
                return Verdict(check, Outcome.FAIL, sentence, lines, facts=facts)
            repeats = len(rows) // len(names)
        seen_steps += len(steps)
    sentence = (
        f"The order {wanted} holds {count_of(repeats, 'time')} in each of {count_of(seen_steps, during + ' step')} "
        f"{on_ranks([rank.name for rank in selected])}."
    )
    return Verdict(check, Outcome.PASS, sentence, facts={"steps": seen_steps, "repeats": repeats})


def _calls(rank: RankData, step: Step, masks: NDArray[np.bool_]) -> NDArray[np.int32]:
    rows = step.rows[rank.kind[step.rows] == KERNEL]
    asked: NDArray[np.bool_] = np.asarray(masks.any(axis=0))
    found: NDArray[np.int32] = rows[asked[rank.name_id[rows]]]
    return found


def _first_break(rank: RankData, rows: NDArray[np.int32], masks: NDArray[np.bool_]) -> tuple[int, str] | None:
    """Position of the first call out of place and what is wrong there, None if the order holds."""
    length = len(masks)
    if not len(rows):
        return 0, "none of these kernels is called"
    for position, row in enumerate(rows.tolist()):
        if not masks[position % length][rank.name_id[row]]:
            return (
                position,
                f"call {position + 1} of {len(rows)} is {short_name(rank.names[rank.name_id[row]], 60)}",
            )
        if position == 0:
            continue
        before = int(rows[position - 1])
        if rank.stream[before] != rank.stream[row]:
            end_ns = int(rank.start_ns[before] + rank.dur_ns[before])
            if end_ns > int(rank.start_ns[row]):
                return position, (
                    f"call {position + 1} starts on stream {rank.stream[row]} while call {position} still runs on "
                    f"stream {rank.stream[before]}, so neither is first"
                )
    if len(rows) % length:
        return len(rows) - 1, f"{count_of(len(rows), 'call')} do not fill whole rounds of {length}"
    return None


def _lines(
    trace: TraceView,
    rank: RankData,
    step: Step,
    rows: NDArray[np.int32],
    position: int,
    names: Sequence[str],
    during: str,
) -> tuple[str, ...]:
    low = max(0, position - AROUND)
    around = []
    for index in range(low, min(len(rows), position + AROUND + 1)):
        row = int(rows[index])
        mark = "  <-" if index == position else ""
        expected = names[index % len(names)]
        shown = short_name(rank.names[rank.name_id[row]], 60)
        around.append(f"{index + 1:>4}  stream {rank.stream[row]}  {shown}  (expected {expected}){mark}")
    ranks = [rank]
    missing = [name for name in names if not occurrences(ranks, Pattern.parse(name)).count_all("kernel")]
    return block(
        [
            *step_rows(step),
            ("calls", around),
            ("never", listed(missing)),
            *trace.footer(None, during, step=step),
        ]
    )
