"""The grammar of `atomtrace export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["ABOUT", "add"]

ABOUT = """\
Runs and captures as Parquet tables for DuckDB, Spark, polars or pandas: runs,
captures, steps, kernels, verdicts, each with one file a run, so that exports
of many runs lie side by side and a run exported again replaces its own files.
Needs pyarrow (the extra `parquet`). Exit code 1 if something could not be
read; the rest is written all the same.

examples:
  atomtrace export --parquet out .atomtrace
  atomtrace export --parquet out .atomtrace/latest --raw
  duckdb -c "SELECT run, median(gpu_busy_ns) FROM 'out/steps/*.parquet'
             WHERE kind = 'decode' AND steady GROUP BY ALL"
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "paths", metavar="DIR", type=Path, nargs="+", help="an output directory, runs, captures, or plain traces"
    )
    parser.add_argument("--parquet", metavar="OUT", type=Path, required=True, help="directory of the tables")
    parser.add_argument(
        "--raw", action="store_true", help="also a table `activities` with one row a kernel launch or copy"
    )
