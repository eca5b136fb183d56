"""The grammar as a JSON Schema, made from the same types that decode a spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import msgspec

from pytest_atomtrace.cases.catalog import OVERRIDES
from pytest_atomtrace.cases.specs.casefields import CaseFields
from pytest_atomtrace.cases.specs.grammar import SECTIONS, Entry, Section
from pytest_atomtrace.cases.specs.spec import SOURCES, CatalogEntry, FileMarks
from pytest_atomtrace.cases.specs.words import STEP_KINDS

__all__ = ["SCHEMA_FILE", "schema", "schema_text"]

#: The committed copy, for the first line of a spec: ``# yaml-language-server: $schema=<its path>``.
SCHEMA_FILE: Final = Path(__file__).with_name("spec.schema.json")
_REF: Final = "#/$defs/{name}"


def schema() -> dict[str, object]:
    """The schema of a spec file, as JSON values."""
    entries: list[type[msgspec.Struct]] = list(
        dict.fromkeys(kind for s in SECTIONS.values() for kind in s.entries.values())
    )
    types = [CaseFields, CatalogEntry, FileMarks, *entries]
    _, parts = msgspec.json.schema_components(types, ref_template=_REF)
    defs = {name: _tidy(part) for name, part in parts.items()}
    file_marks = _properties(defs.pop("FileMarks"))
    # What stands in for the catalog's scenarios is written beside the model's name.
    beside = {k: v for k, v in _properties(defs["CaseFields"]).items() if k in OVERRIDES}
    catalog = defs["CatalogEntry"]
    defs["CatalogEntry"] = {**catalog, "properties": {**_properties(catalog), **beside}, "additionalProperties": False}
    properties: dict[str, object] = {
        "case": {**_ref("CaseFields"), "description": "what to measure"},
        "cases": {"type": "array", "minItems": 1, "items": _ref("CaseFields"), "description": "several cases"},
        "from_catalog": {
            "description": "cases of ATOM's models.json (--atom-catalog)",
            "anyOf": [
                {"type": "string", "minLength": 1},
                _ref("CatalogEntry"),
                {"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string"}, _ref("CatalogEntry")]}},
            ],
        },
        "defaults": {**_ref("CaseFields"), "description": "fields that every case has unless it says otherwise"},
        **{name: _section(section) for name, section in SECTIONS.items()},
        **file_marks,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pytest-atomtrace spec (*.atom.yaml)",
        "description": "What to measure and what must hold; each check is a test item of its own.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "oneOf": [{"required": [name]} for name in SOURCES],
        "$defs": defs,
    }


def schema_text() -> str:
    """`schema` as the committed file holds it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _ref(name: str) -> dict[str, object]:
    return {"$ref": _REF.format(name=name)}


def _section(section: Section) -> dict[str, object]:
    if section.shape == "choice":
        kinds = [_ref(kind.__name__) for kind in section.entries.values()]
        return {"description": section.about, "type": "array", "minItems": 1, "items": {"anyOf": kinds}}
    one: dict[str, object] = _one_or_many(section.entry)
    if section.shape == "many":
        shapes = one["anyOf"]
        assert isinstance(shapes, list)
        bare = [{"const": True}] * (not any(field.required for field in msgspec.structs.fields(section.entry)))
        return {"description": section.about, "anyOf": [*shapes, *bare]}
    return {
        "description": section.about,
        "type": "object",
        "properties": dict.fromkeys(STEP_KINDS, one),
        "minProperties": 1,
        "additionalProperties": False,
    }


def _one_or_many(kind: type[Entry]) -> dict[str, object]:
    return {"anyOf": [_ref(kind.__name__), {"type": "array", "minItems": 1, "items": _ref(kind.__name__)}]}


def _properties(part: dict[str, object]) -> dict[str, object]:
    found = part["properties"]
    assert isinstance(found, dict)
    return found


def _tidy(part: dict[str, object]) -> dict[str, object]:
    """Without what only programs mean: null stands for "not given" inside, in a file it is a mistake."""
    properties = part.get("properties")
    if isinstance(properties, dict):
        for name, value in properties.items():
            value.pop("default", None)
            properties[name] = _without_null(value)
    return part


def _without_null(rule: dict[str, object]) -> dict[str, object]:
    items, kinds = rule.get("items"), rule.get("anyOf")
    if isinstance(items, dict):
        return {**rule, "items": _without_null(items)}
    if not isinstance(kinds, list):
        return rule
    kept = [_without_null(one) for one in kinds if one.get("type") != "null"]
    rest = {key: value for key, value in rule.items() if key != "anyOf"}
    return {**rest, **kept[0]} if len(kept) == 1 else {**rest, "anyOf": kept}
