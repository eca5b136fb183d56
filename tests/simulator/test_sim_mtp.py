from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from pytest_atomtrace.simulator.acceptance import Acceptance, mtp_stats
from tests.simulator.conftest import Starter, read_trace
from tests.simulator.reading import count, events, kernels_of, labels
from tests.simulator.test_sim_rules import counts, make_scheduler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulator.conftest import Sim

R1 = ("--model", "amd/DeepSeek-R1-0528-MXFP4-MTP-MoEFP4")
MTP3 = ("--method", "mtp", "--num-speculative-tokens", "3")
STATS = re.compile(r"\[MTP Stats         \] Average toks/fwd: ([\d.]+).*Acceptance rate: ([\d.]+)%")


def test_deepseek_r1_has_the_layers_of_its_public_config() -> None:
    for model in ("amd/DeepSeek-R1-0528-MXFP4-MTP-MoEFP4", "deepseek-ai/DeepSeek-R1-0528"):
        names = counts(model, 4, query=4)
        assert names["mfma_moe1_silu_mul_afp4_wfp4_fp4_t32x64x256_pm1_fp4q_sort_async_v33"] == 58
        assert names["grouped_topk_opt_sort_kernel"] == 58
        assert names["act_and_mul_kernel"] == 61
        assert names["mla_a8w8_qh16_qseqlen4_gqaratio16_ps"] == names["kn_mla_reduce_v1_ps"] == 61
        assert names["cross_device_reduce_2stage"] == 2 * 61 + 1


@pytest.mark.parametrize(("query", "name"), [(1, "qseqlen1"), (2, "qseqlen2"), (3, "qseqlen4"), (4, "qseqlen4")])
def test_the_mla_kernel_tells_the_query_length(query: int, name: str) -> None:
    found = [kernel for kernel in counts("deepseek-ai/DeepSeek-R1-0528", 4, query=query) if "qseqlen" in kernel]
    assert found == [f"mla_a8w8_qh16_{name}_gqaratio16_ps"]


@pytest.fixture(scope="module")
def mtp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sim, dict[str, Any], list[tuple[int, Any]]]]:
    """A window of R1 with three drafts on two ranks, its first trace, and what the requests were answered."""
    starter = Starter(tmp_path_factory.mktemp("mtp"))
    sim = starter(*R1, "-tp", "2", *MTP3, layers=5, seed=11, step_ms=10)
    sim.call("/start_profile")
    answers = sim.load(4, 50, 64)
    sim.call("/stop_profile")
    yield sim, read_trace(sim.wait_files(2)[0]), answers
    starter.end()


def test_every_request_ends_at_its_token_count(mtp: tuple[Sim, dict[str, Any], list[tuple[int, Any]]]) -> None:
    for status, text in mtp[2]:
        assert status == 200
        assert '"completion_tokens":50' in text
        words = re.findall(r'"text":"([^"]*)"', text)
        assert len("".join(words).split()) == 50


def test_decode_labels_shrink_with_the_batch(mtp: tuple[Sim, dict[str, Any], list[tuple[int, Any]]]) -> None:
    decodes = [label for label in labels(mtp[1]) if label.startswith("decode[")]
    form = re.compile(r"decode\[bs=(\d+)(?:/(\d+))? tok=(\d+) d=(\d+) spec=3\]")
    found = [form.fullmatch(label) for label in decodes]
    sizes = [int(match[1]) for match in found if match]
    assert len(sizes) == len(decodes)
    assert sizes == sorted(sizes, reverse=True) or sizes[0] < 4  # a late prefill may make it grow once
    assert 4 in sizes
    assert min(sizes) < 4
    for match in found:
        assert match
        assert (int(match[3]), int(match[4])) == (4 * int(match[1]), int(match[1]))
        assert match[2] is None or int(match[2]) > int(match[1])
    assert "decode[bs=3/4 tok=12 d=3 spec=3]" in decodes or 3 not in sizes


def test_three_drafts_follow_every_decode_and_every_prefill(
    mtp: tuple[Sim, dict[str, Any], list[tuple[int, Any]]],
) -> None:
    every = labels(mtp[1])
    steps = [n for n, label in enumerate(every) if not label.startswith("draft[")]
    assert steps == list(range(0, len(every), 4))
    for n in steps:
        batch = re.findall(r"bs=(\d+)", every[n])[0]
        assert every[n + 1 : n + 4] == [f"draft[{i}/3 bs={batch}]" for i in range(3)]


def test_the_first_draft_takes_all_tokens_and_the_others_one(
    mtp: tuple[Sim, dict[str, Any], list[tuple[int, Any]]],
) -> None:
    drafts = kernels_of(mtp[1], "draft")
    for names in drafts:
        assert count(names, "mfma_moe1_") == 1
        assert count(names, "_lm_head_argmax_pack_kernel") == 1
        assert count(names, "cross_device_reduce_2stage") == 3
    assert count(drafts[0], "fmha_fwd") == 1  # after a prefill
    for first, second, third in zip(drafts[3::3], drafts[4::3], drafts[5::3], strict=True):
        assert count(first, "qseqlen4") + count(first, "fmha_fwd") == 1
        assert count(second, "qseqlen1") == count(third, "qseqlen1") == 1


def test_decodes_run_the_four_token_kernels_and_rejection_outside_the_label(
    mtp: tuple[Sim, dict[str, Any], list[tuple[int, Any]]],
) -> None:
    decodes = kernels_of(mtp[1], "decode")
    assert {count(names, "qseqlen4") for names in decodes} == {5}
    assert {count(names, "mfma_moe1_") for names in decodes} == {2}
    assert not any(count(names, "rejection") for names in decodes)
    rejections = [kernel for kernel in events(mtp[1], "kernel") if "rejection_greedy_sample" in kernel["name"]]
    assert len(rejections) == len(decodes)


def test_acceptance_is_reported_by_endpoint_metrics_and_log(
    mtp: tuple[Sim, dict[str, Any], list[tuple[int, Any]]],
) -> None:
    sim = mtp[0]
    stats = sim.call("/debug/mtp_stats")[1]
    forwards = sum(stats["distribution"].values())
    assert stats["enabled"] is True
    assert stats["total_draft_tokens"] == 3 * forwards
    assert stats["total_accepted_tokens"] == sum(int(n) * number for n, number in stats["distribution"].items())
    # 4 sequences made 49 tokens each after their first; a last step may overshoot its request
    assert 4 * 49 <= forwards + stats["total_accepted_tokens"] <= 4 * (49 + 3)
    found = STATS.findall(sim.log)
    assert found[-1] == (f"{stats['average_tokens_per_forward']:.2f}", f"{100 * stats['acceptance_rate']:.2f}")
    assert "[MTP Stats Interval]" in sim.log
    metrics = sim.call("/metrics")[1]
    assert f"atom:mtp_accepted_tokens {float(stats['total_accepted_tokens'])}" in metrics
    assert f'atom:mtp_decode_steps{{accepted_tokens="3"}} {float(stats["distribution"]["3"])}' in metrics


@pytest.mark.parametrize(
    ("flags", "average"),
    [(("--spec-decode-acceptance-length", "2.5"), 2.5), (("--spec-decode-acceptance-rate", "1.0"), 4.0)],
)
def test_acceptance_by_the_command_line_is_synthetic(start: Starter, flags: tuple[str, ...], average: float) -> None:
    sim = start(*R1, *MTP3, *flags, layers=4)
    sim.window(requests=4, tokens=81)
    stats = sim.call("/debug/mtp_stats")[1]
    assert stats["average_tokens_per_forward"] == pytest.approx(average, abs=0.25)
    names = {kernel["name"] for kernel in events(read_trace(sim.wait_files(1)[0]), "kernel")}
    assert "rejection_synthetic_sample_kernel" in names
    assert "rejection_greedy_sample_kernel" not in names


def test_without_drafts_there_is_no_mtp(start: Starter) -> None:
    sim = start(*R1, layers=4)
    sim.window(requests=2, tokens=6)
    stats = sim.call("/debug/mtp_stats")[1]
    assert (stats["enabled"], stats["total_draft_tokens"]) == (False, 0)
    trace = read_trace(sim.wait_files(1)[0])
    assert not any(label.startswith("draft[") or "spec=" in label for label in labels(trace))
    assert {count(names, "qseqlen1") for names in kernels_of(trace, "decode")} == {4}
    assert "MTP Stats" not in sim.log


def test_drafts_that_are_all_accepted_make_four_tokens_a_step() -> None:
    scheduler = make_scheduler(spec_tokens=3, accepted_mean=3.0)
    assert [scheduler.acceptance.draw() for _ in range(5)] == [3] * 5
    assert mtp_stats(scheduler.acceptance.counts)["average_tokens_per_forward"] == 4.0


def test_a_mean_between_whole_numbers_is_met_in_the_long_run() -> None:
    acceptance = Acceptance(drafts=3, chance=0.0, mean=1.4, seed=5)
    assert {acceptance.draw() for _ in range(2000)} == {1, 2}
    assert mtp_stats(acceptance.counts)["average_tokens_per_forward"] == pytest.approx(2.4, abs=0.05)


def test_log_lines_come_at_an_interval_and_at_the_end() -> None:
    acceptance = Acceptance(drafts=1, chance=1.0, mean=None, seed=0)
    assert acceptance.report(drained=True) == []
    for _ in range(1000):
        acceptance.draw()
    total, interval = acceptance.report(drained=False)
    assert STATS.search(total)
    assert interval.startswith("[MTP Stats Interval] Average toks/fwd: 2.00")
    assert acceptance.report(drained=True) == []
