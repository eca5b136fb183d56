"""The ready gate: when a launched server may be believed to serve our model.

Neither /health nor the first answer on the port proves anything: ATOM's /health says ok after its workers died,
and another server may hold the port.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.http import Client, TransportError
from pytest_atomtrace.capture.server import Patience
from pytest_atomtrace.errors import LaunchError
from pytest_atomtrace.units import format_seconds

if TYPE_CHECKING:
    from pytest_atomtrace.capture.progress import Progress
    from pytest_atomtrace.capture.server import Server
    from pytest_atomtrace.capture.serverlog import ServerLog
    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.settings import Settings

__all__ = ["StallRule", "wait_until_ready"]

_POLL_S = 0.1
_PROBE_S = 5.0
# AITER's builders wait for each other's lock file; with no build alive nobody will ever release it.
_BATON_S = 300.0
_USAGE = re.compile(r"error: (unrecognized arguments|argument |the following arguments).*")


@dataclass
class StallRule:
    """A loading server that writes nothing is stuck, unless an AITER build is running."""

    log: ServerLog
    limit_s: float
    _grown_s: float = -1.0
    _size: int = -1

    def problem(self, now_s: float) -> str:
        """Why the launch is stuck, "" while it is not."""
        if self.log.size != self._size:
            self._size, self._grown_s = self.log.size, now_s
        building = len(self.log.events("build_start")) > len(self.log.events("build_finish"))
        silent_s = now_s - self._grown_s
        batons = self.log.events("baton")
        if batons and not building and silent_s > min(_BATON_S, self.limit_s):
            return (
                f"a build waits for the lock file {batons[-1].path} and no build is running "
                f"(remove it if no other process builds)"
            )
        if silent_s > self.limit_s and not building:
            return f"the server's log has not grown for {format_seconds(silent_s)}"
        return ""


async def wait_until_ready(server: Server, settings: Settings, progress: Progress) -> None:
    """Wait until the model list, the parallelism and a one-token completion are right and the process lives.

    Raises:
        LaunchError: deadline, stall, death, a fault line, or a server that is not the one we asked for.

    """
    clock, case = server.clock, server.case
    start_s = clock.monotonic_s()
    stall = StallRule(server.log, settings.stall_timeout)
    limit = format_seconds(settings.start_timeout)
    async with Client(server.url, clock=clock) as client:
        while not await _answers(client, server, case):
            _check_alive(server)
            now_s = clock.monotonic_s()
            problem = stall.problem(now_s)
            if problem:
                raise LaunchError(
                    f"the server of {case.slug} is stuck while starting: {problem}", "", server.log.tail()
                )
            if now_s - start_s > settings.start_timeout:
                raise LaunchError(
                    f"the server of {case.slug} was not ready within {limit}",
                    "A cold start compiles for minutes: raise --atom-start-timeout if the log below still moves.",
                    server.log.tail(),
                )
            progress.update(_last(server))
            await asyncio.sleep(_POLL_S)
        await _check_parallelism(client, server, case)
        left_s = max(_PROBE_S, settings.start_timeout - (clock.monotonic_s() - start_s))
        await server.beside(
            _complete_one(client, case),
            f"the server of {case.slug}, first completion",
            LaunchError,
            Patience(left_s),
        )
    _check_alive(server)


def _last(server: Server) -> str:
    return (server.log.tail(1) or ["nothing logged yet"])[0][:120]


def _check_alive(server: Server) -> None:
    trouble = server.trouble()
    if trouble is None:
        return
    usage = next((line for line in server.log.tail(40) if _USAGE.search(line)), "")
    problem = f"the command line was refused: {usage.strip()}" if usage else trouble.problem
    hint = "Look at the case's server_args, and at --atom-root for another version of ATOM." if usage else trouble.hint
    raise LaunchError(f"the server of {server.case.slug} did not start: {problem}", hint, trouble.evidence)


async def _answers(client: Client, server: Server, case: Case) -> bool:
    try:
        reply = await client.get("/v1/models", timeout_s=_PROBE_S)
    except TransportError:
        return False
    if reply.status != 200:
        return False
    data = reply.fields.get("data")
    ids = [str(row.get("id")) for row in data if isinstance(row, dict)] if isinstance(data, list) else []
    if case.model.rstrip("/") not in [name.rstrip("/") for name in ids]:
        raise LaunchError(
            f"the server at {server.url} serves {', '.join(ids) or 'no model'}, not {case.model}",
            "Another server holds this port; leave --atom-port out and a free one is taken.",
            server.log.tail(),
        )
    return True


async def _check_parallelism(client: Client, server: Server, case: Case) -> None:
    try:
        reply = await client.get("/server_info", timeout_s=_PROBE_S)
    except TransportError as error:
        raise LaunchError(f"the server at {server.url} answers /v1/models but not /server_info: {error}") from error
    if reply.status == 404:  # before this route existed; the exact rank set is checked after the export anyway
        return
    # With dp_attention ATOM rewrites its own configuration: -tp 8 reports tp_size 1, dp_size 8.
    wanted = (1, case.tp * case.dp) if case.dp_attention else (case.tp, case.dp)
    have = (reply.fields.get("tp_size"), reply.fields.get("dp_size"))
    if have != wanted:
        raise LaunchError(
            f"the server of {case.slug} runs with tp_size={have[0]}, dp_size={have[1]}, "
            f"the case needs tp_size={wanted[0]}, dp_size={wanted[1]}",
            "Look for parallelism flags in the case's server_args, or for another server on this port.",
            server.log.tail(),
        )


async def _complete_one(client: Client, case: Case) -> None:
    body: dict[str, object] = {"model": case.model, "prompt": "hi", "max_tokens": 1, "temperature": 0.0}
    try:
        # The first request may compile kernels: the launch deadline above is the only limit.
        reply = await client.post("/v1/completions", body, timeout_s=86_400.0)
    except TransportError as error:
        raise LaunchError(f"the server of {case.slug} cut off its first completion: {error}") from error
    if reply.status != 200:
        raise LaunchError(f"the server of {case.slug} refused its first completion: {reply.reason}")
