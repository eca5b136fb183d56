"""Durations and shares as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_atomtrace import ConfigError
from pytest_atomtrace.units import format_duration, format_seconds, parse_duration_ns, parse_share, parse_size


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("9.5 ms", 9_500_000),
        ("800us", 800_000),
        ("1 ns", 1),
        ("45 min", 2_700 * 10**9),
        ("2h", 7_200 * 10**9),
        (".5 s", 5 * 10**8),
        ("12 µs", 12_000),
    ],
)
def test_units_are_read(text: str, ns: int) -> None:
    assert parse_duration_ns(text) == ns


@pytest.mark.parametrize(
    "text", ["9.5", "ms", "9.5 mss", "9,5 ms", "1e3 ms", "9.5 ms 3", "-1 ms", "", None, 9.5, "0.1 ns"]
)
def test_anything_else_is_refused_naming_the_form(text: object) -> None:
    with pytest.raises(ConfigError, match=r"9\.5 ms|nanosecond"):
        parse_duration_ns(text)


def test_a_bare_number_is_answered_with_what_to_write() -> None:
    with pytest.raises(ConfigError, match=r'write "9\.5 ms" or "9\.5 us"'):
        parse_duration_ns("9.5")


@given(st.integers(1, 59 * 10**9))
def test_formatted_durations_read_back_within_their_digits(ns: int) -> None:
    assert abs(parse_duration_ns(format_duration(ns)) - ns) <= max(1, ns * 0.001)


@pytest.mark.parametrize(("text", "value"), [("5 %", 0.05), ("0.5%", 0.005), ("100%", 1.0)])
def test_shares_are_read(text: str, value: float) -> None:
    assert parse_share(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["5", "5 percent", "%", 5, "5 %x"])
def test_shares_need_their_sign(text: object) -> None:
    with pytest.raises(ConfigError, match="not a share"):
        parse_share(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.44, "8.4 s"), (60, "1 min"), (200, "3 min 20 s"), (2700, "45 min"), (7500, "2 h 05 min")],
)
def test_wall_times_are_written_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20 GB", 20 * 10**9),
        ("20GiB", 20 * 2**30),
        ("1.5 MB", 1_500_000),
        ("0 B", 0),
        ("2 TB", 2 * 10**12),
        ("4 KiB", 4096),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["20", "GB", "20 gb", "20 Gb", "-1 GB", "20 GBps", "", None, 20])
def test_sizes_need_a_unit(text: object) -> None:
    with pytest.raises(ConfigError, match=r'not a size like "20 GB" or "512 MiB"'):
        parse_size(text)


def test_a_bare_size_is_answered_with_what_to_write() -> None:
    with pytest.raises(ConfigError, match=r'write "20 GB"'):
        parse_size("20")
