"""A baseline on disk: what one case measured on one kind of machine, to be reviewed and committed.

One JSON file per case and hardware, written so that a diff can be read: one metric is one line, one kernel is one
line, in the order of the step; equal content gives equal bytes. No time, path or run id is in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from pytest_atomtrace.verdicts.fingerprint import Fingerprint
    from pytest_atomtrace.verdicts.step_profile import Usage

__all__ = ["SCHEMA", "Baseline"]

SCHEMA = 1
_Facts: TypeAlias = Mapping[str, str | int | float | bool]
_Launches: TypeAlias = "tuple[tuple[int, ...], ...]"


@dataclass(frozen=True)
class Baseline:
    """`metrics`: per name the whole nanoseconds of each launch's windows. `kernels`: calls and nanoseconds per decode
    step, in the order of the step; `ranks`: per kernel the calls of those ranks that differ. `health`: codes of the
    findings, none of them fatal. `recorded`: with what. `untuned`: shapes that AITER has no tuned config for, known
    and accepted.
    """

    case: str
    simulated: bool
    hardware: _Facts
    profiler: _Facts
    model: _Facts
    recorded: _Facts
    environment: _Facts = field(default_factory=dict)
    health: tuple[str, ...] = ()
    metrics: Mapping[str, _Launches] = field(default_factory=dict)
    kernels: Mapping[str, Usage] = field(default_factory=dict)
    ranks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    untuned: tuple[str, ...] = ()

    @property
    def launches(self) -> int:
        """Launches behind it: those of the metric that has most."""
        return max((len(values) for values in self.metrics.values()), default=0)

    def text(self) -> str:
        """The file's content."""
        sections = [
            f' "schema": {SCHEMA}',
            f' "case": {json.dumps(self.case)}',
            f' "simulated": {json.dumps(self.simulated)}',
        ]
        for name in ("hardware", "profiler", "model", "recorded", "environment"):
            facts: _Facts = getattr(self, name)
            sections.append(_section(name, {key: json.dumps(facts[key], ensure_ascii=False) for key in sorted(facts)}))
        sections.append(f' "health": {json.dumps(list(self.health))}')
        if self.untuned:
            sections.append(_listing("untuned", self.untuned))
        metrics = {key: json.dumps([list(one) for one in self.metrics[key]]) for key in sorted(self.metrics)}
        sections.append(_section("metrics", metrics))
        sections.append(_section("kernels", {name: self._kernel(name, use) for name, use in self.kernels.items()}))
        return "{\n" + ",\n".join(sections) + "\n}\n"

    def _kernel(self, name: str, use: Usage) -> str:
        ranks = self.ranks.get(name)
        differing = f', "ranks": {json.dumps(ranks, sort_keys=True)}' if ranks else ""
        return f'{{"calls": {use.calls}, "ns": {round(use.ns)}{differing}}}'

    def misfit(self, now: Fingerprint) -> tuple[str, str] | None:
        """(reason, what differs) where figures of `now` may not be compared with it, else None."""
        if self.simulated != now.simulated:
            mine, other = ("simulated", "real") if self.simulated else ("real", "simulated")
            return "hardware", f"the baseline is of a {mine} server, this capture of a {other} one"
        for reason in ("hardware", "profiler", "model"):
            mine_facts: _Facts = getattr(self, reason)
            other_facts: _Facts = getattr(now, reason)
            differing = [
                f"{key} was {mine_facts.get(key, 'not recorded')!r} and is {other_facts.get(key, 'not recorded')!r}"
                for key in sorted({*mine_facts, *other_facts})
                if mine_facts.get(key) != other_facts.get(key)
            ]
            if differing:
                return reason, "; ".join(differing[:4])
        return None


def _listing(name: str, values: Sequence[str]) -> str:
    body = ",\n".join(f"  {json.dumps(value, ensure_ascii=False)}" for value in sorted(values))
    return f' "{name}": [\n{body}\n ]'


def _section(name: str, lines: Mapping[str, str]) -> str:
    if not lines:
        return f' "{name}": {{}}'
    body = ",\n".join(f"  {json.dumps(key, ensure_ascii=False)}: {value}" for key, value in lines.items())
    return f' "{name}": {{\n{body}\n }}'
