"""What numbers depend on: the hardware, the profiler and the model's configuration of a capture.

Figures are compared only where these are equal. gfx alone is not enough: it cannot tell an MI350X from an MI355X.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["Fingerprint", "fingerprint"]

_Facts: TypeAlias = Mapping[str, str | int | float | bool]

# computeMajor.computeMinor of deviceProperties; the last digit of the name is a stepping that it does not carry.
_GFX = {(9, 0): "gfx90a", (9, 4): "gfx942", (9, 5): "gfx950"}
# Recorded by the capture where the machine tells them.
_GPU_FACTS = ("pci_device_id", "compute_units", "compute_partition", "memory_partition", "power_cap_w")
# A simulated model's size and device are what a real one's config.json and device are.
_SIM_MODEL = ("ATOMTRACE_SIM_LAYERS", "ATOMTRACE_SIM_ERA")
_CASE_IGNORES = ("captures",)
_REDACTED = ("env", "server_args", "bench_args")


@dataclass(frozen=True)
class Fingerprint:
    """`gfx` names the baselines' folder; each mapping is compared whole."""

    gfx: str
    simulated: bool
    hardware: _Facts
    profiler: _Facts
    model: _Facts

    @property
    def folder(self) -> str:
        """Folder of the baselines: made-up numbers never share one with real ones."""
        return f"sim-{self.gfx}" if self.simulated else self.gfx


def fingerprint(trace: TraceView) -> Fingerprint:
    """What the capture's manifest and the first rank's trace say; what they do not say is left out, not guessed."""
    environment = trace.environment
    device = _first_device(environment.get("deviceProperties"))
    gpu = environment.get("gpu")
    facts: Mapping[str, object] = gpu if isinstance(gpu, Mapping) else {}
    major, minor = device.get("computeMajor"), device.get("computeMinor")
    gfx = str(facts.get("gfx") or "")
    if not gfx:
        known = isinstance(major, int) and isinstance(minor, int)
        gfx = _GFX.get((major, minor), f"gfx{major}{minor}x") if known else "gpu"  # type: ignore[arg-type]  # known
    hardware = {"device": device.get("name"), "compute_units": device.get("numSms")}
    hardware |= {key: facts[key] for key in _GPU_FACTS if key in facts}
    return Fingerprint(gfx, trace.simulated, _plain(hardware), _plain(_profiler(environment)), _plain(_model(trace)))


def _profiler(environment: Mapping[str, object]) -> dict[str, object]:
    """The library that was loaded, where the capture saw it; else what the trace itself says of its writer."""
    library = environment.get("profiler")
    if isinstance(library, Mapping):
        version = library.get("version") or library.get("sha256")
        return {"library": library.get("library"), "version": version}
    return {
        key.removesuffix("_version"): value
        for key, value in environment.items()
        if key.startswith(("roctracer", "rocprof")) and key.endswith("_version")
    }


def _first_device(devices: object) -> Mapping[str, object]:
    first = devices[0] if isinstance(devices, list) and devices else {}
    return first if isinstance(first, Mapping) else {}


def _model(trace: TraceView) -> dict[str, object]:
    facts: dict[str, object] = {}
    if trace.case is not None:
        facts = {key: value for key, value in trace.case.as_dict().items() if key not in _CASE_IGNORES}
        # As the manifest has them: without secrets, which would go into a file that is reviewed and committed.
        saved = trace.manifest.get("case")
        facts |= {key: saved[key] for key in _REDACTED if key in saved} if isinstance(saved, Mapping) else {}
        facts |= {key: " ".join(map(str, value)) for key, value in facts.items() if isinstance(value, list)}
        env = facts.get("env")
        facts["env"] = " ".join(f"{key}={value}" for key, value in env.items()) if isinstance(env, Mapping) else ""
    config = trace.environment.get("model_config")
    if config is not None:
        facts["config"] = config
    server = trace.manifest.get("server")
    env = server.get("env") if isinstance(server, Mapping) else None
    if trace.simulated and isinstance(env, Mapping):
        facts |= {key: env[key] for key in _SIM_MODEL if key in env}
    return facts


def _plain(facts: Mapping[str, object]) -> dict[str, str | int | float | bool]:
    return {key: value for key, value in facts.items() if isinstance(value, (str, int, float, bool))}
