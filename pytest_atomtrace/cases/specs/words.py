"""The words of a spec as types: phases, patterns, values with their units."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta

__all__ = [
    "BASELINE_METRICS",
    "STEP_KINDS",
    "Count",
    "Duration",
    "Layer",
    "Metric",
    "Pattern",
    "Phase",
    "RankNames",
    "Ranks",
    "Reason",
    "Share",
    "Text",
    "id_safe",
    "name_safe",
]

# The words of the trace engine; tests keep them in step with it (numpy must not load to collect a file).
Phase: TypeAlias = Annotated[
    Literal[
        "prefill",
        "decode",
        "draft",
        "sample",
        "iteration",
        "eager_decode",
        "dummy_prefill",
        "dummy_decode",
        "dummy_eager_decode",
        "dspark",
        "dspark_ctx_kv",
        "dspark_sched",
        "other",
        "unattributed",
    ],
    Meta(description="a phase; decode is the label only, iteration adds sampling and drafts"),
]
STEP_KINDS: Final = ("prefill", "decode", "draft", "eager_decode", "dspark")
Layer: TypeAlias = Annotated[
    Literal["kernel", "op", "annotation", "memory"], Meta(description="where to look; unset prefers GPU kernels")
]
# Beside them decode.family.<family>.
BASELINE_METRICS: Final = (
    "decode.gpu_busy",
    "families",
    "decode.iteration",
    "draft.gpu_busy",
    "prefill.per_ktok",
    "counts",
)
Metric: TypeAlias = Literal[
    "gpu_busy", "gpu_span", "iteration", "per_token", "period", "kernel_sum", "cpu_span", "prefill_per_ktok"
]
Pattern: TypeAlias = Annotated[
    str,
    Meta(
        min_length=1,
        description="a plain name (never a substring), a glob with * and ?, or re: and a regular expression; "
        "quote one that starts with *",
    ),
]
Duration: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^\s*(\d+(\.\d+)?|\.\d+)\s*(ns|us|µs|μs|ms|s|min|h)\s*$",
        description="a duration with its unit, such as 9.5 ms or 800 us",
        examples=["9.5 ms", "800 us"],
        extra={"read": "duration", "shown": "a duration such as 9.5 ms"},
    ),
]
Share: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^\s*(\d+(\.\d+)?|\.\d+)\s*%\s*$",
        description="a share in percent, such as 5 %",
        examples=["5 %"],
        extra={"read": "share", "shown": "a share such as 5 %"},
    ),
]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
RankNames: TypeAlias = Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1)]
Ranks: TypeAlias = Annotated[
    Annotated[str, Meta(min_length=1)] | RankNames,
    Meta(description="all (each must fit), any, a rank's name, or several"),
]
Text: TypeAlias = Annotated[str, Meta(min_length=1)]
Reason: TypeAlias = Annotated[str, Meta(min_length=1, description="why, and who looks after it")]


def id_safe(text: str) -> str:
    """`text` as part of a test id: letters, digits, ``_`` and ``-``, whatever it was.

    ``::`` splits ids, brackets start parameters, a shell reads globs, and the terminal of pytest shows a dot in
    a test's own name as ``::``, so that the id it prints could not be pasted back.
    """
    text = re.sub(r"::|[*?]+", "-", text.strip().removeprefix("re:"))
    text = re.sub(r"[^A-Za-z0-9_-]+", "_", text)
    return re.sub(r"-{2,}", "-", text).strip("_-")[:80] or "any"


def name_safe(text: str) -> str:
    """`id_safe` of a name that somebody chose: letters of every script stay, so that two names stay two."""
    text = re.sub(r"::|[*?]+", "-", unicodedata.normalize("NFC", text.strip()))
    # Letters, numbers and the marks on them: \w leaves the vowels of Indic scripts out.
    text = "".join(one if one in "_-" or unicodedata.category(one)[0] in "LMN" else " " for one in text)
    return re.sub(r"-{2,}", "-", re.sub(r" +", "_", text)).strip("_-")[:80]
