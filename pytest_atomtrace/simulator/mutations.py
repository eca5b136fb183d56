"""Changes to the kernels of a profile: what a real regression would do to a trace."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

__all__ = ["ACTIONS", "Mutation", "MutationError", "base_name", "of_launch", "parse_mutations"]

ACTIONS = ("drop", "extra", "rename", "slow")
PHASES = ("decode", "draft", "eager_decode", "prefill", "sample")


class MutationError(ValueError):
    """A mutation that cannot be read."""


@dataclass(frozen=True)
class Mutation:
    """One change: ``pattern`` is a glob over raw or base names, ``value`` a new name or a factor."""

    action: str
    pattern: str
    value: str = ""
    rank: int | None = None
    phase: str | None = None
    step: int | None = None

    def applies(self, *, rank: int, phase: str, step: int) -> bool:
        """Whether it strikes this rank, this phase and this step (counted per phase in the window, from 0)."""
        return self.rank in (None, rank) and self.phase in (None, phase) and self.step in (None, step)

    def matches(self, name: str) -> bool:
        """Whether the glob covers the kernel's raw name or its base name."""
        regex = _glob(self.pattern)
        return bool(regex.fullmatch(name) or regex.fullmatch(base_name(name)))


def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern), re.DOTALL)


def base_name(name: str) -> str:
    """The function's own name: no return type, namespaces, template or call arguments, no ``.kd``."""
    text = name.removesuffix(".kd")
    if text.startswith("_ZN"):
        rest, last = text[3:], text
        while count := re.match(r"\d+", rest):
            length = int(count.group())
            last, rest = rest[count.end() :][:length], rest[count.end() + length :]
        return last
    text = re.split(r"[<(]", text.removeprefix("void ").replace("(anonymous namespace)::", ""), maxsplit=1)[0]
    return text.rsplit("::", 1)[-1].strip()


def parse_mutations(text: str) -> tuple[Mutation, ...]:
    """``"drop:mfma_moe1_*@rank=3;slow:*moe2*=1.3@phase=decode"`` as mutations; raises MutationError."""
    return tuple(_parse_one(item.strip()) for item in text.split(";") if item.strip())


def of_launch(text: str, launch: int) -> str:
    """The mutations that strike this launch, without their ``@launch=<nonce>``: a server that is slow once."""
    kept = []
    for item in filter(None, (one.strip() for one in text.split(";"))):
        body, *options = item.split("@")
        launches = [option for option in options if option.startswith("launch=")]
        if not launches or f"launch={launch}" in launches:
            kept.append("@".join([body, *(option for option in options if option not in launches)]))
    return ";".join(kept)


def _parse_one(item: str) -> Mutation:
    action, colon, rest = item.partition(":")
    if not colon or action not in ACTIONS:
        near = difflib.get_close_matches(action, ACTIONS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise MutationError(f"unknown mutation {item!r}{hint} (known: {', '.join(ACTIONS)})")
    body, *options = rest.split("@")
    pattern, equals, value = body.partition("=")
    if not pattern or (action in ("rename", "slow")) != bool(equals):
        raise MutationError(
            f"mutation {item!r}: want drop:<glob>, extra:<name>, rename:<glob>=<new>, slow:<glob>=<factor>"
        )
    if action == "slow":
        try:
            factor = float(value)
        except ValueError:
            factor = 0.0
        if factor <= 0:
            raise MutationError(f"mutation {item!r}: the factor {value!r} is not a number above 0")
    where = dict(_option(item, option) for option in options)
    rank, step = where.get("rank"), where.get("step")
    return Mutation(
        action,
        pattern,
        value,
        rank=None if rank is None else int(rank),
        phase=where.get("phase"),
        step=None if step is None else int(step),
    )


def _option(item: str, option: str) -> tuple[str, str]:
    key, _, value = option.partition("=")
    if key in ("rank", "step") and value.isdigit():
        return key, value
    if key == "phase" and value in PHASES:
        return key, value
    known = f"@rank=<n>, @step=<n>, @launch=<nonce>, @phase=<{'|'.join(PHASES)}>"
    raise MutationError(f"mutation {item!r}: {option!r} is none of {known}")
