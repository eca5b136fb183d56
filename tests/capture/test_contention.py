"""Whether a window was ours alone: from files of a fake machine to what a check may still say."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.capture.contention import WindowWatch, throttled
from pytest_atomtrace.errors import UnhealthyTraceError
from pytest_atomtrace.verdicts.capture_findings import capture_findings
from pytest_atomtrace.verdicts.trace import load_trace
from tests.capture.conftest import small_case
from tests.capture.machines import GIB, FakeMachine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.capture.conftest import Rig


def watched(fake: FakeMachine, during: Callable[[], None], *, ours: set[int], env: dict[str, str]) -> dict[str, object]:
    async def run() -> dict[str, object]:
        watch = WindowWatch(fake.site, ours=ours, before=(), env=env)
        watch.start()
        during()
        return watch.finish()

    return asyncio.run(run())


def test_a_quiet_window_has_no_finding(tmp_path: Path) -> None:
    fake = FakeMachine(tmp_path / "machine").build()
    fake.tenant(11, 0, GIB)
    fake.throttle(0, cycles=1000, power=400)
    facts = watched(fake, lambda: fake.throttle(0, cycles=3000, power=2100), ours={11}, env={})
    assert facts["foreign"] == []
    assert facts["throttle"] == {
        fake.pci(0): {
            "cycles": 2000,
            "prochot": 0,
            "power": 1700,
            "socket_thermal": 0,
            "vr_thermal": 0,
            "hbm_thermal": 0,
        },
        fake.pci(1): dict.fromkeys(("cycles", "prochot", "power", "socket_thermal", "vr_thermal", "hbm_thermal"), 0),
    }
    assert capture_findings({"contention": facts}, {}) == (), "the power cap is ordinary"


def test_a_foreign_process_and_a_hot_card_are_findings_that_forbid_times_only(tmp_path: Path) -> None:
    fake = FakeMachine(tmp_path / "machine").build()
    fake.tenant(11, 0, GIB)
    fake.throttle(1, cycles=1000, hbm_thermal=5)

    def disturb() -> None:
        fake.tenant(4_100_000, 1, 7 * GIB)
        fake.throttle(1, cycles=2000, hbm_thermal=255)

    found = capture_findings({"contention": watched(fake, disturb, ours={11}, env={})}, {})
    assert [(finding.code, finding.fatal, finding.scope) for finding in found] == [("H11", True, "times")] * 2
    assert "other processes were on the GPUs in the window: pid 4100000 with 7.0 GiB" in str(found[0])
    assert "0000:15:00.0 was throttled by the HBM's temperature for 25.0 % of the window" in str(found[1])


def test_a_tenant_that_came_and_went_within_the_window_is_seen(tmp_path: Path) -> None:
    fake = FakeMachine(tmp_path / "machine").build()

    async def run() -> dict[str, object]:
        watch = WindowWatch(fake.site, ours={11}, before=(), env={})
        watch.start()
        fake.tenant(4_100_000, 1, GIB)
        await asyncio.sleep(1.3)
        fake.tenant(4_100_000, 1, 0)
        return watch.finish()

    facts = asyncio.run(run())
    assert isinstance(facts["foreign"], list)
    assert [row["pid"] for row in facts["foreign"]] == [4_100_000]


def test_counters_wrap_and_are_not_believed_after_a_reset() -> None:
    wrapped = throttled({"cycles": 2**32 - 10, "prochot": 2**32 - 1}, {"cycles": 90, "prochot": 4})
    assert wrapped == {"cycles": 100, "prochot": 5}
    assert throttled({"cycles": 5000, "prochot": 30}, {"cycles": 6000, "prochot": 0}) is None


def test_counters_that_nobody_tells_are_unknown_and_no_finding(tmp_path: Path) -> None:
    fake = FakeMachine(tmp_path / "machine").build()
    (fake.root / fake.device(0) / "gpu_metrics").unlink()
    facts = watched(fake, lambda: None, ours={11}, env={"PATH": str(tmp_path)})
    unknown = facts["unknown"]
    assert isinstance(unknown, dict)
    assert "no throttle counters in gpu_metrics" in unknown["throttle"]
    assert "amd-smi" in unknown["throttle"]
    assert capture_findings({"contention": facts}, {}) == ()


@pytest.mark.parametrize("facts", [{}, {"foreign": 3, "throttle": []}, {"foreign": [4], "throttle": {"a": 1}}, None])
def test_a_manifest_of_another_shape_has_no_such_finding(facts: object) -> None:
    assert capture_findings({"contention": facts}, {}) == ()


def test_beside_a_foreign_process_counts_are_judged_and_times_are_not(rig: Rig) -> None:
    fake = FakeMachine(rig.tmp_path / "machine").build()
    rig.sim(VRAM_TREE=fake.root)
    fake.drive()
    case = small_case(osl=64)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as tenant:
        fake.tenant(tenant.pid, 0, GIB // 2)
        capture = rig.session_with({"machine_root": str(fake.root)}).obtain(case, needed=[case], test_id="t")
        assert tenant.poll() is None
        tenant.kill()
    fake.end()
    trace = load_trace(capture.directory)
    trace.assert_kernel_called("*moe*", during="decode")
    with pytest.raises(
        UnhealthyTraceError, match=rf"H11 contended: .* pid {tenant.pid} python\S* of \w+ with 512.0 MiB"
    ):
        trace.assert_step_time("decode", p50="1 s")
