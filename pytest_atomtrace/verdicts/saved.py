"""What lies beside a saved capture: its manifest and the workload's figures."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_atomtrace.cases.case import Case
from pytest_atomtrace.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_atomtrace.trace.data import TraceData

# It names files.
_SLUG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")

__all__ = ["accepted_length", "beside", "saved_case"]


def beside(directory: Path, name: str) -> Mapping[str, object]:
    """The JSON object in ``<directory>/<name>``; empty where there is none (a plain trace directory)."""
    try:
        value = json.loads((directory / name).read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


class _SavedCase(Case):
    """A case whose arguments or environment were redacted when it was saved: their digest is another one now.

    It keeps the slug under which it was captured, which is what baselines and histories are kept by.
    """

    saved_slug = ""

    @property
    def slug(self) -> str:
        """The slug of the case before it was redacted."""
        return self.saved_slug


def saved_case(manifest: Mapping[str, object]) -> Case | None:
    """The case that a capture's manifest names, None where it names none that can be."""
    facts = manifest.get("case")
    if not isinstance(facts, Mapping):
        return None
    try:
        case = Case.from_dict(facts)
        slug = manifest.get("slug")
        if not isinstance(slug, str) or slug == case.slug or not _SLUG.fullmatch(slug):
            return case
        saved = _SavedCase.from_dict(facts)
        object.__setattr__(saved, "saved_slug", slug)
    except (ConfigError, TypeError, ValueError):
        return None
    return saved


def accepted_length(data: TraceData, bench: Mapping[str, object]) -> float | None:
    """Tokens that a sequence gains per decode step, None where the workload's figures are missing.

    Every request's first token comes from its prefill, all others from decode steps, and a decode label counts
    the sequences it advances (``d=``): (output tokens - requests) / sum of d. True for a window that holds the
    whole workload, so None for any other.
    """
    if bench.get("whole_window") is False:
        return None
    tokens, requests = bench.get("output_tokens"), bench.get("completed")
    if not isinstance(tokens, int) or not isinstance(requests, int) or tokens <= requests:
        return None
    advanced = [
        sum(step.label.decodes or step.bs for step in rank.steps if step.kind in ("decode", "eager_decode"))
        for rank in data.ranks.values()
    ]
    # Data parallel ranks each decode a share of the requests: their sum is the workload only with TP alone.
    most = max(advanced, default=0)
    return max(1.0, (tokens - requests) / most) if most else None
