"""The grammar of `atomtrace history`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["ABOUT", "add"]

ABOUT = """\
One metric of one case over the runs that were kept: a line a run with its
value, the change to the run before and the band of the baseline in force
then, marked where the baseline or the environment changed. Simulated and real
GPUs never share a series. CASE is a slug or the only one with it as a part.

METRIC is one of a baseline (decode.p50, decode.iteration, draft.gpu_busy,
prefill.per_ktok, decode.family.moe_gemm, ...), another quantile (decode.p99),
decode.kernels, decode.per_token, or the client's own (bench.tpot.p50,
bench.ttft.p50, bench.tokens_per_s; bench.unprofiled.tpot.p50, ...).

Exit code 1 if something of the runs could not be read.

examples:
  atomtrace history V4-Pro
  atomtrace history V4-Pro --metric decode.family.moe_gemm --html moe.html
  atomtrace history V4-Pro --runs /srv/atomtrace/runs --json
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("case", metavar="CASE", help="a case's slug, or a part that only one slug has")
    parser.add_argument("--metric", metavar="METRIC", default="decode.p50", help="what to show (default: decode.p50)")
    parser.add_argument(
        "--runs", metavar="DIR", type=Path, default=Path(".atomtrace"), help="where runs are (default: .atomtrace)"
    )
    parser.add_argument("--baselines", metavar="DIR", help="where baselines are (as --atom-baselines)")
    parser.add_argument("--html", metavar="FILE", type=Path, help="also write the series as one page with a chart")
