r"""Model profiles: one YAML file per model family; programs.py turns it into what a rank worker plays.

A profile names its models, its layers and its kernels, and lists what runs. An item of a list is a kernel
key with conditions and a placement, or a CPU operator with its own list::

    moe1                          a kernel on the main stream
    topk_decode @decode @!first   only where the tags hold: phase (prefill, decode), layer tags, tp, inductor
    shared1 >side                 on the side stream; `>early` also starts before the step's first kernel
    add_shared <join              waits for the side stream
    {op: aiter::moe_forward, when: csa, run: [...]}
    {span: .mlp.experts, run: [...]}    a module span (--mark-trace); a leading dot stands for model.layers.<N>

Further tags: spec (drafts), synthetic (acceptance by the command line), and the decode query length q1, q2, q4
(k drafts make k + 1; 4 stands for all above 2).
Sections: prepare (before a step), head, layer, tail, logits, sample (after a step), draft_head and draft_tail
around the layer and logits of a draft step. ``draft`` names its layer's tags; ``splitting`` the operators that
stay eager in PIECEWISE mode; ``hidden`` the width that recorded shapes show.
A kernel has ``us``, the median in microseconds of a decode step of 64 sequences with 1024 tokens of context;
``per_bs`` and ``per_ctx`` are the fractions of it that scale with the batch and with batch x context;
``pf_us`` is the median for 8192 prefill tokens (default ``us``), of which ``per_tok`` (default 0.95 with
``pf_us``, else 0) scales with the tokens; ``spread`` is its relative standard deviation (0.03). ``warmup`` is
the kernel that stands for it in the warm-up before a graph capture.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

__all__ = ["Profile", "ProfileError", "find_profile", "known_models"]

FOLDER = Path(__file__).parent / "profiles"
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
    "warmup",
}

Profile = dict[str, Any]


class ProfileError(ValueError):
    """No profile for a model, or a profile that contradicts itself."""


def _load(path: Path) -> Profile:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    profile: Profile = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - a safe loader
    for key, kernel in profile["kernels"].items():
        if not {"name", "us", "source"} <= set(kernel) <= KERNEL_KEYS:
            raise ProfileError(f"{path.name}: kernel {key!r} has keys {sorted(kernel)}, known: {sorted(KERNEL_KEYS)}")
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
