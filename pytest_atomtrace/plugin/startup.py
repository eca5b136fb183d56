"""What one pytest process sets up, and what it gives back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.plugin.options import read_settings
from pytest_atomtrace.plugin.state import STATE, WORKER_INPUT, State, record_of, worker_of
from pytest_atomtrace.settings import environment, rows

if TYPE_CHECKING:
    from pytest_atomtrace.plugin.keeping import Keeping
    from pytest_atomtrace.plugin.summary import Summary
    from pytest_atomtrace.settings import Row, Settings

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
    problems = [str(one) for one in sent.get("problems", ())]  # type: ignore[attr-defined]  # same
    settings = read_settings(config, unused_so_far=problems, from_controller=sent.get("settings"))  # type: ignore[arg-type]  # same
    output = Path(str(sent.get("output") or config.rootpath / settings.output))
    if worker is None:
        settings = _checked(config, settings, output, problems)
    state = State(
        settings=settings,
        run_id=str(sent.get("run_id", "")),
        output=output,
        worker=str(worker["workerid"]) if worker is not None else "main",
        controller_pid=int(str(sent.get("controller_pid") or os.getpid())),
        live=_may_be_live(config, alone=worker is None),
    )
    state.problems = list(dict.fromkeys(problems))
    config.stash[STATE] = state
    if (config.rootpath / settings.waivers).is_file():
        from pytest_atomtrace.plugin.waiving import load_waivers

        load_waivers(config, state)
    if worker is None:
        _register_controller_parts(config, state)


def _checked(config: pytest.Config, settings: Settings, output: Path, unused_so_far: list[str]) -> Settings:
    """Refuse places that cannot be what they are named as, before any test; `replay` becomes absolute.

    ``.atomtrace/latest`` is a link that may move: the run replays what it pointed at when it started. As with all that
    environment variables say, a wrong one goes to `unused_so_far`.

    Raises:
        pytest.UsageError: the replay holds nothing, the output directory is a file, or the waivers are not there.

    """

    def refuse(row: Row, problem: str) -> None:
        on_command_line = config.getoption(row.dest) is not None
        if environment().get(row.env) and not on_command_line:
            unused_so_far.append(f"{row.env}: {problem}")
            return
        in_ini = config.getini(row.ini) and not on_command_line
        raise pytest.UsageError(f"{f'ini {row.ini}' if in_ini else row.option}: {problem}")

    by_name = {row.name: row for row in rows()}
    if output.exists() and not output.is_dir():
        refuse(by_name["output"], f"{output} is a file; name a directory")
    if settings.is_given("waivers") and not (config.rootpath / settings.waivers).is_file():
        is_not = "is no file" if (config.rootpath / settings.waivers).exists() else "does not exist"
        refuse(by_name["waivers"], f"{settings.waivers} {is_not}; it is looked for in the rootdir, {config.rootpath}")
    if not settings.replay:
        return settings
    from pytest_atomtrace.capture.broken_replay import useless_replay

    problem = useless_replay(config.invocation_params.dir / settings.replay)
    if problem:
        refuse(by_name["replay"], problem)
    return settings.replace(replay=str((config.invocation_params.dir / settings.replay).resolve()))


def _may_be_live(config: pytest.Config, *, alone: bool) -> bool:
    """With workers of xdist several processes write to one terminal: lines only."""
    distributed = bool(config.getoption("numprocesses", None) or config.getoption("tx", None))
    return alone and not distributed and environment().get("TERM", "dumb") != "dumb"


def _case_fields() -> str:
    # Every start of pytest comes through here, and the cases cost it more than the rest of the plugin together:
    # they are imported for the one command that prints their fields.
    from pytest_atomtrace.cases.matrix import field_table

    return " Fields: " + "; ".join(f"{name} = {doc}" for name, _, doc in field_table())


def _register_controller_parts(config: pytest.Config, state: State) -> None:
    reader = _FirstReport(config, state)
    if state.settings.asks_for_files:
        reader.load()
    else:
        config.pluginmanager.register(reader, "atomtrace-first-report")
    if config.pluginmanager.hasplugin("xdist"):
        from pytest_atomtrace.plugin.workers import ControllerHooks

        config.pluginmanager.register(ControllerHooks(), "atomtrace-controller")


class _FirstReport:
    """Loads what makes reports and tidies up with the first report that they may need: most runs have none."""

    def __init__(self, config: pytest.Config, state: State) -> None:
        self._config = config
        self._state = state
        self._loaded = False

    # First, as the summary's own is: what it makes of an error must be what JUnit writes.
    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Whoever registers while a hook is being called is not called, so this report is handed on."""
        if not self._loaded and (report.failed or record_of(report)):
            for part in self.load():
                part.pytest_runtest_logreport(report)

    def load(self) -> tuple[Summary, Keeping]:
        """Register both."""
        from pytest_atomtrace.plugin.keeping import Keeping
        from pytest_atomtrace.plugin.summary import Summary

        self._loaded = True
        summary, keeping = Summary(self._state), Keeping(self._state)
        self._config.pluginmanager.register(summary, "atomtrace-summary")
        self._config.pluginmanager.register(keeping, "atomtrace-keeping")
        return summary, keeping


def unconfigure(config: pytest.Config) -> None:
    """Give back what the state holds; configure may have failed half-way."""
    state = config.stash.get(STATE, None)
    if state is None:
        return
    state.close()
    del config.stash[STATE]
