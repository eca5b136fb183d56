"""`atomtrace spec`, `schema` and `catalog`: specs and the catalog without pytest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.cli.answer import Answer
from pytest_atomtrace.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_atomtrace.cases.catalog import Catalog, Variant
    from pytest_atomtrace.cases.specs.spec import Spec
    from pytest_atomtrace.cli.screen import Screen

__all__ = ["catalog", "schema", "spec"]


def schema(arguments: argparse.Namespace, screen: Screen) -> Answer:  # noqa: ARG001  # commands have one shape
    """`atomtrace schema`: the JSON Schema itself, with or without ``--json``."""
    if arguments.about == "report":
        from pytest_atomtrace.report import json_report as report

        return Answer(
            0, {"json_schema": report.report_schema()}, lambda _: _plain(report.report_schema_text().splitlines())
        )
    from pytest_atomtrace.cases.specs import schema as grammar

    return Answer(0, {"json_schema": grammar.schema()}, lambda _: _plain(grammar.schema_text().splitlines()))


def spec(arguments: argparse.Namespace, screen: Screen) -> Answer:
    """`atomtrace spec check` and `atomtrace spec new`."""
    return _check(arguments) if arguments.action == "check" else _new(arguments, screen)


def catalog(arguments: argparse.Namespace, screen: Screen) -> Answer:  # noqa: ARG001
    """`atomtrace catalog list`."""
    from pytest_atomtrace.cases.catalog import load_catalog

    found = load_catalog(_catalog_file(arguments.path))
    chosen = [one for one in found.variants if arguments.model in (None, one.model, one.prefix, one.path)]
    if not chosen:
        from pytest_atomtrace.cases.specs.problems import meant

        known = dict.fromkeys(one.prefix for one in found.variants)
        raise ConfigError(f"the catalog has no model {arguments.model!r}{meant(arguments.model, known)}", "--model")
    try:
        rows = [_variant_row(one) for one in chosen]
    except ConfigError as error:
        raise ConfigError(error.problem, str(found.path)) from None
    totals = {
        "models": len({one.prefix for one in chosen}),
        "variants": len(chosen),
        "cells": sum(len(list(one.cells())) for one in chosen),
    }
    document = {"catalog": str(found.path), "totals": totals, "variants": rows}
    return Answer(0, document, lambda width: _catalog_lines(rows, totals, width))


def _catalog_file(path: Path) -> Path:
    from pytest_atomtrace.cases.catalog import find_catalog

    return find_catalog(str(path), "", base=Path()) or path


def _variant_row(variant: Variant) -> dict[str, object]:
    cells = list(variant.cells())
    fields = variant.fields()
    loads = list(dict.fromkeys(f"{cell.isl}/{cell.osl}" for cell in cells))
    return {
        "model": variant.prefix,
        "variant": variant.label,
        "path": variant.path,
        "tp": fields.get("tp", 1),
        "conc_min": min((cell.conc for cell in cells), default=None),
        "conc_max": max((cell.conc for cell in cells), default=None),
        "loads": loads,
        "cells": len(cells),
        "args": variant.args,
        "bench_args": variant.bench_args,
        "env": fields["env"],
    }


def _catalog_lines(rows: Sequence[dict[str, object]], totals: dict[str, int], width: int) -> Iterator[tuple[str, str]]:
    from pytest_atomtrace.report.tables import Column, clipped, table

    columns = [
        Column("model", left=True),
        Column("variant", left=True),
        Column("tp"),
        Column("conc"),
        Column("isl/osl", left=True, drop=1),
        Column("cells"),
        Column("path", left=True, drop=2, shorten=clipped, least=16),
    ]
    rest = [
        [
            str(row["model"]),
            str(row["variant"]) or "-",
            str(row["tp"]),
            f"{row['conc_min']}-{row['conc_max']}" if row["cells"] else "none",
            " ".join(map(str, row["loads"])) if isinstance(row["loads"], list) else "",
            str(row["cells"]),
            str(row["path"]),
        ]
        for row in rows
    ]
    yield from table(columns, rest, width=width)
    yield "", ""
    yield "", f"{totals['models']} models, {totals['variants']} variants, {totals['cells']} cells"


def _check(arguments: argparse.Namespace) -> Answer:
    from pytest_atomtrace.cases.specs.spec import read_spec
    from pytest_atomtrace.verdicts.questions import problem_of

    files = list(_spec_files(arguments.paths))
    specs = [(path, read_spec(path, judge=problem_of, catalog=lambda: _catalog(arguments.catalog))) for path in files]
    wrong = sum(len(spec.problems) for _, spec in specs)
    document = {"files": [_spec_record(path, spec) for path, spec in specs], "problems": wrong}
    return Answer(1 if wrong else 0, document, lambda _: _check_lines(specs, wrong))


def _spec_files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = sorted(file for ending in ("yaml", "yml") for file in path.rglob(f"*.atom.{ending}"))
            if not found:
                raise ConfigError("holds no *.atom.yaml", str(path))
            yield from found
        else:
            yield path


def _catalog(path: Path | None) -> Catalog | None:
    from pytest_atomtrace.cases.catalog import load_catalog

    return load_catalog(_catalog_file(path)) if path is not None else None


def _spec_record(path: Path, spec: Spec) -> dict[str, object]:
    return {
        "file": str(path),
        "cases": [one.case.slug for one in spec.cases],
        "checks": [check.name for check in spec.checks],
        "catalog_missing": spec.catalog_missing,
        "problems": [
            {"line": one.place.line, "column": one.place.column, "path": one.path, "problem": one.text}
            for one in spec.problems
        ],
    }


def _check_lines(specs: Sequence[tuple[Path, Spec]], wrong: int) -> Iterator[tuple[str, str]]:
    for path, spec in specs:
        for problem in spec.problems:
            yield "red", f"{path}:{problem.place.line}:{problem.place.column}: {problem}"
        if spec.problems:
            continue
        if spec.catalog_missing:
            cases = "cases of a catalog that was not given (--catalog)"
        else:
            cases = f"{len(spec.cases)} case{'s' * (len(spec.cases) != 1)}"
        yield "", f"{path}: {cases}, {len(spec.checks)} check{'s' * (len(spec.checks) != 1)}"
    if wrong:
        yield "", f"{wrong} problem{'s' * (wrong != 1)} in {len(specs)} file{'s' * (len(specs) != 1)}"


def _new(arguments: argparse.Namespace, screen: Screen) -> Answer:
    from pytest_atomtrace.capture.files import write_bytes
    from pytest_atomtrace.cli.reading import open_trace
    from pytest_atomtrace.report.spec_text import spec_lines
    from pytest_atomtrace.verdicts.spec_draft import draft_spec

    target: Path | None = arguments.output
    if target is not None and target.exists():
        raise ConfigError("is there already; name a new file", str(target))
    if target is not None and not target.name.endswith((".atom.yaml", ".atom.yml")):
        raise ConfigError("pytest collects files named *.atom.yaml", str(target))
    folder = target.parent if target is not None else Path.cwd()
    schema = _schema_from(folder)
    lines = list(spec_lines(draft_spec(open_trace(arguments.from_capture, screen)), schema=schema))
    record = {"text": "\n".join(lines) + "\n", "file": str(target) if target is not None else None}
    if target is None:
        return Answer(0, record, lambda _: _plain(lines))
    write_bytes(target, ("\n".join(lines) + "\n").encode())
    said = [f"wrote {target}; next: atomtrace spec check {target}"]
    if not (folder / schema).exists():
        said.append(f"for completion in editors, once: atomtrace schema > {folder / schema}")
    return Answer(0, record, lambda _: _plain(said))


def _schema_from(folder: Path) -> str:
    """What the modeline of a spec in `folder` names: a path that holds wherever the project is checked out."""
    from pytest_atomtrace.cases.specs.schema import SCHEMA_FILE

    beside = "atom.schema.json"
    # An installed schema lies at another place on every machine; one in the same checkout is reached from the spec.
    here = Path.cwd()
    inside = SCHEMA_FILE.is_relative_to(here) and folder.resolve().is_relative_to(here)
    inside = inside and "site-packages" not in SCHEMA_FILE.parts
    if (folder / beside).exists() or not inside:
        return beside
    return Path(os.path.relpath(SCHEMA_FILE, folder)).as_posix()


def _plain(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    return (("", line) for line in lines)
