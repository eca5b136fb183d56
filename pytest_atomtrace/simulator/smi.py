"""Stand-ins for ``rocm-smi`` and ``amd-smi``: ``python -m pytest_atomtrace.simulator.smi rocm-smi --showpids --json``.

They answer from the pretended machine of ATOMTRACE_SIM_VRAM_TREE: the numbers are those that the simulator's workers
and the driver beside them made, leaks included. ``python -m pytest_atomtrace.simulator --write-tools DIR`` writes both
as commands for a PATH.

The shapes are those of rocm_smi_lib's ``rocm_smi.py`` (strings throughout, a process as one comma list under "system")
and of the amd-smi command line tool: a bare list up to ROCm 6, ``gpu_data`` around it from 7 on
(ATOMTRACE_SIM_SMI=6 or 7); whole MB of 2**20 bytes; "N/A" for what a card does not tell.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.simulator.controls import ControlError, machine_controls
from pytest_atomtrace.simulator.machine import RESIDENCIES, read_cards, read_holders

if TYPE_CHECKING:
    from pytest_atomtrace.simulator.machine import Card, Holder

__all__ = ["TOOLS", "main", "write_tools"]

_MIB = 1 << 20


def write_tools(folder: Path) -> list[Path]:
    """Write both commands into `folder`; they run with this interpreter and ask the tree of their own environment."""
    folder.mkdir(parents=True, exist_ok=True)
    package = Path(__file__).resolve().parents[2]
    written = []
    for name in TOOLS:
        path = folder / name
        python = shlex.join([sys.executable, "-m", "pytest_atomtrace.simulator.smi", name])
        path.write_text(
            "#!/bin/sh\n# A stand-in of pytest-atomtrace's simulator: its numbers are made up.\n"
            f'PYTHONPATH={shlex.quote(str(package))}"${{PYTHONPATH:+:$PYTHONPATH}}" exec {python} "$@"\n'
        )
        path.chmod(0o755)
        written.append(path)
    return written


def _rocm_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rocm-smi", description="Radeon Open Compute Platform SMI (simulated)")
    parser.add_argument("-d", "--device", type=int, nargs="+")
    parser.add_argument("--showmeminfo", nargs="+", metavar="TYPE", choices=("vram", "vis_vram", "gtt", "all"))
    parser.add_argument("--showbus", action="store_true")
    parser.add_argument("--showpids", nargs="?", const="summary")
    parser.add_argument("--json", action="store_true")
    return parser


def _rocm_smi(arguments: list[str], tree: Path, release: int) -> str:
    del release
    args = _rocm_parser().parse_args(arguments)
    cards = read_cards(tree)
    if args.device is not None:
        unknown = [index for index in args.device if index >= len(cards)]
        if unknown:
            raise SystemExit(f"ERROR: No such device card{unknown[0]}")
        cards = [card for card in cards if card.index in args.device]
    document: dict[str, dict[str, str]] = {}
    kinds = {"vram", "vis_vram", "gtt"} if "all" in (args.showmeminfo or []) else set(args.showmeminfo or [])
    for card in cards:
        row: dict[str, str] = {"PCI Bus": card.pci.upper()} if args.showbus else {}
        for kind, title in (("vram", "VRAM"), ("vis_vram", "VIS_VRAM"), ("gtt", "GTT")):
            if kind in kinds:
                total, used = (card.total, card.used) if kind != "gtt" else (card.total, 0)
                row |= {f"{title} Total Memory (B)": str(total), f"{title} Total Used Memory (B)": str(used)}
        if row:
            document[f"card{card.index}"] = row
    if args.showpids is not None:
        holders = read_holders(tree, read_cards(tree))
        document["system"] = {f"PID{holder.pid}": _rocm_process(holder) for holder in holders}
    return json.dumps(document) if args.json else _as_table(document)


def _rocm_process(holder: Holder) -> str:
    """Name, number of cards, bytes of VRAM, SDMA, CU occupancy."""
    return f"{holder.name}, {len(holder.vram)}, {sum(holder.vram.values())}, 0, 0"


def _as_table(document: dict[str, dict[str, str]]) -> str:
    head = " ROCm System Management Interface ".center(88, "=")
    lines = [f"GPU[{place.removeprefix('card')}]\t\t: {key}: {value}" if place != "system" else f"{key}: {value}"
             for place, row in document.items() for key, value in row.items()]  # fmt: skip
    return "\n".join(["", head, *lines, " End of ROCm SMI Log ".center(88, "=")])


def _amd_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="amd-smi", description="AMD System Management Interface (simulated)")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("version", "list", "metric", "process"):
        command = commands.add_parser(name)
        command.add_argument("--json", action="store_true")
        if name != "version":
            command.add_argument("-g", "--gpu", nargs="+")
        if name == "metric":
            command.add_argument("-m", "--mem-usage", action="store_true")
            command.add_argument("-v", "--throttle", action="store_true")
    return parser


def _amd_smi(arguments: list[str], tree: Path, release: int) -> str:
    args = _amd_parser().parse_args(arguments)
    if args.command == "version":
        version = {"tool": "AMDSMI Tool", "version": "26.0.0+sim", "rocm_version": f"{release}.0.2"}
        return json.dumps([version]) if args.json else " | ".join(f"{key}: {value}" for key, value in version.items())
    cards = _chosen(read_cards(tree), args.gpu)
    if args.command == "list":
        rows = [_listed(card) for card in cards]
    elif args.command == "process":
        holders = read_holders(tree, read_cards(tree))
        rows = [{"gpu": card.index, "process_list": _processes(card, holders)} for card in cards]
    else:
        everything = not (args.mem_usage or args.throttle)
        rows = []
        for card in cards:
            row: dict[str, object] = {"gpu": card.index}
            if everything or args.mem_usage:
                row["mem_usage"] = _memory(card)
            if everything or args.throttle:
                row["throttle"] = {name: card.throttle.get(name, "N/A") for name in RESIDENCIES}
            rows.append(row)
    if not args.json:
        return "\n".join(_as_yaml(rows))
    # `list` stays a list in every release.
    return json.dumps({"gpu_data": rows} if release >= 7 and args.command == "metric" else rows, indent=4)


def _chosen(cards: list[Card], words: list[str] | None) -> list[Card]:
    if words is None or words == ["all"]:
        return cards
    found = [card for card in cards if str(card.index) in words or card.pci in [word.lower() for word in words]]
    if len(found) != len(words):
        raise SystemExit(f"amd-smi: error: Can not find a device: {' '.join(words)}")
    return found


def _listed(card: Card) -> dict[str, object]:
    return {"gpu": card.index, "bdf": card.pci, "uuid": "N/A", "kfd_id": card.gpu_ids[0], "partition_id": 0}


def _memory(card: Card) -> dict[str, object]:
    def mb(size: int) -> dict[str, object]:
        return {"value": size // _MIB, "unit": "MB"}

    facts: dict[str, object] = {}
    for name in ("vram", "visible_vram", "gtt"):
        used = card.used if name != "gtt" else 0
        facts |= {f"total_{name}": mb(card.total), f"used_{name}": mb(used), f"free_{name}": mb(card.total - used)}
    return facts


def _processes(card: Card, holders: list[Holder]) -> list[dict[str, object]]:
    def size(number: int) -> dict[str, object]:
        return {"value": number, "unit": "B"}

    rows: list[dict[str, object]] = []
    for holder in holders:
        if card.index in holder.vram:
            held = holder.vram[card.index]
            memory = {"gtt_mem": size(0), "cpu_mem": size(0), "vram_mem": size(held)}
            info = {"name": holder.name, "pid": holder.pid, "memory_usage": memory, "mem_usage": size(held)}
            rows.append({"process_info": info})
    return rows or [{"process_info": "No running processes detected"}]


def _as_yaml(rows: list[dict[str, object]], depth: int = 0) -> list[str]:
    lines = []
    for row in rows:
        for key, value in row.items():
            pad = "    " * (depth + (key != "gpu"))
            if isinstance(value, dict) and "unit" in value:
                lines.append(f"{pad}{key.upper()}: {value['value']} {value['unit']}")
            elif isinstance(value, dict):
                lines += [f"{pad}{key.upper()}:", *_as_yaml([value], depth + 1)]
            elif isinstance(value, list):
                lines += [f"{pad}{key.upper()}:", *_as_yaml(value, depth + 1)]
            else:
                lines.append(f"{pad}{key.upper()}: {value}")
    return lines


#: Command -> what answers for it.
TOOLS = {"rocm-smi": _rocm_smi, "amd-smi": _amd_smi}


def main(arguments: list[str]) -> int:
    """Answer as the tool that the first argument names."""
    if not arguments or arguments[0] not in TOOLS:
        os.write(2, f"usage: python -m pytest_atomtrace.simulator.smi {{{','.join(TOOLS)}}} ...\n".encode())
        return 2
    try:
        tree, release = machine_controls()
        text = TOOLS[arguments[0]](arguments[1:], Path(tree), release)
    except (ControlError, OSError, KeyError, ValueError) as error:
        os.write(2, f"{arguments[0]}: error: {error}\n".encode())
        return 1
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
