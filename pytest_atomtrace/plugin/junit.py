"""A few flat properties of each test with a case, for JUnit and whatever else reads pytest's user properties.

They ride on the report as pytest's own ``record_property`` does, so xdist carries them. pytest writes them below
``<testcase>`` in both JUnit families; the xunit2 schema of Jenkins has no such place, hence ``--atom-junit=off``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_atomtrace.plugin.state import STATE
from pytest_atomtrace.report.document import outcome_of, shown_engine

if TYPE_CHECKING:
    import pytest

__all__ = ["with_properties"]

_PREFIX = "atomtrace."
_LONGEST = 200


def with_properties(item: pytest.Item, report: pytest.TestReport, payload: Mapping[str, object]) -> None:
    """Give the item and this report the properties; those of an earlier attempt of the same test go."""
    if item.config.stash[STATE].settings.junit == "off":
        return
    rows = [(f"{_PREFIX}{name}", text) for name, text in _properties(report, payload).items() if text]
    for place in (item.user_properties, report.user_properties):
        place[:] = [*(pair for pair in place if not str(pair[0]).startswith(_PREFIX)), *rows]


def _properties(report: pytest.TestReport, payload: Mapping[str, object]) -> dict[str, str]:
    case, verdicts = payload.get("case"), payload.get("verdicts")
    facts: Mapping[str, object] = case if isinstance(case, Mapping) else {}
    checks = [one for one in verdicts if isinstance(one, Mapping)] if isinstance(verdicts, list) else []
    p50_ns = facts.get("p50_ns")
    expected = report.outcome != "failed" and payload.get("expected") and not payload.get("trouble")
    return {
        "case": str(facts.get("slug", "")),
        "outcome": "xfail" if expected else outcome_of({**payload, "outcome": report.outcome}),
        "check": _check(checks)[:_LONGEST],
        "engine": shown_engine(str(facts.get("engine", "")), simulated=bool(facts.get("simulated"))),
        "decode_p50_us": f"{p50_ns / 1000:.3f}" if isinstance(p50_ns, int) else "",
        "capture": str(facts.get("directory", "")),
    }


def _check(checks: list[Mapping[str, object]]) -> str:
    """The checks that did not pass, else all of them."""
    bad = [one for one in checks if one.get("outcome") != "pass"]
    return "; ".join(dict.fromkeys(str(one.get("check", "")) for one in bad or checks))
