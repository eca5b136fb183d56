"""Durations and sizes as people write them, read strictly and written back.

``9.5 ms`` is a duration; ``9.5`` is not: a bare number once meant seconds to one reader and milliseconds to
the next, so every parser here demands the unit and matches the whole text ("10 MBps" is not 10 MB).
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from pytest_atomtrace.errors import ConfigError

__all__ = [
    "format_bytes",
    "format_duration",
    "format_seconds",
    "parse_duration_ns",
    "parse_growth",
    "parse_least_share",
    "parse_most_share",
    "parse_share",
    "parse_size",
]

_NS_PER: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "min": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION: Final = re.compile(r"(?P<number>\d+(?:\.\d+)?|\.\d+)\s*(?P<unit>ns|us|µs|μs|ms|s|min|h)")
_BYTES_PER: Final = {"B": 1} | {
    f"{prefix}{ending}": base**power
    for power, prefix in enumerate("KMGT", 1)
    for ending, base in (("B", 1000), ("iB", 1024))
}
_SIZE: Final = re.compile(rf"(?P<number>\d+(?:\.\d+)?|\.\d+)\s*(?P<unit>{'|'.join(_BYTES_PER)})")
_SHARE: Final = re.compile(r"(?P<number>\d+(?:\.\d+)?|\.\d+)\s*%")


def parse_duration_ns(text: object, *, where: str = "") -> int:
    """Read ``"9.5 ms"`` as integer nanoseconds (units: ns, us, ms, s, min, h).

    Raises:
        ConfigError: no unit, a negative or zero duration, or anything else around the number.

    """
    match = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        hint = ""
        if isinstance(text, (int, float)) or (isinstance(text, str) and re.fullmatch(r"[\d.]+", text.strip())):
            hint = f'; a bare number has no unit, write "{text} ms" or "{text} us"'
        raise ConfigError(f'{text!r} is not a duration like "9.5 ms", "800 us" or "45 min"{hint}', where)
    value_ns = Decimal(match["number"]) * _NS_PER[match["unit"]]
    if value_ns < 1:
        raise ConfigError(f"{text!r} is shorter than one nanosecond", where)
    return int(value_ns.to_integral_value())


def parse_share(text: object, *, where: str = "") -> float:
    """Read ``"5 %"`` as 0.05.

    Raises:
        ConfigError: not a percentage.

    """
    match = _SHARE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ConfigError(f'{text!r} is not a share like "5 %" or "0.5%"', where)
    return float(Decimal(match["number"]) / 100)


def parse_least_share(text: object, *, where: str = "") -> float:
    """Read a share that something must at least have: above 0 % (which always holds), at most 100 %.

    Raises:
        ConfigError: not a percentage, or one that nothing or everything has.

    """
    share = parse_share(text, where=where)
    if share > 1:
        raise ConfigError(f"{text!r} can never be reached; the most is 100 %", where)
    if not share:
        raise ConfigError(f"{text!r} always holds; give the share to keep", where)
    return share


def parse_most_share(text: object, *, where: str = "") -> float:
    """Read a share of a whole that something may at most have: above 0 %, below 100 % (which always holds).

    Raises:
        ConfigError: not a percentage, or one that nothing or everything is within.

    """
    share = parse_share(text, where=where)
    if share >= 1:
        raise ConfigError(f"{text!r} always holds: nothing has more of a whole; give the share to stay under", where)
    if not share:
        raise ConfigError(f"{text!r} never holds: what is called has a share; for absence say not_called", where)
    return share


def parse_growth(text: object, *, where: str = "") -> float:
    """Read how much more something may become, such as a tolerance or a skew: at most 100 %, its double.

    Raises:
        ConfigError: not a percentage, or so large that it was meant otherwise.

    """
    share = parse_share(text, where=where)
    if share > 1:
        raise ConfigError(f"{text!r} lets more than twice as much pass; the most is 100 %", where)
    return share


def parse_size(text: object, *, where: str = "") -> int:
    """Read ``"20 GB"`` as 20,000,000,000 bytes and ``"20 GiB"`` as 21,474,836,480 (B, KB, MB, GB, TB, KiB, ...).

    Raises:
        ConfigError: no unit, or anything else around the number.

    """
    match = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        hint = f'; a bare number has no unit, write "{text} GB"' if str(text).strip().isdecimal() else ""
        raise ConfigError(f'{text!r} is not a size like "20 GB" or "512 MiB"{hint}', where)
    return int(Decimal(match["number"]) * _BYTES_PER[match["unit"]])


def format_duration(ns: float) -> str:
    """Write nanoseconds for people: four significant digits, the unit that keeps the number under 1,000."""
    magnitude = abs(ns)
    for unit, size, limit in (("ns", 1, 1e3), ("us", 1e3, 1e6), ("ms", 1e6, 1e9), ("s", 1e9, 6e10)):
        if magnitude < limit:
            value = ns / size
            return f"{value:.0f} {unit}" if unit == "ns" else f"{value:.{_decimals(value)}f} {unit}"
    return format_seconds(ns / 1e9)


def _decimals(value: float) -> int:
    magnitude = abs(value)
    return 3 if magnitude < 10 else 2 if magnitude < 100 else 1


def format_bytes(size: float) -> str:
    """Write a size for people: ``312 B``, ``1.5 MiB``, ``283.2 GiB``."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def format_seconds(seconds: float) -> str:
    """Write a wall time for people: ``8.4 s``, ``3 min 20 s``, ``45 min``, ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    large, small, size, word = (whole, 60, "min", "s") if whole < 3600 else (whole // 60, 60, "h", "min")
    rest = f" {large % small:02d} {word}" if large % small else ""
    return f"{large // small} {size}{rest}"
