"""Step labels: the `record_function` names that ATOM and its plug-in modes put around forward passes.

One tolerant grammar for all generations (ATOM `atom/model_engine/run_labels.py`, `eagle_proposer.py`,
`dspark_proposer.py`; older `prefill_bs_..`/`decode_step_bs_..`), vLLM's `execute_..` and SGLang's
`step[DECODE bs=..]`. Unknown keys are kept, unknown kinds are no labels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["DECODE_KINDS", "KINDS", "Label", "parse_label"]

KINDS = (
    "prefill",
    "decode",
    "draft",
    "eager_decode",
    "dummy_prefill",
    "dummy_decode",
    "dummy_eager_decode",
    "dspark",
    "dspark_ctx_kv",
    "dspark_sched",
)
DECODE_KINDS = ("decode", "eager_decode", "dummy_decode", "dummy_eager_decode")

_BRACKET = re.compile(r"(?P<kind>[a-z_]+)\[(?P<body>.*)\]")
# A list may hold blanks (`ctx=[64, 64]`, `ctx=[1, 2, 3]...+9`), so splitting on white space breaks labels.
_PAIR = re.compile(r"(?P<key>[A-Za-z_]\w*)=(?P<value>\[[^\]]*\](?:\.\.\.\+\d+)?|[^\s\[\]]+)")
_DRAFT_HEAD = re.compile(r"(?P<index>\d+)/(?P<count>\d+)(?=\s|$)")
_OLD_PREFILL = re.compile(r"prefill_bs_(?P<bs>\d+)_ctxlens_(?P<ctx>.*)")
_OLD_DECODE = re.compile(r"decode_step_bs_(?P<bs>\d+)")
_EXECUTE = re.compile(
    r"execute_(?P<tok>\d+)_context_(?P<context>\d+)(?:\([^)]*\))?_generation_(?P<generation>\d+)(?:\([^)]*\))?"
)
_SGLANG = re.compile(r"step\[(?P<mode>[A-Z_]+)(?P<body>(?:\s[^\]]*)?)\]")
_SGLANG_KINDS = {
    "DECODE": "decode",
    "TARGET_VERIFY": "decode",
    "EXTEND": "prefill",
    "MIXED": "prefill",
    "PREFILL": "prefill",
    "DRAFT_EXTEND": "draft",
    "DRAFT_EXTEND_V2": "draft",
    "IDLE": "dummy_decode",
}
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Label:
    """One parsed step label.

    `bs` is the real batch, `graph_bs` the graph's padded batch (equal to `bs` where the label has none:
    labels before July 2026 do not tell), `tok` the scheduled tokens, `prefills`/`decodes` the sequences of
    each sort, `spec` the drafted tokens per sequence, `draft_index` of `draft_count` the place of a draft
    pass, `ctx` the context lengths shown (`None` if the label has none), `tbo` two-batch overlap. `style` is
    the family of labels: atom, execute (vLLM) or step (SGLang). `extra` are keys with no field of their own.
    """

    text: str
    kind: str
    bs: int = 0
    graph_bs: int = 0
    tok: int | None = None
    prefills: int = 0
    decodes: int = 0
    spec: int = 0
    draft_index: int | None = None
    draft_count: int | None = None
    ctx: tuple[int, ...] | None = None
    tbo: bool = False
    extra: tuple[tuple[str, str], ...] = ()
    style: str = "atom"

    @property
    def query_len(self) -> int | None:
        """Tokens per sequence, `tok / bs`, where that is a whole positive number; else None."""
        if not self.tok or not self.bs or self.tok % self.bs:
            return None
        return self.tok // self.bs

    @property
    def shape(self) -> tuple[str, int, int | None]:
        """What steps must share to be compared: kind, graph batch and query length."""
        return (self.kind, self.graph_bs, self.query_len)


@lru_cache(maxsize=65536)
def parse_label(text: str) -> Label | None:
    """Read `text` as a step label; None if it is none."""
    if text.startswith("execute_"):
        return _execute(text)
    if text.startswith("step["):
        return _sglang(text)
    if text.startswith(("prefill_bs_", "decode_step_bs_")):
        return _old(text)
    match = _BRACKET.fullmatch(text)
    if match is None or match["kind"] not in KINDS:
        return None
    kind, body = match["kind"], match["body"]
    index = count = None
    if kind == "draft":
        head = _DRAFT_HEAD.match(body)
        if head is None:
            return None
        index, count = int(head["index"]), int(head["count"])
        body = body[head.end() :]
    return _from_pairs(text, kind, body, index, count)


def _from_pairs(text: str, kind: str, body: str, index: int | None, count: int | None) -> Label | None:
    bs = graph_bs = 0
    numbers: dict[str, int] = {}
    ctx: tuple[int, ...] | None = None
    extra: list[tuple[str, str]] = []
    seen_bs = False
    for pair in _PAIR.finditer(body):
        key, value = pair["key"], pair["value"]
        if key == "bs":
            real, _, graph = value.partition("/")
            if not _is_number(real) or (graph and not _is_number(graph)):
                return None
            bs, seen_bs = int(real), True
            graph_bs = int(graph) if graph else bs
        elif key == "ctx":
            ctx = tuple(int(n) for n in _NUMBER.findall(value.partition("...")[0]))
            if "..." in value:
                extra.append(("ctx_more", value.rpartition("+")[2]))
        elif key in {"tok", "p", "d", "spec", "tbo"} and _is_number(value):
            numbers[key] = int(value)
        else:
            extra.append((key, value))
    if not seen_bs:
        return None
    return Label(
        text,
        kind,
        bs=bs,
        graph_bs=graph_bs,
        tok=numbers.get("tok"),
        prefills=numbers.get("p", 0),
        decodes=numbers.get("d", 0),
        spec=numbers.get("spec", 0),
        draft_index=index,
        draft_count=count,
        ctx=ctx,
        tbo=bool(numbers.get("tbo")),
        extra=tuple(extra),
    )


def _is_number(text: str) -> bool:
    # str.isdigit alone admits superscripts; the cap keeps int() away from CPython's digit limit.
    return text.isascii() and text.isdigit() and len(text) < 19


def _old(text: str) -> Label | None:
    match = _OLD_PREFILL.fullmatch(text)
    if match is not None and _is_number(match["bs"]):
        bs = int(match["bs"])
        ctx = tuple(int(n) for n in _NUMBER.findall(match["ctx"]) if _is_number(n))
        return Label(text, "prefill", bs=bs, graph_bs=bs, prefills=bs, ctx=ctx)
    match = _OLD_DECODE.fullmatch(text)
    if match is not None and _is_number(match["bs"]):
        bs = int(match["bs"])
        return Label(text, "decode", bs=bs, graph_bs=bs, decodes=bs)
    return None


def _execute(text: str) -> Label | None:
    match = _EXECUTE.fullmatch(text)
    if match is None or not all(_is_number(match[k]) for k in ("tok", "context", "generation")):
        return None
    tok, prefills, decodes = (int(match[k]) for k in ("tok", "context", "generation"))
    # A batch with any context part runs as prefill, whatever decodes ride along.
    kind = "prefill" if prefills else "decode"
    bs = prefills + decodes
    return Label(text, kind, bs=bs, graph_bs=bs, tok=tok, prefills=prefills, decodes=decodes, style="execute")


def _sglang(text: str) -> Label | None:
    match = _SGLANG.fullmatch(text)
    kind = _SGLANG_KINDS.get(match["mode"]) if match else None
    if match is None or kind is None:
        return None
    values = {p["key"]: p["value"] for p in _PAIR.finditer(match["body"])}
    numbers = {k: int(v) for k, v in values.items() if _is_number(v)}
    bs = numbers.get("bs", 0)
    # A plain decode takes one token a sequence; a verify pass takes an untold number of drafted ones.
    tok = numbers.get("toks", numbers.get("tok", bs if match["mode"] == "DECODE" else None))
    extra = tuple((k, v) for k, v in values.items() if k not in {"bs", "toks", "tok"})
    return Label(
        text,
        kind,
        bs=bs,
        graph_bs=bs,
        tok=tok,
        prefills=bs if kind == "prefill" else 0,
        decodes=bs if kind == "decode" else 0,
        extra=(("mode", match["mode"]), *extra),
        style="step",
    )
