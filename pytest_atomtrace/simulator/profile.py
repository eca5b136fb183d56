r"""Model profiles: YAML data to flat, tag-resolved programs that a rank worker can play.

A profile names its models, its layers and its kernels, and lists what runs. An item of a list is a kernel
key with conditions and a placement, or a CPU operator with its own list::

    moe1                          a kernel on the main stream
    topk_decode @decode @!first   only where the tags hold: phase (prefill, decode), layer tags, tp, inductor
    shared1 >side                 on the side stream; `>early` also starts before the step's first kernel
    add_shared <join              waits for the side stream
    {op: aiter::moe_forward, when: csa, run: [...]}

Sections: prepare (before a step), head, layer, tail, logits, sample (after a step), draft (layer tags).
A kernel has ``us``, the median in microseconds of a decode step of 64 sequences with 1024 tokens of context;
``per_bs`` and ``per_ctx`` are the fractions of it that scale with the batch and with batch x context;
``pf_us`` is the median for 8192 prefill tokens (default ``us``), of which ``per_tok`` (default 0.95 with
``pf_us``, else 0) scales with the tokens; ``spread`` is its relative standard deviation (0.03).
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

__all__ = ["ProfileError", "find_profile", "known_models", "resolve"]

FOLDER = Path(__file__).parent / "profiles"
SECTIONS = ("prepare", "head", "layer", "tail", "logits", "sample")
KERNEL_KEYS = {
    "name",
    "us",
    "per_bs",
    "per_ctx",
    "per_tok",
    "pf_us",
    "spread",
    "collective",
    "api",
    "memory",
    "source",
}

Profile = dict[str, Any]
Program = list[list[Any]]


class ProfileError(ValueError):
    """No profile for a model, or a profile that contradicts itself."""


def _load(path: Path) -> Profile:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    profile: Profile = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - a safe loader
    for key, kernel in profile["kernels"].items():
        if not {"name", "us", "source"} <= set(kernel) <= KERNEL_KEYS:
            raise ProfileError(
                f"{path.name}: kernel {key!r} has keys {sorted(kernel)}, known: {sorted(KERNEL_KEYS)}"
            )
    return profile


def known_models() -> list[str]:
    """First model name of every profile."""
    return sorted(_load(path)["models"][0] for path in FOLDER.glob("*.yaml"))


def find_profile(model: str) -> Profile:
    """The profile whose ``models`` hold the name (or its last path component); raises ProfileError."""
    wanted = model.rstrip("/")
    for path in sorted(FOLDER.glob("*.yaml")):
        profile = _load(path)
        if wanted in profile["models"] or wanted.rsplit("/", 1)[-1] in profile["models"]:
            return profile
    known = known_models()
    near = difflib.get_close_matches(wanted, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ProfileError(
        f"Can't load the configuration of '{model}': no such model here{hint} (profiles: {', '.join(known)})"
    )


def resolve(profile: Profile, *, tp: int, level: int, layers: int) -> dict[str, Any]:
    """Kernels and programs for one launch.

    A program is a list of ``["k", key, stream, ext]`` and ``["o", name, depth]``/``["e"]`` (operator begin and
    end) in launch order. ``stream`` is 0 main, 1 side, 2 side and early; ``ext`` is 1 where the kernel waits
    for the side stream.
    """
    base = ({"tp"} if tp > 1 else set()) | ({"inductor"} if level == 3 else set())
    count = layers or profile["layers"]
    programs: dict[str, Program] = {}
    for phase in ("prefill", "decode"):
        tags = base | {phase}
        body = _section(profile, "head", tags)
        for index in range(count):
            body += _section(profile, "layer", tags | _layer_tags(profile, index))
        body += _section(profile, "tail", tags)
        programs[phase] = body
        programs[f"{phase}_prepare"] = _section(profile, "prepare", tags)
        programs[f"{phase}_logits"] = _section(profile, "logits", tags)
        programs[f"{phase}_sample"] = _section(profile, "sample", tags)
    if "draft" in profile:
        tags = base | {"decode"} | set(profile["draft"])
        programs["draft"] = _section(profile, "layer", tags) + _section(profile, "logits", tags)
    return {"kernels": profile["kernels"], "programs": programs, "layers": count}


def _layer_tags(profile: Profile, index: int) -> set[str]:
    prefix, cycle = profile["layer_tags"]["prefix"], profile["layer_tags"]["cycle"]
    return set(prefix[index] if index < len(prefix) else cycle[(index - len(prefix)) % len(cycle)])


def _section(profile: Profile, name: str, tags: set[str]) -> Program:
    out: Program = []
    _flatten(profile, profile.get(name, []), tags, out)
    return out


def _holds(condition: str, tags: set[str]) -> bool:
    return condition[1:] not in tags if condition.startswith("!") else condition in tags


def _flatten(profile: Profile, items: list[Any], tags: set[str], out: Program) -> None:
    for item in items:
        if isinstance(item, dict):
            if _holds(item["when"], tags) if "when" in item else True:
                out.append(["o", item["op"]])
                before = len(out)
                _flatten(profile, item["run"], tags, out)
                if len(out) == before:  # an operator none of whose kernels applies does not run either
                    out.pop()
                else:
                    out.append(["e"])
            continue
        key, *words = item.split()
        if key not in profile["kernels"]:
            raise ProfileError(f"{profile['name']}: no kernel {key!r}")
        if all(_holds(word[1:], tags) for word in words if word.startswith("@")):
            out.append(["k", key, 2 if ">early" in words else 1 if ">side" in words else 0, int("<join" in words)])
