"""Capturing from a server that somebody else runs: verified, never launched, stopped or cleaned."""

from __future__ import annotations

import asyncio
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pytest_atomtrace.capture.engines import Launch, ranks_of
from pytest_atomtrace.capture.gpus import GpuSite, read_topology, visible
from pytest_atomtrace.capture.http import Client, TransportError
from pytest_atomtrace.capture.identity import Identity, environment_of
from pytest_atomtrace.capture.life import AttachedLife, listener_of, log_of
from pytest_atomtrace.capture.rankstate import files_now
from pytest_atomtrace.capture.ready import wait_until_ready
from pytest_atomtrace.capture.redact import Redactor
from pytest_atomtrace.capture.server import Server
from pytest_atomtrace.capture.serverlog import ServerLog
from pytest_atomtrace.capture.tenants import holders_of_kfd, read_tenants
from pytest_atomtrace.errors import LaunchError, LeaseError, WindowError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from urllib.parse import SplitResult

    from pytest_atomtrace.capture.clock import Clock
    from pytest_atomtrace.capture.keeper_link import KeeperLink
    from pytest_atomtrace.capture.progress import Progress
    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.settings import Settings

__all__ = [
    "AttachEngine",
    "attach_server",
    "attached_site",
    "closed_by_others",
    "lock_name_of",
    "refuse_open_window",
]

_LOCAL = ("127.0.0.1", "localhost", "::1", "0.0.0.0")  # noqa: S104  # recognised, never bound
_ASK_S = 330.0


class AttachEngine:
    """The engine that launches nothing."""

    name = "attach"

    def launch(self, case: Case, *, trace_dir: Path, port: int, base_env: Mapping[str, str], token: str) -> Launch:
        """Refuse: what is asked for does not exist here."""
        del trace_dir, port, base_env, token
        raise LaunchError("an attached server is not launched", f"It serves {case.model} or it does not.")


def lock_name_of(url: str) -> str:
    """Name of the lock of an attached server: two runs that reach it by one address take turns."""
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname in (*_LOCAL, platform.node().lower()) else parts.hostname or "unknown"
    # An address of IPv6 has colons, and one with a zone a percent sign.
    return f"attach-{re.sub(r'[^a-z0-9.-]', '_', host)}-{_port_of(parts)}"


def _port_of(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def attach_server(
    case: Case,
    *,
    work: Path,
    env: Mapping[str, str],
    link: KeeperLink,
    settings: Settings,
    progress: Progress,
    clock: Clock,
) -> Server:
    """The running server as a `Server`, after a look at what it serves; nothing of it is touched.

    Its process and log are used where they can be seen: a local server of this user whose output goes to a file.

    Raises:
        LaunchError: it does not answer, serves another model or parallelism, or its log is not to be seen.
        WindowError: somebody has a window open on it.

    """
    # Resolved, since the open files of the server's workers are known by their real paths.
    trace_dir = Path(settings.attach_trace_dir).resolve()
    if not trace_dir.is_dir():
        raise LaunchError(
            f"--atom-attach-trace-dir: {trace_dir} is no directory",
            "Name the --torch-profiler-dir that the server was started with; it must be visible on this machine.",
        )
    url = settings.attach.rstrip("/")
    asyncio.run(_refuse_silent(url, settings, clock))
    parts = urlsplit(settings.attach)
    port = _port_of(parts)
    identity = listener_of(port) if parts.hostname in _LOCAL else None
    life = AttachedLife(identity)
    redactor = Redactor(env, (settings.attach,))
    path = _log_path(settings, life)
    log = ServerLog(work / "none.log", redactor)
    progress.done(f"attaching to {redactor.text(settings.attach)} (log: {path or 'not to be seen'})")
    if path is not None:
        history = ServerLog(path, redactor)
        history.poll()
        if not settings.attach_log:
            _refuse_log_of_another(history, port)
        _refuse_unfinished(history)
        log.follow(path, from_end=True)
    server = Server(
        engine="attach",
        case=case,
        launch=Launch((), {}),
        identity=identity or Identity(0, 0),
        url=url,
        trace_dir=trace_dir,
        ranks=ranks_of(case),
        log=log,
        link=link,
        redactor=redactor,
        clock=clock,
        life=life,
        attached=True,
    )
    asyncio.run(wait_until_ready(server, settings, progress))
    return server


async def _refuse_silent(url: str, settings: Settings, clock: Clock) -> None:
    async with Client(url, clock=clock) as client:
        try:
            await client.get("/v1/models", timeout_s=settings.workload_timeout)
        except TransportError as error:
            raise LaunchError(
                f"no server answers at {url}: {error}",
                "Start one with --torch-profiler-dir, or leave --atom-attach out to have one launched.",
            ) from error


def _log_path(settings: Settings, life: AttachedLife) -> Path | None:
    """The server's log; None only where the user said that there is none.

    Whether a window is open is told by the log alone: the server answers the same to a start that does nothing, and
    the one request that differs, /stop_profile, ends what somebody records. So that is not sent unasked.
    """
    if settings.attach_log == "none":
        return None
    path = Path(settings.attach_log).resolve() if settings.attach_log else log_of(life.pids())
    if path is not None and path.is_file():
        return path
    raise LaunchError(
        f"--atom-attach-log: {path} is no file" if path else "the attached server's log cannot be seen from here",
        "It tells whether somebody records on the server now. Name it: --atom-attach-log=FILE (of a container: "
        "docker logs -f NAME > FILE 2>&1 &). --atom-attach-log=none goes without it: then /stop_profile is sent once "
        "before our window, and ends a recording of somebody else.",
    )


def _refuse_log_of_another(history: ServerLog, port: int) -> None:
    """A tunnel or proxy that listens in the server's place may have started another server itself.

    Its log was followed once: a minute later all that could be said was that no rank had begun a window.
    """
    listening = history.events("listening")
    other = listening[-1].facts["port"] if listening else str(port)
    if int(other) != port:
        raise LaunchError(
            f"the log found for the server at port {port} is of one at port {other}: {history.path}",
            "Something else listens in the server's place, such as a proxy. Name the log: --atom-attach-log=FILE|none.",
        )


def _refuse_unfinished(history: ServerLog) -> None:
    """Every rank says when its window begins and when it ended: more beginnings than ends is an open window.

    Only the life of the server that runs counts: an earlier one that was killed took its windows along.
    """
    life = max((event.offset for event in history.events("server_starting")), default=0)
    begun = len(history.events("profiler_started", since=life))
    ended = len(history.events("profiler_stopped", since=life))
    if begun > ended:
        raise WindowError(
            "somebody has a profiler window open on the server: "
            f"{begun} starts and {ended} stops are in {history.path}",
            "Close it (POST /stop_profile) if it is yours and forgotten; nothing was sent to the server.",
            history.tail(),
        )


async def refuse_open_window(server: Server, client: Client) -> None:
    """Where the log is out of sight, find an open window by closing it: that is a no-op where there is none.

    Raises:
        WindowError: a window was open; it is closed now and its files are in the server's directory.

    """
    if server.log_seen:
        return
    try:
        reply = await client.post("/stop_profile", timeout_s=_ASK_S)
    except TransportError as error:
        raise WindowError(f"the server does not answer to /stop_profile: {error}") from error
    traces = reply.fields.get("traces")
    rows = [row for row in traces if isinstance(row, dict)] if isinstance(traces, list) else []
    busy = [row for row in rows if isinstance(row.get("elapsed"), (int, float)) and float(str(row["elapsed"])) > 0]
    if busy:
        raise WindowError(
            f"somebody had a profiler window open on the server; it was exported to {busy[0].get('trace_dir')}",
            "Its log cannot be seen from here, so the window could only be found by closing it.",
        )


def closed_by_others(server: Server, there: frozenset[Path], *, since: int) -> WindowError | None:
    """The error that tells of our window's end before we closed it; `there` are the files from before it began.

    What was recorded is a part of the load then, and the files are of whoever closed it.
    """
    server.log.poll()
    ended = server.log.events("profiler_stopped", since=since) if server.log_seen else []
    written = sorted(files_now(server.trace_dir) - there)
    if not ended and not written:
        return None
    seen = f"{written[0]} is there already" if written else f"its log says so: {ended[0].line.strip()[:200]}"
    return WindowError(
        f"somebody else closed our profiler window before its end: {seen}",
        "Another client of the server profiles too. What it wrote is left where it is.",
        server.log.tail() if server.log_seen else (),
    )


def attached_site(machine: Path, pids: Sequence[int]) -> GpuSite | None:
    """The GPUs that an attached server is on; None where that cannot be seen (another host, another user, no GPU).

    They are those on which the driver lists its processes; in a container, where it lists other pids, those that its
    environment leaves visible.
    """
    topology = read_topology(machine)
    if not topology.gpus or not pids:
        return None
    cards = {card for tenant in read_tenants(machine, topology.gpus) if tenant.pid in pids for card in tenant.cards}
    if cards:
        return GpuSite(machine, tuple(gpu for gpu in topology.gpus if gpu.pci in cards))
    if not holders_of_kfd(machine, pids):
        return None
    try:
        return GpuSite(machine, visible(topology, environment_of(pids[0])))
    except LeaseError:
        return None
