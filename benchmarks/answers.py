"""What contenders say, compared before their times count.

The common answer has an entry per rank: `kernels` (name -> count and sum of durations in ns) and, where the
contender knows steps, `decode_ns` (GPU time of each decode step).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["Verdict", "judge"]

_Answer: TypeAlias = "list[dict[str, Any]]"


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right as far as it goes, and what it covers or how it is wrong."""

    right: bool
    text: str


def judge(kind: str, text: bytes, reference: _Answer) -> Verdict:
    """Compare an answer with the reference; `kind` is what the contender answers: common, atom or summary."""
    if kind == "atom":
        found = re.search(rb"Iterations:\*\* (\d+)", text)
        return _steps(int(found[1]) if found else 0, reference, "host annotations only, no kernels")
    if kind == "summary":
        ranks = json.loads(text)["ranks"]
        steps = sum(rank["steps"].get("decode", 0) for rank in ranks)
        kernels = sum(rank["kernels"] for rank in ranks)
        wanted = sum(count for rank in reference for count, _ in rank["kernels"].values())
        if kernels != wanted:
            return Verdict(False, f"{kernels:,} kernels of {wanted:,}")
        return _steps(steps, reference, "phases, ranks, families, health")
    return _common(json.loads(text), reference)


def _steps(steps: int, reference: _Answer, covers: str) -> Verdict:
    wanted = sum(len(rank["decode_ns"]) for rank in reference)
    return Verdict(steps == wanted, covers if steps == wanted else f"{steps} decode steps of {wanted}")


def _common(answer: _Answer, reference: _Answer) -> Verdict:
    if len(answer) != len(reference):
        return Verdict(False, f"{len(answer)} ranks of {len(reference)}")
    for mine, theirs in zip(answer, reference, strict=True):
        counts = {name: count for name, (count, _) in mine["kernels"].items()}
        wanted = {name: count for name, (count, _) in theirs["kernels"].items()}
        if counts != wanted:
            return Verdict(False, f"other kernel counts ({sum(counts.values()):,} of {sum(wanted.values()):,})")
        total, right = _total(mine), _total(theirs)
        if mine["kernels"] != theirs["kernels"]:
            return Verdict(False, f"counts right, kernel time off by {100 * (total / right - 1):+.1f} %")
        if mine.get("decode_ns") not in (None, theirs["decode_ns"]):
            return Verdict(False, "other GPU times of decode steps")
    steps = all(rank.get("decode_ns") is not None for rank in answer)
    return Verdict(True, "kernels by name, decode steps" if steps else "kernels by name")


def _total(rank: dict[str, Any]) -> int:
    return sum(ns for _, ns in rank["kernels"].values())
