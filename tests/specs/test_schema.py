"""The JSON Schema: made from the types, committed, in step, and true of the shipped specs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from pytest_atomtrace.cases.specs.grammar import SECTIONS
from pytest_atomtrace.cases.specs.schema import SCHEMA_FILE, schema, schema_text
from tests.specs.reading import located, read
from tests.specs.test_grammar import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "perf_specs").glob("*.atom.yaml"))


def faults(value: Any, rule: dict[str, Any], root: dict[str, Any], path: str = "$") -> Iterator[str]:
    """What of `value` breaks `rule`: the part of JSON Schema that our schema uses."""
    if "$ref" in rule:
        yield from faults(value, root["$defs"][rule["$ref"].rpartition("/")[2]], root, path)
    if "anyOf" in rule and not any(not list(faults(value, one, root, path)) for one in rule["anyOf"]):
        yield f"{path}: fits none of {len(rule['anyOf'])}"
    if "oneOf" in rule and sum(not list(faults(value, one, root, path)) for one in rule["oneOf"]) != 1:
        yield f"{path}: fits not exactly one"
    if "const" in rule and value != rule["const"]:
        yield f"{path}: not {rule['const']}"
    if "enum" in rule and value not in rule["enum"]:
        yield f"{path}: not one of {rule['enum']}"
    kinds: dict[str, tuple[type, ...]] = {
        "object": (dict,),
        "array": (list,),
        "string": (str,),
        "integer": (int,),
        "number": (int, float),
        "boolean": (bool,),
        "null": (type(None),),
    }
    kind = rule.get("type")
    if kind is not None and (
        not isinstance(value, kinds[kind]) or (kind in ("integer", "number") and isinstance(value, bool))
    ):
        yield f"{path}: no {kind}"
        return
    if isinstance(value, str) and re.search(rule.get("pattern", ""), value) is None:
        yield f"{path}: not like {rule['pattern']}"
    if isinstance(value, list) and len(value) < rule.get("minItems", 0):
        yield f"{path}: too few"
    if isinstance(value, dict):
        known = rule.get("properties", {})
        for key, item in value.items():
            if key in known:
                yield from faults(item, known[key], root, f"{path}.{key}")
            elif rule.get("additionalProperties") is False:
                yield f"{path}: unknown {key}"
        yield from (f"{path}: no {key}" for key in rule.get("required", []) if key not in value)
    if isinstance(value, list) and "items" in rule:
        for index, item in enumerate(value):
            yield from faults(item, rule["items"], root, f"{path}[{index}]")


def test_the_committed_schema_is_the_types() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), (
        "atomtrace schema > pytest_atomtrace/cases/specs/spec.schema.json"
    )


def test_every_section_is_in_it() -> None:
    known = schema()["properties"]
    assert isinstance(known, dict)
    assert set(SECTIONS) <= set(known)


def test_the_whole_grammar_fits_it(tmp_path: Path) -> None:
    assert located(read(tmp_path, EVERYTHING)) == []
    assert list(faults(yaml.safe_load(EVERYTHING), schema(), schema())) == []


@pytest.mark.parametrize("path", SPECS, ids=[path.name for path in SPECS])
def test_shipped_specs_fit_it_and_name_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert list(faults(yaml.safe_load(text), schema(), schema())) == []
    first = text.splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("$schema=")[2]).resolve() == SCHEMA_FILE.resolve()


@pytest.mark.parametrize(
    "text",
    [
        "case: {model: m, cnc: 3}\nlaunch: {mean: 1 ms}\n",
        "case: {model: m}\ncases: [{model: n}]\nlaunch: {mean: 1 ms}\n",
        "case: {model: m}\nkernels: [{caled: x}]\n",
        "case: {model: m}\nkernels: [{called: x, during: decod}]\n",
        "case: {model: m}\nsteps: {decod: {p50: 1 ms}}\n",
        "case: {model: m}\nsteps: {decode: {p50: 5}}\n",
        "case: {model: m}\nregression: false\n",
        "case: {model: m}\nlaunch: {mean: 1 ms, marks: [xfail]}\n",
    ],
)
def test_what_the_reader_refuses_an_editor_marks(tmp_path: Path, text: str) -> None:
    assert located(read(tmp_path, text))
    assert list(faults(yaml.safe_load(text), schema(), schema()))


def test_the_schema_is_one_document_of_its_dialect() -> None:
    document = json.loads(schema_text())
    assert document["$schema"].endswith("2020-12/schema")
    assert document["additionalProperties"] is False
