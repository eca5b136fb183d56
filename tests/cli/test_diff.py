"""`atomtrace diff`."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest

from tests.traces import NAME, Recipe, write_ranks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from tests.cli.conftest import Result


def rows(document: Any) -> dict[str, Any]:
    return {row["name"]: row for row in document["kernels"]}


def both(tmp_path: Path, before: Recipe, after: Recipe) -> tuple[Path, Path]:
    return write_ranks(tmp_path / "a", before), write_ranks(tmp_path / "b", after)


def test_equal_traces_differ_in_nothing(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    result = atomtrace("diff", *both(tmp_path, Recipe(), Recipe()))
    assert result.code == 0
    assert "No kernel changed: 3 names" in result.out


def test_times_alone_never_decide_the_exit_code(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    result = atomtrace("diff", *both(tmp_path, Recipe(), Recipe(duration_us=11.0)), "--json")
    assert result.code == 0
    document = result.json
    assert (document["busy_delta_ns"], document["kernels_delta_ns"]) == (12_000, 12_000)
    assert document["explained"] == pytest.approx(1)
    assert {row["change"] for row in document["kernels"]} == {"grew"}
    assert rows(document)["mfma_moe1_a_t32"]["explains"] == pytest.approx(1 / 3)
    back = atomtrace("diff", tmp_path / "b", tmp_path / "a", "--json").json
    assert {row["change"] for row in back["kernels"]} == {"shrank"}


def test_a_kernel_that_came_is_named_and_exits_1(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    traces = both(tmp_path, Recipe(), Recipe(extra=("add_rmsnorm_quant_kernel",)))
    result = atomtrace("diff", *traces)
    assert result.code == 1
    assert result.row("came")[1:4] == ["add_rmsnorm_quant_kernel", "0", "->"]
    gone = atomtrace("diff", *reversed(traces), "--json")
    assert rows(gone.json)["add_rmsnorm_quant_kernel"]["change"] == "went"
    assert gone.json["families"][0]["family"] == "norm"


def test_a_changed_count_exits_1(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    result = atomtrace("diff", *both(tmp_path, Recipe(layers=4), Recipe(layers=5)))
    assert result.code == 1
    assert "4 -> 5" in result.out


def test_a_kernel_of_other_template_arguments_is_a_replacement(
    atomtrace: Callable[..., Result], tmp_path: Path
) -> None:
    names = ("void aiter::gemm_kernel<64, 128>(float*)", "void aiter::gemm_kernel<32, 128>(float*)")
    traces = both(tmp_path, *(Recipe(renamed={"attention_kernel": name}) for name in names))
    result = atomtrace("diff", *traces, "--json")
    assert result.code == 1
    row = rows(result.json)[names[1]]
    assert (row["change"], row["before_name"], row["before_calls"], row["after_calls"]) == ("replaced", names[0], 4, 4)
    assert names[0] not in rows(result.json)


def test_the_only_one_of_a_family_with_as_many_calls_is_a_replacement_too(
    atomtrace: Callable[..., Result], tmp_path: Path
) -> None:
    renamed = Recipe(renamed={"mfma_moe1_a_t32": "mfma_moe1_b_t64"})
    assert (
        rows(atomtrace("diff", *both(tmp_path, Recipe(), renamed), "--json").json)["mfma_moe1_b_t64"]["change"]
        == "replaced"
    )


def test_two_that_went_for_one_that_came_are_not_paired_by_guess(
    atomtrace: Callable[..., Result], tmp_path: Path
) -> None:
    before, after = Recipe(extra=("moe_gemm_a", "moe_gemm_b")), Recipe(extra=("moe_gemm_c", "tail"))
    changes = {
        name: row["change"]
        for name, row in rows(atomtrace("diff", *both(tmp_path, before, after), "--json").json).items()
    }
    assert (changes["moe_gemm_a"], changes["moe_gemm_b"], changes["moe_gemm_c"]) == ("went", "went", "came")


def test_the_slowest_ranks_are_compared_unless_all_are(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    a = write_ranks(tmp_path / "a", Recipe(duration_us=11.0), Recipe())
    b = write_ranks(tmp_path / "b", Recipe(), Recipe(duration_us=12.0))
    document = atomtrace("diff", a, b, "--json").json
    assert (document["a"]["ranks"], document["b"]["ranks"]) == (["rank_0"], ["rank_1"])
    assert document["busy_delta_ns"] == 12_000
    everyone = atomtrace("diff", a, b, "--rank", "all", "--json").json
    assert everyone["a"]["steps"] == 66
    assert atomtrace("diff", a, b, "--rank", "rank_0", "--json").json["busy_delta_ns"] == -12_000


def test_an_unhealthy_side_is_pointed_out(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    result = atomtrace("diff", *both(tmp_path, Recipe(), Recipe(lost=frozenset({12}))))
    assert f"{tmp_path / 'b'} is not to be believed: atomtrace health {tmp_path / 'b'}" in result.out


def test_prefills_compare_with_each_other(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    document = atomtrace("diff", *both(tmp_path, Recipe(), Recipe()), "--during", "prefill", "--json").json
    assert (document["during"], document["a"]["busy_ns"]) == ("prefill", 360_000)


def with_side_stream(directory: Path, side_us: float, tail_us: float) -> Path:
    """Decodes of a main kernel of 100 us with a kernel of `side_us` behind it, then a tail."""
    rows: list[dict[str, Any]] = []

    def add(name: str, cat: str, ts: float, dur: float, **args: object) -> None:
        rows.append({"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": 7, "ts": ts, "dur": dur, "args": args})

    for step in range(30):
        at = 1000.0 + 300 * step
        add("decode[bs=4 tok=4 d=4]", "user_annotation", at, 50.0)
        add("hipGraphLaunch", "cuda_runtime", at + 5, 20.0, correlation=step + 1)
        for name, start, dur, stream in (("main", 0, 100, 1), ("side", 10, side_us, 2), ("tail", 100, tail_us, 1)):
            if dur:
                add(name, "kernel", 5000 + 300 * step + start, dur, stream=stream, correlation=step + 1)
    path = directory / "rank_0" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": rows}).encode()))
    return directory


def test_what_hides_behind_another_stream_explains_nothing(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    before = with_side_stream(tmp_path / "a", side_us=50, tail_us=20)
    after = with_side_stream(tmp_path / "b", side_us=0, tail_us=30)
    document = atomtrace("diff", before, after, "--json").json
    assert (document["busy_delta_ns"], document["explained"]) == (10_000, pytest.approx(1))
    side, tail = rows(document)["side"], rows(document)["tail"]
    assert (side["change"], side["delta_ns"], side["exposed_delta_ns"]) == ("went", -50_000, 0)
    assert (tail["change"], tail["exposed_delta_ns"], tail["explains"]) == ("grew", 10_000, pytest.approx(1))
    # What moved the step comes first, though the side stream's kernel changed more.
    assert [row["name"] for row in document["kernels"]] == ["tail", "side", "main"]


def captured(directory: Path, recipe: Recipe, device: str = "", **fields: Any) -> Path:
    """A capture: the traces with a manifest that names the case."""
    from pytest_atomtrace import Case

    case = Case(**{"model": "org/model", **fields})
    write_ranks(directory, recipe)
    if device:
        path = directory / "rank_0" / NAME
        document = json.loads(gzip.decompress(path.read_bytes()))
        path.write_bytes(gzip.compress(json.dumps({**document, "deviceProperties": [{"name": device}]}).encode()))
    manifest = {"schema": 1, "slug": case.slug, "case": case.as_dict(), "engine": "atom"}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


def test_captures_of_different_cases_say_so_in_one_line(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    a = captured(tmp_path / "a", Recipe(), conc=32)
    b = captured(tmp_path / "b", Recipe(), conc=64, tp=2, server_args=["--level", "0"])
    result = atomtrace("diff", a, b, width=120)
    assert result.code == 0
    assert result.out.splitlines()[0] == (
        "A and B are not captures of one case: tp 1 / 2, conc 32 / 64, server_args [] / ['--level', '0']"
    )
    narrow = atomtrace("diff", a, b, width=80).out.splitlines()[0]
    assert narrow == "A and B are not captures of one case: tp, conc, server_args differ"
    unlike = atomtrace("diff", a, b, "--json").json["unlike"]
    assert unlike[0] == {"what": "tp", "a": "1", "b": "2"}


def test_another_device_is_told_and_another_number_of_windows_is_not(
    atomtrace: Callable[..., Result], tmp_path: Path
) -> None:
    a = captured(tmp_path / "a", Recipe(), "AMD Instinct MI300X")
    b = captured(tmp_path / "b", Recipe(), "AMD Instinct MI355X", captures=3, osl=128)
    assert "device AMD Instinct MI300X / AMD Instinct MI355X" in atomtrace("diff", a, b).out.splitlines()[0]
    c = captured(tmp_path / "c", Recipe(), "AMD Instinct MI300X", captures=3, osl=128)
    assert "not captures of one case" not in atomtrace("diff", a, c).out
    assert "not captures of one case" not in atomtrace("diff", a, write_ranks(tmp_path / "plain", Recipe())).out
