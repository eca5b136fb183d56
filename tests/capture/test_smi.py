"""What amd-smi and rocm-smi say, in the shapes that their releases had."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_atomtrace.capture.process import read_output
from pytest_atomtrace.capture.smi import SmiError, smi_vram_used, throttles_in, vram_used_in
from pytest_atomtrace.capture.vram import read_levels
from tests.capture.machines import FakeMachine

if TYPE_CHECKING:
    from pathlib import Path

CARDS = ("0000:05:00.0", "0000:15:00.0")
MIB = 1 << 20


def amd(*used: object) -> list[dict[str, object]]:
    return [
        {"gpu": n, "mem_usage": {"total_vram": {"value": 294896, "unit": "MB"}, "used_vram": u}}
        for n, u in enumerate(used)
    ]


@pytest.mark.parametrize(
    "document",
    [
        amd({"value": 283, "unit": "MB"}, {"value": 5000, "unit": "MB"}),
        {"gpu_data": amd({"value": 283, "unit": "MB"}, {"value": 5000, "unit": "MB"})},
        amd("283 MB", "5000 MB"),
        {
            "card0": {"VRAM Total Memory (B)": "309220868096", "VRAM Total Used Memory (B)": str(283 * MIB)},
            "card1": {"VRAM Total Memory (B)": "309220868096", "VRAM Total Used Memory (B)": str(5000 * MIB)},
            "system": {"Driver version": "6.14"},
        },
        # Rows by address, in another order.
        {
            "card7": {"PCI Bus": "0000:15:00.0", "VRAM Total Used Memory (B)": str(5000 * MIB)},
            "card3": {"PCI Bus": "0000:05:00.0", "VRAM Total Used Memory (B)": str(283 * MIB)},
        },
        [{"gpu": 1, "bdf": "0000:15:00.0", **amd("5000 MB")[0]}, {"gpu": 0, "bdf": "0000:05:00.0", **amd("283 MB")[0]}],
    ],
    ids=["amd-smi", "gpu_data", "text", "rocm-smi", "rocm-smi-bus", "bdf"],
)
def test_used_memory_is_found_whatever_the_shape(document: object) -> None:
    assert vram_used_in(document, CARDS) == {CARDS[0]: 283 * MIB, CARDS[1]: 5000 * MIB}


@pytest.mark.parametrize(
    "document",
    [amd("N/A", "N/A"), amd({"value": "N/A", "unit": "MB"}), [], {}, amd({"value": 1, "unit": "bananas"}), None, "x"],
    ids=str,
)
def test_what_is_not_there_is_not_made_up(document: object) -> None:
    assert vram_used_in(document, CARDS) == {}


def test_one_row_for_two_cards_without_an_address_is_nobodys() -> None:
    assert vram_used_in(amd("283 MB"), CARDS) == {}


def test_throttle_counters_are_found_by_key() -> None:
    row = {
        "accumulation_counter": 8213780,
        "prochot_accumulated": 0,
        "ppt_accumulated": 2,
        "socket_thermal_accumulated": {"value": 7, "unit": ""},
        "vr_thermal_accumulated": "N/A",
        "hbm_thermal_accumulated": 0,
    }
    found = throttles_in([{"gpu": 0, "throttle": row}, {"gpu": 1, "throttle": row}], CARDS)
    assert found[CARDS[1]] == {"cycles": 8213780, "prochot": 0, "power": 2, "socket_thermal": 7, "hbm_thermal": 0}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["gpu", "used_vram", "value", "unit", "bdf", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_document_breaks_the_reader(document: object) -> None:
    for size in vram_used_in(document, CARDS).values():
        assert isinstance(size, int)
    throttles_in(document, CARDS)


def tool(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_rocm_smi_is_asked_where_amd_smi_fails(tmp_path: Path) -> None:
    answer = json.dumps({"card0": {"PCI Bus": "0000:05:00.0", "VRAM Total Used Memory (B)": "7"}})
    tool(tmp_path / "bin", "amd-smi", "echo broken >&2; exit 3")
    tool(tmp_path / "bin", "rocm-smi", f"echo '{answer}'")
    assert smi_vram_used(CARDS[:1], env={"PATH": f"{tmp_path}/bin"}) == {CARDS[0]: 7}


def test_what_each_tool_said_is_in_the_error(tmp_path: Path) -> None:
    tool(tmp_path / "bin", "amd-smi", "echo 'no driver' >&2; exit 3")
    with pytest.raises(SmiError, match=r"amd-smi ended with status 3: no driver; rocm-smi: .*No such file"):
        smi_vram_used(CARDS, env={"PATH": f"{tmp_path}/bin"})


def test_levels_come_from_a_tool_where_sysfs_is_silent(tmp_path: Path) -> None:
    fake = FakeMachine(tmp_path / "machine").build()
    (fake.root / fake.device(1) / "mem_info_vram_used").unlink()
    assert read_levels(fake.site, env={"PATH": f"{tmp_path}/bin"})[0] == {}
    tool(tmp_path / "bin", "amd-smi", f"echo '{json.dumps(amd('283 MB', '5000 MB'))}'")
    levels, why = read_levels(fake.site, env={"PATH": f"{tmp_path}/bin"})
    assert levels == {CARDS[0]: 283 * MIB, CARDS[1]: 5000 * MIB}
    assert why == ""


def test_a_short_command_is_bounded_in_time_and_output() -> None:
    with pytest.raises(OSError, match=r"took longer than 0\.2 s"):
        read_output(["sleep", "5"], env={"PATH": "/usr/bin:/bin"}, timeout_s=0.2)
    with pytest.raises(OSError, match="wrote 4 bytes"):
        read_output(["echo", "abc"], env={"PATH": "/usr/bin:/bin"}, timeout_s=5, limit_bytes=3)
    assert read_output(["echo", "abc"], env={"PATH": "/usr/bin:/bin"}, timeout_s=5) == b"abc\n"
