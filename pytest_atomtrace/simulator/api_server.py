"""The HTTP surface of the server and its life cycle."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from pytest_atomtrace.simulator.acceptance import mtp_metrics, mtp_stats
from pytest_atomtrace.simulator.aiter_log import build_lines
from pytest_atomtrace.simulator.completions import Completions
from pytest_atomtrace.simulator.engines import Engines, UtilityTimeoutError
from pytest_atomtrace.simulator.logs import log

if TYPE_CHECKING:
    from pytest_atomtrace.simulator.launch import Launch
    from pytest_atomtrace.simulator.ledger import Ledger

__all__ = ["Server", "run"]

START_TIMEOUT_S = 300.0


class Server:
    """One API process after its engines are ready."""

    def __init__(self, launch: Launch, engines: Engines, ledger: Ledger) -> None:
        self._launch = launch
        self._engines = engines
        self._ledger = ledger
        self._faults = launch.faults
        args = launch.args
        self._model_id: str = args.served_model_name or args.model
        self._access_log = not args.disable_uvicorn_access_log
        self._active = 0
        self._received: list[int] = []
        self._snapshot = ""
        self._renewed_s = 0.0
        self._wake = asyncio.Event()
        self._build: asyncio.Task[None] | None = None

    # -- life --------------------------------------------------------------------------------------------

    async def serve(self) -> int:
        """Listen until a signal; returns the signal's number."""
        args = self._launch.args
        loop = asyncio.get_running_loop()
        self._engines.attach(loop)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        log(f"Starting server on {args.host}:{args.server_port} (loop=asyncio)...")
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        runner = web.AppRunner(
            self._application(),
            access_log=None,
            keepalive_timeout=args.timeout_keep_alive,
            handler_cancellation=True,
            shutdown_timeout=0.1,
        )
        await runner.setup()
        log("Server started successfully and ready to accept requests")
        site = web.TCPSite(runner, "127.0.0.1", args.server_port, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            os.write(
                2, f"ERROR:    [Errno {error.errno}] error while attempting to bind on address: {error}\n".encode()
            )
            self._engines.close()
            return 0
        url = f"http://{args.host}:{args.server_port}"
        os.write(2, b"INFO:     Application startup complete.\n")
        os.write(
            2,
            f"INFO:     Uvicorn running on {url} (Press CTRL+C to quit)\n".encode(),
        )
        received = await self._until_signal()
        await site.stop()
        while self._active and len(self._received) < 2:  # drain, until a second signal forces the exit
            self._wake.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), 0.05)
        log("Server shutting down, releasing resources...")
        self._engines.close()
        await runner.cleanup()
        return received

    async def _until_signal(self) -> int:
        while not self._received:
            await self._wake.wait()
            self._wake.clear()
        return self._received[0]

    def _on_signal(self, number: int) -> None:
        if not self._faults.get("ignore_sigterm"):
            self._received.append(number)
            self._wake.set()

    # -- routes ------------------------------------------------------------------------------------------

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._middleware()], client_max_size=64 << 20)
        launch = self._launch
        completions = Completions(
            self._engines,
            model=launch.args.model,
            served=self._model_id,
            max_model_len=launch.max_model_len,
            faults=self._faults,
        )
        app.router.add_post("/v1/completions", completions.completions)
        app.router.add_post("/v1/chat/completions", completions.chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/server_info", self._server_info)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/debug/mtp_stats", self._mtp_stats)
        app.router.add_post("/start_profile", self._start_profile)
        app.router.add_post("/stop_profile", self._stop_profile)
        return app

    def _middleware(self) -> Any:  # noqa: ANN401 - aiohttp's own decorator is untyped in old versions
        @web.middleware
        async def count_and_log(request: web.Request, handler: Any) -> web.StreamResponse:  # noqa: ANN401
            self._active += 1
            status, phrase = 500, "Internal Server Error"
            try:
                response: web.StreamResponse = await handler(request)
            except web.HTTPException as error:  # FastAPI's body for routing errors
                response = web.json_response(
                    {"detail": error.reason},
                    status=error.status,
                    headers={key: value for key, value in error.headers.items() if key == "Allow"},
                )
            finally:
                self._active -= 1
                self._wake.set() if self._received else None
            status, phrase = response.status, response.reason
            if self._access_log:
                peer = request.transport.get_extra_info("peername") if request.transport else None
                where = f"{peer[0]}:{peer[1]}" if peer else "-"
                line = f"{request.method} {request.path_qs} HTTP/1.1"
                os.write(
                    1,
                    f'INFO:     {where} - "{line}" {status} {phrase}\n'.encode(),
                )
            return response

        return count_and_log

    async def _models(self, _: web.Request) -> web.Response:
        other = self._faults.get("port_other_model")
        ident = (other.args[0] if other.args else "Qwen/Qwen3-0.6B") if other else self._model_id
        entry = {"id": ident, "object": "model", "created": int(time.time()), "owned_by": "atom"}
        return web.json_response({"object": "list", "data": [entry]})

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _server_info(self, _: web.Request) -> web.Response:
        args, launch = self._launch.args, self._launch
        return web.json_response(
            {
                "model_id": args.model,
                "served_model_name": self._model_id,
                "tp_size": launch.tp_size,
                "dp_size": launch.dp_size,
            }
        )

    async def _metrics(self, _: web.Request) -> web.Response:
        now_s = time.time()
        if not self._snapshot or now_s - self._renewed_s >= self._launch.controls.metrics_s:
            self._renewed_s = now_s
            self._snapshot = self._figures()
        return web.Response(text=self._snapshot, content_type="text/plain")

    def _figures(self) -> str:
        engines = self._engines
        values: dict[str, float] = {
            "metrics_snapshot_available": 1,
            "metrics_last_refresh_timestamp_seconds": self._renewed_s,
            "requests_running": sum(load[0] for load in engines.loads),
            "requests_waiting": sum(load[1] for load in engines.loads),
            "requests_finished": engines.finished,
            "prompt_tokens": engines.prompts,
            "generation_tokens": engines.generated,
            **(mtp_metrics(engines.accepted) if self._launch.spec_tokens else {}),
        }
        return "".join(
            f"# TYPE atom:{name.partition('{')[0]} gauge\natom:{name} {float(value)}\n"
            for name, value in values.items()
        )

    async def _mtp_stats(self, _: web.Request) -> web.Response:
        counts = [row for row in self._engines.command("mtp_stats", 30.0) if isinstance(row, list)]
        return web.json_response(mtp_stats([sum(column) for column in zip(*counts, strict=False)] or [0]))

    # -- the profiler ------------------------------------------------------------------------------------

    def _command(self, name: str, timeout_s: float) -> list[object]:
        return self._engines.command(name, timeout_s, wait=not self._faults.get("async_stop"))

    async def _start_profile(self, _: web.Request) -> web.Response:
        self._ledger.write("window", action="start")
        try:
            self._command("start_profile", START_TIMEOUT_S)
        except UtilityTimeoutError as error:
            log(f"Failed to start profiling\nTraceback (most recent call last):\nTimeoutError: {error}")
            return web.json_response({"detail": f"Failed to start profiling: {error}"}, status=500)
        log("Profiling started")
        build = self._faults.get("aiter_build")
        if build:
            self._build = asyncio.ensure_future(build_lines(build.number(0, 0.01)))
        return web.json_response({"status": "success", "message": "Profiling started"})

    async def _stop_profile(self, _: web.Request) -> web.Response:
        self._ledger.write("window", action="stop")
        timeout_s = self._launch.controls.profiler_timeout_s
        late = self._faults.get("stop_timeout")
        if late:
            timeout_s = min(timeout_s, late.number(0, 0.5))
        try:
            traces = self._command("stop_profile", timeout_s)
        except UtilityTimeoutError as error:
            log(f"Failed to stop profiling\nTraceback (most recent call last):\nTimeoutError: {error}")
            return web.json_response({"detail": f"Failed to stop profiling: {error}"}, status=500)
        body: dict[str, object] = {"status": "success", "message": "Profiling stopped. Trace files generated."}
        if not self._faults.get("async_stop"):
            body["traces"] = traces
        return web.json_response(body)


def run(launch: Launch, engines: Engines, ledger: Ledger) -> int:
    """Serve until a signal and leave as ATOM does: 0 after SIGINT, killed by SIGTERM after SIGTERM."""

    async def main() -> int:
        return await Server(launch, engines, ledger).serve()

    number = asyncio.run(main())
    sys.stdout.flush()
    if number == signal.SIGINT:
        log("Received SIGINT, shutting down engine...")
        log("Engine shutdown complete.")
        return 0
    if number == signal.SIGTERM:
        ledger.write("exit", code=-15)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    return 1
