"""What the manifest keeps of a server's log: untuned shapes, builds, waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.capture.logfacts import log_facts
from pytest_atomtrace.capture.redact import Redactor
from pytest_atomtrace.capture.serverlog import ServerLog
from tests.capture.conftest import Rig, small_case

if TYPE_CHECKING:
    from pathlib import Path

MOE = "(256, 64, 7168, 256, 384, 6, 'ActivationType.Silu', 'torch.bfloat16', True, False)"
LINES = (
    "[aiter] shape is M:64, N:512, K:7168, not found tuned config in /tmp/aiter_configs/bf16_tuned_gemm.csv, will use",
    "[aiter] shape is M:64, N:512, K:7168, not found tuned config in /tmp/aiter_configs/bf16_tuned_gemm.csv, will use",
    (
        "[aiter] shape is M:512, N:5120, K:17408, q_dtype_w:torch.float8_e4m3fn, "
        "not found tuned config in /x/a8w8.csv, will"
    ),
    "[aiter] shape is M:1, N:2, K:3, not found tuned config in CKGEMM or asmGEMM, will use default config!",
    "[aiter] shape is M:1, N:2, K:3, found padded_M: 16, N:2, K:3 is tuned on cu_num = 256 in /x/a8w8.csv",
    f"[aiter] [fused_moe] using 2stage default for {MOE}",
    "[aiter] [fused_moe] using 2stage (kernelName1='a', kernelName2='b') for (1, 2)",
    "[aiter] start build [module_a] under /opt/aiter/jit/build/module_a",
    "[aiter] start build [module_b] under /opt/aiter/jit/build/module_b",
    "[aiter] [pid=7 pname=M] waiting for baton release at /opt/aiter/jit/build/lock_module_a",
    "[aiter] \x1b[32mfinish build [module_a], cost 57.8s \x1b[0m",
)


def read(tmp_path: Path, *lines: str) -> ServerLog:
    path = tmp_path / "server.log"
    path.write_text("".join(f"{line}\n" for line in lines))
    log = ServerLog(path, Redactor({}))
    log.poll()
    return log


def test_lines_of_aiter_become_rows_with_op_and_shape_and_each_once(tmp_path: Path) -> None:
    facts = log_facts(read(tmp_path, *LINES), window=(0, 0))
    assert facts["untuned"] == [
        {"op": "bf16", "m": 64, "n": 512, "k": 7168, "lines": 2, "in_window": False},
        {"op": "a8w8", "m": 512, "n": 5120, "k": 17408, "lines": 1, "in_window": False},
        {"op": "CKGEMM or asmGEMM", "m": 1, "n": 2, "k": 3, "lines": 1, "in_window": False},
    ]
    assert facts["moe_defaults"] == [{"stages": "2", "shape": MOE, "lines": 1, "in_window": False}]
    assert facts["batons"] == [{"path": "/opt/aiter/jit/build/lock_module_a", "lines": 1, "in_window": False}]
    builds = facts["builds"]
    assert isinstance(builds, list)
    finished, running = builds
    begin = sum(len(line) + 1 for line in LINES[:7])
    assert (finished["module"], finished["begin_byte"], finished["cost_s"]) == ("module_a", begin, 57.8)
    assert (running["module"], running["end_byte"]) == ("module_b", None)


def test_a_build_is_in_the_window_by_its_end_and_a_shape_by_its_line(tmp_path: Path) -> None:
    log = read(tmp_path, *LINES)
    at = sum(len(line.encode()) + 1 for line in LINES[:10])
    for window, inside in (((at, log.size), True), ((0, at), False), ((log.size, log.size + 9), False)):
        builds = log_facts(log, window=window)["builds"]
        assert [row["in_window"] for row in builds] == [inside, False]  # type: ignore[attr-defined]
    shapes = log_facts(log, window=(0, 10))["untuned"]
    assert [row["in_window"] for row in shapes] == [True, False, False]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("fault", "inside"), [("untuned", False), ("aiter_build:0.005", True)])
def test_the_manifest_of_a_capture_has_them(rig: Rig, fault: str, inside: bool) -> None:
    rig.sim(FAULT=fault)
    case = small_case()
    facts = rig.session().obtain(case, needed=[case], test_id="t").manifest["log"]
    assert isinstance(facts, dict)
    if inside:
        [build] = facts["builds"]
        assert build["in_window"]
        assert build["module"] == "module_moe_ck2stages_f8_f4_preshuffle_on_b16"
        assert len(facts["batons"]) == 1
    else:
        assert [(row["op"], row["lines"]) for row in facts["untuned"]] == [
            ("a8w8_blockscale_bpreshuffle", 2), ("bf16", 2),
        ]  # fmt: skip
        assert not any(row["in_window"] for row in facts["untuned"])
        assert len(facts["moe_defaults"]) == 1
