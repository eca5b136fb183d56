"""Everything the environment can change, one table; the command line stays ATOM's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.simulator.faults import FaultError, Faults, parse_faults
from pytest_atomtrace.simulator.mutations import MutationError, of_launch, parse_mutations

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PREFIX", "TABLE", "ControlError", "Controls", "machine_controls", "main"]

PREFIX = "ATOMTRACE_SIM_"

#: name -> (default, what it does). Values are read once, by the API process.
TABLE: dict[str, tuple[str, str]] = {
    "LEDGER": ("", "file to which each server appends one JSON line at start, exit, window start and stop"),
    "SEED": ("0", "seed of durations, jitter, lags and text"),
    "LAUNCH": ("", "launch nonce of the between-launch variation; empty: 0 if SEED is set, else a new one"),
    "LAUNCH_SPREAD": ("0.005", "standard deviation of the duration factor between launches"),
    "STEP_MS": ("1.0", "wall time of one step, in milliseconds"),
    "READY_DELAY_S": ("0", "time spent loading before the engines report ready, in seconds"),
    "FAULT": ("", "comma list of faults, `name[:arg[:arg]]`; see faults.py"),
    "ONCE": ("", "file: FAULT strikes only the server that can make it, later ones are well"),
    "MUTATE": ("", "kernel mutations divided by `;`; see mutations.py"),
    "LAYERS": ("0", "number of model layers; 0: as the model's config says"),
    "GPUS": ("8", "number of GPUs that the machine pretends to have"),
    "GPU": ("MI355X", "deviceProperties of the traces: MI355X or MI300X"),
    "CLOCK_NS": ("0", "unix time in ns at which every window starts in the trace; 0: the real clock"),
    "ACCEPTANCE": ("0.65", "chance that a draft token is accepted (--spec-decode-acceptance-* win)"),
    "ERA": ("head", "labels and capture traces of `head` (August 2026) or `guide` (May 2026)"),
    "CAPTURES": ("16", "with --mark-trace: at most so many capture traces a rank, the smallest sizes first"),
    "VRAM_TREE": ("", "root of a pretended machine on which workers hold GPU memory; see vram.py and driver.py"),
    "VRAM_GIB": ("200", "what each worker holds there"),
    "METRICS_S": ("0", "seconds between two renewals of the figures of /metrics, 5 in ATOM; 0: always fresh"),
    "SMI": ("7", "ROCm release whose shapes the stand-in amd-smi prints, 6 or 7; see smi.py"),
    "SECOND_THREAD": ("0", "1: side streams and RCCL are launched by a second thread without a label"),
}

CHOICES = {"GPU": ("MI355X", "MI300X"), "ERA": ("head", "guide"), "SECOND_THREAD": ("0", "1"), "SMI": ("6", "7")}


class ControlError(ValueError):
    """A control variable that is unknown or unreadable."""


@dataclass(frozen=True)
class Controls:
    """The control variables, typed. Fault and mutation texts stay text: every process parses its own copy."""

    ledger: str
    seed: int
    launch: int
    launch_spread: float
    step_ms: float
    ready_delay_s: float
    fault: str
    mutate: str
    layers: int
    gpus: int
    gpu: str
    clock_ns: int
    acceptance: float
    guide_era: bool
    captures: int
    second_thread: bool
    vram_tree: str
    vram_gib: float
    metrics_s: float
    profiler_timeout_s: float
    profiler_more: bool
    process_prefix: str

    @property
    def faults(self) -> Faults:
        """The parsed faults."""
        return Faults(parse_faults(self.fault))

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Controls:
        """Read the table and ATOM's own variables; raises ControlError naming variable and value."""
        env = os.environ if environ is None else environ
        for name in env:
            if name.startswith(PREFIX) and name[len(PREFIX) :] not in TABLE:
                raise ControlError(f"unknown control variable {name} (known: {', '.join(sorted(TABLE))})")
        for name, words in CHOICES.items():
            value = env.get(PREFIX + name, TABLE[name][0])
            if value not in words:
                raise ControlError(f"{PREFIX}{name} is {value!r}, not one of {', '.join(words)}")
        raw = {name: env.get(PREFIX + name, default) for name, (default, _) in TABLE.items()}
        try:
            launch = raw["LAUNCH"] or ("0" if PREFIX + "SEED" in env else str(int.from_bytes(os.urandom(4), "big")))
            parse_faults(raw["FAULT"])
            mutate = of_launch(raw["MUTATE"], int(launch))
            parse_mutations(mutate)
            return cls(
                ledger=raw["LEDGER"],
                seed=int(raw["SEED"]),
                launch=int(launch),
                launch_spread=float(raw["LAUNCH_SPREAD"]),
                step_ms=float(raw["STEP_MS"]),
                ready_delay_s=float(raw["READY_DELAY_S"]),
                fault=raw["FAULT"] if _first(raw["ONCE"]) else "",
                mutate=mutate,
                layers=int(raw["LAYERS"]),
                gpus=int(raw["GPUS"]),
                gpu=raw["GPU"],
                clock_ns=int(raw["CLOCK_NS"]),
                acceptance=float(raw["ACCEPTANCE"]),
                guide_era=raw["ERA"] == "guide",
                captures=int(raw["CAPTURES"]),
                second_thread=raw["SECOND_THREAD"] == "1",
                vram_tree=raw["VRAM_TREE"],
                vram_gib=float(raw["VRAM_GIB"]),
                metrics_s=float(raw["METRICS_S"]),
                profiler_timeout_s=float(env.get("ATOM_PROFILER_TIMEOUT", "300")),
                profiler_more=env.get("ATOM_PROFILER_MORE") == "1",
                process_prefix=env.get("ATOM_PROCESS_NAME_PREFIX", "ATOM"),
            )
        except (FaultError, MutationError) as error:
            raise ControlError(str(error)) from None
        except ValueError as error:
            raise ControlError(f"control variable {PREFIX}*: {error}") from None


def machine_controls(environ: Mapping[str, str] | None = None) -> tuple[str, int]:
    """The tree and the ROCm release for a tool that asks the pretended machine: not a server, so ONCE is not spent.

    Raises:
        ControlError: there is no tree, or no such release.

    """
    env = os.environ if environ is None else environ
    tree, release = (env.get(PREFIX + name, TABLE[name][0]) for name in ("VRAM_TREE", "SMI"))
    if release not in CHOICES["SMI"]:
        raise ControlError(f"{PREFIX}SMI is {release!r}, not one of {', '.join(CHOICES['SMI'])}")
    if not tree:
        raise ControlError(f"{PREFIX}VRAM_TREE names no pretended machine, and no other has simulated GPUs")
    return tree, int(release)


def _first(path: str) -> bool:
    """Whether this server is the one that its faults strike: it alone can create the file."""
    if not path:
        return True
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    except FileExistsError:
        return False
    except OSError as error:
        raise ControlError(f"{PREFIX}ONCE: {path}: {error.strerror}") from None
    return True


def main() -> None:
    """Print the table."""
    for name, (default, text) in TABLE.items():
        print(f"{PREFIX}{name:<14} {default or '-':<8} {text}")


if __name__ == "__main__":
    main()
