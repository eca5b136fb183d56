"""`atomtrace ab`: two sides, built first, launched in turn under one lease, compared launch by launch."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.cli.answer import Answer
from pytest_atomtrace.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from pytest_atomtrace.capture.record import Capture
    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.cli.screen import Screen
    from pytest_atomtrace.settings import Settings
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["ab", "case_of", "variables_of"]

# AITER's own variable; below a directory of this name its libraries are found and hashed.
_JIT, _JIT_PLACE = "AITER_JIT_DIR", "aiter/jit"


def ab(arguments: argparse.Namespace, screen: Screen) -> Answer:
    """Run the comparison."""
    from pytest_atomtrace.capture.availability import choose_engine
    from pytest_atomtrace.capture.clock import SYSTEM_CLOCK
    from pytest_atomtrace.capture.session import CaptureSession, RunInfo
    from pytest_atomtrace.report.ab_rows import ab_lines
    from pytest_atomtrace.report.records import record
    from pytest_atomtrace.settings import Settings, environment
    from pytest_atomtrace.verdicts.side_by_side import compare_sides

    case = case_of(arguments.case)
    settings = Settings.resolve(cli={"atom_backend": arguments.backend}, env=environment(), ini={})
    engine = choose_engine(settings, advice="run on the simulator with --backend sim")
    if isinstance(engine, str):
        raise ConfigError(engine)
    if engine.name in ("attach", "replay"):
        kind = "a server that runs already" if engine.name == "attach" else "saved captures"
        raise ConfigError(
            f"both sides are launched, and the environment names {kind} (ATOMTRACE_{engine.name.upper()}): unset it"
        )
    name = f"{SYSTEM_CLOCK.local_time(form='%Y%m%d-%H%M%S')}-{os.getpid()}"
    place = (arguments.output / "ab" / name).resolve()
    sides = {"A": variables_of(arguments.a, "--a"), "B": variables_of(arguments.b, "--b")}
    if engine.name == "atom":
        for side, variables in sides.items():
            variables.setdefault(_JIT, str(place.parent / f"jit-{side}" / _JIT_PLACE))
    for side, variables in sides.items():
        _build(side, variables, settings, engine.name, arguments.build, screen)
    run = RunInfo(name, place, "main", (os.getpid(),), ci=False)
    windows = {case.slug: arguments.windows}
    session = CaptureSession(settings, run, progress=screen.complain, windows=windows)
    try:
        taken = session.interleave(case, sides, launches=arguments.launches, test_id="atomtrace ab")
    finally:
        session.close()
    views = {
        side: [[_view(one, case, settings) for one in windows] for windows in launches]
        for side, launches in taken.items()
    }
    for side, variables in sides.items():
        _refuse_foreign(side, variables, views[side][0][0])
    found = compare_sides(case.slug, views["A"], views["B"])
    # One launch a side is no measurement of noise: a script must not take its silence for "not slower".
    code = 2 if found.test == "none" else 1 if found.slower else 0
    return Answer(code, record(found), lambda width: ab_lines(found, width=width))


def case_of(words: Sequence[str]) -> Case:
    """A case from a model and ``field=value`` words.

    Raises:
        ConfigError: no model, an unknown field, a value that is none.

    """
    from pytest_atomtrace.cases.matrix import expand

    fields: dict[str, object] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            key, text = "model", word
        if key in fields:
            raise ConfigError(f"{key} is given twice", "CASE")
        fields[key] = shlex.split(text) if key in ("server_args", "bench_args") else _value(text)
    cases = expand(fields)
    if len(cases) != 1:
        raise ConfigError("one case at a time", "CASE")
    return cases[0]


def _value(text: str) -> object:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def variables_of(text: str, where: str) -> dict[str, str]:
    """``NAME=VALUE ...`` as a shell would read it.

    Raises:
        ConfigError: a word that is no assignment.

    """
    found: dict[str, str] = {}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{text!r}: {error}", where) from None
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"{word!r} is no NAME=VALUE", where)
        found[name] = value
    return found


def _build(
    side: str, variables: Mapping[str, str], settings: Settings, engine: str, command: str | None, screen: Screen
) -> None:
    """Build a side while nobody waits for the GPUs: import AITER once, which compiles what is missing, and the command.

    Raises:
        ConfigError: it cannot be built.

    """
    from pytest_atomtrace.capture.process import read_output
    from pytest_atomtrace.settings import environment

    commands = [[settings.atom_python, "-c", "import aiter"]] if engine == "atom" else []
    commands += [shlex.split(command)] if command else []
    for argv in commands:
        screen.complain(f"atomtrace: building side {side}: {shlex.join(argv)}")
        try:
            read_output(argv, env={**environment(), **variables}, timeout_s=settings.start_timeout)
        except OSError as error:
            raise ConfigError(f"could not be built: {error}", f"side {side}") from None


def _view(capture: Capture, case: Case, settings: Settings) -> TraceView:
    from pytest_atomtrace.trace.load import load
    from pytest_atomtrace.verdicts.saved import beside
    from pytest_atomtrace.verdicts.view import TraceView

    return TraceView(
        load(capture.ranks, expected=capture.expected_ranks or None),
        case=case,
        directory=capture.directory,
        engine=capture.engine,
        settings=settings,
        manifest=capture.manifest,
        bench=beside(capture.directory, "bench.json"),
    )


def _refuse_foreign(side: str, variables: Mapping[str, str], view: TraceView) -> None:
    """Refuse a side that ran somebody else's code: its path names a checkout, and no package came from there.

    Raises:
        ConfigError: with where the packages came from.

    """
    from pytest_atomtrace.verdicts.side_by_side import loaded_of

    places = {key: value for key, value in loaded_of(view).items() if key in ("atom.place", "aiter.place")}
    wanted = [Path(part).resolve() for part in variables.get("PYTHONPATH", "").split(":") if part]
    if not places or not wanted:
        return
    if not any(Path(place).resolve().is_relative_to(root) for place in places.values() for root in wanted):
        seen = ", ".join(f"{key.partition('.')[0]} from {value}" for key, value in places.items())
        raise ConfigError(f"side {side} names {variables['PYTHONPATH']}, but loaded {seen}", f"--{side.lower()}")
