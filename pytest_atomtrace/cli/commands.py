"""The commands: arguments in, an answer out. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pytest_atomtrace.cli.answer import Answer
from pytest_atomtrace.cli.reading import captures_at, locate, open_trace, rank_file, saved_ranks

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_atomtrace.cli.screen import Screen

__all__ = ["COMMANDS"]


def summary(arguments: argparse.Namespace, screen: Screen) -> Answer:
    """`atomtrace summary`: of one capture all there is, of a run a row for each."""
    captures = captures_at(arguments.path)
    if len(captures) > 1:
        return _captures(arguments, captures, screen)
    from pytest_atomtrace.report.records import record
    from pytest_atomtrace.report.trace_summary import summary_lines
    from pytest_atomtrace.verdicts.summary import summarize

    found = summarize(open_trace(arguments.path, screen), rank=arguments.rank)
    return Answer(0, record(found), lambda width: summary_lines(found, width=width, limit=arguments.limit))


def _captures(arguments: argparse.Namespace, captures: Sequence[tuple[str, Path]], screen: Screen) -> Answer:
    from pytest_atomtrace.errors import ConfigError, TraceFileError
    from pytest_atomtrace.report.capture_rows import capture_lines
    from pytest_atomtrace.report.records import record
    from pytest_atomtrace.verdicts.capture_view import CapturesView, unreadable, view_capture

    if arguments.rank is not None:
        raise ConfigError(f"{arguments.path} holds {len(captures)} captures; name one of them", "--rank")
    rows = []
    for slug, place in captures:
        try:
            rows.append(view_capture(slug, open_trace(place, screen)))
        except TraceFileError as error:
            rows.append(unreadable(slug, str(place), str(error)))
    view = CapturesView(str(arguments.path), tuple(rows))
    return Answer(0, record(view), lambda width: capture_lines(view, width=width))


def kernels(arguments: argparse.Namespace, screen: Screen) -> Answer:
    """`atomtrace kernels`."""
    from pytest_atomtrace.report.kernel_rows import kernel_lines
    from pytest_atomtrace.report.records import record
    from pytest_atomtrace.verdicts.kernel_view import view_kernels

    view = view_kernels(
        open_trace(arguments.path, screen, rank=arguments.rank),
        during=arguments.during,
        match=arguments.match,
        layer=arguments.layer,
        rank=arguments.rank,
        per_step=arguments.per_step,
    )
    code = 0 if view.rows else 1
    return Answer(code, record(view), lambda width: kernel_lines(view, width=width, limit=arguments.limit))


def steps(arguments: argparse.Namespace, screen: Screen) -> Answer:
    """`atomtrace steps`."""
    from pytest_atomtrace.report.records import record
    from pytest_atomtrace.report.step_rows import step_lines
    from pytest_atomtrace.verdicts.step_view import view_steps

    view = view_steps(
        open_trace(arguments.path, screen, rank=arguments.rank),
        kind=arguments.kind,
        rank=arguments.rank,
        first=arguments.first,
        steady=arguments.steady,
    )
    return Answer(0, record(view), lambda width: step_lines(view, width=width))


def health(arguments: argparse.Namespace, screen: Screen) -> Answer:
    """`atomtrace health`: a file that cannot be read is a finding here, not an error."""
    from pytest_atomtrace.errors import EmptyTraceError, MalformedTraceError, TraceFileError, TruncatedTraceError
    from pytest_atomtrace.report.health_rows import health_lines
    from pytest_atomtrace.report.records import record
    from pytest_atomtrace.trace.finding import TITLES, Finding
    from pytest_atomtrace.verdicts.health_view import view_health

    ranks: tuple[str, ...] = ()
    source = str(arguments.path)
    simulated = False
    try:
        trace = open_trace(arguments.path, screen, expected=_expected_ranks(arguments))
        findings, ranks, source = trace.health, tuple(trace.data.ranks), str(trace.directory)
        simulated = trace.simulated
    except (TruncatedTraceError, MalformedTraceError, EmptyTraceError) as error:
        bare = TraceFileError(error.path, error.problem, "", error.offset, compressed_offset=error.compressed_offset)
        findings = (Finding("H02", TITLES["H02"], True, "all", str(bare), error.rank, 1),)
    view = view_health(source, ranks, findings, simulated=simulated)
    return Answer(0 if view.sound else 1, record(view), lambda width: health_lines(view, width=width))


def diff(arguments: argparse.Namespace, screen: Screen) -> Answer:
    """`atomtrace diff`: exit 1 if kernels came or went or calls per step changed."""
    from pytest_atomtrace.report.difference import difference_lines
    from pytest_atomtrace.report.records import record
    from pytest_atomtrace.verdicts.diff import compare

    a, b = open_trace(arguments.a, screen), open_trace(arguments.b, screen)
    found = compare(a, b, during=arguments.during, rank=arguments.rank)
    code = 1 if found.calls_differ else 0
    return Answer(code, record(found), lambda width: difference_lines(found, width=width, limit=arguments.limit))


def check_layout(arguments: argparse.Namespace, screen: Screen) -> Answer:
    """`atomtrace check-layout`: without --tp a capture's manifest says which ranks there must be."""
    from pytest_atomtrace.errors import ConfigError
    from pytest_atomtrace.report.rank_states import layout_lines
    from pytest_atomtrace.report.records import record
    from pytest_atomtrace.verdicts import rank_layout

    place, expected = arguments.path, _expected_ranks(arguments)
    if place.is_dir() and captures_at(place):  # an empty or half-written trace directory is what this command is for
        place = locate(place)
    if expected is None:
        expected = saved_ranks(place)
    if expected is None:
        raise ConfigError(f"which ranks must there be? {place} has no manifest.json that says so; give --tp N")
    with screen.watching(f"checking {place}"):
        view = rank_layout.check_layout(place, expected, quick=arguments.quick)
    return Answer(0 if view.right else 1, record(view), lambda width: layout_lines(view, width=width))


def traits(arguments: argparse.Namespace, screen: Screen) -> Answer:
    """`atomtrace traits`."""
    from pytest_atomtrace.errors import ConfigError
    from pytest_atomtrace.report.records import record
    from pytest_atomtrace.report.trait_rows import meaning_lines, trait_lines
    from pytest_atomtrace.verdicts.traits import TRAITS, read_traits

    known = [record(trait) for trait in TRAITS]
    if arguments.explain:
        return Answer(0, {"traits": known}, lambda width: meaning_lines(width=width))
    if not arguments.paths:
        raise ConfigError("name a trace, or ask for --explain", "PATH")
    columns = []
    for path in arguments.paths:
        place, rank, _ = rank_file(path, arguments.rank)
        with screen.watching(f"reading {place}"):
            columns.append(read_traits(place, rank=rank))
    answer = {"traits": known, "traces": [record(column) for column in columns]}
    return Answer(0, answer, lambda width: trait_lines(columns, width=width))


def layers(arguments: argparse.Namespace, screen: Screen) -> Answer:
    """`atomtrace layers`."""
    from pytest_atomtrace.report.layer_rows import layer_lines
    from pytest_atomtrace.report.records import record
    from pytest_atomtrace.verdicts.layer_view import expand_captures, view_layers

    place, rank, captures = rank_file(arguments.path, arguments.rank)
    named = arguments.capture_traces is not None
    chosen = expand_captures(arguments.capture_traces) if named else list(captures)
    trace = open_trace(place, screen)
    data = next(iter(trace.data.ranks.values()))
    with screen.watching(f"reading capture traces of {rank}"):
        view = view_layers(trace, data, chosen, step=arguments.step, named=named)
    document = record(view)
    return Answer(0, document, lambda width: layer_lines(view, width=width, kernels=arguments.kernels))


def doctor(arguments: argparse.Namespace, screen: Screen) -> Answer:
    """`atomtrace doctor`: exit 1 if something stands in the way of a capture from the real server."""
    from pytest_atomtrace.capture.doctor import examine
    from pytest_atomtrace.errors import ConfigError
    from pytest_atomtrace.report.doctor_rows import doctor_lines
    from pytest_atomtrace.report.records import record
    from pytest_atomtrace.settings import Settings, environment

    given = {f"atom_{name}": getattr(arguments, name) for name in ("lock_dir", "root", "python", "machine_root")}
    settings = Settings.resolve(cli=given, env=environment(), ini={})
    parent = arguments.dump.parent if arguments.dump is not None else None
    if parent is not None and not parent.is_dir():
        raise ConfigError(f"{parent} is no directory; make it first: mkdir -p {parent}", "--dump")
    with screen.watching("looking at the machine"):
        found = examine(settings, environment())
    note: list[tuple[str, str]] = []
    if arguments.dump is not None:
        from pytest_atomtrace.capture.dump import dump_machine
        from pytest_atomtrace.capture.files import write_json

        write_json(arguments.dump, dump_machine(settings.machine))
        note = [("", f"Wrote the machine's sysfs facts to {arguments.dump}, serial numbers masked.")]
    return Answer(1 if found.problems else 0, record(found), lambda width: [*doctor_lines(found, width=width), *note])


def _expected_ranks(arguments: argparse.Namespace) -> tuple[str, ...] | None:
    from pytest_atomtrace.errors import ConfigError
    from pytest_atomtrace.trace.layout import expected_ranks

    if arguments.tp is None:
        if arguments.dp != 1 or arguments.pp != 1 or arguments.dp_attention:
            raise ConfigError("--dp, --pp and --dp-attention need --tp N beside them")
        return None
    try:
        return expected_ranks(tp=arguments.tp, dp=arguments.dp, pp=arguments.pp, dp_attention=arguments.dp_attention)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _from(module: str, name: str) -> Callable[[argparse.Namespace, Screen], Answer]:
    """A command of a module that is loaded when it is asked for: the HTTP server of one is a tenth of `summary`."""

    def command(arguments: argparse.Namespace, screen: Screen) -> Answer:
        found = getattr(importlib.import_module(f"pytest_atomtrace.cli.{module}"), name)
        answer: Answer = found(arguments, screen)
        return answer

    return command


COMMANDS: dict[str, Callable[[argparse.Namespace, Screen], Answer]] = {
    "summary": summary,
    "kernels": kernels,
    "steps": steps,
    "diff": diff,
    "health": health,
    "check-layout": check_layout,
    "layers": layers,
    "doctor": doctor,
    "traits": traits,
    "open": _from("open_command", "open_in_perfetto"),
    "ab": _from("ab_command", "ab"),
    "export": _from("export_command", "export"),
    "history": _from("history_command", "history"),
    "spec": _from("spec_commands", "spec"),
    "schema": _from("spec_commands", "schema"),
    "catalog": _from("spec_commands", "catalog"),
}
