"""An EngineCore: owns its workers, schedules requests, runs one step after the other."""

from __future__ import annotations

import mmap
import os
import select
import time
from typing import Any

from pytest_atomtrace.simulator.children import Child, adopt, set_title, spawn
from pytest_atomtrace.simulator.faults import Faults, parse_faults
from pytest_atomtrace.simulator.logs import log
from pytest_atomtrace.simulator.scheduler import Executed, Limits, Request, Scheduler
from pytest_atomtrace.simulator.wire import Channel, ChannelClosedError

__all__ = ["main"]

FLUSH_STEPS = 16
PREFILL_TOKENS_PER_STEP = 512


class _WorkerDiedError(RuntimeError):
    pass


class _Engine:
    def __init__(self, config: dict[str, Any], channel: Channel) -> None:
        self._config = config
        self._channel = channel
        self._faults = Faults(parse_faults(config["fault"]))
        limits = dict(config["limits"], graph_sizes=tuple(config["limits"]["graph_sizes"]))
        self._scheduler = Scheduler(Limits(**limits), config["seed"])
        self._workers: list[Child] = []
        self._window = False
        self._pending: list[dict[str, Any]] = []
        self._last: dict[str, Any] | None = None
        self._background: float | None = None
        self._busy_flags = mmap.mmap(config["flags_fd"], 4096) if config["flags_fd"] >= 0 else None

    # -- life --------------------------------------------------------------------------------------------

    def load(self) -> None:
        config = self._config
        for worker in config["workers"]:
            self._workers.append(spawn("rank_process", worker, worker["label"]))
        if self._faults.get("die_loading"):
            fault = self._faults.get("die_loading")
            log("run_engine: exception: torch.OutOfMemoryError: HIP out of memory. Tried to allocate 14.00 GiB.")
            os._exit(int(fault.number(0, 1)) if fault else 1)
        deadline = time.monotonic() + config["ready_delay_s"]
        for child in self._workers:
            while not any(message.get("ready") for message in child.channel.receive()):
                pass
        time.sleep(max(0.0, deadline - time.monotonic()))
        if self._faults.get("never_ready"):
            while True:
                time.sleep(3600)
        if self._faults.get("shutdown_line"):
            self._channel.send({"t": "shutdown"})
            self.close()
            raise SystemExit(0)
        log("Memory budget: total_gpu=288.00GB, util=0.90, model=101.23GB, kv_cache=152.41GB")
        log(f"Engine Core: cudagraph capture[{list(config['limits']['graph_sizes'])}] cost: 0.10 seconds, pool: 0.50GB")
        log("Engine Core: load model runner success")
        log("Engine Core: EngineCore fully initialized and ready")
        if self._faults.get("start_already_running"):
            self._start_profile()
        self._channel.send({"t": "ready"})

    def close(self) -> None:
        for child in self._workers:
            child.channel.close()
        deadline = time.monotonic() + 5.0
        for child in self._workers:
            child.stop(max(0.0, deadline - time.monotonic()))

    def run(self) -> None:
        step_s = self._config["step_ms"] / 1000
        due = time.monotonic()
        while True:
            work = self._scheduler.busy or self._peers_busy()
            self._poll(max(0.0, due - time.monotonic()) if work else None)
            if self._busy_flags is not None:
                self._busy_flags[self._config["index"]] = int(self._scheduler.busy)
            if time.monotonic() < due or not (self._scheduler.busy or self._peers_busy()):
                continue
            executed = self._scheduler.next_step() if self._scheduler.busy else self._scheduler.dummy_step()
            self._execute(executed)
            # a prefill takes longer than a decode, else requests that come one by one would never share one
            tokens = executed.record["tok"] if executed.record["phase"] == "prefill" else 0
            due = max(due, time.monotonic() - step_s) + step_s * (1 + tokens / PREFILL_TOKENS_PER_STEP)

    def _peers_busy(self) -> bool:
        flags = self._busy_flags
        return flags is not None and any(flags[: self._config["engines"]])

    # -- messages ----------------------------------------------------------------------------------------

    def _poll(self, timeout_s: float | None) -> None:
        if self._busy_flags is not None:  # an idle engine must notice that a peer got work
            timeout_s = 0.005 if timeout_s is None else timeout_s
        if timeout_s is None:
            self._scheduler.idle = True
            self._flush()
        readers: list[Channel] = [self._channel, *(child.channel for child in self._workers)]
        for reader in select.select(readers, [], [], timeout_s)[0]:
            if reader is self._channel:
                for message in self._channel.receive():
                    self._handle(message)
            else:
                self._from_worker(reader)

    def _handle(self, message: dict[str, Any]) -> None:
        match message["t"]:
            case "add":
                self._scheduler.add(Request(message["id"], message["prompt"], message["wanted"]))
            case "abort":
                self._scheduler.abort(message["id"])
            case "util":
                self._utility(message["cmd"])

    def _from_worker(self, channel: Channel) -> list[dict[str, Any]]:
        try:
            messages = channel.receive()
        except ChannelClosedError:
            child = next(child for child in self._workers if child.channel is channel)
            code = child.process.wait()
            name = child.label.removeprefix("AsyncIOProc(").removesuffix(")")
            log(f"AsyncIOProcManager(ModelRunner): [{name}] proc died unexpectedly (exitcode={code}), shutting down.")
            raise _WorkerDiedError(name) from None
        if self._background is not None and any("result" in message for message in messages):
            log(f"Profiler stopped in {time.monotonic() - self._background:.2f}s")
            self._background = None
        return messages

    def _utility(self, command: str) -> None:
        log(f"Engine Core: executing utility command: {command}")
        began = time.monotonic()
        result: object = None
        if command == "start_profile":
            self._start_profile()
        elif command == "stop_profile":
            result = self._stop_profile()
        elif command == "mtp_stats":
            result = self._scheduler.acceptance.counts
        log(f"Engine Core: utility command '{command}' finished in {time.monotonic() - began:.3f}s")
        self._channel.send({"t": "util", "cmd": command, "result": result})

    def _start_profile(self) -> None:
        self._flush()
        before = self._last
        self._tell_workers({"op": "start", "before": before})
        self._window = True
        if not self._faults.get("async_stop"):
            self._await_worker("started")
        log("Engine Core: profiler started")

    def _stop_profile(self) -> object:
        guide_era = self._faults.get("async_stop")
        log("Profiler stopping..." if guide_era else "Engine Core: stopping profiler...")
        self._flush()
        self._window = False
        self._tell_workers({"op": "stop"})
        if guide_era:
            self._background = time.monotonic()
            return None
        result = self._await_worker("result")
        log(f"Engine Core: profiler stopped, result={result}")
        return result

    def _await_worker(self, key: str) -> object:
        """Worker 0's answer; meanwhile nothing else is served, but a death is noticed."""
        channels = [child.channel for child in self._workers]
        while True:
            for reader in select.select(channels, [], [])[0]:
                for message in self._from_worker(reader):
                    if key in message:
                        return message[key]

    # -- steps -------------------------------------------------------------------------------------------

    def _execute(self, executed: Executed) -> None:
        if executed.scheduled:
            log(executed.scheduled)
        self._last = executed.record
        if self._window:
            self._pending.append(executed.record)
            if len(self._pending) >= FLUSH_STEPS:
                self._flush()
        if executed.outputs:
            self._channel.send(
                {
                    "t": "out",
                    "o": executed.outputs,
                    "load": [len(self._scheduler.running), len(self._scheduler.waiting)],
                    "mtp": self._scheduler.acceptance.counts,
                }
            )
            finished = sum(reason is not None for _, _, reason in executed.outputs)
            if finished:
                log(f"Engine Core: output send {finished} reqs")
        for line in self._scheduler.acceptance.report(drained=not self._scheduler.busy):
            log(line)

    def _flush(self) -> None:
        if self._pending:
            steps, self._pending = self._pending, []
            self._tell_workers({"op": "steps", "steps": steps})

    def _tell_workers(self, message: dict[str, Any]) -> None:
        for child in self._workers:
            try:
                child.channel.send(message)
            except ChannelClosedError:
                self._from_worker(child.channel)  # names the dead worker and raises


def main(descriptor: int, parent: int) -> None:
    """Entry point of the spawned process."""
    channel, config = adopt(descriptor, parent)
    set_title(config["title"])
    first, last = config["workers"][0]["rank"], config["workers"][-1]["rank"]
    log(f"Creating EngineCore process: DP rank {config['dp_rank']}, will use GPUs {first} to {last}")
    engine = _Engine(config, channel)
    try:
        engine.load()
        engine.run()
    except _WorkerDiedError:
        log("AsyncIOProcManager(ModelRunner): shutdown all runners...")
        engine.close()
        log("AsyncIOProcManager(ModelRunner): All runners are shutdown.")
        raise SystemExit(1) from None
    except ChannelClosedError:
        log("Engine Core: output send EngineCoreRequestType.SHUTDOWN")
        engine.close()
