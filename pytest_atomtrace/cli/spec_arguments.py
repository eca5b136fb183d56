"""The grammar of `atomtrace spec`, `schema` and `catalog`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

__all__ = ["add"]


_P = TypeVar("_P", bound="argparse.ArgumentParser")


_SPEC = """\
Look at specs (*.atom.yaml) without pytest, or draft one from a capture.

examples:
  atomtrace spec check perf_specs/
  atomtrace spec new --from-capture .atomtrace --output my_model.atom.yaml
"""
_CHECK = """\
Every mistake of every file with line, column and what was probably meant.
Nothing is started. Exit code 1 if there is one.

examples:
  atomtrace spec check perf_specs/llama3_70b.atom.yaml
  atomtrace spec check perf_specs/ --catalog ~/ATOM --json
"""
_NEW = """\
A first spec from a healthy capture, commented: kernels per decode step,
families, agreement of ranks, and budgets with head room.

examples:
  atomtrace spec new --from-capture .atomtrace
  atomtrace spec new --from-capture /app/trace --output my_model.atom.yaml
"""
_SCHEMA = """\
A JSON Schema: of *.atom.yaml (spec), or of the report that --atom-json writes
(report). An editor with a YAML language server completes and checks a spec
whose first line is
  # yaml-language-server: $schema=PATH

examples:
  atomtrace schema > atom.schema.json
  atomtrace schema report > report.schema.json
"""
_CATALOG = """\
ATOM's catalog of models (.github/benchmark/models.json).

examples:
  atomtrace catalog list ~/ATOM
"""
_LIST = """\
Models, variants, concurrencies and benchmark cells as ATOM's CI expands them.
PATH is a models.json or a checkout of ATOM.

examples:
  atomtrace catalog list ~/ATOM
  atomtrace catalog list models.json --model deepseek-v4-pro --json
"""


def add(
    commands: argparse._SubParsersAction[_P],
    make: Callable[[argparse._SubParsersAction[_P], str, str, str], argparse.ArgumentParser],
    parser_class: type[_P],
) -> None:
    """Add the three commands; `make` adds one with its help to a group."""
    actions = _actions(make(commands, "spec", "check a spec, or draft one from a capture", _SPEC), parser_class)
    check = make(actions, "check", "is it right", _CHECK)
    check.prog = "atomtrace spec check"
    check.add_argument("paths", metavar="FILE", type=Path, nargs="+", help="spec files, or directories of them")
    check.add_argument("--catalog", metavar="PATH", type=Path, help="models.json or an ATOM checkout, for from_catalog")
    new = make(actions, "new", "draft one", _NEW)
    new.prog = "atomtrace spec new"
    new.add_argument(
        "--from-capture", metavar="DIR", type=Path, required=True, help="a saved capture, a run, or a trace directory"
    )
    new.add_argument("--output", metavar="FILE", type=Path, help="write it here (default: print it)")
    schema = make(commands, "schema", "the JSON Schema of specs, or of the JSON report", _SCHEMA)
    schema.add_argument("about", choices=("spec", "report"), nargs="?", default="spec", help="of what (default: spec)")
    actions = _actions(make(commands, "catalog", "ATOM's models.json", _CATALOG), parser_class)
    listing = make(actions, "list", "models and variants", _LIST)
    listing.prog = "atomtrace catalog list"
    listing.add_argument("path", metavar="PATH", type=Path, help="models.json, or a checkout of ATOM")
    listing.add_argument("--model", metavar="MODEL", help="only this one (display name, prefix or path)")


def _actions(parser: argparse.ArgumentParser, parser_class: type[_P]) -> argparse._SubParsersAction[_P]:
    return parser.add_subparsers(dest="action", metavar="ACTION", parser_class=parser_class, required=True)
