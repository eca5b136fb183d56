"""GPU memory and throttle counters by amd-smi or rocm-smi, where sysfs does not show them.

Both tools change the shape of their JSON between releases (lists or ``gpu_data``, plain numbers or
``{value, unit}``, "N/A"), so nothing is read by place: a GPU is an object that holds a key which looks right, and
rows are matched by PCI address where one is given, else by their order.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.process import read_output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["SmiError", "smi_throttles", "smi_vram_used", "throttles_in", "vram_used_in"]

_TIMEOUT_S = 15.0
_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]", re.I)
_USED = re.compile(r"used_vram$|vram_used$|vram total used memory", re.I)
# amd-smi's MB are 2**20.
_UNITS = {"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "mib": 1 << 20, "gb": 1 << 30, "gib": 1 << 30}
_THROTTLES = {
    "accumulation_counter": "cycles",
    "prochot_accumulated": "prochot",
    "ppt_accumulated": "power",
    "socket_thermal_accumulated": "socket_thermal",
    "vr_thermal_accumulated": "vr_thermal",
    "hbm_thermal_accumulated": "hbm_thermal",
}
_VRAM_COMMANDS = (
    ("amd-smi", "metric", "--mem-usage", "--json"),
    ("rocm-smi", "--showmeminfo", "vram", "--showbus", "--json"),
)
_LIST = ("amd-smi", "list", "--json")
_THROTTLE_COMMANDS = (("amd-smi", "metric", "--throttle", "--json"),)


class SmiError(OSError):
    """No tool answered; the text says what each one said."""


def smi_vram_used(cards: Sequence[str], *, env: Mapping[str, str]) -> dict[str, int]:
    """Bytes in use by PCI address.

    Raises:
        SmiError: neither amd-smi nor rocm-smi tells.

    """
    return _ask(_VRAM_COMMANDS, cards, env, vram_used_in)


def smi_throttles(cards: Sequence[str], *, env: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Throttle counters (as `Card.throttle_counters`) by PCI address.

    Raises:
        SmiError: amd-smi does not tell.

    """
    return _ask(_THROTTLE_COMMANDS, cards, env, throttles_in)


def _ask(
    commands: Sequence[Sequence[str]],
    cards: Sequence[str],
    env: Mapping[str, str],
    read: Callable[[object, Sequence[str]], dict[str, _Row]],
) -> dict[str, _Row]:
    said = []
    for command in commands:
        try:
            document = _document(command, env)
            found = read(document, cards)
            if command[0] == _LIST[0] and not _has_all(found, cards):
                # Its metrics name no address: on a machine with more cards than ours a second question tells them.
                found = read(_with_addresses(document, _document(_LIST, env)), cards)
        except (OSError, ValueError) as error:
            said.append(f"{command[0]}: {error}")
            continue
        if _has_all(found, cards):
            return {card: found[card] for card in cards}
        said.append(f"{command[0]} tells about {len(found)} of {len(cards)} cards")
    raise SmiError("; ".join(said))


def _has_all(found: Mapping[str, object], cards: Sequence[str]) -> bool:
    return all(card in found for card in cards)


def _document(command: Sequence[str], env: Mapping[str, str]) -> object:
    """What a tool prints as JSON; words before it (low-power states, missing permissions) are left out."""
    text = read_output(command, env=env, timeout_s=_TIMEOUT_S).decode("utf-8", "replace")
    start = re.search(r"^\s*[\[{]", text, re.M)
    return json.loads(text[start.start() :] if start else text)


def _with_addresses(document: object, listing: object) -> object:
    """`document` with the address of each of its GPUs, as ``amd-smi list`` gives them by number."""
    known = {str(row.get("gpu")): address for row in _objects(listing) if (address := _address(row))}
    rows = document.get("gpu_data") if isinstance(document, dict) else document
    if not isinstance(rows, list):
        return document
    return [{"bdf": known.get(str(row.get("gpu")), ""), **row} for row in rows if isinstance(row, dict)]


def _objects(value: object) -> Iterator[dict[str, object]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects(inner)


if TYPE_CHECKING:
    from typing import TypeVar

    _Row = TypeVar("_Row")


def vram_used_in(document: object, cards: Sequence[str]) -> dict[str, int]:
    """Used bytes by PCI address in a tool's JSON, whatever its shape."""

    def used(row: Mapping[str, object]) -> int | None:
        return next(
            (size for key, value in row.items() if _USED.search(key) and (size := _size(value)) is not None), None
        )

    return _by_card(document, cards, used)


def throttles_in(document: object, cards: Sequence[str]) -> dict[str, dict[str, int]]:
    """Throttle counters by PCI address in a tool's JSON, whatever its shape."""

    def counters(row: Mapping[str, object]) -> dict[str, int] | None:
        keys = {key.lower(): value for key, value in row.items()}
        if "accumulation_counter" not in keys:
            return None
        values = {name: _size(keys.get(key)) for key, name in _THROTTLES.items()}
        return {name: value for name, value in values.items() if value is not None} or None

    return _by_card(document, cards, counters)


def _by_card(
    document: object, cards: Sequence[str], read: Callable[[Mapping[str, object]], _Row | None]
) -> dict[str, _Row]:
    rows = list(_rows(document, "", read))
    named = {address: row for address, row in rows if address}
    if named:
        return named
    # Without addresses the tools list all cards in the order of their addresses.
    return dict(zip(sorted(cards), (row for _, row in rows), strict=False)) if len(rows) == len(cards) else {}


def _rows(
    value: object, address: str, read: Callable[[Mapping[str, object]], _Row | None]
) -> Iterator[tuple[str, _Row]]:
    if isinstance(value, list):
        for one in value:
            yield from _rows(one, address, read)
    elif isinstance(value, dict):
        address = _address(value) or address
        row = read(value)
        if row is not None:
            yield address, row
            return
        for one in value.values():
            yield from _rows(one, address, read)


def _address(row: Mapping[str, object]) -> str:
    for value in row.values():
        found = _ADDRESS.fullmatch(value.strip()) if isinstance(value, str) else None
        if found:
            return found[0].lower()
        if isinstance(value, dict) and any("bdf" in str(key).lower() for key in value):
            return _address(value)
    return ""


def _size(value: object) -> int | None:
    if isinstance(value, dict):
        unit = str(value.get("unit", "")).strip().lower()
        number = _size(value.get("value"))
        return None if number is None or unit not in _UNITS else number * _UNITS[unit]
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return int(value) if math.isfinite(value) and value >= 0 else None
    match = re.fullmatch(r"\s*(\d+)\s*([a-z]*)\s*", value, re.I) if isinstance(value, str) else None
    if match is None or match[2].lower() not in _UNITS:
        return None
    return int(match[1]) * _UNITS[match[2].lower()]
