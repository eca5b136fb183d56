"""The grammar of `atomtrace ab`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["ABOUT", "add"]

ABOUT = """\
Compare two checkouts of ATOM or AITER, or two environments, on one case: both
are built first, then launched in turn (A B, B A, ...) under one lease of the
GPUs. CASE is a model and fields of a case; --a and --b are variables of the
server. Each side has an AITER_JIT_DIR of its own. Exit code 1 if B's decode
step is slower beyond the noise of launches, 2 if one launch a side cannot tell.

examples:
  atomtrace ab --a 'PYTHONPATH=/src/aiter' --b 'PYTHONPATH=/src/aiter-fix' deepseek-ai/DeepSeek-V4-Pro tp=8 conc=64
  atomtrace ab --a '' --b 'AITER_CONFIG_GEMM_A8W8=/tmp/tuned.csv' openai/gpt-oss-120b --launches 5
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("case", metavar="CASE", nargs="+", help="a model, then fields such as tp=8 isl=1024 conc=64")
    parser.add_argument("--a", metavar="ENV", required=True, help="variables of side A: NAME=VALUE ..., as a shell's")
    parser.add_argument("--b", metavar="ENV", required=True, help="variables of side B")
    parser.add_argument("--launches", metavar="N", type=_positive, default=5, help="launches of each side (default 5)")
    parser.add_argument("--windows", metavar="N", type=_positive, default=1, help="windows a launch (default 1)")
    parser.add_argument(
        "--backend", choices=("auto", "atom", "sim"), default="auto", help="where servers come from (default: auto)"
    )
    parser.add_argument(
        "--build", metavar="COMMAND", help="run for each side, in its environment, before the GPUs are leased"
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, default=Path(".atomtrace"), help="where captures go (.atomtrace)"
    )


def _positive(text: str) -> int:
    import argparse

    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive whole number")
    return int(text)
