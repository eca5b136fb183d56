"""What one pytest process sets up, and what it gives back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.plugin.options import read_settings
from pytest_atomtrace.plugin.progress import Progress
from pytest_atomtrace.plugin.state import STATE, WORKER_INPUT, State, worker_of
from pytest_atomtrace.settings import environment

if TYPE_CHECKING:
    import pytest

    from pytest_atomtrace.settings import Settings

__all__ = ["configure", "unconfigure"]

MARKERS = (
    "gpu: the test needs ATOM's GPUs (or --atom-replay, or --atom-backend=sim); given to every test with a case",
    "atom_case(model, *, tp=1, isl=1024, osl=None, conc=64, ...): what to measure; a list in any field makes a "
    "matrix.{fields}",
    "atom_catalog(model, *, variants=None, isl=..., osl=..., conc=..., ...): cases of ATOM's models.json "
    "(--atom-catalog); isl, osl, conc and range_ratio stand in for its scenarios' own",
    "atom_full: part of the full set, which runs with --atom-full or when its file is named",
)


def configure(config: pytest.Config) -> None:
    """Resolve settings (in an xdist worker: as the controller decided) and register the working parts."""
    fields = _case_fields() if config.getoption("markers") else ""
    for line in MARKERS:
        config.addinivalue_line("markers", line.format(fields=fields))
    sent: dict[str, object] = {}
    worker = worker_of(config)
    if worker is not None:
        sent = worker.get(WORKER_INPUT, {})  # type: ignore[assignment]  # our own dict, sent by run_input
    settings = read_settings(config, from_controller=sent.get("settings"))  # type: ignore[arg-type]  # same
    output = Path(str(sent.get("output") or config.rootpath / settings.output))
    if worker is None:
        settings = _checked(config, settings, output)
    state = State(
        settings=settings,
        run_id=str(sent.get("run_id", "")),
        output=output,
        worker=str(worker["workerid"]) if worker is not None else "main",
        controller_pid=int(str(sent.get("controller_pid") or os.getpid())),
        progress=_progress(config, alone=worker is None),
    )
    config.stash[STATE] = state
    if (config.rootpath / settings.waivers).is_file():
        from pytest_atomtrace.plugin.waiving import load_waivers

        load_waivers(config, state)
    if worker is None:
        _register_controller_parts(config, state)


def _checked(config: pytest.Config, settings: Settings, output: Path) -> Settings:
    """Refuse places that cannot be what they are named as, before any test; `replay` becomes absolute.

    ``.atomtrace/latest`` is a link that may move: the run replays what it pointed at when it started.

    Raises:
        pytest.UsageError: the replay holds nothing, or the output directory is a file.

    """
    import pytest

    if output.exists() and not output.is_dir():
        raise pytest.UsageError(f"--atom-output: {output} is a file; name a directory")
    if not settings.replay:
        return settings
    from pytest_atomtrace.capture.broken_replay import useless_replay

    problem = useless_replay(config.invocation_params.dir / settings.replay)
    if problem:
        raise pytest.UsageError(f"--atom-replay: {problem}")
    return settings.replace(replay=str((config.invocation_params.dir / settings.replay).resolve()))


def _progress(config: pytest.Config, *, alone: bool) -> Progress:
    """With workers of xdist several processes write to one terminal: lines only."""
    distributed = bool(config.getoption("numprocesses", None) or config.getoption("tx", None))
    return Progress(live=alone and not distributed and environment().get("TERM", "dumb") != "dumb")


def _case_fields() -> str:
    # Every start of pytest comes through here, and the cases cost it more than the rest of the plugin together:
    # they are imported for the one command that prints their fields.
    from pytest_atomtrace.cases.matrix import field_table

    return " Fields: " + "; ".join(f"{name} = {doc}" for name, _, doc in field_table())


def _register_controller_parts(config: pytest.Config, state: State) -> None:
    from pytest_atomtrace.plugin.keeping import Keeping
    from pytest_atomtrace.plugin.summary import Summary

    config.pluginmanager.register(Summary(state), "atomtrace-summary")
    config.pluginmanager.register(Keeping(state), "atomtrace-keeping")
    if config.pluginmanager.hasplugin("xdist"):
        from pytest_atomtrace.plugin.workers import ControllerHooks

        config.pluginmanager.register(ControllerHooks(), "atomtrace-controller")


def unconfigure(config: pytest.Config) -> None:
    """Close the progress descriptor; configure may have failed half-way."""
    state = config.stash.get(STATE, None)
    if state is None:
        return
    state.progress.close()
    del config.stash[STATE]
