"""From a case to a server that is ready: launched by us, under the lease."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.engines import RUN_TOKEN, ranks_of
from pytest_atomtrace.capture.files import write_bytes
from pytest_atomtrace.capture.http import free_port, port_is_taken
from pytest_atomtrace.capture.identity import Identity
from pytest_atomtrace.capture.life import OwnLife, ScriptedLife
from pytest_atomtrace.capture.ready import wait_until_ready
from pytest_atomtrace.capture.redact import Redactor
from pytest_atomtrace.capture.server import Server
from pytest_atomtrace.capture.serverlog import ServerLog
from pytest_atomtrace.errors import InfraError, LaunchError
from pytest_atomtrace.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_atomtrace.capture.clock import Clock
    from pytest_atomtrace.capture.engines import Engine, Launch
    from pytest_atomtrace.capture.keeper_link import KeeperLink
    from pytest_atomtrace.capture.progress import Progress
    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.settings import Settings

__all__ = ["launch_server", "with_place"]


def launch_server(
    case: Case,
    engine: Engine,
    *,
    work: Path,
    env: Mapping[str, str],
    link: KeeperLink,
    settings: Settings,
    progress: Progress,
    clock: Clock,
) -> Server:
    """Start the server of `case` in the directory `work` and wait until it is ready.

    Raises:
        LaunchError: it was not started, or did not become ready.

    """
    trace_dir = work / "trace"
    trace_dir.mkdir(parents=True)
    port = settings.port or free_port()
    if port_is_taken(port):
        raise LaunchError(
            f"port {port} is taken: another server listens on it",
            "Stop that server, or leave --atom-port out and a free port is taken.",
        )
    launch = engine.launch(case, trace_dir=trace_dir, port=port, base_env=env, token=env[RUN_TOKEN])
    _prepare(launch)
    limit_s = settings.start_timeout
    name = "launching the server"
    progress.stage(f"{name} (deadline {format_seconds(limit_s)})", name=name, limit_s=limit_s)
    log = work / "server.log"
    reply = link.request("launch", argv=list(launch.argv), env=dict(launch.env), cwd=str(work), log=str(log))
    redactor = Redactor(launch.env, launch.argv)
    identity = Identity(int(str(reply["pid"])), int(str(reply["start"])))
    server = Server(
        engine=engine.name,
        case=case,
        launch=launch,
        identity=identity,
        url=f"http://127.0.0.1:{port}",
        trace_dir=trace_dir,
        ranks=ranks_of(case),
        log=ServerLog(log, redactor),
        link=link,
        redactor=redactor,
        clock=clock,
        life=ScriptedLife(link, clock) if launch.scripted else OwnLife(identity, link),
    )
    try:
        asyncio.run(wait_until_ready(server, settings, progress))
    except InfraError as error:
        raise with_place(error, f"The whole log: {server.log.path}") from error
    return server


def _prepare(launch: Launch) -> None:
    for path, text in launch.files.items():
        write_bytes(path, text.encode())
    for directory in launch.emptied:
        # Never through a link: what it points to may be shared with others.
        if directory.is_symlink() or not directory.is_dir():
            continue
        for entry in directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    entry.unlink()


def with_place(error: InfraError, place: str) -> InfraError:
    """The same error, its hint followed by where to look."""
    return type(error)(error.problem, f"{error.hint}\n{place}" if error.hint else place, error.evidence)
