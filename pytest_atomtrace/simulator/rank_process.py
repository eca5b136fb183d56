"""A GPU worker: records executed steps while its profiler window is open, exports them at the stop."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import IO, Any

from pytest_atomtrace.simulator import kineto
from pytest_atomtrace.simulator.children import adopt, set_title
from pytest_atomtrace.simulator.durations import Durations
from pytest_atomtrace.simulator.export import Exporter, spooled
from pytest_atomtrace.simulator.faults import Faults, parse_faults
from pytest_atomtrace.simulator.logs import log
from pytest_atomtrace.simulator.mutations import parse_mutations
from pytest_atomtrace.simulator.timeline import MAIN, SIDE, Timeline
from pytest_atomtrace.simulator.wire import Channel, ChannelClosedError

__all__ = ["main"]


class _Worker:
    def __init__(self, config: dict[str, Any], channel: Channel) -> None:
        self._config = config
        self._channel = channel
        self._faults = Faults(parse_faults(config["fault"]))
        self._rank: int = config["rank"]
        self._folder = Path(config["directory"]) if config["directory"] else None
        self._steps: list[dict[str, Any]] | None = None
        self._before: dict[str, Any] | None = None
        self._start_ns = self._base_ns = 0
        self._model: dict[str, Any] = config["model_data"]
        programs = self._model["programs"]
        # with one GPU per engine the logits are part of the captured graph
        programs["graph"] = programs["decode"] + ([] if config["eager_logits"] else programs["decode_logits"])
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)

    def serve(self) -> None:
        while True:
            for message in self._channel.receive():
                self._handle(message)

    def _handle(self, message: dict[str, Any]) -> None:
        match message["op"]:
            case "steps":
                if self._steps is not None:
                    self._steps += message["steps"]
                    self._maybe_die()
            case "start":
                self._start(message["before"])
                self._reply({"started": True})
            case "stop":
                self._reply({"result": self._stop()})
            case other:
                raise ValueError(f"unknown operation {other!r}")

    def _reply(self, message: dict[str, Any]) -> None:
        if self._config["local_rank"] == 0:  # the others have no reply channel in ATOM either
            self._channel.send(message)

    def _maybe_die(self) -> None:
        fault = self._faults.on_rank("worker_killed", self._rank)
        if fault and self._steps is not None and len(self._steps) >= fault.number(1, 5):
            os.kill(os.getpid(), signal.SIGKILL)

    def _start(self, before: dict[str, Any] | None) -> None:
        if self._folder is None or self._steps is not None or self._faults.get("no_profiler"):
            return
        self._steps, self._before = [], before
        now_ns = self._config["clock_ns"] or time.time_ns()
        self._base_ns = kineto.base_time(now_ns)
        self._start_ns = now_ns - self._base_ns
        log(
            f"Rank {self._config['local_rank']}: profiler started "
            f"(detailed={self._config['detailed']}, dir={self._folder})"
        )

    def _stop(self) -> dict[str, Any]:
        if self._folder is None or self._steps is None:
            return {"trace_dir": None if self._folder is None else str(self._folder), "elapsed": 0.0}
        late = self._faults.get("stop_timeout")
        if late:
            time.sleep(late.number(1, 2.0))
        local = self._config["local_rank"]
        log(f"Rank {local}: stopping profiler...")
        began = time.monotonic()
        missing = self._faults.get("missing_rank")
        if missing and self._rank == int(missing.number(0, self._config["world"] - 1)):
            shutil.rmtree(self._folder, ignore_errors=True)
        Exporter(
            self._folder,
            model=self._config["model"],
            rank=self._rank,
            local_rank=local,
            faults=self._faults,
            log=log,
        ).run(self._write)
        elapsed = time.monotonic() - began
        log(f"Rank {local}: profiler stop completed in {elapsed:.2f}s")
        self._steps = None
        return {"trace_dir": str(self._folder), "elapsed": round(elapsed, 1)}

    def _durations(self) -> Durations:
        config = self._config
        return Durations(
            self._model["kernels"],
            seed=config["seed"],
            launch=config["launch"],
            launch_spread=config["launch_spread"],
            ranks=config["group"],
            me=config["local_rank"],
            mutations=parse_mutations(config["mutate"]),
        )

    def _write(self, file: IO[bytes], path: Path) -> None:
        config, steps = self._config, self._steps or []
        with spooled() as gpu_file:
            no_kernels = self._faults.on_rank("no_kernels", self._rank)
            timeline = Timeline(
                self._model,
                self._durations(),
                seed=config["seed"],
                rank=self._rank,
                pid=config["pid"] or os.getpid(),
                start_ns=self._start_ns,
                host=lambda text: file.write(text.encode()),
                gpu=(lambda _: None) if no_kernels else (lambda text: gpu_file.write(text.encode())),
            )
            timeline.labels = not self._faults.on_rank("missing_label", self._rank)
            cap = self._faults.on_rank("row_cap", self._rank)
            timeline.row_cap = int(cap.number(1, 20000)) if cap else 0
            trace_id = f"{config['seed'] & 0xFFFFFFFF:08X}{self._rank:024X}"
            head = kineto.header(
                gpu=config["gpu"],
                gpus=config["gpus"],
                rank=self._rank,
                world=config["world"],
                detailed=config["detailed"],
                trace_id=trace_id,
                base_ns=self._base_ns,
            )
            file.write(head.encode())
            if self._before is not None:
                timeline.in_flight(self._before)
            self._play(timeline, steps, file)
            gpu_file.seek(0)
            shutil.copyfileobj(gpu_file, file, 1 << 20)
            tail = kineto.footer(
                pid=config["pid"] or os.getpid(),
                device=self._rank,
                gpus=config["gpus"],
                streams={MAIN: "", SIDE: ""},
                start_ns=self._start_ns,
                end_ns=timeline.end,
                name=str(path),
            )
            file.write(tail.encode())

    def _play(self, timeline: Timeline, steps: list[dict[str, Any]], file: IO[bytes]) -> None:
        graphs = [index for index, step in enumerate(steps) if step["graph"]]
        middle = graphs[len(graphs) // 2 : len(graphs) // 2 + 3]
        lossy = middle[:1] if self._faults.on_rank("lossy_graph", self._rank) else []
        empty = middle if self._faults.on_rank("empty_steps", self._rank) else []
        for index, step in enumerate(steps):
            timeline.step(step, keep=0.6 if index in lossy else 0.0 if index in empty else 1.0)
            if index == len(steps) // 2 and self._faults.on_rank("kill_in_json", self._rank):
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)


def main(descriptor: int, parent: int) -> None:
    """Entry point of the spawned process."""
    channel, config = adopt(descriptor, parent)
    set_title(config["title"])
    log(
        f"ModelRunner rank={config['local_rank']}, dp_rank_local={config['dp_rank']}, device=cuda:{config['rank']}"
    )
    worker = _Worker(config, channel)
    log(f"[{config['name']}] Model load done: {config['model']} (weights loaded in {config['load_s']:.2f}s)")
    log(f"Model warmup done: {config['model']}")
    channel.send({"ready": True})
    try:
        worker.serve()
    except ChannelClosedError:
        log(f"{config['label']}: shutdown")
