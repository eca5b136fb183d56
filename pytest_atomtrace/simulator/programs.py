"""A profile's lists as flat, tag-resolved programs: what runs, in launch order, for one command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_atomtrace.simulator.profile import ProfileError

if TYPE_CHECKING:
    from pytest_atomtrace.simulator.profile import Profile

__all__ = ["Options", "derive", "resolve"]

Program = list[list[Any]]
TWO_BATCH = {"graph": "graph_tbo", "pieces": "pieces_tbo", "decode": "decode_tbo", "prefill": "prefill_tbo"}


@dataclass(frozen=True)
class Options:
    """What the command line changes in a model's programs; ``query`` is the tokens per sequence of a decode."""

    tp: int
    level: int = 3
    layers: int = 0
    query: int = 1
    synthetic: bool = False
    mark: bool = False

    @property
    def tags(self) -> set[str]:
        """Tags that hold in every program."""
        held = {"tp": self.tp > 1, "inductor": self.level == 3, "spec": self.query > 1}
        held["synthetic"] = self.synthetic
        return {tag for tag, holds in held.items() if holds}


def resolve(profile: Profile, options: Options) -> dict[str, Any]:
    """Kernels and programs for one launch.

    A program is a list of ``["k", key, lane, join]`` kernels, ``["o", name]`` operators and ``["s", name]``
    module spans, both ended by ``["e"]``, in launch order. ``lane`` is 0 main, 1 side, 2 side and early (3 to
    5: the same of the second half of a two-batch step); ``join`` is 1 where the kernel waits for the side lane.
    """
    count = options.layers or profile["layers"]
    section = _Sections(profile, mark=options.mark)
    query = _query_tag(options.query)
    programs: dict[str, Program] = {}
    for phase in ("prefill", "decode"):
        tags = options.tags | ({"prefill"} if phase == "prefill" else {"decode", query})
        body = section("head", tags)
        for index in range(count):
            body += section("layer", tags | _layer_tags(profile, index), index)
        programs[phase] = body + section("tail", tags)
        for name in ("prepare", "logits", "sample"):
            programs[f"{phase}_{name}"] = section(name, tags)
    if "draft" in profile and options.query > 1:
        for name, held in (("_prefill", "prefill"), ("_decode", query), ("", "q1")):
            tags = options.tags | set(profile["draft"]) | {held, "prefill" if name == "_prefill" else "decode"}
            programs[f"draft{name}"] = (
                section("draft_head", tags, count)
                + section("layer", tags, count)
                + section("draft_tail", tags, count)
                + section("logits", tags, count)
            )
    return {
        "kernels": profile["kernels"],
        "programs": programs,
        "layers": count,
        "splitting": profile.get("splitting", []),
        "hidden": profile["hidden"],
    }


def derive(programs: dict[str, Program], *, eager_logits: bool) -> None:
    """Add the programs that are made of others: graphs and two-batch steps."""
    # with one GPU per engine the logits are part of the captured graph
    programs["graph"] = programs["decode"] + ([] if eager_logits else programs["decode_logits"])
    programs["pieces"] = programs["decode"]
    for name, doubled in TWO_BATCH.items():
        second = [[*item[:2], item[2] + 3, item[3]] if item[0] == "k" else item for item in programs[name]]
        programs[doubled] = [["l", 1], *programs[name], ["l", 2], *second]


def _query_tag(query: int) -> str:
    return "q1" if query == 1 else "q2" if query == 2 else "q4"


def _layer_tags(profile: Profile, index: int) -> set[str]:
    prefix, cycle = profile["layer_tags"]["prefix"], profile["layer_tags"]["cycle"]
    return set(prefix[index] if index < len(prefix) else cycle[(index - len(prefix)) % len(cycle)])


def _holds(condition: str, tags: set[str]) -> bool:
    return condition[1:] not in tags if condition.startswith("!") else condition in tags


class _Sections:
    def __init__(self, profile: Profile, *, mark: bool) -> None:
        self._profile, self._mark = profile, mark
        self._layer = ""

    def __call__(self, name: str, tags: set[str], layer: int = 0) -> Program:
        out: Program = []
        self._layer = f"model.layers.{layer}"
        self._flatten(self._profile.get(name, []), tags, out)
        return out

    def _flatten(self, items: list[Any], tags: set[str], out: Program) -> None:
        for item in items:
            if isinstance(item, dict):
                self._block(item, tags, out)
                continue
            key, *words = item.split()
            if key not in self._profile["kernels"]:
                raise ProfileError(f"{self._profile['name']}: no kernel {key!r}")
            if all(_holds(word[1:], tags) for word in words if word.startswith("@")):
                lane = 2 if ">early" in words else 1 if ">side" in words else 0
                out.append(["k", key, lane, int("<join" in words)])

    def _block(self, item: dict[str, Any], tags: set[str], out: Program) -> None:
        if not _holds(item["when"], tags) if "when" in item else False:
            return
        shown = "op" in item or ("span" in item and self._mark)
        if shown:
            name = item.get("op") or item["span"]
            out.append(["o" if "op" in item else "s", self._layer + name if name.startswith(".") else name])
        before = len(out)
        self._flatten(item["run"], tags, out)
        if not shown:
            return
        if len(out) == before:  # an operator none of whose kernels applies does not run either
            out.pop()
        else:
            out.append(["e"])
