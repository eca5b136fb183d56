"""Kernel and op names: what they are called, how they are matched, how they are shown.

A pattern matches the raw name, the base name (namespace and function, no template arguments, no parameters)
or one of the base name's `::` suffixes. A plain string never matches by substring: decode graphs hold kernels
such as `triton_poi_fused_constant_pad_nd_moe_forward_0`, so "moe_forward" as a substring is a false green.
"""

from __future__ import annotations

import difflib
import itertools
import re
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING

from pytest_atomtrace.trace.backtracking import nested_repeat
from pytest_atomtrace.trace.mangled import MangledName, read_mangled

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["WRAPPERS", "Pattern", "base_name", "demangled", "nearest", "short_name"]

# Kernels that run what their first class-type argument says. Under their own names dozens of different
# kernels would be one. Keyed by the last component of the base name.
WRAPPERS = frozenset(
    {
        "kentry",
        "kernel_agent",
        "trampoline_kernel",
        "vectorized_elementwise_kernel",
        "vectorized_templated_elementwise_kernel",
        "unrolled_elementwise_kernel",
        "unrolled_elementwise_kernel_for_multi_outputs",
        "elementwise_kernel",
        "elementwise_kernel_manual_unroll",
        "elementwise_kernel_with_index",
        "index_elementwise_kernel",
        "legacy_elementwise_kernel",
        "reduce_kernel",
        "ReduceOp",
        "multi_tensor_apply_kernel",
        "distribution_elementwise_grid_stride_kernel",
        "gpu_kernel_impl",
        "gpu_kernel_impl_nocast",
        "func_wrapper_t",
        "AUnaryFunctor",
        "BUnaryFunctor",
        "BinaryFunctor",
        "kernel_entry",
        "Kernel2",
    }
)
_SCALARS = re.compile(
    r"(?:const |unsigned |signed |volatile )*"
    r"(?:void|bool|char|short|int|long|long long|float|double|size_t|_?_?half|__hip_bfloat16|hip_bfloat16|_Float16"
    r"|__bf16|u?int\d+_t|c10::(?:B?Float\w*|Half|complex)|std::integral_constant|opus::.*_t|ck_tile::\w+_t)"
    r"(?: const)?[*&]*"
)
# Arguments that say how a wrapper gets its tensors, not what it computes.
_PLUMBING = frozenset({"TensorListMetadata", "TensorListScalarListMetadata", "FusedOptimizerTensorListMetadata"})
_CLONE = re.compile(r"(?:\s*\[clone [^\]]*\]|\.kd|\.jit|\.(?:isra|constprop|part|cold|lto_priv)(?:\.\d+)*)+$")
_ANONYMOUS = "(anonymous namespace)"
_TENSILE = re.compile(r"(?:Custom_)?(Cijk_[A-Za-z]+_[A-Za-z]+_[A-Z0-9a-z]+)")
_TENSILE_TILE = re.compile(r"_(MT\d+x\d+x\d+|MI\d+x\d+x\d+|GSU\d+|SK\d+)(?=_|$)")
_GLOB = re.compile(r"[*?]")


@lru_cache(maxsize=65536)
def base_name(raw: str) -> str:
    """Namespace and function of a kernel's or op's name; wrappers keep their payload: `wrapper<payload>`."""
    name = _CLONE.sub("", raw.strip())
    mangled = read_mangled(name)
    if mangled is not None:
        return _mangled_base(mangled) or name
    # "Memcpy DtoH (Device -> Host)" is kineto's own wording, no function with parameters.
    if ("<" not in name and "(" not in name) or name.startswith(("Memcpy ", "Memset ")):
        return name
    return _demangled_base(name) or name


def _mangled_base(mangled: MangledName) -> str:
    base = "::".join(mangled.path)
    if mangled.path and mangled.path[-1] in WRAPPERS:
        for argument in mangled.arguments:
            inner = _mangled_base(argument)
            if inner and _is_payload(inner):
                return f"{base}<{inner}>"
    return base


def _is_payload(base: str) -> bool:
    return not _SCALARS.fullmatch(base) and base.rpartition("::")[2] not in _PLUMBING


def _demangled_base(name: str) -> str:
    path, arguments = _split_function(name)
    if path.rpartition("::")[2] in WRAPPERS:
        for argument in arguments:
            if not argument or argument[0].isdigit() or (argument[0] in "-(" and not argument.startswith(_ANONYMOUS)):
                continue
            if argument in {"true", "false"} or _SCALARS.fullmatch(argument):
                continue
            inner = _demangled_base(argument)
            if inner and _is_payload(inner):
                return f"{path}<{inner}>"
    return path


def _split_function(name: str) -> tuple[str, list[str]]:
    """The path without template arguments and parameters, and the last component's template arguments."""
    out: list[str] = []
    arguments: list[str] = []
    place = 0
    while place < len(name):
        char = name[place]
        if name.startswith(_ANONYMOUS, place):
            out.append("\0")
            place += len(_ANONYMOUS)
        elif name.startswith("operator", place) and _operator_length(name, place):
            length = _operator_length(name, place)
            out.append(name[place : place + length])
            place += length
        elif char == "<":
            close = _closing(name, place)
            arguments = _split_arguments(name[place + 1 : close])
            place = close + 1
        elif char in "({[":
            # Parameters, or a lambda: what follows names a place inside the function, not the function.
            break
        else:
            if char not in " \t":
                arguments = arguments if char in "*&" else []
            out.append(char)
            place += 1
    text = "".join(out).rstrip(" *&")
    text = text.removesuffix("::").rpartition(" ")[2].replace("\0", _ANONYMOUS)
    return text, arguments


_OPERATOR = re.compile(r"operator(?:\(\)|\[\]|<=>|<<=?|>>=?|<=|>=|->\*?|<|>|[-+*/%^&|~!=,]+)")


def _operator_length(name: str, place: int) -> int:
    if place and (name[place - 1].isalnum() or name[place - 1] == "_"):
        return 0
    match = _OPERATOR.match(name, place)
    return len(match[0]) if match else 0


_OPENERS = {")": "(", "}": "{", "]": "["}


def _nest(stack: list[str], char: str, before: str) -> None:
    """Push or pop one character. A `>` closes only a `<`: inside parentheses it compares."""
    if char in "<({[":
        stack.append(char)
    elif char == ">":
        if stack and stack[-1] == "<" and before != "-":
            stack.pop()
    elif char in _OPENERS and _OPENERS[char] in stack:
        while stack.pop() != _OPENERS[char]:
            pass


def _closing(name: str, place: int) -> int:
    """Place of the bracket that closes the one at `place`; the end of the text if none does."""
    stack: list[str] = []
    for at in range(place, len(name)):
        _nest(stack, name[at], name[at - 1 : at])
        if not stack:
            return at
    return len(name)


def _split_arguments(text: str) -> list[str]:
    parts: list[str] = []
    stack: list[str] = []
    start = 0
    for at, char in enumerate(text):
        _nest(stack, char, text[at - 1 : at])
        if char == "," and not stack:
            parts.append(text[start:at].strip())
            start = at + 1
    parts.append(text[start:].strip())
    return parts


@lru_cache(maxsize=65536)
def demangled(raw: str) -> str:
    """The name as C++ would write it: clone suffixes gone; a mangled symbol becomes its path."""
    name = _CLONE.sub("", raw.strip())
    mangled = read_mangled(name)
    return "::".join(mangled.path) or name if mangled is not None else name


@lru_cache(maxsize=65536)
def _candidates(raw: str) -> tuple[str, ...]:
    base = base_name(raw)
    names = [raw, base, demangled(raw)]
    depth = 0
    cuts = []
    for at, char in enumerate(base):
        if char in "<({[":
            depth += 1
        elif char in ">)}]":
            depth -= 1
        elif char == ":" and not depth and base[at - 1 : at] == ":":
            cuts.append(at + 1)
    names += [base[cut:] for cut in cuts]
    last = base[cuts[-1] :] if cuts else base
    head, bracket, inner = last.partition("<")
    if bracket and head in WRAPPERS:
        names.append(f"{head}<{inner.rstrip('>').rpartition('::')[2]}>")
    return tuple(dict.fromkeys(names))


@lru_cache(maxsize=65536)
def short_name(raw: str, width: int = 60) -> str:
    """A name for tables, at most `width` characters: base name, Tensile names cut to problem and tile."""
    base = base_name(raw)
    tensile = _TENSILE.match(base)
    if tensile:
        base = " ".join([tensile[1], *_TENSILE_TILE.findall(base)])
    base = base.replace(f"{_ANONYMOUS}::", "").removeprefix("at::native::")
    if len(base) <= width:
        return base
    if width < 8:
        return base[:width]
    tail = (width - 1) // 3
    return f"{base[: width - 1 - tail]}…{base[-tail:]}"


@dataclass(frozen=True)
class Pattern:
    """A name pattern of a spec: a plain name, a glob (`*`, `?`), or `re:` and a regular expression.

    A regular expression is searched in the raw name; a glob must match the raw name, the base name or a `::`
    suffix of it as a whole; a plain name must equal one of these.
    """

    text: str
    kind: str
    expression: re.Pattern[str] | None = None

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read a pattern; an empty one, or a broken, endless or all-matching expression, raises ValueError."""
        stripped = text.strip()
        if stripped.startswith("re:"):
            try:
                compiled = re.compile(stripped[3:].strip())
            except re.error as error:
                raise ValueError(f"{text!r} is no regular expression: {error}") from error
            nested = nested_repeat(compiled.pattern)
            if nested:
                raise ValueError(
                    f"{text!r} repeats {nested!r}, whose length varies: matching may take hours; use one repeat of a "
                    r"set of characters, such as [\w:]*"
                )
            if compiled.search("") is not None:
                # "re:" alone called everything, so a check of it was green for ever.
                raise ValueError(f"{text!r} matches the empty text, so it is found in every name; say what is in it")
            return cls(stripped, "regex", compiled)
        if not stripped:
            raise ValueError("a name pattern may not be empty")
        if _GLOB.search(stripped):
            # Brackets are part of C++ names (`operator[]`), so only * and ? are special.
            escaped = re.sub(r"\[", "[[]", stripped)
            return cls(stripped, "glob", re.compile(translate(escaped)))
        return cls(stripped, "plain")

    def matches(self, raw_name: str) -> bool:
        """True if the name is one that the pattern means."""
        if self.kind == "regex":
            return self.expression is not None and self.expression.search(raw_name) is not None
        candidates = _candidates(raw_name)
        if self.expression is not None:
            match = self.expression.match
            return any(match(candidate) for candidate in candidates)
        return self.text in candidates


def nearest(pattern: str, names: Iterable[str], n: int = 5) -> list[str]:
    """The raw names that somebody who wrote `pattern` may have meant, best first.

    Names that contain the pattern's longest plain part come first (here, and only here, substrings count),
    then those of similar spelling.
    """
    plain = pattern.removeprefix("re:")
    parts = sorted(re.findall(r"[A-Za-z_]\w{2,}", plain), key=len, reverse=True)
    wanted = plain.rpartition("::")[2].strip("*?").lower() or plain.lower()
    needle = parts[0].lower() if parts else wanted
    scored: list[tuple[int, float, str]] = []
    for name in dict.fromkeys(names):
        base = base_name(name).lower()
        last = base.partition("<")[0].rpartition("::")[2]
        ratio = difflib.SequenceMatcher(None, wanted, last[:200]).ratio()
        contained = needle in name.lower()
        # Tuned kernels differ in their tails: "mfma_moe1_afp8" was meant for "mfma_moe1_abf16_wfp4_..".
        shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(wanted, last, strict=False)))
        prefix = shared / max(1, len(wanted))
        likeness = max(ratio, prefix)
        if contained or likeness >= 0.5:
            scored.append((0 if contained else 1, -likeness, name))
    return [name for _, _, name in sorted(scored)[:n]]
