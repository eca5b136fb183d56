"""What a capture ran on, flat, and what changed from one capture to the next, in words.

From the manifest alone, so a hundred captures are compared without opening a trace.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["changes", "environment_facts", "environment_id", "short"]

# Elsewhere (the hardware key), or different in every run.
_LEFT_OUT = ("key", "server", "volatile", "unknown")
_PLACES = ("place", "path")
# Different in every run, or the dice of the simulator: no part of what ran. Of our own variables only the simulator's
# controls reach a server.
_NO_PART = ("AITER_JIT_DIR", *(f"ATOMTRACE_SIM_{name}" for name in ("CLOCK_NS", "LAUNCH", "LEDGER", "ONCE", "SEED")))
_OURS, _CONTROLS = "ATOMTRACE_", "ATOMTRACE_SIM_"
_WORDS = {
    "rocm_version": "ROCm",
    "driver_version": "amdgpu driver",
    "versions.torch": "torch",
    "versions.triton": "triton",
    "atom.version": "ATOM",
    "atom.commit": "ATOM commit",
    "atom.edits": "ATOM local edits",
    "aiter.version": "AITER",
    "aiter.commit": "AITER commit",
    "aiter.edits": "AITER local edits",
    "profiler.library": "profiler",
    "profiler.version": "profiler library",
    "profiler.sha256": "profiler library's digest",
    "gpu.count": "GPUs",
    "gpu.power_cap_w": "power cap in W",
    "plugin": "pytest-atomtrace",
    "host": "host",
    "arguments": "server arguments",
}
# Of many libraries and tables the number says enough, and one name where to look.
_MANY = {
    "aiter_jit.": ("AITER library", "AITER libraries"),
    "aiter_tuned.": ("tuned table of AITER", "tuned tables of AITER"),
}
_VARIABLE = "env."
_DIGITS = "0123456789abcdef"


def environment_facts(manifest: Mapping[str, object]) -> dict[str, str]:
    """Stable facts by dotted name: machine, software, the server's arguments and variables. Unknown ones are absent."""
    recorded = _mapping(manifest.get("environment"))
    facts: dict[str, str] = {}
    for key, value in recorded.items():
        if key not in _LEFT_OUT:
            facts.update(_flat(str(key), value))
    server = _mapping(manifest.get("server"))
    for name, value in _mapping(server.get("env")).items():
        if _is_telling(str(name)):
            facts[_VARIABLE + str(name)] = str(value)
    arguments = _mapping(manifest.get("case")).get("server_args")
    if isinstance(arguments, list):
        facts["arguments"] = " ".join(str(one) for one in arguments)
    host = _mapping(recorded.get("volatile")).get("host")
    if host:
        facts["host"] = str(host)
    plugin = _mapping(manifest.get("versions")).get("pytest-atomtrace")
    if plugin:
        facts["plugin"] = str(plugin)
    return facts


def _is_telling(name: str) -> bool:
    return name not in _NO_PART and (not name.startswith(_OURS) or name.startswith(_CONTROLS))


def environment_id(facts: Mapping[str, str]) -> str:
    """Twelve hex digits over the facts, the host left out: equal on two machines with equal software."""
    stable = {key: value for key, value in facts.items() if key != "host"}
    return sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()[:12] if stable else ""


def _flat(key: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, one in value.items():
            if name not in _PLACES:
                yield from _flat(f"{key}.{name}", one)
    elif isinstance(value, (str, int, float, bool)):
        yield key, str(value)


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """``ROCm 7.0.0 -> 7.1.0``: facts that differ, most telling first.

    A fact that one side does not know is no change; a variable that one side does not have is one.
    """
    differing = [key for key in {**before, **after} if _differs(key, before, after)]
    known = list(_WORDS)
    differing.sort(key=lambda key: (known.index(key) if key in _WORDS else len(known), key))
    found = [_said(key, before, after) for key in differing if not key.startswith(tuple(_MANY))]
    for prefix, (one, many) in _MANY.items():
        names = [key.removeprefix(prefix) for key in differing if key.startswith(prefix)]
        if names:
            more = ", ..." if len(names) > 1 else ""
            found.append(f"{len(names)} {one if len(names) == 1 else many} changed ({names[0]}{more})")
    return found


def _differs(key: str, before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    if before.get(key) == after.get(key):
        return False
    # Without any variable on one side the manifest is of a time or an engine that recorded none.
    if key.startswith(_VARIABLE):
        return all(any(one.startswith(_VARIABLE) for one in side) for side in (before, after))
    return key in before and key in after


def _said(key: str, before: Mapping[str, str], after: Mapping[str, str]) -> str:
    what = _WORDS.get(key) or key.removeprefix(_VARIABLE)
    absent = "unset" if key.startswith(_VARIABLE) else "?"
    old, new = (short(side.get(key, absent)) or "none" for side in (before, after))
    return f"{what} {old} -> {new}"


def short(text: str, limit: int = 40) -> str:
    """Digests and commits as their first digits, long values cut in the middle."""
    if len(text) >= 16 and not set(text) - set(_DIGITS):
        return text[:10]
    half = limit // 2 - 2
    return text if len(text) <= limit else f"{text[:half]}...{text[-half:]}"


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
