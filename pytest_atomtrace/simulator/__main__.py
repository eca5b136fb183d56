"""``python -m pytest_atomtrace.simulator``: the stand-in ATOM server, or with ``--write-tools DIR`` its GPU tools."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.simulator.aiter_log import log_untuned
from pytest_atomtrace.simulator.argv import parse_argv
from pytest_atomtrace.simulator.children import leak
from pytest_atomtrace.simulator.controls import ControlError, Controls
from pytest_atomtrace.simulator.launch import EngineStartError, Launch
from pytest_atomtrace.simulator.ledger import Ledger
from pytest_atomtrace.simulator.logs import log
from pytest_atomtrace.simulator.mutations import MutationError
from pytest_atomtrace.simulator.profile import ProfileError

if TYPE_CHECKING:
    import argparse

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run one server; returns its exit status (SIGTERM never returns)."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["--write-tools"]:
        return _write_tools(arguments[1:])
    args = parse_argv(arguments)
    try:
        controls = Controls.from_environ()
    except ControlError as error:
        os.write(2, f"simulator: error: {error}\n".encode())
        return 2
    ledger = Ledger(controls.ledger, argv=arguments, model=args.model, port=args.server_port)
    ledger.write("start")
    code = 1
    try:
        code = _serve(args, controls, ledger)
    except MutationError as error:
        os.write(2, f"simulator: error: {error}\n".encode())
        code = 2
    except (ProfileError, EngineStartError) as error:
        os.write(2, f"Traceback (most recent call last):\n{type(error).__name__}: {error}\n".encode())
    finally:
        ledger.write("exit", code=code)
    return code


def _write_tools(arguments: list[str]) -> int:
    """``--write-tools DIR``: rocm-smi and amd-smi for a PATH. ATOM's command line knows nothing like it."""
    if len(arguments) != 1:
        os.write(2, b"usage: python -m pytest_atomtrace.simulator --write-tools DIR\n")
        return 2
    from pytest_atomtrace.simulator.smi import write_tools

    try:
        written = write_tools(Path(arguments[0]))
    except OSError as error:
        os.write(2, f"simulator: error: {error}\n".encode())
        return 1
    os.write(1, "".join(f"{path}\n" for path in written).encode())
    return 0


def _die_loading(ledger: Ledger) -> None:
    """SIGTERM before the server listens: the record is closed, then the signal kills as it would have."""
    ledger.write("exit", code=-15)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _serve(args: argparse.Namespace, controls: Controls, ledger: Ledger) -> int:
    if controls.faults.get("ignore_sigterm"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: _die_loading(ledger))
    log(f"Loading tokenizer from {args.model}...")
    launch = Launch(args, controls)
    log(f"Initializing engine with model {args.model}...")
    log(f"Engine kwargs: {vars(args)}")
    launch.prepare_directories()
    leaking = controls.faults.get("leak_process")
    if leaking:
        leak(leaking.number(0, 300))
    if controls.faults.get("print_environment"):
        for name, value in sorted(os.environ.items()):
            log(f"{name}: {value}")
    if controls.faults.get("untuned"):
        log_untuned(launch.tp_size)
    children = launch.start()
    # the heavy import runs while the workers start
    from pytest_atomtrace.simulator import api_server
    from pytest_atomtrace.simulator.engines import Engines

    launch.wait_ready(children)
    log(f"LLMEngine init with {launch.dp_size} data parallel ranks")
    return api_server.run(launch, Engines(children), ledger)


if __name__ == "__main__":
    raise SystemExit(main())
