"""What a spec may assert: one struct per entry, one row per section.

A new assertion is a struct with `assertions` and its place in `SECTIONS`; collection, located errors, the JSON
Schema and ``atomtrace spec check`` follow from the types.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct

from pytest_atomtrace.cases.specs.marknames import MarkName  # noqa: TC001  # msgspec looks it up
from pytest_atomtrace.cases.specs.words import (
    Count,
    Duration,
    Layer,
    Metric,
    Pattern,
    Phase,
    RankNames,
    Ranks,
    Reason,
    Share,
    Text,
    id_safe,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["SECTIONS", "Assertion", "Entry", "Section"]

_TIMED = ("assert_step_time", "assert_kernel_time", "assert_gpu_busy", "assert_gaps", "assert_launch_time")


@dataclass(frozen=True)
class Assertion:
    """One item: the `Trace` method that judges it, with its arguments; `keys` are those of the entry it rests on.

    `name` is its id before ids are made unique.
    """

    name: str
    method: str
    first: str | tuple[str, ...] | None
    arguments: Mapping[str, object] = field(default_factory=dict)
    keys: tuple[str, ...] = ()

    @property
    def of_times(self) -> bool:
        """Whether it asks for more than counts, so that `Trace` refuses it for a case on random weights."""
        if self.method == "assert_no_regression":
            return self.arguments.get("metrics") != ["counts"]
        if self.method == "assert_bench":
            return "completed" not in self.arguments
        return self.method in _TIMED or "skew" in self.arguments


class Statistics(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Budgets by statistic."""

    mean: Duration | None = None
    p50: Duration | None = None
    p99: Duration | None = None

    def given(self) -> dict[str, str]:
        """Those that are written."""
        values = {"mean": self.mean, "p50": self.p50, "p99": self.p99}
        return {name: value for name, value in values.items() if value is not None}


BenchTime: TypeAlias = Statistics | Duration


class Entry(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What every entry may say beside its own keys."""

    name: Annotated[str, Meta(min_length=1, description="the item's id instead of one made from the entry")] | None = (
        None
    )
    marks: Annotated[list[MarkName], Meta(description="pytest marks by name")] = []
    skip: Reason | None = None
    xfail: Annotated[str, Meta(min_length=1, description="why it fails; errors are never expected")] | None = None

    def assertions(self, kind: str) -> Iterator[Assertion]:
        """The items of this entry; `kind` is its key where a section is keyed by kinds of steps."""
        raise NotImplementedError

    def _given(self, *names: str) -> dict[str, object]:
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


class Called(Entry, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A kernel (or op, or annotation) is called."""

    called: Pattern
    during: Phase | None = None
    layer: Layer | None = None
    ranks: Ranks | None = None
    at_least: Annotated[Count, Meta(description="calls per rank")] | None = None
    exactly: Annotated[Count, Meta(description="calls per rank, exact")] | None = None
    per_step: Annotated[Count, Meta(description="exact calls in every steady step of every rank")] | None = None

    def assertions(self, kind: str) -> Iterator[Assertion]:  # noqa: ARG002
        """One item."""
        given = self._given("during", "layer", "ranks", "at_least", "exactly", "per_step")
        yield Assertion(_name("called", self.called, given), "assert_kernel_called", self.called, given, tuple(given))


class NotCalled(Entry, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """No kernel (or op) of this name is called."""

    not_called: Pattern
    example: (
        Annotated[
            str,
            Meta(
                min_length=1, description="a real name that the pattern must match; without it the verdict is unproven"
            ),
        ]
        | None
    ) = None
    during: Phase | None = None
    layer: Layer | None = None
    ranks: Ranks | None = None

    def assertions(self, kind: str) -> Iterator[Assertion]:  # noqa: ARG002
        """One item."""
        given = self._given("example", "during", "layer", "ranks")
        name = _name("not_called", self.not_called, given)
        yield Assertion(name, "assert_kernel_not_called", self.not_called, given, tuple(given))


class Order(Entry, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The calls of these kernels, taken together, repeat this sequence in every steady step."""

    order: Annotated[list[Pattern], Meta(min_length=2)]
    during: Phase | None = None
    ranks: Ranks | None = None

    def assertions(self, kind: str) -> Iterator[Assertion]:  # noqa: ARG002
        """One item."""
        given = self._given("during", "ranks")
        name = _name("order", "-".join(id_safe(one) for one in self.order), given)
        yield Assertion(name, "assert_kernel_order", tuple(self.order), given, tuple(given))


class KernelTime(Entry, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """GPU time of a kernel, or of a family (``family:moe_gemm``), per steady step."""

    time: Annotated[str, Meta(min_length=1, description="a pattern, or family: and a family of atomtrace summary")]
    during: Phase | None = None
    per_step: Duration | None = None
    share: Annotated[Share, Meta(description="of the step's GPU busy time")] | None = None

    def assertions(self, kind: str) -> Iterator[Assertion]:  # noqa: ARG002
        """One item a budget."""
        where = self._given("during")
        for key, value in self._given("per_step", "share").items():
            name = f"{_name('time', self.time, where)}-{key}"
            yield Assertion(name, "assert_kernel_time", self.time, {**where, key: value}, ("time", *where, key))


class StepTime(Entry, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Time budgets of one kind of step, over its steady steps."""

    p50: Duration | None = None
    p90: Duration | None = None
    p99: Duration | None = None
    mean: Duration | None = None
    max: Duration | None = None
    metric: Metric | None = None
    bs: Annotated[int, Meta(ge=1, description="only steps of this real batch")] | None = None
    ranks: Annotated[Text | RankNames, Meta(description="worst, or ranks by name")] | None = None

    def assertions(self, kind: str) -> Iterator[Assertion]:
        """One item a budget."""
        where = self._given("metric", "bs", "ranks")
        parts = ["steps", kind, *([self.metric] if self.metric else []), *([f"bs{self.bs}"] if self.bs else [])]
        for key, value in self._given("p50", "p90", "p99", "mean", "max").items():
            yield Assertion("-".join([*parts, key]), "assert_step_time", kind, {key: value, **where}, (key, *where))


class Busy(Entry, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Share of a steady run, time between steps included, in which some kernel runs."""

    at_least: Share

    def assertions(self, kind: str) -> Iterator[Assertion]:
        """One item."""
        yield Assertion(f"busy-{kind}", "assert_gpu_busy", kind, self._given("at_least"), ("at_least",))


class Gaps(Entry, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Idle gaps in a steady run, between steps too."""

    longer_than: Duration
    at_most: Count

    def assertions(self, kind: str) -> Iterator[Assertion]:
        """One item."""
        given = {**self._given("longer_than", "at_most"), "during": kind}
        yield Assertion(f"gaps-{kind}", "assert_gaps", None, given, ("longer_than", "at_most"))


class Launch(Entry, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Mean host cost of a launch API."""

    mean: Duration
    api: Annotated[str, Meta(min_length=1, description="default hipGraphLaunch")] | None = None

    def assertions(self, kind: str) -> Iterator[Assertion]:  # noqa: ARG002
        """One item."""
        given = self._given("mean", "api")
        name = f"launch-{id_safe(self.api or 'hipGraphLaunch')}"
        yield Assertion(name, "assert_launch_time", None, given, tuple(given))


class RanksAgree(Entry, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The ranks of each tensor-parallel group call the same kernels and work equally long."""

    counts: bool | None = None
    skew: Share | None = None

    def assertions(self, kind: str) -> Iterator[Assertion]:
        """One item."""
        given = {**self._given("counts", "skew"), "during": kind}
        yield Assertion(f"ranks-{kind}", "assert_ranks_agree", None, given, ("counts", "skew"))


class Bench(Entry, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Budgets on what the client saw without the profiler (``--atom-bench=on``)."""

    ttft: Annotated[BenchTime, Meta(description="time to the first token")] | None = None
    tpot: Annotated[BenchTime, Meta(description="time per output token after the first")] | None = None
    itl: Annotated[BenchTime, Meta(description="time between two arrivals, of one sort of client")] | None = None
    e2el: Annotated[BenchTime, Meta(description="time of a whole request, of ATOM's client only")] | None = None
    throughput: (
        Annotated[Text, Meta(description="at least so much, such as 1500 tok/s", examples=["1500 tok/s"])] | None
    ) = None
    completed: Annotated[Share, Meta(description="at least this share of the requests")] | None = None
    acceptance: (
        Annotated[Text, Meta(description="at least 62 % of draft tokens, or 2.8 tok/fwd", examples=["62 %"])] | None
    ) = None

    def assertions(self, kind: str) -> Iterator[Assertion]:  # noqa: ARG002
        """One item a budget."""
        figures = ("ttft", "tpot", "itl", "e2el", "throughput", "completed", "acceptance")
        for key, value in self._given(*figures).items():
            if isinstance(value, Statistics):
                if not value.given():
                    # Not left out: beside other budgets nobody would see that it asks nothing.
                    yield Assertion(f"bench-{key}", "assert_bench", None, {key: {}}, (key,))
                for statistic, text in value.given().items():
                    given = {key: {statistic: text}}
                    yield Assertion(f"bench-{key}-{statistic}", "assert_bench", None, given, (key,))
            else:
                yield Assertion(f"bench-{key}", "assert_bench", None, {key: value}, (key,))


class Regression(Entry, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Not slower than the case's baseline; true for the settings' tolerance."""

    tolerance: Annotated[Share, Meta(description="a change that is never a regression")] | None = None
    metrics: (
        Annotated[
            list[Text],
            Meta(min_length=1, description="instead of decode.gpu_busy and families; counts for exact calls"),
        ]
        | None
    ) = None

    def assertions(self, kind: str) -> Iterator[Assertion]:  # noqa: ARG002
        """One item."""
        given = self._given("tolerance", "metrics")
        parts = ["regression", *(id_safe(name) for name in self.metrics or ())]
        yield Assertion("-".join(parts), "assert_no_regression", None, given, tuple(given))


class Tuned(Entry, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The server's log names no shape without a tuned AITER config."""

    def assertions(self, kind: str) -> Iterator[Assertion]:  # noqa: ARG002
        """One item."""
        yield Assertion("tuned", "assert_tuned", None)


def _name(what: str, pattern: str, given: Mapping[str, object]) -> str:
    parts = [what, id_safe(pattern)]
    parts += [str(given[key]) for key in ("during", "layer") if key in given]
    ranks = given.get("ranks")
    if ranks is not None:
        parts.append(id_safe(ranks) if isinstance(ranks, str) else "-".join(map(id_safe, map(str, _listed(ranks)))))
    return "-".join(parts)


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


@dataclass(frozen=True)
class Section:
    """One key of a spec. `shape` is ``choice`` (a list, each entry told by its head key), ``kinds`` (a mapping by
    kind of step, each value one entry or several) or ``many`` (one entry or several; ``true`` is an empty one).
    """

    shape: Literal["choice", "kinds", "many"]
    about: str
    entries: Mapping[str, type[Entry]]

    @property
    def entry(self) -> type[Entry]:
        """The only entry of a section that has no choice."""
        return next(iter(self.entries.values()))


SECTIONS: Final[Mapping[str, Section]] = {
    "kernels": Section(
        "choice",
        "presence, absence, order and GPU time of kernels",
        {"called": Called, "not_called": NotCalled, "order": Order, "time": KernelTime},
    ),
    "steps": Section("kinds", "time budgets per step, by kind of step", {"": StepTime}),
    "busy": Section("kinds", "GPU occupancy of the steady run, by kind of step", {"": Busy}),
    "gaps": Section("kinds", "idle gaps of the steady run, by kind of step", {"": Gaps}),
    "launch": Section("many", "host cost of launch calls", {"": Launch}),
    "ranks": Section("kinds", "agreement of ranks, by kind of step", {"": RanksAgree}),
    "bench": Section("many", "the workload's own figures, taken without the profiler", {"": Bench}),
    "regression": Section("many", "comparison with the case's baseline", {"": Regression}),
    "tuned": Section("many", "no untuned shapes in the server's log", {"": Tuned}),
}
