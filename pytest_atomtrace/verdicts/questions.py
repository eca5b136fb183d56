"""Questions of a spec, refused before anything is captured if no trace could ever answer them.

Loads no numpy: collecting a spec file must stay cheap.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from pytest_atomtrace.cases.specs.words import BASELINE_METRICS
from pytest_atomtrace.errors import ConfigError
from pytest_atomtrace.trace.families import FAMILIES
from pytest_atomtrace.trace.names import Pattern
from pytest_atomtrace.units import parse_growth, parse_least_share, parse_most_share
from pytest_atomtrace.verdicts.question import Question, refuse_ranks

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["problem_of"]

_FAMILY = "family:"
_PATTERNS = ("assert_kernel_called", "assert_kernel_not_called")


def problem_of(method: str, first: str | tuple[str, ...] | None, arguments: Mapping[str, object]) -> str | None:
    """What is wrong with calling the `Trace` method so, None if nothing is.

    `first` is its positional argument. Types and units are the caller's business, meaning is judged here.
    """
    try:
        _check(method, first, arguments)
    except (ConfigError, ValueError) as error:
        return error.problem if isinstance(error, ConfigError) else str(error)
    return None


def _check(method: str, first: str | tuple[str, ...] | None, arguments: Mapping[str, object]) -> None:
    if method in _PATTERNS and isinstance(first, str):
        question = Question(first, **dict(arguments))  # type: ignore[arg-type]  # the spec's types are decoded already
        _ = question.check() if method == "assert_kernel_called" else question.check_absence()
    elif method == "assert_kernel_order" and isinstance(first, tuple):
        for name in first:
            Pattern.parse(name)
        refuse_ranks(arguments.get("ranks", "all"), "all")
    elif method == "assert_kernel_time" and isinstance(first, str):
        _check_timed(first)
        if arguments.get("share") is not None:
            parse_most_share(arguments["share"])
    elif method == "assert_step_time":
        per_ktok = arguments.get("metric") == "prefill_per_ktok"
        if per_ktok and (first != "prefill" or "mean" not in arguments or "bs" in arguments):
            raise ConfigError("prefill_per_ktok is one figure a window: a mean of prefill, of all its steps (no bs)")
        refuse_ranks(arguments.get("ranks", "worst"), "worst", "all")
    elif method == "assert_gpu_busy":
        parse_least_share(arguments.get("at_least"))
    elif method == "assert_bench":
        from pytest_atomtrace.verdicts.bench_budgets import parse_limits

        parse_limits(arguments)
    elif method == "assert_no_regression":
        _check_metrics(arguments.get("metrics"))
        if arguments.get("tolerance") is not None:
            parse_growth(arguments["tolerance"])
        if arguments.get("metrics") == ["counts"] and arguments.get("tolerance") is not None:
            raise ConfigError("counts are exact: there is nothing that a tolerance could be applied to")
    elif method == "assert_ranks_agree":
        if arguments.get("counts") is False and arguments.get("skew") is None:
            raise ConfigError("nothing is asked: counts: true, or skew: 5 %")
        if arguments.get("skew") is not None:
            parse_growth(arguments["skew"])


def _check_metrics(metrics: object) -> None:
    families = [f"decode.family.{name}" for name in FAMILIES]
    for name in metrics if isinstance(metrics, list) else []:
        if name not in BASELINE_METRICS and name not in families:
            close = difflib.get_close_matches(str(name), [*BASELINE_METRICS, *families], n=1)
            mean = f" (did you mean {close[0]!r}?)" if close else f" ({', '.join(BASELINE_METRICS)})"
            raise ConfigError(f"there is no metric {name!r}{mean}")


def _check_timed(name: str) -> None:
    if not name.startswith(_FAMILY):
        Pattern.parse(name)
        return
    asked = name.removeprefix(_FAMILY)
    if asked not in FAMILIES:
        close = difflib.get_close_matches(asked, FAMILIES, n=1)
        mean = f" (did you mean {close[0]!r}?)" if close else f" ({', '.join(FAMILIES)})"
        raise ConfigError(f"there is no family {asked!r}{mean}")
