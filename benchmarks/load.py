"""What loading the plugin costs: `python -m benchmarks.load [--runs N]`.

`pytest --collect-only` in an empty folder, bare and with the plugin, taking turns; other plugins are kept out, for
they load modules that ours would have to. The bare run names a plugin that is an empty module: at the first `-p NAME`
pytest reads the entry points of everything that is installed, 4 ms that an installed plugin does not cost anybody.
Three measures: the median differences of whole runs in processor time and by the wall clock, and what `-X importtime`
says of the modules that only the plugin brings in. Target: under 5 ms.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import as_installed

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LoadCost", "main", "measure"]

_PLUGIN = ("-p", "pytest_atomtrace.plugin")
_NOTHING = ("-p", "nothing")


@dataclass(frozen=True)
class LoadCost:
    """Medians in ms over `runs` pairs.

    Both whole runs and their difference pair by pair by the wall clock, that in processor time, and the imports alone.
    """

    runs: int
    bare_ms: float
    with_plugin_ms: float
    difference_ms: float
    cpu_ms: float
    imports_ms: float
    modules: int


def _command(*words: str, options: Sequence[str] = ()) -> list[str]:
    return [sys.executable, *options, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", *words]


def _environment(folder: str) -> dict[str, str]:
    every = as_installed(Path(folder) / ".bytecode")
    kept = {name: value for name, value in every.items() if not name.startswith(("ATOMTRACE_", "PYTEST_"))}
    return {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def _run_ms(folder: str, *words: str) -> tuple[float, float]:
    """Wall time and processor time."""
    cpu, start = _children_s(), time.perf_counter()
    done = subprocess.run(_command(*words), cwd=folder, env=_environment(folder), capture_output=True, check=False)
    if done.returncode != 5:  # pytest's "no tests collected"
        raise RuntimeError(done.stderr.decode("utf-8", "replace") or done.stdout.decode("utf-8", "replace"))
    return (time.perf_counter() - start) * 1000, (_children_s() - cpu) * 1000


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _imports(folder: str, *words: str) -> dict[str, int]:
    """Microseconds that each module took by itself."""
    command = _command(*words, options=("-X", "importtime"))
    done = subprocess.run(command, cwd=folder, env=_environment(folder), capture_output=True, text=True, check=False)
    times = {}
    for line in done.stderr.splitlines():
        parts = line.removeprefix("import time:").split("|")
        if len(parts) == 3 and parts[0].strip().isdigit():
            times[parts[2].strip()] = int(parts[0])
    return times


def measure(runs: int = 30) -> LoadCost:
    """Take `runs` pairs of whole runs and a few import listings."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "nothing.py").touch()
        _run_ms(folder, *_NOTHING), _run_ms(folder, *_PLUGIN)
        bare: list[tuple[float, float]] = []
        mine: list[tuple[float, float]] = []
        for number in range(runs):
            # Whoever goes second may find a warmer machine, so they take turns at that, too.
            for words in (_NOTHING, _PLUGIN) if number % 2 else (_PLUGIN, _NOTHING):
                (mine if words is _PLUGIN else bare).append(_run_ms(folder, *words))
        listings = []
        modules = 0
        for _ in range(max(3, runs // 4)):
            ours, others = _imports(folder, *_PLUGIN), _imports(folder, *_NOTHING)
            added = [name for name in ours if name not in others]
            modules = len(added)
            listings.append(sum(ours[name] for name in added) / 1000)
    return LoadCost(
        runs=runs,
        bare_ms=statistics.median(wall for wall, _ in bare),
        with_plugin_ms=statistics.median(wall for wall, _ in mine),
        difference_ms=statistics.median(one[0] - other[0] for one, other in zip(mine, bare, strict=True)),
        cpu_ms=statistics.median(cpu for _, cpu in mine) - statistics.median(cpu for _, cpu in bare),
        imports_ms=statistics.median(listings),
        modules=modules,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=30)
    cost = measure(parser.parse_args(arguments).runs)
    print(
        f"bare pytest {cost.bare_ms:.1f} ms, with the plugin {cost.with_plugin_ms:.1f} ms (medians of {cost.runs});\n"
        f"the plugin costs {cost.cpu_ms:.1f} ms of processor time, {cost.difference_ms:+.1f} ms by the wall clock; "
        f"its {cost.modules} modules import in {cost.imports_ms:.1f} ms"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
