"""The grammar of `atomtrace open`."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["ABOUT", "add"]

ABOUT = """\
Serve one rank's trace on a loopback port and print the link that opens it in
Perfetto (https://ui.perfetto.dev, which reads it in your browser and sends it
nowhere). With --step it is a slice: that step, two before and two after, with
the view set to the step. TARGET is a case's name or a part of it (looked up in
the latest run below --output), a directory or a file. The server ends once
the trace was fetched. Exit code 1 if nobody fetched it.

On another machine: ssh -L 9001:127.0.0.1:9001 HOST, and open the link here.

examples:
  atomtrace open DeepSeek-V4-Pro --rank rank_3 --step 41
  atomtrace open .atomtrace/latest/captures/gpt-oss-120b-tp1-isl64-osl64-conc4/1
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("target", metavar="TARGET", help="a case's name, a directory with a trace, or a trace file")
    parser.add_argument("--rank", metavar="RANK", help="this rank (default: the first that has the step)")
    parser.add_argument("--step", metavar="N", type=_number, help="this step, as failures and `atomtrace steps` count")
    parser.add_argument("--whole", action="store_true", help="with --step: the whole trace, not a slice of it")
    parser.add_argument(
        "--port", metavar="P", type=_port, default=9001, help="loopback port (default 9001: Perfetto allows no other)"
    )
    parser.add_argument(
        "--timeout", metavar="TIME", type=_seconds, default=600.0, help='longest wait, such as "10 min" (the default)'
    )
    parser.add_argument("--browser", action="store_true", help="open the link in a browser here")
    parser.add_argument(
        "--output", metavar="DIR", type=Path, default=Path(".atomtrace"), help="where runs are kept (.atomtrace)"
    )


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of a step")
    return int(text)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 <= int(text) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)


def _seconds(text: str) -> float:
    from pytest_atomtrace.errors import ConfigError
    from pytest_atomtrace.units import parse_duration_ns

    try:
        return parse_duration_ns(text) / 1e9
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
