"""Questions that several tests ask a trace document."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

Event = dict[str, Any]


def events(trace: dict[str, Any], category: str) -> list[Event]:
    return [event for event in trace["traceEvents"] if event.get("cat") == category and event["ph"] in "Xi"]


def labels(trace: dict[str, Any]) -> list[str]:
    found = [e for e in events(trace, "user_annotation") if "[" in e["name"]]
    return [str(event["name"]) for event in sorted(found, key=lambda event: float(event["ts"]))]


def inside(event: Event, outer: Event) -> bool:
    start, end = float(outer["ts"]), float(outer["ts"]) + float(outer["dur"])
    return start <= float(event["ts"]) < end


def launches(trace: dict[str, Any]) -> list[Event]:
    found = [event for event in events(trace, "cuda_runtime") if "Launch" in event["name"]]
    return sorted(found, key=lambda event: float(event["ts"]))


def kernels_by_launch(trace: dict[str, Any]) -> dict[int, list[Event]]:
    found: dict[int, list[Event]] = defaultdict(list)
    for kernel in sorted(events(trace, "kernel"), key=lambda event: float(event["ts"])):
        found[kernel["args"]["correlation"]].append(kernel)
    return found


def kernels_of(trace: dict[str, Any], kind: str) -> list[Counter[str]]:
    """Kernel names of every step of a kind, by the launches inside its label on any thread, in time order."""
    kernels = kernels_by_launch(trace)
    spans = sorted(
        (e for e in events(trace, "user_annotation") if e["name"].startswith(f"{kind}[")),
        key=lambda event: float(event["ts"]),
    )
    found = []
    for span in spans:
        names: Counter[str] = Counter()
        for launch in launches(trace):
            if inside(launch, span):
                names.update(kernel["name"] for kernel in kernels[launch["args"]["correlation"]])
        found.append(names)
    return found


def count(names: Counter[str], word: str) -> int:
    return sum(number for name, number in names.items() if word in name)
