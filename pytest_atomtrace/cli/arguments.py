"""The command line's grammar and its help. Nothing heavy: `--help` must answer at once."""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pytest_atomtrace.cli import ab_arguments, export_arguments, history_arguments, open_arguments, spec_arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["parse"]

_PATH = "a trace file (*.pt.trace.json[.gz]), a directory of rank directories, a saved capture, or a run"
_ABOUT = """\
Look into kineto traces of the ATOM server (and of vLLM and SGLang with its
plug-ins) without pytest and without a GPU. PATH is a trace file, a directory
of rank directories as --torch-profiler-dir leaves it, a saved capture, or the
output directory of a test run.

exit codes: 0 answered, 1 the command found what it looks for (see each),
2 wrong usage or unreadable input
"""


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one line that says where the help is."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Room for the longest command beside its help."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


class _Version(argparse.Action):
    """Looks the version up only when asked: the metadata of a package costs more than all of argparse."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib import metadata

        try:
            number = metadata.version("pytest-atomtrace")
        except metadata.PackageNotFoundError:
            number = "unknown (a source tree that is not installed)"
        # Not through parser.exit, which writes to standard error.
        sys.stdout.write(f"atomtrace {number}\n")
        parser.exit(0)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse; wrong usage exits with 2 and one line, `--help` and `--version` with 0 (SystemExit)."""
    parser, names = _build()
    words = [word for word in argv if not word.startswith("-")]
    if not argv:
        parser.error(f"which command? {', '.join(names)}")
    if words and words[0] not in names:
        close = difflib.get_close_matches(words[0], names, n=1)
        if close:
            parser.error(f"there is no command {words[0]!r}; did you mean {close[0]!r}?")
        parser.error(f"there is no command {words[0]!r}; commands: {', '.join(names)}")
    return parser.parse_args(argv)


def _build() -> tuple[argparse.ArgumentParser, list[str]]:
    parser = _Parser(
        prog="atomtrace",
        description=_ABOUT,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND [OPTION]", parser_class=_Parser, required=True)
    _summary(_command(commands, "summary", "phases, drafts, iterations, ranks, top kernels", _SUMMARY))
    _kernels(_command(commands, "kernels", "which kernels ran, how often and how long", _KERNELS))
    _steps(_command(commands, "steps", "one row a step, with quantiles", _STEPS))
    _diff(_command(commands, "diff", "what grew, shrank, came and went between two traces", _DIFF))
    _health(_command(commands, "health", "whether a trace can be believed, and what for", _HEALTH))
    _layout(_command(commands, "check-layout", "whether every rank left exactly one whole trace", _LAYOUT))
    _layers(_command(commands, "layers", "a decode step by model layer, through capture traces", _LAYERS))
    _traits(_command(commands, "traits", "what the profiler records, several traces side by side", _TRAITS))
    open_arguments.add(_command(commands, "open", "a trace, or a step of it, in Perfetto", open_arguments.ABOUT))
    ab_arguments.add(_command(commands, "ab", "two checkouts or environments, launched in turn", ab_arguments.ABOUT))
    history_arguments.add(_command(commands, "history", "a metric of a case over kept runs", history_arguments.ABOUT))
    export_arguments.add(_command(commands, "export", "runs as Parquet tables", export_arguments.ABOUT))
    _doctor(_command(commands, "doctor", "what this machine offers to a capture, and what is in its way", _DOCTOR))
    spec_arguments.add(commands, _command, _Parser)
    return parser, list(commands.choices)


def _command(commands: argparse._SubParsersAction[_Parser], name: str, what: str, text: str) -> argparse.ArgumentParser:
    about, _, examples = textwrap.dedent(text).strip().partition("\n\n")
    parser = commands.add_parser(
        name,
        help=what,
        description=about,
        epilog=examples,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object; times are integer nanoseconds")
    return parser


def _path(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", type=Path, help=_PATH)


def _rank(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--rank", metavar="RANK", help=what)


def _limit(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument(
        "--limit", metavar="N", type=_count, default=default, help=f"rows shown, 0 for all (default {default})"
    )


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows")
    return int(text)


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive whole number")
    return int(text)


_SUMMARY = """\
Phases, drafts, iterations and ranks with both clocks (the GPU's work, the
host's label), then the families and kernels of the main phase with their
calls per step. Phases and kernels are those of the slowest rank.

examples:
  atomtrace summary /app/trace
  atomtrace summary .atomtrace --json | jq .phases
"""


def _summary(parser: argparse.ArgumentParser) -> None:
    _path(parser)
    _rank(parser, "show this rank's phases and kernels (default: the slowest rank's)")
    _limit(parser, 12)


_KERNELS = """\
Kernels and copies (or CPU ops) by time, with family, calls and share. If
nothing matches, the nearest names are listed and the exit code is 1.

A PATTERN is a plain name (raw, base name, or one of its :: suffixes, never a
substring), a glob with * and ?, re: and a regular expression, or family: and a
family such as moe_gemm.

examples:
  atomtrace kernels /app/trace --during decode
  atomtrace kernels /app/trace --during decode --match 'mfma_moe*' --per-step
  atomtrace kernels /app/trace --layer op --match 're:moe_forward'
"""


def _kernels(parser: argparse.ArgumentParser) -> None:
    _path(parser)
    parser.add_argument(
        "--during", metavar="PHASE", help="only this phase: prefill, decode, draft, sample, iteration, ..."
    )
    parser.add_argument("--match", metavar="PATTERN", help="only names that PATTERN means")
    parser.add_argument("--per-step", action="store_true", help="add the smallest and largest calls in steady steps")
    _rank(parser, "only this rank (default: all)")
    parser.add_argument(
        "--layer", choices=("kernel", "op", "memory"), help="only this layer (default: kernel and memory)"
    )
    _limit(parser, 40)


_STEPS = """\
One row a step (label, kernels, graph launches, GPU busy, GPU span, period,
steady or not), then quantiles over the steady steps. Rows are those of the
slowest rank.

examples:
  atomtrace steps /app/trace --kind decode --steady
  atomtrace steps /app/trace --first
"""


def _steps(parser: argparse.ArgumentParser) -> None:
    _path(parser)
    parser.add_argument("--kind", metavar="KIND", help="only steps of this kind: prefill, decode, draft, ...")
    _rank(parser, "only this rank (default: rows of the slowest, quantiles of all)")
    parser.add_argument(
        "--first", action="store_true", help="show the decode that ATOM's parse_trace.py picks beside the median"
    )
    parser.add_argument("--steady", action="store_true", help="only steady steps")


_DIFF = """\
Kernels and families of B against A, per step: the median over the steady
steps of the slowest rank of each. Exit code 1 if kernels came or went, or
calls per step changed; times alone never decide.

examples:
  atomtrace diff before/ after/
  atomtrace diff before/ after/ --during prefill --rank rank_0 --json
"""


def _diff(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", type=Path, help=f"before: {_PATH}")
    parser.add_argument("b", metavar="B", type=Path, help="after: the same")
    parser.add_argument(
        "--during", metavar="KIND", default="decode", help="compare steps of this kind (default: decode)"
    )
    _rank(parser, "compare this rank, or 'all' for all ranks together (default: the slowest of each side)")
    _limit(parser, 20)


_HEALTH = """\
Every finding about a trace with its code, what it means and what to do, and
which questions the trace may answer. Exit code 1 if a finding is fatal for
any question.

examples:
  atomtrace health /app/trace --tp 8
  atomtrace health rank_0/model_ts_20260101_000000_000.pt.trace.json.gz
"""


def _health(parser: argparse.ArgumentParser) -> None:
    _path(parser)
    _parallel(parser)


def _parallel(parser: argparse.ArgumentParser) -> None:
    what = "tensor parallel size of the server: the rank set must be exactly its own (default: as the manifest says)"
    parser.add_argument("--tp", metavar="N", type=_positive, help=what)
    parser.add_argument("--dp", metavar="N", type=_positive, default=1, help="data parallel size (default 1)")
    parser.add_argument("--pp", metavar="N", type=_positive, default=1, help="pipeline stages (default 1)")
    parser.add_argument(
        "--dp-attention", action="store_true", help="the server ran with --enable-dp-attention (N engines of TP 1)"
    )


_LAYOUT = """\
The state of every rank that the server must have left, and what should not be
there. Files are read to their end (checksums too), not parsed. Graph capture
traces are counted apart. Exit code 1 unless all is as it must be.

examples:
  atomtrace check-layout /app/trace --tp 8
  atomtrace check-layout /app/trace --tp 8 --dp-attention
  atomtrace check-layout .atomtrace
"""


def _layout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="DIR", type=Path, help="what --torch-profiler-dir named, or a saved capture")
    _parallel(parser)
    parser.add_argument("--quick", action="store_true", help="look at both ends of each file only")


_LAYERS = """\
Kernels of one decode step by model layer and module, as ATOM's
tools/parse_trace.py shows them: the first decode by default, or the median
one. Needs the graph capture traces of a --mark-trace server.

examples:
  atomtrace layers /app/trace
  atomtrace layers trace.json.gz --capture-traces capture_traces/ --step median
"""


def _layers(parser: argparse.ArgumentParser) -> None:
    _path(parser)
    parser.add_argument(
        "--capture-traces",
        metavar="PATH",
        type=Path,
        nargs="+",
        help="capture files or their directories (default: those beside the rank's trace)",
    )
    _rank(parser, "this rank (default: the first)")
    parser.add_argument("--step", metavar="N|first|median", default="first", help="which decode step (default: first)")
    parser.add_argument("--kernels", action="store_true", help="also list every kernel in time order, with its op")


_TRAITS = """\
What the profiler records on this stack, each trace a column: External ids on
graph kernels, launch lag, abutting kernels, the in-flight head, annotations
against launches, eager tails of decodes. Used to see whether simulated traces
are like real ones. A directory counts with its first rank unless --rank names
one.

examples:
  atomtrace traits real/rank_0/*.json.gz simulated/
  atomtrace traits --explain
"""


def _traits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", type=Path, nargs="*", help=_PATH)
    _rank(parser, "this rank of directories (default: the first)")
    parser.add_argument("--explain", action="store_true", help="say what each trait is, and read nothing")


_DOCTOR = """\
GPUs with their memory and visible sets, the lock directory with its mount, its
holders and its queue, ATOM, AITER and the profiler libraries. Settings come
from the environment (ATOMTRACE_...) and from the options below. Exit code 1 if
something stands in the way of a capture from the real server.

--dump writes the sysfs facts that a capture reads, serial numbers masked.

examples:
  atomtrace doctor
  atomtrace doctor --root ~/ATOM --dump machine.json
"""


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dump", metavar="FILE", type=Path, help="write the machine's sysfs facts to FILE (JSON)")
    parser.add_argument("--lock-dir", metavar="DIR", help="the lease's directory (as --atom-lock-dir)")
    parser.add_argument("--root", metavar="DIR", help="an ATOM checkout (as --atom-root)")
    parser.add_argument("--python", metavar="FILE", help="the interpreter that runs ATOM (as --atom-python)")
    parser.add_argument("--machine-root", metavar="DIR", help="look at another tree than / (as --atom-machine-root)")
