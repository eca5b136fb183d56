"""A baseline on disk: what one case measured on one kind of machine, to be reviewed and committed.

One JSON file per case and hardware, written so that a diff can be read: one metric is one line, one kernel is one
line, in the order of the step; equal content gives equal bytes. No time, path or run id is in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from pytest_atomtrace.errors import ConfigError
from pytest_atomtrace.verdicts.step_profile import Usage

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_atomtrace.verdicts.fingerprint import Fingerprint

__all__ = ["SCHEMA", "Baseline", "anchor_path", "baseline_path", "others_of", "parse_baseline", "read_baseline"]

SCHEMA = 1
_Facts: TypeAlias = Mapping[str, str | int | float | bool]
_Launches: TypeAlias = "tuple[tuple[int, ...], ...]"


@dataclass(frozen=True)
class Baseline:
    """`metrics`: per name the whole nanoseconds of each launch's windows. `kernels`: calls and nanoseconds per decode
    step, in the order of the step. `health`: codes of the findings, none of them fatal. `recorded`: with what.
    `untuned`: shapes that AITER has no tuned config for, known and accepted.
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
        kernels = {name: f'{{"calls": {use.calls}, "ns": {round(use.ns)}}}' for name, use in self.kernels.items()}
        sections.append(_section("kernels", kernels))
        return "{\n" + ",\n".join(sections) + "\n}\n"

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


def baseline_path(root: Path, now: Fingerprint, slug: str) -> Path:
    """``<root>/<gfx>/<slug>.json``."""
    return root / now.folder / f"{slug}.json"


def anchor_path(root: Path, now: Fingerprint, slug: str) -> Path:
    """The anchor beside the baseline: written once, moved by people only."""
    return root / now.folder / f"{slug}.anchor.json"


def others_of(root: Path, slug: str) -> list[str]:
    """Folders that have a baseline of this case."""
    return sorted(path.parent.name for path in root.glob(f"*/{slug}.json"))


def read_baseline(path: Path) -> Baseline | None:
    """The baseline in `path`, None if there is no file.

    Raises:
        ConfigError: the file is no baseline of this version.

    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"no baseline can be read: {error}", str(path)) from None
    return parse_baseline(text, where=str(path))


def parse_baseline(text: bytes, *, where: str) -> Baseline:
    """The baseline in a file's content.

    Raises:
        ConfigError: it is no baseline of this version; `where` names it.

    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"no baseline can be read: {error}", where) from None
    if not isinstance(data, dict):
        raise ConfigError(f"a baseline is a JSON object, this is a {type(data).__name__}", where)
    if data.get("schema") != SCHEMA:
        raise ConfigError(f"schema {data.get('schema')!r}; this version reads {SCHEMA}", where)
    try:
        return Baseline(
            case=str(data["case"]),
            simulated=bool(data["simulated"]),
            hardware=_facts(data, "hardware"),
            profiler=_facts(data, "profiler"),
            model=_facts(data, "model"),
            recorded=_facts(data, "recorded"),
            environment=_facts(data, "environment"),
            health=tuple(str(code) for code in data["health"]),
            untuned=tuple(str(shape) for shape in data.get("untuned", ())),
            metrics={
                str(name): tuple(tuple(int(one) for one in windows) for windows in launches)
                for name, launches in data["metrics"].items()
            },
            kernels={str(name): Usage(int(row["calls"]), float(row["ns"])) for name, row in data["kernels"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"damaged ({type(error).__name__}: {error}); record it again", where) from None


def _facts(data: Mapping[str, object], key: str) -> _Facts:
    value = data[key]
    if not isinstance(value, Mapping):
        raise TypeError(f"{key} is no object")
    return {str(name): one for name, one in value.items() if isinstance(one, (str, int, float, bool))}
