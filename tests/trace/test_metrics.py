"""Figures over several steps, and collectives over several ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.trace.collectives import align_collectives
from pytest_atomtrace.trace.metrics import (
    attributed_share,
    gpu_use,
    iterations,
    launch_cost,
    per_token_ns,
    periods_ns,
    prefill_per_ktok_ns,
    span_is_launch_bound,
)
from tests.trace.builder import Kineto

if TYPE_CHECKING:
    from pytest_atomtrace.trace.data import RankData


def _speculative() -> RankData:
    trace = Kineto()
    for number in range(4):
        at = 1000.0 + 1000 * number
        trace.label("decode[bs=4 tok=8 d=4 spec=1]", at)
        trace.replay(["k0", "k1"], at + 10)
        trace.eager("sample", at + 350)
        trace.label("draft[0/1 bs=4]", at + 400, 50.0)
        trace.replay(["draft_kernel"], at + 410)
        link = trace.call(at + 500, name="hipMemcpyAsync")
        trace.gpu_us = max(trace.gpu_us, at + 20_500)
        trace.kernel("Memcpy DtoH", trace.gpu_us, 5.0, link, cat="gpu_memcpy")
        trace.gpu_us += 5
    return trace.rank()


def test_an_iteration_holds_all_that_was_launched_until_the_next_decode() -> None:
    found = iterations(_speculative())
    assert [(i.step.kind, i.busy_ns, i.period_ns, i.n_activities) for i in found] == [
        ("decode", 45_000, 1_000_000, 5)
    ] * 3
    assert per_token_ns(_speculative(), accepted_length=1.8) == (25_000.0,) * 3
    assert periods_ns(_speculative()) == (1_000_000,) * 3
    with pytest.raises(ValueError, match="at least one token"):
        per_token_ns(_speculative(), accepted_length=0.5)


def test_a_prefill_between_two_decodes_is_no_iteration() -> None:
    trace = Kineto()
    trace.decode(1000.0)
    trace.label("prefill[bs=1 tok=64 ctx=64]", 1500.0)
    trace.eager("p", 1510.0)
    trace.decode(2000.0)
    trace.decode(2400.0)
    assert [i.step.index for i in iterations(trace.rank())] == [2]


def test_prefill_cost_drops_the_first_step_and_wants_three() -> None:
    def rank(count: int) -> RankData:
        trace = Kineto()
        for number in range(count):
            trace.label("prefill[bs=1 tok=500 ctx=500]", 1000.0 + 400 * number)
            trace.eager("p", 1010.0 + 400 * number, 900.0 if not number else 30.0)
        return trace.rank()

    assert prefill_per_ktok_ns(rank(3)) is None
    assert prefill_per_ktok_ns(rank(5)) == 60_000.0


def test_occupancy_counts_gaps_between_launches_and_at_the_ends() -> None:
    trace = Kineto()
    link = trace.call(10.0)
    trace.kernel("a", 100.0, 10.0, link)
    trace.kernel("b", 110.0, 10.0, link)
    trace.kernel("c", 150.0, 10.0, link)
    use = gpu_use(trace.rank(), 100_000, 170_000)
    assert (use.busy_ns, use.span_ns, sorted(use.gaps_ns)) == (30_000, 70_000, [10_000, 30_000])
    assert use.busy_ns + sum(use.gaps_ns) == use.span_ns
    assert round(use.share, 3) == 0.429
    assert gpu_use(trace.rank(), 100_000, 170_000, longer_than_ns=20_000).gaps_ns == (30_000,)
    assert gpu_use(trace.rank(), 0, 50_000).share == 0.0


def test_launch_cost_is_the_hosts_time_in_the_call() -> None:
    cost = launch_cost(Kineto().decodes(4).rank())
    assert (cost.count, cost.mean_ns, cost.total_ns, cost.nodes) == (4, 6000.0, 24_000, 12)
    assert launch_cost(Kineto().decodes(4).rank(), api="hipLaunchKernel").count == 0


def test_a_span_far_beyond_the_busy_time_is_launch_bound() -> None:
    trace = Kineto()
    trace.label("decode[bs=4]", 1000.0)
    trace.eager("a", 1010.0)
    trace.gpu_us += 50
    trace.eager("b", 1100.0)
    (step,) = trace.rank().steps
    assert span_is_launch_bound(step)
    assert not any(map(span_is_launch_bound, Kineto().decodes(3).rank().steps))


def test_shares_of_kernel_time_name_what_is_unattributed() -> None:
    trace = Kineto().decodes(3)
    trace.kernel("in_flight", 500.0, 90.0, None)
    assert attributed_share(trace.rank()) == {"unattributed": 0.5, "decode": 0.5}


def _tp_rank(name: str, waits: list[float]) -> RankData:
    trace = Kineto()
    for number, wait in enumerate(waits):
        at = 1000.0 + 400 * number
        trace.label("decode[bs=4]", at)
        link = trace.call(at + 10, name="hipGraphLaunch")
        trace.kernel("gemm", at + 20_000, 100.0 - wait, link)
        trace.kernel("void aiter::cross_device_reduce_1stage<X, 8>(Y)", at + 20_100 - wait, 5.0 + wait, link)
    return trace.rank(name)


def test_waiting_in_a_collective_is_charged_to_the_late_rank() -> None:
    ranks = {"rank_0": _tp_rank("rank_0", [40.0] * 5), "rank_1": _tp_rank("rank_1", [0.0] * 5)}
    report = align_collectives(ranks, {name: rank.steps for name, rank in ranks.items()})
    assert (report.calls, report.transfer_ns) == (5, 25_000)
    assert report.wait_ns == {"rank_0": 200_000, "rank_1": 0}
    assert report.charged_ns == {"rank_0": 0, "rank_1": 200_000}
    assert (report.latest, report.skipped) == ("rank_1", [])


def test_steps_whose_collectives_differ_are_skipped_and_named() -> None:
    ranks = {"rank_0": _tp_rank("rank_0", [0.0] * 3), "rank_1": Kineto().decodes(3).rank("rank_1")}
    report = align_collectives(ranks, {name: rank.steps for name, rank in ranks.items()})
    assert (report.calls, report.latest) == (0, None)
    assert "collectives differ" in report.skipped[0]
    assert align_collectives({}, {}).calls == 0
