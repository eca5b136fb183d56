"""`atomtrace`: the trace engine without pytest.

atomtrace summary DIR            phases, ranks, where a step's time goes
atomtrace kernels DIR            which kernels, how often, how long
atomtrace steps DIR              one row a step
atomtrace diff A B               what changed
atomtrace health DIR             may it be believed
atomtrace check-layout DIR       did every rank leave its trace
atomtrace layers DIR             a decode step by model layer
atomtrace traits PATH...         what the profiler records
atomtrace open CASE              a trace, or a step of it, in Perfetto
atomtrace doctor                 what this machine offers to a capture
atomtrace ab CASE                two checkouts or environments, in turn
atomtrace history CASE           a metric over kept runs
atomtrace export DIR...          runs as Parquet tables
atomtrace spec check FILE...     is a spec right
atomtrace spec new               a first spec from a capture
atomtrace schema                 the grammar of specs, for editors
atomtrace catalog list PATH      ATOM's models, variants and benchmark cells
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from pytest_atomtrace.cli.arguments import parse
from pytest_atomtrace.errors import AtomTraceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_atomtrace.cli.answer import Answer
    from pytest_atomtrace.cli.screen import Screen

__all__ = ["main"]

_USAGE = 2
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 answered, 1 found, 2 wrong usage or unreadable input."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = parse(words)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else _USAGE
    # Not before: numpy and the readers cost more than the help text.
    from pytest_atomtrace.cli.commands import COMMANDS
    from pytest_atomtrace.cli.screen import Screen

    screen = Screen()
    command = arguments.command
    try:
        answer = COMMANDS[command](arguments, screen)
    except (AtomTraceError, OSError) as error:
        from pytest_atomtrace.capture.redact import Redactor
        from pytest_atomtrace.settings import environment

        screen.complain(f"atomtrace {command}: error: {Redactor(environment()).text(_sentence(error))}")
        return _USAGE
    except KeyboardInterrupt:
        return _INTERRUPTED
    return _deliver(command, answer, screen, json=arguments.json)


def _sentence(error: AtomTraceError | OSError) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return str(error)


def _deliver(command: str, answer: Answer, screen: Screen, *, json: bool) -> int:
    try:
        if json:
            import json as codec

            screen.text(codec.dumps({"command": command, "schema": 1, **answer.record}, indent=2, ensure_ascii=False))
        else:
            screen.lines(answer.lines(screen.width))
        if answer.then is not None:
            return answer.then(screen)
    except BrokenPipeError:
        # Whoever read has read enough (`| head`). The interpreter flushes once more at its end: into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), screen.out.fileno())
    except KeyboardInterrupt:
        return _INTERRUPTED
    return answer.code
