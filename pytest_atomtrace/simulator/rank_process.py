"""A GPU worker: records executed steps while its profiler window is open, exports them at the stop."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pytest_atomtrace.simulator.children import adopt, set_title
from pytest_atomtrace.simulator.document import Facts, base_time, write_document
from pytest_atomtrace.simulator.durations import Durations
from pytest_atomtrace.simulator.export import Exporter
from pytest_atomtrace.simulator.faults import Faults, parse_faults
from pytest_atomtrace.simulator.graph_capture import capture_graphs
from pytest_atomtrace.simulator.logs import log
from pytest_atomtrace.simulator.mutations import parse_mutations
from pytest_atomtrace.simulator.player import Player
from pytest_atomtrace.simulator.programs import derive
from pytest_atomtrace.simulator.sheets import Host
from pytest_atomtrace.simulator.timeline import Timeline
from pytest_atomtrace.simulator.vram import allocate, map_libraries
from pytest_atomtrace.simulator.wire import Channel, ChannelClosedError

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable

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
        self._start_ns = 0
        self._facts = self.facts()
        self._mapped = self._take_memory(config["vram_tree"])
        self._model: dict[str, Any] = config["model_data"]
        derive(self._model["programs"], eager_logits=config["eager_logits"])
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)

    def _take_memory(self, tree: str) -> list[mmap.mmap]:
        if not tree:
            return []
        leak = self._faults.on_rank("leak_vram", self._rank) is not None
        allocate(tree, self._rank, gib=self._config["vram_gib"], leak=leak)
        return map_libraries(tree)

    def capture(self) -> None:
        """Write the graphs' capture traces, as ATOM does before it is ready."""
        plan = self._config["capture"]
        if plan is None or self._folder is None:
            return
        log(
            f"Model {self._config['label'].removeprefix('AsyncIOProc(Model').removesuffix(')')}: "
            "Starting CUDA graph capture profiler (detailed=False)..."
        )
        programs = self._model["programs"]
        programs["capture"] = programs[plan["program"]]
        capture_graphs(plan, self._folder, self._config, self.facts(), self.player)

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
        if self._faults.on_rank("rank_not_started", self._rank):
            return
        self._steps, self._before = [], before
        self._facts = self.facts()
        self._start_ns = (self._config["clock_ns"] or time.time_ns()) - self._facts.base_ns
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

    def facts(self) -> Facts:
        """Who this rank is, with the time base of now."""
        config = self._config
        pid = config["pid"] or os.getpid()
        now_ns = config["clock_ns"] or time.time_ns()
        return Facts(
            gpu=config["gpu"],
            gpus=config["gpus"],
            rank=self._rank,
            world=config["world"],
            detailed=config["detailed"],
            seed=config["seed"],
            base_ns=base_time(now_ns),
            pid=pid,
            threads=(pid, pid + 101, pid + 201, pid + 202),
        )

    def player(
        self,
        facts: Facts,
        start_ns: int,
        write_host: Callable[[str], object],
        write_gpu: Callable[[str], object],
        *,
        detailed: bool = False,
    ) -> Player:
        """A player of this rank's programs."""
        config = self._config
        return Player(
            self._model,
            self._durations(),
            seed=config["seed"],
            host=Host(facts.pid, facts.threads, self._rank, self._model["hidden"] if detailed else 0),
            start_ns=start_ns,
            write_host=write_host,
            write_gpu=write_gpu,
            second=config["second"],
        )

    def _write(self, file: IO[bytes], path: Path) -> None:
        steps, facts = self._steps or [], self._facts
        no_kernels = self._faults.on_rank("no_kernels", self._rank)

        def play(write_host: Callable[[str], object], write_gpu: Callable[[str], object]) -> int:
            gpu = (lambda _: None) if no_kernels else write_gpu
            player = self.player(facts, self._start_ns, write_host, gpu, detailed=facts.detailed)
            cap = self._faults.on_rank("row_cap", self._rank)
            player.row_cap = int(cap.number(1, 20000)) if cap else 0
            timeline = Timeline(player, start_ns=self._start_ns)
            timeline.labels = not self._faults.on_rank("missing_label", self._rank)
            if self._before is not None:
                timeline.in_flight(self._before)
            self._play(timeline, steps, file)
            return timeline.end

        write_document(file, facts, start_ns=self._start_ns, name=str(path), play=play)

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
    log(f"ModelRunner rank={config['local_rank']}, dp_rank_local={config['dp_rank']}, device=cuda:{config['rank']}")
    worker = _Worker(config, channel)
    log(f"[{config['name']}] Model load done: {config['model']} (weights loaded in {config['load_s']:.2f}s)")
    log(f"Model warmup done: {config['model']}")
    worker.capture()
    channel.send({"ready": True})
    try:
        worker.serve()
    except ChannelClosedError:
        log(f"{config['label']}: shutdown")
