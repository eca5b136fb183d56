"""Write the reference pages in docs/ that follow from the code; with --check, only say which are out of date."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import importlib
import inspect
import itertools
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
WIDTH = 120


def page(title: str, source: str, *parts: str) -> str:
    """A page with its title and where it comes from."""
    made = f"<!-- Written by scripts/reference_pages.py from {source}. -->"
    return "\n\n".join([f"# {title}", made, *(part.strip("\n") for part in parts if part.strip())]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown; bars and line breaks in cells would end them early."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def plain(text: str) -> str:
    """Text for a cell or a paragraph: what Markdown or HTML would take for its own is quoted."""
    pieces = re.split(r"(`[^`]*`)", text.replace("``", "`"))
    return "".join(one if one.startswith("`") else re.sub(r"([*_<>\[\]])", r"\\\1", one) for one in pieces)


# Markers


def markers() -> str:
    """The markers and the fields of a case."""
    from pytest_atomtrace.cases.matrix import field_table
    from pytest_atomtrace.plugin.startup import MARKERS

    parts = []
    for line in MARKERS:
        call, _, text = line.format(fields="").partition(": ")
        parts.append(f"## {call.partition('(')[0]}\n\n`{call}`: {plain(text)}")
    fields = [(f"`{name}`", f"`{default}`" if default else "", plain(doc)) for name, default, doc in field_table()]
    about = "`Case` and the mappings of spec files have the same fields. How marks of module, class and function merge "
    return page(
        "Markers",
        "pytest_atomtrace/plugin/startup.py and cases/case.py",
        *parts,
        f"## Fields of a case\n\n{about}is in [Writing checks](checks.md).",
        table(("field", "default", "meaning"), fields),
    )


# Command line


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """All commands below `parser`, groups such as `spec` left out."""
    groups = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        for child in group.choices.values():
            yield from commands(child)


def cli() -> str:
    """Every command with its help."""
    from pytest_atomtrace.cli.arguments import _build

    parser, _ = _build()
    return page(
        "Command line", "pytest_atomtrace/cli/arguments.py", parser.description or "", *map(command, commands(parser))
    )


def command(parser: argparse.ArgumentParser) -> str:
    """A section: usage, what the command does, its arguments, examples."""
    rows = []
    usage = [parser.prog]
    # What a command is about comes before how it shows it.
    for action in sorted(parser._actions, key=lambda one: bool(one.option_strings)):
        if isinstance(action, argparse._HelpAction):
            continue
        name = action.metavar if isinstance(action.metavar, str) else ""
        if not name and action.choices is not None:
            name = "{" + ",".join(map(str, action.choices)) + "}"
        name = name if action.nargs != 0 else ""
        shown = ", ".join(f"{flag} {name}".strip() for flag in action.option_strings) or name or action.dest
        more = " [...]" if action.nargs in ("+", "*") else ""
        text = (action.help or "") % {**vars(action), "prog": parser.prog}
        rows.append((f"`{shown}`", plain(text)))
        required = action.required if action.option_strings else action.nargs not in ("?", "*")
        usage.append((shown if required else f"[{shown}]") + more)
    examples = (parser.epilog or "").strip()
    body = [f"## {parser.prog}", f"```text\n{wrapped(usage)}\n```", prose(parser.description or "")]
    body.append(table(("argument", "meaning"), rows))
    intro, found, lines = examples.partition("examples:\n")
    if intro.strip():
        body.append(f"```text\n{inspect.cleandoc(intro)}\n```")
    if found:
        body.append(f"```sh\n{inspect.cleandoc(lines)}\n```")
    return "\n\n".join(body)


def prose(text: str) -> str:
    """Paragraphs; an indented line is something to type, and `#` at its start no heading."""
    blocks = itertools.groupby(text.splitlines(), key=lambda line: line.startswith("  "))
    parts = [(shown, "\n".join(lines)) for shown, lines in blocks]
    return "\n\n".join(f"```text\n{part.strip()}\n```" if shown else plain(part).strip() for shown, part in parts)


def wrapped(words: Sequence[str]) -> str:
    """Words on lines that a page can show."""
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) > WIDTH - 30:
            lines.append("   ")
        lines[-1] += f" {word}"
    return "\n".join(lines)


# JSON Schemas


def kind(schema: Mapping[str, Any]) -> str:
    """What a value may be, in words, with links to the page's own sections."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema or "oneOf" in schema:
        return " or ".join(dict.fromkeys(kind(one) for one in schema.get("anyOf", schema.get("oneOf"))))
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if schema.get("type") == "array":
        inner = kind(schema["items"]) if isinstance(schema.get("items"), dict) and schema["items"] else "anything"
        return f"list of {inner}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"mapping to {kind(schema['additionalProperties']) or 'anything'}"
    if "properties" in schema:
        inner = dict.fromkeys(kind(one) for one in schema["properties"].values())
        return f"mapping of {', '.join(f'`{name}`' for name in schema['properties'])} to {' or '.join(inner)}"
    words = schema.get("type", "anything")
    return " or ".join(words) if isinstance(words, list) else str(words)


def fields(schema: Mapping[str, Any]) -> str:
    """The table of an object's keys."""
    needed = set(schema.get("required", ()))
    rows = []
    for name, one in schema.get("properties", {}).items():
        about = plain(str(one.get("description", ""))) + (" (required)" if name in needed else "")
        if "examples" in one:
            about += f", e.g. {', '.join(f'`{json.dumps(text)}`' for text in one['examples'][:2])}"
        rows.append((f"`{name}`", kind(one), about.strip()))
    return table(("key", "value", "meaning"), rows)


def parts(schema: Mapping[str, Any]) -> Iterator[str]:
    """A section for each type that the schema defines."""
    for name, one in schema["$defs"].items():
        text = plain(str(one.get("description", "")))
        inner = fields(one) if "properties" in one else f"One of: {kind(one)}."
        yield f"## {name}\n\n{text}\n\n{inner}"


def spec_grammar() -> str:
    """The grammar of *.atom.yaml."""
    from pytest_atomtrace.cases.specs.schema import schema

    found: dict[str, Any] = schema()
    about = "`atomtrace schema` prints the same as a JSON Schema. What the keys are for is in [Spec files](specs.md)."
    sources = ", ".join(f"`{one['required'][0]}`" for one in found["oneOf"])
    top = f"## A file\n\n{found['description']} Exactly one of {sources} says what to measure."
    return page("Spec grammar", "pytest_atomtrace/cases/specs/grammar.py", about, top, fields(found), *parts(found))


def report_schema() -> str:
    """The keys of report.json."""
    from pytest_atomtrace.report.json_report import report_schema as schema

    found: dict[str, Any] = schema()
    about = "`atomtrace schema report` prints the JSON Schema itself. Who writes the file: [Reports](reports.md). "
    return page(
        "Report schema",
        "pytest_atomtrace/report/json_types.py",
        f"{about}The file is one {kind(found)}.",
        *parts(found),
    )


# Health codes


def health() -> str:
    """Each code: what it means, what to do."""
    from pytest_atomtrace.trace.finding import TITLES
    from pytest_atomtrace.verdicts.health_view import MEANINGS

    sections = [
        f"## {code} {title}\n\n{plain(MEANINGS[code].meaning)}\n\nWhat to do: {plain(MEANINGS[code].remedy)}"
        for code, title in TITLES.items()
    ]
    about = (
        "Every doubt about a trace has a code. `atomtrace health DIR` prints those of a trace with rank and numbers. "
        "Which questions a code forbids is in [What a trace can and cannot tell](traces.md#health); how to go about an "
        "inconclusive check in [Debugging an inconclusive trace](inconclusive.md)."
    )
    return page("Health codes", "pytest_atomtrace/verdicts/health_view.py", about, *sections)


# Python


def api() -> str:
    """The public door: signatures and docstrings."""
    import pytest_atomtrace

    names = list(pytest_atomtrace.__all__)
    found = {name: getattr(pytest_atomtrace, name) for name in names}
    errors = [name for name in names if isinstance(found[name], type) and issubclass(found[name], BaseException)]
    others = [member(name, found[name]) for name in names if name not in errors]
    rows = [(f"`{name}`", f"`{found[name].__bases__[0].__name__}`", plain(lead(found[name]))) for name in errors]
    about = "Everything is imported from `pytest_atomtrace`; what is not on this page is private and may change."
    return page(
        "Python API",
        "the docstrings of pytest_atomtrace",
        about,
        *others,
        "## Errors\n\nAll of them can be caught as `AtomTraceError`.",
        table(("error", "is a", "meaning"), rows),
    )


def lead(thing: object) -> str:
    """The first paragraph of a docstring."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def docstring(thing: object) -> str:
    """A docstring as Markdown: its lists of errors and arguments stay as they are written."""
    text = inspect.getdoc(thing) or ""
    made = []
    for block in text.split("\n\n"):
        title, _, rest = block.partition("\n")
        if title.endswith(":") and title[:-1] in ("Raises", "Args", "Returns", "Yields") and rest.startswith("    "):
            lines = re.split(r"\n(?! )", inspect.cleandoc(rest))
            made.append(f"{title}\n\n" + "\n".join(f"- {plain(' '.join(line.split()))}" for line in lines))
        else:
            made.append(plain(block))
    return "\n\n".join(made)


def signature(name: str, thing: Callable[..., object]) -> str:
    """A call as source; annotations are text already, since modules have postponed ones."""
    shape = inspect.signature(thing)
    rest = [one for one in shape.parameters.values() if one.name != "self"]
    words = [parameter(one) for one in rest]
    marks = [one.kind for one in rest]
    if inspect.Parameter.KEYWORD_ONLY in marks and inspect.Parameter.VAR_POSITIONAL not in marks:
        words.insert(marks.index(inspect.Parameter.KEYWORD_ONLY), "*")
    back = "" if shape.return_annotation in (shape.empty, None, "None") else f" -> {shape.return_annotation}"
    one_line = f"{name}({', '.join(words)}){back}"
    if len(one_line) <= WIDTH - 20:
        return one_line
    inner = "".join(f"    {word},\n" for word in words)
    return f"{name}(\n{inner}){back}"


def parameter(one: inspect.Parameter) -> str:
    """A parameter as source; defaults that are objects of a module have no text that would help."""
    stars = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
    note = "" if one.annotation is one.empty else f": {one.annotation}"
    if one.default is one.empty:
        return f"{stars}{one.name}{note}"
    value = "..." if callable(one.default) or repr(one.default).startswith("<") else repr(one.default)
    return f"{one.name}{note}{' = ' if note else '='}{value}"


def member(name: str, thing: Any) -> str:  # noqa: ANN401  # whatever the door holds
    """A class or function of the door."""
    made = [f"## {name}"]
    if not isinstance(thing, type):
        return "\n\n".join([*made, f"```text\n{signature(name, thing)}\n```", docstring(thing)])
    made.append(docstring(thing))
    if issubclass(thing, enum.Enum):
        return "\n\n".join([*made, ", ".join(f"`{one.name}`" for one in thing)])
    if name == "Case":
        return "\n\n".join([*made, "Its fields are those of the marker [atom_case](markers.md#fields-of-a-case)."])
    if dataclasses.is_dataclass(thing):
        shown = [one for one in dataclasses.fields(thing) if not one.name.startswith("_")]
        if shown:
            made.append(table(("field", "type"), [(f"`{one.name}`", f"`{one.type}`") for one in shown]))
    for key, value in vars(thing).items():
        if key.startswith("_") or not inspect.getdoc(value):
            continue
        if isinstance(value, (property,)) or type(value).__name__ == "cached_property":
            made += [f"### {name}.{key}", docstring(value)]
        elif inspect.isfunction(value) or isinstance(value, (classmethod, staticmethod)):
            call = value if inspect.isfunction(value) else value.__func__
            made += [f"### {name}.{key}()", f"```text\n{signature(key, call)}\n```", docstring(call)]
    return "\n\n".join(made)


PAGES: dict[str, Callable[[], str]] = {
    "api.md": api,
    "cli.md": cli,
    "health.md": health,
    "markers.md": markers,
    "report-schema.md": report_schema,
    "spec-grammar.md": spec_grammar,
}


def main() -> int:
    """Write or check; the exit code of a check says whether a page is stale."""
    importlib.import_module("pytest_atomtrace")
    stale = 0
    for name, make in PAGES.items():
        path, text = DOCS / name, make()
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            print(f"{path} is stale: python scripts/reference_pages.py")
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
