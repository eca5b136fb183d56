"""A decode step by model layer: the table that ATOM's tools/parse_trace.py makes, from resolved kernels.

Same rules where they can be compared: layers with the same ordered (module, kernel) sequence form one group;
a layer's time is the union of its kernels' intervals; rows of one layer may add up to more than it, since
streams overlap. Shares of the step are of its GPU annotation's window where there is one, else of its span.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pytest_atomtrace.trace.intervals import union_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_atomtrace.trace.data import RankData, Step
    from pytest_atomtrace.trace.ops import KernelOrigin

__all__ = ["LayerGroup", "LayerRow", "LayerTable", "layer_table"]

_LAYER = re.compile(r"((?:^|\.)layers\.)\d+(?=\.|$)")
_LISTED = 8


@dataclass(frozen=True)
class LayerRow:
    """One kernel of a layer: `time_ns` is its mean over the group's layers, `stream` counts from 1."""

    module: str
    kernel: str
    stream: int
    time_ns: float


@dataclass(frozen=True)
class LayerGroup:
    """Layers that run the same kernels; `time_ns` is the mean union of a layer's intervals."""

    layers: tuple[int, ...]
    rows: tuple[LayerRow, ...]
    time_ns: float

    @property
    def label(self) -> str:
        """`layer 3`, `layers 0-1`, `layers 0,2,4`, or with the ends and the count of a long list."""
        if len(self.layers) == 1:
            return f"layer {self.layers[0]}"
        first, last = self.layers[0], self.layers[-1]
        if last - first + 1 == len(self.layers):
            return f"layers {first}-{last}"
        if len(self.layers) <= _LISTED:
            return "layers " + ",".join(map(str, self.layers))
        return f"layers {first},{self.layers[1]},...,{last} ({len(self.layers)} layers)"


@dataclass(frozen=True)
class LayerTable:
    """A step by layer; `outside` are kernels of no layer, `unmatched` those whose origin is unknown."""

    step: Step
    window_ns: int
    groups: tuple[LayerGroup, ...]
    outside: tuple[LayerRow, ...]
    unmatched: tuple[LayerRow, ...]


def layer_table(rank: RankData, step: Step, origins: Sequence[KernelOrigin]) -> LayerTable:
    """Group the kernels of `step` by model layer."""
    window = step.note_end_ns - step.note_start_ns if step.note_start_ns >= 0 else step.gpu_span_ns
    streams = sorted({int(rank.stream[origin.row]) for origin in origins})
    number = {stream: place for place, stream in enumerate(streams, 1)}

    def row(origin: KernelOrigin) -> LayerRow:
        stream = number[int(rank.stream[origin.row])]
        return LayerRow(_starred(origin.module), origin.kernel, stream, float(rank.dur_ns[origin.row]))

    owners = _owners(origins)
    members: dict[int, list[KernelOrigin]] = {}
    for origin, owner in zip(origins, owners, strict=True):
        if owner is not None:
            members.setdefault(owner, []).append(origin)
    alike: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for layer, found in sorted(members.items()):
        alike.setdefault(tuple((_starred(o.module), o.kernel) for o in found), []).append(layer)
    groups = tuple(_group(rank, layers, [members[layer] for layer in layers], number) for layers in alike.values())
    outside = [o for o, owner in zip(origins, owners, strict=True) if owner is None and o.how != "unmatched"]
    unmatched = [origin for origin in origins if origin.how == "unmatched"]
    return LayerTable(step, window, groups, tuple(map(row, outside)), tuple(map(row, unmatched)))


def _starred(module: str) -> str:
    return _LAYER.sub(r"\1*", module, count=1)


def _owners(origins: Sequence[KernelOrigin]) -> list[int | None]:
    """Layer of each kernel; what lies between two parts of one layer (an all-reduce, a copy) is that layer's."""
    owners = [origin.layer for origin in origins]
    known = [place for place, owner in enumerate(owners) if owner is not None]
    for before, after in pairwise(known):
        if owners[before] == owners[after]:
            for place in range(before + 1, after):
                if origins[place].how != "unmatched":
                    owners[place] = owners[before]
    return owners


def _group(rank: RankData, layers: list[int], members: list[list[KernelOrigin]], number: dict[int, int]) -> LayerGroup:
    rows = []
    for same in zip(*members, strict=True):
        time = sum(int(rank.dur_ns[origin.row]) for origin in same) / len(layers)
        stream = number[int(rank.stream[same[0].row])]
        rows.append(LayerRow(_starred(same[0].module), same[0].kernel, stream, time))
    every = np.array([origin.row for found in members for origin in found], np.int64)
    start = rank.start_ns[every]
    union = union_length(start, start + rank.dur_ns[every])
    return LayerGroup(tuple(layers), tuple(rows), union / len(layers))
