"""The tables of an export: names, types and meanings, from which files, documentation and checks are made.

Types are those that every reader of Parquet has: whole numbers of 64 bits, text, truth, instants to the
microsecond, lists of text. Nothing is unsigned and no instant is in nanoseconds, which Spark does not read; none has
a time zone (DuckDB wants a package for these in Python), all are UTC. Times are
whole nanoseconds, their unit is in the name. No column has a name that SQL reserves (case, check, window).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ACTIVITIES", "SCHEMA", "TABLES", "Column", "Table", "schema_markdown"]

# Raise the number when a column goes, or changes its type or meaning; a new column needs no other number.
SCHEMA = "atomtrace-parquet/1"


@dataclass(frozen=True)
class Column:
    """`kind` is ``text``, ``word`` (text of few values, a dictionary), ``int``, ``float``, ``bool``, ``instant`` or
    ``words`` (a list of text). `about` says what it is, and when it is null.
    """

    name: str
    kind: str
    about: str


@dataclass(frozen=True)
class Table:
    """`row` says what one row is."""

    name: str
    row: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(column.name for column in self.columns)


_RUN = Column(
    "run", "word", "run id, which begins with the local time of its start; of plain traces a directory's name"
)
_CASE = Column("slug", "word", "slug of the case; of plain traces the directory's name")
_CAPTURE = (
    _RUN,
    _CASE,
    Column("side", "word", "side of a comparison (`atomtrace ab`), else empty"),
    Column("launch_no", "int", "launch of the server, from 1; baselines and confirmations take more than one"),
    Column("window_no", "int", "profiled window on that launch, from 1"),
)
_RANK = Column("rank", "word", "rank, as its directory is named: `rank_0`, `dp0_tp1`")
_LAYER = Column("layer", "word", "`kernel`, or `memory` for copies and fills")
_NAME = Column("name", "word", "name as the trace has it")

_SOFTWARE = (
    Column("rocm_version", "word", "ROCm release below /opt/rocm"),
    Column("driver_version", "word", "amdgpu driver"),
    Column("profiler", "word", "profiler library that the ranks had loaded, with its version"),
    Column("torch_version", "word", "torch"),
    Column("triton_version", "word", "triton"),
    Column("atom_version", "word", "ATOM"),
    Column("atom_commit", "word", "commit of ATOM, where it is a checkout or was installed from git"),
    Column("atom_edits", "word", "digest of local edits of the ATOM checkout, `clean` without any"),
    Column("aiter_version", "word", "AITER"),
    Column("aiter_commit", "word", "commit of AITER, likewise"),
    Column("aiter_edits", "word", "digest of local edits of the AITER checkout, `clean` without any"),
)
_MACHINE = (
    Column("gpu", "word", "GPU, by the trace's own device list"),
    Column("gfx", "word", "its architecture: `gfx942`, `gfx950`"),
    Column("hardware_key", "word", "digest of what decides whether figures may be compared; null for simulated ones"),
)
_ORIGIN = (
    Column("taken_utc", "instant", "when the window was opened, in UTC; null for plain traces"),
    Column("engine", "word", "`atom`, `attach` or `sim`; `file` for plain traces"),
    Column("simulated", "bool", "true for the built-in simulator: times are made up; null for plain traces"),
)

RUNS = Table(
    "runs",
    "a run; a fact in which its captures differ is null",
    (
        _RUN,
        *(Column(c.name, c.kind, c.about.replace("the window was", "the first window was")) for c in _ORIGIN),
        Column("host", "word", "machine"),
        *_MACHINE,
        *_SOFTWARE,
        Column("plugin_version", "word", "pytest-atomtrace that took the captures"),
        Column("environment_id", "word", "digest of all stable facts about machine and software: equal means equal"),
        Column("environment", "text", "these facts as JSON, null where captures differ"),
        Column("captures", "int", "captures exported, all launches and windows counted"),
        Column("checks", "int", "checks in its report, null without a report"),
        Column("failed", "int", "checks that failed or are regressions, null without a report"),
        Column("directory", "text", "where it was exported from"),
    ),
)

CAPTURES = Table(
    "captures",
    "a capture: one profiled window of one case, with the workload's own figures",
    (
        *_CAPTURE,
        *_ORIGIN,
        Column("model", "word", "model, as the case names it"),
        *(
            Column(name, "int", about)
            for name, about in (
                ("tp", "tensor parallel size"),
                ("dp", "data parallel size"),
                ("pp", "pipeline stages"),
                ("isl", "prompt tokens"),
                ("osl", "output tokens asked for, null for the default"),
                ("conc", "requests in flight"),
            )
        ),
        Column("ranks", "int", "ranks exported; 0 where the traces were not kept"),
        Column("missing_ranks", "words", "ranks that the server had and that are not here"),
        Column("health", "words", "findings that forbid verdicts (`H05`), by the run's report; null where it has none"),
        Column("test", "text", "test that took it"),
        Column("capture_s", "float", "seconds that taking it cost, the wait for the GPUs left out"),
        Column("completed", "int", "requests that completed in the window"),
        Column("failed", "int", "requests that failed"),
        Column("input_tokens", "int", "prompt tokens of the window"),
        Column("output_tokens", "int", "output tokens of the window"),
        Column("output_tokens_per_s", "float", "throughput under the profiler"),
        *(
            Column(f"{name}_{quantile}_ns", "int", f"{words}, {quantile}, seen by the client under the profiler")
            for name, words in (("ttft", "time to first token"), ("tpot", "time per output token"))
            for quantile in ("p50", "p99")
        ),
        Column("unprofiled_tpot_p50_ns", "int", "time per output token without the profiler (`--atom-bench=on`)"),
        Column("accepted_length", "float", "tokens gained per decode step and sequence, null where not known"),
        *_MACHINE,
        *_SOFTWARE,
        Column("environment_id", "word", "as in `runs`"),
        Column("directory", "text", "where it was exported from"),
    ),
)

STEPS = Table(
    "steps",
    "a step on a rank: one labelled forward pass",
    (
        *_CAPTURE,
        _RANK,
        Column("step", "int", "number of the step on its rank, from 0, all kinds counted"),
        Column("kind", "word", "`prefill`, `decode`, `draft`, `eager_decode`, ..."),
        Column("label", "word", "label as the trace has it"),
        Column("bs", "int", "real batch size"),
        Column("graph_bs", "int", "batch size that the graph was captured for"),
        Column("tok", "int", "scheduled tokens, null where the label has none"),
        Column("steady", "bool", "one of the steady steps, which budgets and baselines look at, by default settings"),
        Column("edge", "bool", "first or last step of its rank, which the window may cut"),
        Column("start_ns", "int", "start of the label on the host, from the trace's zero"),
        Column("base_unix_ns", "int", "the trace's zero since 1970, null where the trace does not say"),
        Column("host_ns", "int", "length of the label on the host; under graph replay the time to launch"),
        Column("gpu_start_ns", "int", "start of its first kernel, from the trace's zero; null without kernels"),
        Column("gpu_end_ns", "int", "end of its last kernel; null without kernels"),
        Column("gpu_busy_ns", "int", "union of its kernels over streams: what budgets and baselines use"),
        Column("gpu_span_ns", "int", "first kernel on the busiest stream to the last kernel's end"),
        Column("kernel_sum_ns", "int", "sum of its kernels' durations, overlaps counted twice"),
        Column("iteration_ns", "int", "GPU time of all launched until the next step; null at the end of a row"),
        Column("period_ns", "int", "start to start of the labels, the profiler's cost included; null likewise"),
        Column("n_kernels", "int", "kernels"),
        Column("n_graph_launches", "int", "graph launches"),
        Column("launch_bound", "bool", "the span exceeds the busy time by over 10 %: it waits for launches"),
        Column("overlap_ns", "int", "what clipping overlaps on one stream took away"),
        Column("source", "word", "`launch`, or `annotation` where the trace has no launch records"),
        Column("decode_index", "int", "of drafts: the step that they belong to, else null"),
        Column("draft_index", "int", "of drafts: the place in the chain, else null"),
    ),
)

KERNELS = Table(
    "kernels",
    "a kernel name (or a copy's) in one phase of one rank",
    (
        *_CAPTURE,
        _RANK,
        Column("phase", "word", "kind of step, `sample` between steps, `unattributed` in flight at the start, `other`"),
        _NAME,
        Column("base_name", "word", "namespace and function, without template arguments and parameters"),
        _LAYER,
        Column("family", "word", "`attention`, `moe_gemm`, `gemm`, `allreduce`, ...; `copy` for copies"),
        Column("calls", "int", "calls in the whole phase"),
        Column("total_ns", "int", "their durations, overlaps counted twice"),
        Column("steps", "int", "steps that the next columns rest on, null where the phase has none"),
        Column("steady", "bool", "whether these are steady steps; else they are all whole steps of the kind"),
        Column("calls_per_step", "float", "calls per step, mean"),
        Column("calls_per_step_min", "int", "fewest calls in one of the steps"),
        Column("calls_per_step_max", "int", "most calls in one of the steps"),
        Column("ns_per_step", "float", "duration per step, mean of the sums"),
        Column("exposed_ns_per_step", "float", "the part that the step waits for; over all kernels the GPU busy time"),
    ),
)

VERDICTS = Table(
    "verdicts",
    "a check, or a test that ended without one; from the run's report",
    (
        _RUN,
        _CASE,
        Column("test", "text", "node id of the test"),
        Column("file", "word", "spec file that it stands in"),
        Column("line", "int", "line of the check there"),
        Column("asked", "text", "what was asked; empty where the test ended before it asked"),
        Column("outcome", "word", "`pass`, `fail`, `regression`, `inconclusive`, `wrong_check`, `infra` or `skip`"),
        Column("expected", "bool", "the test was to fail and did (xfail); not counted in `runs`"),
        Column("sentence", "text", "what was found"),
        Column("notes", "words", "what weakens the verdict"),
        Column("facts", "text", "its numbers as JSON"),
    ),
)

ACTIVITIES = Table(
    "activities",
    "a kernel launch or copy on a rank (with `--raw`)",
    (
        *_CAPTURE,
        _RANK,
        Column("phase", "word", "as in `kernels`"),
        Column("step", "int", "step that owns it, else null"),
        _NAME,
        _LAYER,
        Column("stream", "int", "stream"),
        Column("start_ns", "int", "start on the GPU, from the trace's zero"),
        Column("dur_ns", "int", "duration"),
        Column("launch_ns", "int", "start of the launching call on the host, null without a launch record"),
        Column("correlation", "int", "links it to its launch; all kernels of a graph launch share one"),
        Column("graph", "bool", "started by a graph launch"),
    ),
)

TABLES = (RUNS, CAPTURES, STEPS, KERNELS, VERDICTS)

_TYPES = {
    "text": "text",
    "word": "text",
    "int": "int64",
    "float": "double",
    "bool": "boolean",
    "instant": "timestamp (us)",
    "words": "list of text",
}


def schema_markdown() -> str:
    """The tables as Markdown, for the page about them."""
    parts = []
    for table in (*TABLES, ACTIVITIES):
        rows = [f"| `{one.name}` | {_TYPES[one.kind]} | {one.about} |" for one in table.columns]
        head = ["| column | type | meaning |", "|---|---|---|"]
        parts.append("\n".join([f"### {table.name}", "", f"One row: {table.row}.", "", *head, *rows]))
    return "\n\n".join(parts) + "\n"
