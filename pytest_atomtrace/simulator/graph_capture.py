"""Capture traces of --mark-trace: for every graph a warm-up pass and the pass that records it.

In the recording pass operators, module spans and launches appear as in an eager pass, with the kernels' names on
the launches, but nothing runs: these launches are the kernels of the replayed graph, in order.
"""

from __future__ import annotations

import io
import time
from typing import IO, TYPE_CHECKING, Any

from pytest_atomtrace.simulator.document import Facts, write_document
from pytest_atomtrace.simulator.durations import Shape
from pytest_atomtrace.simulator.export import open_gzip, trace_name
from pytest_atomtrace.simulator.logs import log
from pytest_atomtrace.simulator.sheets import RECORD, SPLIT, WARMUP

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_atomtrace.simulator.player import Player

__all__ = ["capture_graphs"]

#: Stands for the graph's size in a document that is made once and written for every size.
ANY_SIZE = "@SIZE@"
LAG_NS = 60_000


def capture_graphs(
    plan: dict[str, Any],
    folder: Path,
    config: dict[str, Any],
    facts: Facts,
    player: Callable[[Facts, int, Callable[[str], object], Callable[[str], object]], Player],
) -> None:
    """Write one file for each size, or before July 2026 one for all of them beside the run's traces.

    The kernels of all sizes are the same here, so one document serves them all but for the size in its span:
    a start-up with ten sizes on eight ranks would else take ten times as long.
    """
    start_ns = (config["clock_ns"] or time.time_ns()) - facts.base_ns

    def write(file: IO[bytes], name: str, sizes: list[str]) -> None:
        def play(write_host: Callable[[str], object], write_gpu: Callable[[str], object]) -> int:
            return _play(player(facts, start_ns, write_host, write_gpu), plan, sizes, start_ns)

        write_document(file, facts, start_ns=start_ns, name=name, play=play)

    if plan["legacy"]:
        model = str(config["model"]).rstrip("/").rsplit("/", 1)[-1]
        path = folder / (trace_name(f"capture_graph_{model}") + ".gz")
        with open_gzip(path) as file:
            write(file, str(path), [str(size) for size in plan["sizes"]])
        return
    folder /= "capture_traces"
    folder.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    pattern = f"bs_{ANY_SIZE}_q_{plan['query']}_rank{config['local_rank']}.json.gz"
    write(buffer, str(folder / pattern), [ANY_SIZE])
    document = buffer.getvalue()
    for size in plan["sizes"]:
        path = folder / pattern.replace(ANY_SIZE, str(size))
        with open_gzip(path) as file:
            file.write(document.replace(ANY_SIZE.encode(), str(size).encode()))
        log(f"Saved capture trace for bs_{size}_q_{plan['query']} to {path}")


def _play(player: Player, plan: dict[str, Any], sizes: list[str], start_ns: int) -> int:
    player.lag = LAG_NS
    player.now = begin = start_ns + 50_000
    external = player.next_external()
    for number, size in enumerate(sizes):
        shape = Shape(prefill=False, size=plan["query"] * plan["sizes"][number], ctx=256)
        player.play("capture", "decode", -1, shape, number, how=WARMUP)
        player.now = max(player.now, player.gpu_end) + 100_000
        _record(player, size, shape, number, piecewise=plan["piecewise"])
    player.annotation("ProfilerStep#0", begin, player.now, external)
    player.gpu_annotation("ProfilerStep#0", 0, begin, player.gpu_end - begin, external)
    return max(player.now, player.gpu_end)


def _record(player: Player, size: str, shape: Shape, number: int, *, piecewise: bool) -> None:
    begin, external = player.now, player.next_external()
    player.now += 5_000
    player.runtime_call("hipStreamBeginCapture", 2_470)
    player.play("capture", "decode", -1, shape, number, how=SPLIT if piecewise else RECORD)
    player.runtime_call("hipStreamEndCapture", 6_460)
    player.runtime_call("hipGraphInstantiateWithFlags", 817_066)
    if not piecewise:  # in that mode ATOM's loop goes on before it opens the span
        player.annotation(f"capture_graph_bs_{size}", begin, player.now, external)
