"""From arguments and controls to running engine cores."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_atomtrace.simulator.children import Child, spawn
from pytest_atomtrace.simulator.logs import log
from pytest_atomtrace.simulator.mutations import MutationError, parse_mutations
from pytest_atomtrace.simulator.profile import find_profile
from pytest_atomtrace.simulator.programs import Options, resolve
from pytest_atomtrace.simulator.scheduler import Limits
from pytest_atomtrace.simulator.topology import Engine, engines_of
from pytest_atomtrace.simulator.wire import ChannelClosedError

if TYPE_CHECKING:
    import argparse

    from pytest_atomtrace.simulator.controls import Controls

__all__ = ["EngineStartError", "Launch"]


class EngineStartError(RuntimeError):
    """An EngineCore did not become ready."""


class Launch:
    """The plan of one server: model data, topology and the configuration of every child."""

    def __init__(self, args: argparse.Namespace, controls: Controls) -> None:
        self.args = args
        self.controls = controls
        self.faults = controls.faults
        profile = find_profile(args.model)
        self.engines = engines_of(args, controls.process_prefix)
        world = sum(len(engine.workers) for engine in self.engines)
        if world > controls.gpus:
            raise EngineStartError(
                f"{world} workers need {world} GPUs, this machine has {controls.gpus} (ATOMTRACE_SIM_GPUS)"
            )
        self.max_model_len: int = args.max_model_len or profile["max_model_len"]
        self.tp_size = self.engines[0].tp_size
        self.dp_size = len({engine.dp_rank for engine in self.engines})
        self.spec_tokens: int = args.num_speculative_tokens if args.method else 0
        if self.spec_tokens and "draft" not in profile:
            raise EngineStartError(f"the profile of {profile['name']} has no draft model (--method {args.method})")
        eager = args.enforce_eager or args.cudagraph_mode == "NONE"
        self.piecewise = not eager and args.cudagraph_mode in ("PIECEWISE", "AF_PIECEWISE")
        # with one GPU per engine a whole graph holds the logits too
        self.eager_logits = self.tp_size > 1 or self.piecewise
        self._graph_sizes = () if eager else self._sizes()
        options = Options(
            tp=self.tp_size,
            level=args.level,
            layers=controls.layers,
            query=self.spec_tokens + 1,
            synthetic=self._accepted_mean() is not None,
            mark=args.mark_trace,
        )
        self._model_data = resolve(profile, options)
        self._check_mutations()

    def _check_mutations(self) -> None:
        names = [str(kernel["name"]) for kernel in self._model_data["kernels"].values()]
        for mutation in parse_mutations(self.controls.mutate):
            if mutation.action != "extra" and not any(mutation.matches(name) for name in names):
                raise MutationError(
                    f"mutation {mutation.action}:{mutation.pattern} matches no kernel of {self.args.model}"
                )

    @property
    def root(self) -> Path | None:
        """The profiler directory, absolute."""
        return Path(self.args.torch_profiler_dir).absolute() if self.args.torch_profiler_dir else None

    def prepare_directories(self) -> None:
        """Create the profiler directory (the workers add their own) and what the extra_rank fault leaves in it."""
        if self.root is None:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        if self.faults.get("extra_rank"):
            stale = self.root / self.engines[0].workers[-1].directory.replace(
                str(self.engines[0].workers[-1].local_rank), str(sum(len(e.workers) for e in self.engines))
            )
            stale.mkdir(parents=True, exist_ok=True)
            (stale / "old_ts_20260101_000000_000.pt.trace.json.gz").write_bytes(b"\x1f\x8b\x08stale")

    def start(self) -> list[Child]:
        """Start all EngineCores; they start their workers. Does not wait."""
        flags = os.memfd_create("dp-busy") if self.args.enable_dp_attention else -1
        if flags >= 0:
            os.ftruncate(flags, 4096)
        children = []
        for engine in self.engines:
            log(
                f"Engine Core Mgr: Creating EngineCore engine {engine.index} "
                f"(dp={engine.dp_rank}, pp={engine.pp_rank}) of {len(self.engines)}"
            )
            config = self._engine_config(engine, flags)
            children.append(spawn("engine_process", config, "Engine Core", inherit=(flags,) if flags >= 0 else ()))
        return children

    def wait_ready(self, children: list[Child]) -> None:
        """Wait for every READY, for ever as ATOM does; raises EngineStartError when an engine gives up."""
        for engine, child in zip(self.engines, children, strict=True):
            while True:
                try:
                    messages = child.channel.receive()
                except ChannelClosedError:
                    self._give_up(children, f"EngineCore {engine.index} died (exitcode={child.process.wait()})")
                if any(message["t"] == "shutdown" for message in messages):
                    log(
                        f"Engine Core Mgr: Received unexpected SHUTDOWN signal from DP rank {engine.dp_rank} "
                        "during initialization"
                    )
                    self._give_up(children, "SHUTDOWN during initialization")
                if any(message["t"] == "ready" for message in messages):
                    break
            log(f"Engine Core Mgr: DP rank {engine.dp_rank} is fully initialized and ready")
        log("Engine Core Mgr: All EngineCores are fully initialized and ready")
        log(f"Engine Core Mgr: All {len(children)} EngineCores initialized and ready")

    @staticmethod
    def _give_up(children: list[Child], reason: str) -> None:
        log("Some processes failed to start, shutting down all")
        for child in children:
            child.stop(2.0)
        log(f"Failed to initialize all EngineCores, cleaning up: {reason}")
        raise EngineStartError("Failed to start all EngineCore processes")

    def _sizes(self) -> tuple[int, ...]:
        args = self.args
        dropped = [size for size in args.cudagraph_capture_sizes if size > args.max_num_seqs]
        if dropped:
            log(f"WARNING: cudagraph capture sizes {dropped} exceed max_num_seqs={args.max_num_seqs}, dropped")
        return tuple(size for size in args.cudagraph_capture_sizes if size <= args.max_num_seqs)

    def _accepted_mean(self) -> float | None:
        """The mean number of accepted draft tokens that the command line fixes, if it does."""
        length, rate = self.args.spec_decode_acceptance_length, self.args.spec_decode_acceptance_rate
        if not self.spec_tokens or (length is None and rate is None):
            return None
        return float(length - 1 if length is not None else rate * self.spec_tokens)

    def _limits(self) -> Limits:
        args = self.args
        return Limits(
            max_num_seqs=args.max_num_seqs,
            max_num_batched_tokens=args.max_num_batched_tokens,
            graph_sizes=self._graph_sizes,
            spec_tokens=self.spec_tokens,
            acceptance=self.controls.acceptance,
            tbo=args.enable_tbo or "",
            eager_logits=self.eager_logits,
            accepted_mean=self._accepted_mean(),
            piecewise=self.piecewise,
            guide_labels=self.controls.guide_era,
        )

    def _capture(self) -> dict[str, Any] | None:
        """What the workers capture at startup for --mark-trace, None without."""
        args, sizes = self.args, self._graph_sizes[: self.controls.captures]
        if not args.mark_trace or not sizes:
            return None
        two_batch = "_tbo" if args.enable_tbo == "all" else ""
        return {
            "sizes": sizes,
            "query": self.spec_tokens + 1,
            "program": f"{'pieces' if self.piecewise else 'graph'}{two_batch}",
            "piecewise": self.piecewise,
            "legacy": self.controls.guide_era,
        }

    def _engine_config(self, engine: Engine, flags: int) -> dict[str, Any]:
        controls, delay = self.controls, self.controls.ready_delay_s
        late = self.faults.get("late_ready")
        common = {
            "fault": controls.fault,
            "mutate": controls.mutate,
            "seed": controls.seed,
            "launch": controls.launch,
            "launch_spread": controls.launch_spread,
            "dp_rank": engine.dp_rank,
        }
        world = sum(len(e.workers) for e in self.engines)
        group = [worker.rank for worker in engine.workers]
        detailed = controls.profiler_more
        workers = [
            {
                **common,
                "label": f"AsyncIOProc(ModelRunner{worker.local_rank}/{len(engine.workers)})",
                "title": worker.title,
                "rank": worker.rank,
                "local_rank": worker.local_rank,
                "group": group,
                "name": worker.directory.replace("/", "_"),
                "model": self.args.model,
                "world": world,
                "directory": "" if self.root is None else str(self.root / worker.directory),
                "load_s": delay,
                "model_data": self._model_data,
                "eager_logits": self.eager_logits,
                "capture": self._capture(),
                "second": controls.second_thread,
                "vram_tree": controls.vram_tree,
                "vram_gib": controls.vram_gib,
                "detailed": detailed,
                "gpu": controls.gpu,
                "gpus": controls.gpus,
                "clock_ns": controls.clock_ns,
                "pid": 4000 + worker.rank if controls.clock_ns else 0,
            }
            for worker in engine.workers
        ]
        return {
            **common,
            "label": "Engine Core",
            "title": engine.title,
            "index": engine.index,
            "engines": len(self.engines),
            "limits": asdict(self._limits()),
            "step_ms": controls.step_ms,
            "flags_fd": flags,
            "workers": workers,
            "ready_delay_s": delay + (late.number(0, 3.0) if late else 0.0),
            "started": time.time(),
        }
