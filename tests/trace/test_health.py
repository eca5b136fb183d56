"""Every health code as a pair: a trace that has the fault, and its healthy twin that has not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.trace import health
from pytest_atomtrace.trace.data import RankData, TraceData
from pytest_atomtrace.trace.finding import SCOPES, TITLES, Finding
from pytest_atomtrace.trace.health import check
from pytest_atomtrace.trace.load import load
from tests.trace.builder import Kineto

if TYPE_CHECKING:
    import pytest


def _data(**ranks: RankData) -> TraceData:
    return TraceData(dict(ranks), (), Path("built"))


def _codes(*ranks: RankData, fatal: bool | None = True, **options: object) -> list[str]:
    data = TraceData({rank.name: rank for rank in ranks}, (), Path("built"))
    found = check(data, **options)  # type: ignore[arg-type]
    assert all(f.title == TITLES[f.code] and f.scope in SCOPES and f.text for f in found)
    return [f.code for f in found if fatal is None or f.fatal is fatal]


def _healthy(name: str = "rank_0", **options: int) -> RankData:
    return Kineto().decodes(12, **options).rank(name)


def test_a_healthy_trace_has_no_finding() -> None:
    assert _codes(_healthy(), fatal=None) == []
    assert _codes(_healthy("rank_0"), _healthy("rank_1"), fatal=None, expected_ranks=("rank_0", "rank_1")) == []


def test_h01_a_missing_and_an_extra_rank() -> None:
    data = _data(rank_0=_healthy())
    (missing,) = check(data, expected_ranks=("rank_0", "rank_1"))
    assert str(missing) == "H01 rank-set: 1 of 2 ranks have no trace: rank_1"
    extra = check(_data(rank_0=_healthy(), rank_7=_healthy("rank_7")), expected_ranks=("rank_0",))
    assert [f.code for f in extra] == ["H01"]
    assert "rank_7" in extra[0].text


def test_h01_two_traces_of_one_rank_and_a_rank_without_one(tmp_path: Path) -> None:
    trace = Kineto().decodes(12)
    trace.write(tmp_path / "rank_0")
    assert load(tmp_path).findings == ()
    trace.write(tmp_path / "rank_0", "m_ts_20270101_101010_123.pt.trace.json.gz")
    (tmp_path / "rank_1").mkdir()
    assert [(f.code, f.rank, f.count) for f in load(tmp_path).findings] == [("H01", "rank_0", 2), ("H01", "", 1)]


def test_h02_a_truncated_rank_among_whole_ones_is_a_finding_with_its_place(tmp_path: Path) -> None:
    trace = Kineto().decodes(12)
    trace.write(tmp_path / "rank_0")
    cut = trace.write(tmp_path / "rank_1")
    whole = cut.read_bytes()
    assert load(tmp_path, expected=("rank_0", "rank_1")).findings == ()
    cut.write_bytes(whole[:-30])
    data = load(tmp_path, expected=("rank_0", "rank_1"))
    assert list(data.ranks) == ["rank_0"]
    (finding,) = data.findings
    assert (finding.code, finding.fatal, finding.rank) == ("H02", True, "rank_1")
    assert str(cut) in finding.text
    assert f"at byte {len(whole) - 30:,} of the compressed file" in finding.text


def test_h02_names_malformed_empty_and_half_exported_ranks(tmp_path: Path) -> None:
    for rank in range(4):
        path = Kineto().decodes(12).write(tmp_path / f"rank_{rank}")
        if rank == 1:
            path.write_text("hello")
        if rank == 2:
            path.write_bytes(b"")
        if rank == 3:
            path.with_suffix("").write_text("{")
    findings = {f.rank: f for f in load(tmp_path).findings}
    assert {f.code for f in findings.values()} == {"H02"}
    assert findings["rank_1"].text.startswith("malformed: ")
    assert findings["rank_2"].text.startswith("empty: ")
    assert "export was not finished" in findings["rank_3"].text


def test_h03_a_rank_without_kernels() -> None:
    trace = Kineto()
    trace.label("decode[bs=4]", 1000.0)
    trace.op("aten::mm", 1010.0)
    assert _codes(trace.rank()) == ["H03"]


def _with_empty(at: set[int]) -> RankData:
    trace = Kineto()
    for number in range(12):
        trace.label("decode[bs=4 tok=4 d=4]", 1000.0 + 400 * number)
        if number not in at:
            trace.replay(["k0", "k1"], 1020.0 + 400 * number)
    return trace.rank()


def test_h04_interior_steps_without_gpu_activity_but_not_the_edges() -> None:
    assert _codes(_with_empty({5, 6})) == ["H04"]
    assert _codes(_with_empty({0, 11})) == []


def test_h05_a_launch_without_its_kernel() -> None:
    trace = Kineto().decodes(6)
    trace.call(2700.0, kernel="lost_kernel")
    assert _codes(trace.decodes(6, start=6000.0).rank()) == ["H05"]
    # The same record after the last launch that was served is the window's end.
    trace = Kineto().decodes(6)
    trace.call(9000.0, kernel="cut_kernel")
    assert _codes(trace.rank()) == []


def _graphs(counts: list[int], name: str = "rank_0") -> RankData:
    trace = Kineto()
    for number, count in enumerate(counts):
        trace.decode(1000.0 + 400 * number, kernels=count)
    return trace.rank(name)


def test_h05_a_graph_with_fewer_kernels_than_its_peers_have() -> None:
    rank = _graphs([3, 3, 3, 2, 3, 3])
    (finding,) = check(_data(rank_0=rank))
    assert (finding.code, finding.fatal, finding.count) == ("H05", True, 1)
    assert "step #3 decode[bs=4 tok=4 d=4] carries 2 kernels, most others 3" in finding.text
    assert _codes(_graphs([3] * 6)) == []
    assert _codes(_graphs([3] * 6), _graphs([3, 3, 2, 2, 2, 3], "rank_1")) == ["H05"]


def test_h05_a_capture_reference_beats_what_most_launches_say() -> None:
    reference = {(4, 1): 3}
    assert _codes(_graphs([2] * 6), graph_references=reference) == ["H05"]
    assert _codes(_graphs([3] * 6), graph_references=reference) == []


def test_h05_capture_traces_beside_the_run_are_the_reference(tmp_path: Path) -> None:
    capture = Kineto()
    capture.label("capture_graph_bs_4", 1000.0, 1000.0)
    for number in range(3):
        capture.call(1010.0 + number, kernel=f"k{number}")
    capture.write(tmp_path / "rank_0" / "capture_traces", "bs_4_q_1_rank0.json.gz")
    Kineto().decodes(6, kernels=3).write(tmp_path / "rank_0")
    assert load(tmp_path).findings == ()
    Kineto().decodes(6, kernels=2).write(tmp_path / "rank_0")
    (finding,) = load(tmp_path).findings
    assert (finding.code, finding.fatal) == ("H05", True)
    assert "carries 2 kernels, its capture 3" in finding.text
    broken = tmp_path / "rank_0" / "capture_traces" / "bs_4_q_1_rank0.json.gz"
    broken.write_text("x")
    assert load(tmp_path).findings == ()


def test_h05_piecewise_steps_may_have_different_counts_per_launch() -> None:
    trace = Kineto()
    for number in range(6):
        at = 1000.0 + 400 * number
        trace.label("decode[bs=4 tok=4 d=4]", at)
        trace.replay(["a"], at + 10)
        trace.eager("attention", at + 30)
        trace.replay(["b", "c", "d"], at + 50)
    assert _codes(trace.rank(), fatal=None) == []


def test_h05_without_a_reference_the_count_is_said_to_be_unverified() -> None:
    (finding,) = check(_data(rank_0=_graphs([3])))
    assert (finding.code, finding.fatal) == ("H05", False)
    assert "count not verified" in finding.text
    assert finding.steps == (("rank_0", 0),)


def test_h06_the_row_cap_and_gpu_records_that_end_early(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _codes(_with_empty({8, 9, 10, 11})) == ["H06"]
    rank = _healthy()
    assert _codes(rank) == []
    monkeypatch.setattr(health, "ROW_CAP", rank.event_count)
    assert _codes(rank) == ["H06"]


def test_h06_a_rank_that_ends_long_before_its_peers_is_cut_though_it_looks_whole() -> None:
    short, long = Kineto().decodes(8).rank("rank_0"), _healthy("rank_1")
    assert _codes(short) == []
    (finding,) = check(_data(rank_0=short, rank_1=long))
    assert (finding.code, finding.fatal, finding.scope, finding.rank) == ("H06", True, "all", "rank_0")
    assert "holds 8 steps where rank_1 of its tensor-parallel group has 12" in finding.text
    # A step or two at the window's ends are the start and stop messages'.
    assert _codes(Kineto().decodes(10).rank("rank_0"), long) == []
    # Data parallel engines have a load of their own each.
    other = TraceData({"dp0_tp0": short, "dp1_tp0": long}, (), Path("built"))
    assert check(other) == ()


def test_h07_no_labels_forbids_questions_about_steps_only() -> None:
    trace = Kineto()
    for number in range(5):
        trace.eager("k", 1000.0 + 10 * number)
    (finding,) = check(_data(rank_0=trace.rank()))
    assert (finding.code, finding.fatal, finding.scope) == ("H07", True, "steps")


def test_h08_a_file_in_the_wrong_directory_is_a_warning() -> None:
    def rank(name: str, world_rank: int) -> RankData:
        trace = Kineto().decodes(12)
        trace.meta["distributedInfo"] = {"backend": "nccl", "rank": world_rank, "world_size": 2}
        return trace.rank(name)

    assert _codes(rank("rank_0", 0), rank("rank_1", 1), fatal=None) == []
    assert _codes(rank("rank_0", 1), rank("rank_1", 0), fatal=False) == ["H08", "H08"]
    assert _codes(rank("pp0_rank_0", 0), rank("pp1_rank_0", 1), fatal=None) == []


def _overlapping(touched: int) -> RankData:
    trace = Kineto()
    for number in range(40):
        at = 1000.0 + 400 * number
        trace.label("decode[bs=4 tok=4 d=4]", at)
        link = trace.call(at + 10, name="hipGraphLaunch")
        trace.kernel("a", at + 20_000, 30.0, link)
        trace.kernel("b", at + 20_000 + (20.0 if number < touched else 30.0), 30.0, link)
    return trace.rank()


def test_h09_overlaps_forbid_times_only_when_many_steady_steps_are_touched() -> None:
    assert _codes(_overlapping(0), fatal=None) == []
    (few,) = check(_data(rank_0=_overlapping(6)))
    assert (few.code, few.fatal, few.scope, few.count) == ("H09", False, "times", 1)
    (many,) = check(_data(rank_0=_overlapping(30)))
    assert (many.code, many.fatal, many.count) == ("H09", True, 25)


def test_h12_launches_that_cost_beyond_twice_the_baseline() -> None:
    rank = _healthy()
    per_node = 6_000 / 3
    assert _codes(rank, launch_ns_per_node=per_node) == []
    assert _codes(rank, launch_ns_per_node=per_node / 2.1) == ["H12"]


def test_h12_a_profiler_library_known_to_be_slow() -> None:
    def rank(library: str, us: float) -> RankData:
        trace = Kineto().decodes(12)
        trace.meta = {library: 1.0}
        for event in trace.events:
            if event["name"] == "hipGraphLaunch":
                event["dur"] = us
        return trace.rank()

    assert _codes(rank("rocprofiler-sdk_version", 316.0)) == ["H12"]
    assert _codes(rank("rocprofiler-sdk_version", 50.0)) == []
    assert _codes(rank("roctracer_version", 316.0)) == []


def test_h14_annotations_that_contradict_the_launches_only_warn() -> None:
    trace = Kineto()
    for number in range(6):
        external = trace.label("decode[bs=4]", 1000.0 + 400 * number)
        trace.replay(["k0", "k1"], 1020.0 + 400 * number)
        trace.gpu_label("decode[bs=4]", trace.gpu_us - 1, 0.5, external)
    assert _codes(trace.rank(), fatal=False) == ["H14"]


def test_a_finding_reads_as_one_line_with_code_and_rank() -> None:
    finding = Finding("H03", "no-gpu", True, "all", "no kernel", "rank_2")
    assert str(finding) == "H03 no-gpu: rank_2: no kernel"
