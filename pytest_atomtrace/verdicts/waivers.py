"""Checks that may fail for a while: who says so, why, and until when.

A waiver names the check and the case (globs), an owner, a reason and the last day on which it holds. A waived failure
passes with a note; after the last day it fails again. A waiver that nothing needs is said to be one.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from pytest_atomtrace.cases.specs.yamldoor import Mapping as YamlMapping
from pytest_atomtrace.cases.specs.yamldoor import Scalar, YamlError, parse
from pytest_atomtrace.cases.specs.yamldoor import Sequence as YamlSequence
from pytest_atomtrace.errors import ConfigError
from pytest_atomtrace.verdicts.outcome import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_atomtrace.cases.specs.yamldoor import Node

__all__ = ["Waiver", "parse_waivers", "waived"]

_FIELDS = ("check", "case", "owner", "reason", "expires")


@dataclass(frozen=True)
class Waiver:
    """One entry; `expires` is its last day."""

    check: str
    case: str
    owner: str
    reason: str
    expires: dt.date
    where: str

    def fits(self, check: str, case: str) -> bool:
        """Whether it is about this check of this case."""
        # A name pasted from a report may hold brackets, which a glob would read as a set of letters.
        return (check == self.check or fnmatchcase(check, self.check)) and (
            case == self.case or fnmatchcase(case, self.case)
        )

    def expired(self, today: dt.date) -> bool:
        """Whether its last day is over."""
        return today > self.expires

    @property
    def text(self) -> str:
        """Owner, reason and last day."""
        return f"{self.owner}, until {self.expires.isoformat()}: {self.reason} ({self.where})"


def waived(verdict: Verdict, case: str, waivers: Sequence[Waiver], today: dt.date) -> Verdict:
    """The verdict as the waivers leave it: a failure becomes a pass with a note, or says that its waiver is over."""
    fitting = [waiver for waiver in waivers if waiver.fits(verdict.check, case)]
    if not fitting:
        return verdict
    failed = verdict.outcome in (Outcome.FAIL, Outcome.REGRESSION)
    live = next((waiver for waiver in fitting if not waiver.expired(today)), None)
    if live is None:
        waiver = fitting[0]
        if failed:
            return replace(verdict, lines=(*verdict.lines, f"  waiver    expired: {waiver.text}"))
        return replace(verdict, notes=(*verdict.notes, f"its waiver has expired and can go: {waiver.text}"))
    facts = {**verdict.facts, "waiver": live.where}
    if not failed:
        note = f"passes, so its waiver can go: {live.text}"
        return replace(verdict, notes=(*verdict.notes, note), facts=facts)
    facts["waived"] = verdict.outcome.value
    note = f"WAIVED by {live.text}. It says: {verdict.sentence}"
    return replace(verdict, outcome=Outcome.PASS, notes=(note, *verdict.notes), facts=facts)


def parse_waivers(data: bytes, where: str) -> tuple[Waiver, ...]:
    """Read a waivers file: a list of mappings with check, case, owner, reason and expires.

    Raises:
        ConfigError: everything that is wrong, each with its place.

    """
    try:
        root = parse(data)
    except YamlError as error:
        raise ConfigError(error.problem.text, f"{where}:{error.problem.place.line}") from None
    if root is None:
        return ()
    if not isinstance(root, YamlSequence):
        raise ConfigError(f"waivers are a list of entries with {', '.join(_FIELDS)}", where)
    problems: list[str] = []
    found: list[Waiver] = []
    for node in root.items:
        place = f"{where}:{node.place.line}"
        faults = list(_faults(node))
        if faults:
            problems += [f"{place}: {fault}" for fault in faults]
            continue
        values = _values(node)
        found.append(
            Waiver(
                check=values["check"],
                case=values["case"],
                owner=values["owner"],
                reason=values["reason"],
                expires=dt.date.fromisoformat(values["expires"]),
                where=place,
            )
        )
    if problems:
        raise ConfigError("\n".join(problems))
    return tuple(found)


def _values(node: Node) -> dict[str, str]:
    if not isinstance(node, YamlMapping):
        return {}
    return {key: value.text.strip() for key, (_, value) in node.pairs.items() if isinstance(value, Scalar)}


def _faults(node: Node) -> Iterator[str]:
    if not isinstance(node, YamlMapping):
        yield f"a waiver is a mapping of {', '.join(_FIELDS)}"
        return
    values = _values(node)
    for name in _FIELDS:
        if not values.get(name):
            yield f"{name} is missing; a waiver without one is a check that nobody misses"
    for repeated in node.repeated:
        yield f"{repeated[0]} is given twice (again in line {repeated[1].line}); only one of them would count"
    for name in node.pairs:
        if name not in _FIELDS:
            yield f"{name!r} is none of {', '.join(_FIELDS)}"
    expires = values.get("expires", "")
    if expires:
        try:
            dt.date.fromisoformat(expires)
        except ValueError:
            yield f'expires is {expires!r}; write the last day as "2026-12-31"'
