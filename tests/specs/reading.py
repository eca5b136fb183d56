"""Reads a spec's text as collection does."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from pytest_atomtrace.cases.specs.spec import Spec, read_spec
from pytest_atomtrace.verdicts.questions import problem_of

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_atomtrace.cases.catalog import Catalog

__all__ = ["located", "read", "read_bytes"]

CASE = "case: {model: m, tp: 2}\n"


def read_bytes(folder: Path, data: bytes, catalog: Catalog | None = None) -> Spec:
    path = folder / "spec.atom.yaml"
    path.write_bytes(data)
    return read_spec(path, judge=problem_of, catalog=lambda: catalog)


def read(folder: Path, text: str, catalog: Catalog | None = None) -> Spec:
    return read_bytes(folder, textwrap.dedent(text).encode(), catalog)


def located(spec: Spec) -> list[str]:
    """``line:column: path: problem`` of every problem."""
    return [f"{one.place.line}:{one.place.column}: {one}" for one in spec.problems]
