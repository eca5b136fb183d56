"""A difference taken apart on made-up step profiles whose truth is known."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_atomtrace.verdicts.attribution import Change, attribute
from pytest_atomtrace.verdicts.attribution_text import attribution_rows
from pytest_atomtrace.verdicts.step_profile import StepProfile, Usage

ORDER = (
    "add_rmsnorm_quant_kernel",
    "topk_softmax_kernel",
    "opus_moe_sorting_entry",
    "mfma_moe1_t32",
    "mfma_moe2_t32",
    "attention_kernel",
    "paged_decode_kernel",
    "silu_kernel",
    "embedding_kernel",
    "cross_device_reduce_2stage",
)
BASE = {name: Usage(4, 10_000.0 + 1_000 * i) for i, name in enumerate(ORDER)}
STEP_NS = sum(use.ns for use in BASE.values())


def profile(
    *ranks: dict[str, Usage], transfer: float | None = None, late: dict[str, float] | None = None
) -> StepProfile:
    tables = {f"rank_{i}": table for i, table in enumerate(ranks)}
    order = list(dict.fromkeys(name for table in ranks for name in table))
    return StepProfile(
        kind="decode",
        steps=30,
        ranks=tables,
        order=tuple(order),
        busy_ns={name: round(sum(use.ns for use in table.values())) for name, table in tables.items()},
        transfer_ns={} if transfer is None else {ORDER[-1]: transfer},
        late=late or {},
    )


def with_time(name: str, ns: float, table: dict[str, Usage] = BASE) -> dict[str, Usage]:
    return {**table, name: dataclasses.replace(table[name], ns=ns)}


def in_place(name: str, *new: tuple[str, Usage]) -> dict[str, Usage]:
    found: dict[str, Usage] = {}
    for key, use in BASE.items():
        found.update(dict(new) if key == name else {key: use})
    return found


def top(*ranks: dict[str, Usage], transfer: float | None = None) -> Change:
    return attribute(BASE, STEP_NS, profile(*ranks, transfer=transfer)).changes[0]


def test_a_slower_kernel_explains_the_whole_difference() -> None:
    found = attribute(BASE, STEP_NS, profile(with_time("mfma_moe1_t32", 33_000.0)))
    (change,) = found.changes
    assert (change.sort, change.after, change.delta_ns) == ("grew", ("mfma_moe1_t32",), 20_000.0)
    assert found.share == pytest.approx(1.0, abs=0.001)
    assert found.families[0] == ("moe_gemm", 20_000.0)


def test_a_slow_rank_is_named_and_the_wait_of_the_others_is_not_a_slow_collective() -> None:
    slow = with_time("mfma_moe1_t32", 33_000.0)
    waiting = with_time(ORDER[-1], BASE[ORDER[-1]].ns + 20_000.0)
    ranks = [waiting, waiting, waiting, slow, waiting, waiting, waiting, waiting]
    found = attribute(BASE, STEP_NS, profile(*ranks, transfer=BASE[ORDER[-1]].ns, late={"rank_3": 1.0}))
    (change,) = found.changes
    assert (change.sort, change.after, change.ranks) == ("grew", ("mfma_moe1_t32",), ("rank_3",))
    assert found.rank == "rank_3"
    text = "\n".join(line for _, lines in attribution_rows(found) for line in lines)
    assert "only on rank_3" in text
    assert "rank_3 comes last to 100 % of the collectives" in text
    assert "cross_device_reduce" not in text


def test_a_kernel_at_the_place_of_another_replaced_it() -> None:
    change = top(in_place("topk_softmax_kernel", ("triton_router", Usage(4, 31_000.0))))
    assert (change.sort, change.before, change.after) == ("replaced", ("topk_softmax_kernel",), ("triton_router",))
    assert change.delta_ns == 20_000.0


def test_other_template_arguments_of_one_function_are_a_replacement_wherever_they_stand() -> None:
    before = {"void f<128>(int)": Usage(4, 10_000.0), **BASE}
    after = {**BASE, "void f<256>(int)": Usage(4, 30_000.0)}
    change = attribute(before, STEP_NS + 10_000, profile(after)).changes[0]
    assert (change.sort, change.delta_ns) == ("replaced", 20_000.0)


@pytest.mark.parametrize("apart", [False, True], ids=["neighbours", "one kernel between"])
def test_two_kernels_that_became_one_were_fused(apart: bool) -> None:
    second = "mfma_moe1_t32" if apart else "opus_moe_sorting_entry"
    after = in_place("topk_softmax_kernel", ("fused_route_sort", Usage(4, 40_000.0)))
    del after[second]
    change = top(after)
    assert change.sort == "fused"
    assert set(change.before) == {"topk_softmax_kernel", second}
    assert change.delta_ns == 40_000.0 - BASE["topk_softmax_kernel"].ns - BASE[second].ns


def test_one_kernel_that_became_two_was_split() -> None:
    change = top(in_place("attention_kernel", ("attention_a", Usage(4, 20_000.0)), ("attention_b", Usage(4, 20_000.0))))
    assert (change.sort, change.after) == ("split", ("attention_a", "attention_b"))


def test_more_calls_are_growth_and_say_how_many() -> None:
    found = attribute(BASE, STEP_NS, profile({**BASE, "silu_kernel": Usage(5, 21_500.0)}))
    assert "4 -> 5 calls" in attribution_rows(found)[0][1][1]


def test_what_all_kernels_share_is_said_once_and_taken_off_each() -> None:
    faster_clock = {name: dataclasses.replace(use, ns=use.ns * 1.1) for name, use in BASE.items()}
    found = attribute(BASE, STEP_NS, profile(with_time("mfma_moe1_t32", 34_300.0, faster_clock)))
    assert found.alike == pytest.approx(0.1)
    (change,) = found.changes
    assert (change.after, round(change.delta_ns)) == (("mfma_moe1_t32",), 20_000)


kernel_times = st.lists(st.floats(0, 1e6), min_size=len(ORDER), max_size=len(ORDER))


@given(kernel_times, st.sets(st.sampled_from(ORDER)), st.integers(0, 3))
def test_changes_and_the_rest_add_up_to_the_difference(values: list[float], gone: set[str], new: int) -> None:
    table = {name: Usage(4, ns) for name, ns in zip(ORDER, values, strict=True) if name not in gone}
    table |= {f"new_kernel_{i}": Usage(i + 1, 5_000.0) for i in range(new)}
    if not table:
        return
    now = profile(table)
    found = attribute(BASE, STEP_NS, now)
    assert found.step_ns == now.worst_busy_ns - STEP_NS
    total = found.explained_ns + found.same_ns + found.alike_ns
    assert total == pytest.approx(sum(use.ns for use in table.values()) - STEP_NS, abs=1.0)
    before = [name for change in found.changes for name in change.before]
    after = [name for change in found.changes for name in change.after]
    assert len(set(before)) == len(before), "no kernel is counted twice"
    assert len(set(after)) == len(after), "no kernel is counted twice"
    assert gone <= set(before)
