"""Doubts about a trace that its files cannot show: what the capture's manifest and the workload's figures say.

They forbid times, never counts: a window whose requests failed, or in which a kernel was compiled, launched the
kernels that it launched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from pytest_atomtrace.cases.case import Case
from pytest_atomtrace.errors import ConfigError
from pytest_atomtrace.trace.finding import TITLES, Finding
from pytest_atomtrace.verdicts.contention import contention_findings

__all__ = ["ACCEPTANCE_FLOORS", "capture_findings"]

#: Lowest share of accepted draft tokens that ATOM's CI takes for a working drafter, by model and draft tokens.
#: Source: ATOM .github/benchmark/models_accuracy.json, ``mtp_accept_threshold``; of several the lowest.
ACCEPTANCE_FLOORS: Final[Mapping[tuple[str, int], float]] = {
    ("deepseek-ai/DeepSeek-V4-Pro", 3): 0.622,
    ("deepseek-ai/DeepSeek-R1-0528", 3): 0.582,
    ("amd/DeepSeek-R1-0528-MXFP4-MTP-MoEFP4", 3): 0.593,
    ("amd/Kimi-K2.5-MXFP4", 3): 0.67,
    ("amd/GLM-5.2-MXFP4", 3): 0.595,
    ("Qwen/Qwen3.5-397B-A17B-FP8", 3): 0.829,
    ("amd/Qwen3.5-397B-A17B-MXFP4", 3): 0.828,
    ("amd/MiniMax-M3-MXFP4", 3): 0.715,
    ("XiaomiMiMo/MiMo-V2-Flash", 1): 0.82,
}
# Under one accepted token in a hundred the drafts are noise, whatever the model.
_NO_ACCEPTANCE: Final = 0.01
# Draft tokens are accepted or not: a short window's share scatters by sqrt(p (1 - p) / n). Three times that.
_SIGMAS: Final = 3.0


def capture_findings(manifest: Mapping[str, object], bench: Mapping[str, object]) -> tuple[Finding, ...]:
    """H10 (workload), H11 (contended) and H13 (build in the window); empty where nothing was recorded."""
    return (*_workload(manifest, bench), *contention_findings(manifest), *_builds(manifest))


def _finding(code: str, text: str, *, count: int = 0) -> Finding:
    return Finding(code=code, title=TITLES[code], fatal=True, scope="times", text=text, count=count)


def _workload(manifest: Mapping[str, object], bench: Mapping[str, object]) -> Iterator[Finding]:
    asked, completed = _whole(bench.get("requests")), _whole(bench.get("completed"))
    if asked is not None and completed is not None and completed < asked:
        text = f"{asked - completed} of {asked} requests of the window failed: the batch was not the one asked for"
        yield _finding("H10", text, count=asked - completed)
    tokens, wanted = _whole(bench.get("output_tokens")), _whole(bench.get("asked_output_tokens"))
    if tokens is not None and wanted is not None and tokens < wanted and completed == asked:
        yield _finding("H10", f"{tokens:,} of {wanted:,} output tokens came: requests ended early")
    yield from _acceptance(manifest, bench)


def _acceptance(manifest: Mapping[str, object], bench: Mapping[str, object]) -> Iterator[Finding]:
    case, figures = _case(manifest), bench.get("acceptance")
    if case is None or not case.speculative_tokens or not isinstance(figures, Mapping):
        return
    rate, drafted = figures.get("rate"), _whole(figures.get("draft_tokens"))
    if not isinstance(rate, (int, float)) or not drafted:
        return
    synthetic = _synthetic_rate(case)
    if synthetic is not None:
        if abs(rate - synthetic) > max(0.05, _SIGMAS * _scatter(synthetic, drafted)):
            yield _finding("H10", f"{rate:.1%} of draft tokens were accepted, {synthetic:.1%} were ordered by argument")
        return
    if rate < _NO_ACCEPTANCE:
        text = f"{rate:.1%} of {drafted:,} draft tokens were accepted: speculative decoding did not work in this window"
        yield _finding("H10", text)
        return
    floor = ACCEPTANCE_FLOORS.get((case.model.rstrip("/"), case.speculative_tokens))
    if floor is None or manifest.get("engine") == "sim":  # the simulator's acceptance is a setting, no measurement
        return
    if rate + _SIGMAS * _scatter(floor, drafted) < floor:
        text = (
            f"{rate:.1%} of {drafted:,} draft tokens were accepted, ATOM's CI asks for {floor:.1%} of this model "
            "(prompts without the chat template lower it)"
        )
        yield _finding("H10", text)


def _scatter(share: float, count: int) -> float:
    return float((share * (1 - share) / count) ** 0.5)


def _synthetic_rate(case: Case) -> float | None:
    for index, argument in enumerate(case.server_args):
        flag, _, value = argument.partition("=")
        name = flag.replace("_", "-")
        if name in ("--spec-decode-acceptance-rate", "--spec-decode-acceptance-length"):
            text = value or (case.server_args[index + 1] if index + 1 < len(case.server_args) else "")
            try:
                number = float(text)
            except ValueError:
                return None
            return number if name.endswith("rate") else (number - 1) / case.speculative_tokens
    return None


def _builds(manifest: Mapping[str, object]) -> Iterator[Finding]:
    facts = manifest.get("log")
    if not isinstance(facts, Mapping):
        return
    built = sorted({str(row.get("module", "?")) for row in _rows(facts, "builds") if row.get("in_window")})
    if built:
        text = f"{', '.join(built[:4])} {'was' if len(built) == 1 else 'were'} built inside the window"
        yield _finding("H13", text, count=len(built))
    missed = [row for row in (*_rows(facts, "untuned"), *_rows(facts, "moe_defaults")) if row.get("in_window")]
    if missed:
        text = f"{len(missed)} {'shape was' if len(missed) == 1 else 'shapes were'} looked up inside the window and "
        yield _finding("H13", f"{text}found untuned: the warm-up did not reach them", count=len(missed))


def _rows(facts: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    rows = facts.get(name)
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def _case(manifest: Mapping[str, object]) -> Case | None:
    fields = manifest.get("case")
    if not isinstance(fields, Mapping):
        return None
    try:
        return Case.from_dict({str(key): value for key, value in fields.items()})
    except (ConfigError, TypeError):  # a manifest of another version
        return None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
