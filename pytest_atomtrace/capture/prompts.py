"""Prompts: plain text, seeded, different for every window so that no prefix cache knows them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_atomtrace.cases.case import Case

__all__ = ["Request", "requests_for", "text_of"]

# Common short English words: one token each (with the blank before it) in the tokenizers of these models.
_TEXT = (
    "the of and to in is that it was for on are as with his they at be this from have or by one had not but "
    "what all were when we there can an your which their said if do will each about how up out them then she "
    "many some so these would other into has more her two like him see time could no make than first been its "
    "who now people my made over did down only way find use may water long little very after words called just "
    "where most know get through back much before go good new write our used me man too any day same right look "
    "think also around another came come work three word must because does part even place well such here take "
    "why things help put years different away again off went old number great tell men say small every found "
    "still between name should home big give air line set own under read last never us left end along while "
    "might next sound below saw something thought both few those always looked show large often together asked "
    "house world going want school important until form food keep children feet land side without boy once"
)
_WORDS = _TEXT.split()


@dataclass(frozen=True)
class Request:
    """One completion to ask for: `prompt`, the exact number of tokens to make, the prompt tokens aimed at."""

    prompt: str
    output_tokens: int
    input_tokens: int


def text_of(words: int, rng: random.Random) -> str:
    """`words` random words."""
    return " ".join(rng.choices(_WORDS, k=max(1, words)))


def requests_for(case: Case, *, seed: str, count: int, words_per_token: float = 1.0) -> list[Request]:
    """`count` requests of the case's lengths.

    Lengths are uniform integers in ``[int(len x range_ratio), len]``, input and output independently (the rule
    of ATOM's `benchmark_serving.py`); the same `seed` gives the same requests.
    """
    rng = random.Random(seed)
    requests = []
    for _ in range(count):
        isl = _length(case.isl, case.range_ratio, rng)
        osl = _length(case.output_tokens, case.range_ratio, rng)
        requests.append(Request(text_of(round(isl * words_per_token), rng), osl, isl))
    return requests


def _length(length: int, ratio: float, rng: random.Random) -> int:
    return rng.randint(max(1, int(length * ratio)), length)
