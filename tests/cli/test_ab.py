"""`atomtrace ab`: sides in turn under one lease, a table that says what differs, and what each side ran."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace import ConfigError
from pytest_atomtrace.cli import main
from pytest_atomtrace.cli.ab_command import case_of, variables_of
from pytest_atomtrace.report.ab_rows import ab_lines
from pytest_atomtrace.verdicts.side_by_side import compare_sides
from tests.acceptance.ledger import Ledger
from tests.verdicts.launches import Bench, slower

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_atomtrace.verdicts.side_by_side import SideBySide
    from pytest_atomtrace.verdicts.view import TraceView
    from tests.traces import Recipe

CASE = ["deepseek-ai/DeepSeek-V4-Pro", "isl=16", "osl=34", "conc=2"]
SPREAD = (0.99, 0.995, 1.0, 1.005, 1.012)


def compared(tmp_path: Path, a: list[Recipe], b: list[Recipe]) -> SideBySide:
    def launches(name: str, recipes: list[Recipe]) -> list[list[TraceView]]:
        bench = Bench(tmp_path / name)
        bench.trace(*recipes)
        return [list(bench.windows(number + 1)) for number in range(len(recipes))]

    return compare_sides("m", launches("a", a), launches("b", b))


def text(found: SideBySide) -> str:
    return "\n".join(line for _, line in ab_lines(found, width=100))


def test_equal_sides_show_a_tilde_everywhere(tmp_path: Path) -> None:
    found = compared(tmp_path, [slower(f) for f in SPREAD], [slower(f + 0.001) for f in reversed(SPREAD)])
    assert not any(row.differs for row in found.rows)
    assert not found.slower
    table = [line for line in text(found).splitlines() if " ms " in line or " us " in line]
    assert table
    assert all("~" in line for line in table)


def test_a_slower_side_is_named_by_metric_amount_and_kernel(tmp_path: Path) -> None:
    fast, slow = [slower(f) for f in SPREAD], [slower(f, mfma_moe2_a_t32=1.2) for f in SPREAD]
    found = compared(tmp_path, fast, slow)
    assert found.slower
    shown = text(found)
    assert "+6.7 %" in shown
    assert "0.008" in shown, "the smallest p that five and five launches can give"
    assert "grew mfma_moe2_a_t32 (40 calls)" in shown
    family = next(row for row in found.rows if row.metric == "decode.family.attention")
    assert not family.differs


def test_a_faster_side_is_a_difference_and_not_slower(tmp_path: Path) -> None:
    found = compared(tmp_path, [slower(f) for f in SPREAD], [slower(f * 0.9) for f in SPREAD])
    assert all(row.differs for row in found.rows if row.metric == "decode.gpu_busy")
    assert not found.slower


def test_one_launch_a_side_is_said_to_tell_nothing_and_is_no_tilde(tmp_path: Path) -> None:
    found = compared(tmp_path, [slower(1.0)], [slower(3.0)])
    assert not any(row.differs for row in found.rows)
    assert not found.slower
    shown = text(found)
    assert "1 launch a side, 1 window each" in shown
    assert "One launch a side cannot tell a difference from the noise of launches" in shown
    assert "~" not in shown
    row = next(line for line in shown.splitlines() if line.startswith("gpu_busy"))
    assert row.split() == ["gpu_busy", "1.200", "ms", "-", "3.600", "ms", "-", "+200.0", "%", "?", "-"]


def test_few_launches_say_how_many_they_are_and_what_a_tilde_is_worth(tmp_path: Path) -> None:
    few = text(compared(tmp_path / "few", [slower(1.0), slower(1.01)], [slower(1.01), slower(1.02)]))
    assert "n = 2 launches a side; ~ is no difference at p < 0.01" in few
    assert "n = 2 is small" in few
    enough = text(compared(tmp_path / "five", [slower(f) for f in SPREAD], [slower(f) for f in SPREAD]))
    assert "n = 5 launches a side; ~ is no difference at p < 0.01" in enough
    assert "is small" not in enough


def test_one_launch_a_side_ends_with_a_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATOMTRACE_SIM_LAYERS", "2")
    monkeypatch.setenv("ATOMTRACE_LOCK_DIR", str(tmp_path / "locks"))
    arguments = ["ab", "--backend", "sim", "--a", "", "--b", "X=1", "--launches", "1", "--output", str(tmp_path / "o")]
    assert main([*arguments, "--json", *CASE]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["test"] == "none"
    assert {row["p"] for row in answer["rows"]} == {None}


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "run on the simulator with --backend sim\n"),
        ({"ATOMTRACE_REPLAY": "/saved"}, "names saved captures (ATOMTRACE_REPLAY): unset it"),
        (
            {"ATOMTRACE_ATTACH": "http://127.0.0.1:1", "ATOMTRACE_ATTACH_TRACE_DIR": "/t"},
            "names a server that runs already (ATOMTRACE_ATTACH): unset it",
        ),
    ],
    ids=["no GPU", "replay", "attach"],
)
def test_where_nothing_can_be_launched_the_advice_is_one_that_can_be_followed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    said: str,
) -> None:
    monkeypatch.setenv("ATOMTRACE_MACHINE_ROOT", str(tmp_path))
    monkeypatch.setenv("ATOMTRACE_PYTHON", "/nonexistent/python")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["ab", "--a", "", "--b", "X=1", *CASE]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("atomtrace ab") == 1
    assert "--atom-" not in shown


def test_two_environments_are_launched_in_turn_under_one_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    monkeypatch.setenv("ATOMTRACE_SIM_LEDGER", str(ledger.path))
    monkeypatch.setenv("ATOMTRACE_SIM_SEED", "3")
    monkeypatch.setenv("ATOMTRACE_SIM_LAYERS", "8")
    monkeypatch.setenv("ATOMTRACE_LOCK_DIR", str(tmp_path / "locks"))
    b = "ATOMTRACE_SIM_MUTATE='slow:mfma_moe1_*=1.5@phase=decode'"
    arguments = ["ab", "--backend", "sim", "--a", "", "--b", b, "--launches", "3", "--output", str(tmp_path / "out")]
    code = main([*arguments, "--json", *CASE])
    shown = capsys.readouterr()
    assert code == 1, shown
    answer = json.loads(shown.out)
    rows = {row["metric"]: row for row in answer["rows"]}
    assert rows["decode.family.moe_gemm"]["change"] > 0.2
    assert answer["explained"]["changes"][0]["after"][0].startswith("mfma_moe1_")
    assert answer["loaded"]["env.ATOMTRACE_SIM_MUTATE"] == ["-", "slow:mfma_moe1_*=1.5@phase=decode"]
    said = [line.split("side ")[1][:1] for line in shown.err.splitlines() if ", launch " in line]
    assert said == ["A", "B", "B", "A", "A", "B"]
    assert ledger.launches == 6
    assert not ledger.overlaps


def test_a_side_that_cannot_be_built_is_named_before_anything_is_launched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    monkeypatch.setenv("ATOMTRACE_SIM_LEDGER", str(ledger.path))
    arguments = ["ab", "--backend", "sim", "--a", "", "--b", "X=1", "--build", "false", "--output", str(tmp_path)]
    assert main([*arguments, *CASE]) == 2
    assert "side A: could not be built: false ended with status 1" in capsys.readouterr().err
    assert ledger.launches == 0


def test_a_case_is_written_as_a_model_and_fields() -> None:
    case = case_of(["org/m", "tp=8", "conc=4", "range_ratio=0.8", "dp_attention=true", "server_args=--level 0"])
    assert (case.model, case.tp, case.conc, case.range_ratio, case.dp_attention) == ("org/m", 8, 4, 0.8, True)
    assert case.server_args == ("--level", "0")


@pytest.mark.parametrize(
    ("words", "said"),
    [(["tp=8"], "model is missing"), (["m", "tpp=8"], "tp"), (["m", "tp=0"], "tp"), (["m", "tp=1", "tp=2"], "twice")],
)
def test_a_wrong_case_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        case_of(words)


def test_variables_are_read_as_a_shell_reads_them() -> None:
    assert variables_of("A=1 B='x y'", "--a") == {"A": "1", "B": "x y"}
    assert variables_of("", "--a") == {}
    for text in ("A", "1A=2", "A='x"):
        with pytest.raises(ConfigError):
            variables_of(text, "--a")
