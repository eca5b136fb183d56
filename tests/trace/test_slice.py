"""A slice is a trace again: the kept steps are whole, their events are the source's own text, nothing else is there."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_atomtrace import load_trace
from pytest_atomtrace.errors import MalformedTraceError, TraceFileError, TruncatedTraceError
from pytest_atomtrace.trace.eventtext import EventText
from pytest_atomtrace.trace.load import load_rank
from pytest_atomtrace.trace.slice import NOTE_KEY, slice_text, window_of
from tests.trace.builder import Kineto

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_atomtrace.trace.data import RankData

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data" / "mi300x"
BASE_US = 6_869_181_217_000.0


def cut(path: Path, steps: list[int], tmp_path: Path, *, around: int = 2) -> tuple[RankData, bytes]:
    """The slice loaded by our own reader, and its text."""
    window = window_of(load_rank(path), steps, around=around)
    text = b"".join(slice_text(path, window, note={"steps": list(window.steps)}))
    place = tmp_path / "slice" / "rank_0" / "s.pt.trace.json.gz"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(gzip.compress(text, 1))
    trace = load_trace(place.parent.parent)
    assert not [finding for finding in trace.health if finding.fatal]
    return trace.data.ranks["rank_0"], text


def kernels(rank: RankData, number: int) -> list[tuple[str, int, int, int]]:
    rows = rank.steps[number].rows.tolist()
    return [
        (rank.names[rank.name_id[r]], int(rank.start_ns[r]), int(rank.dur_ns[r]), int(rank.stream[r])) for r in rows
    ]


def same_steps(whole: RankData, part: RankData, numbers: list[int]) -> None:
    """The slice's steps are the source's, kernel by kernel and in every figure."""
    assert [step.label.text for step in part.steps] == [whole.steps[n].label.text for n in numbers]
    for place, number in enumerate(numbers):
        assert kernels(part, place) == kernels(whole, number)
        a, b = part.steps[place], whole.steps[number]
        assert (a.gpu_busy_ns, a.n_graph_launches, a.cpu_start_ns) == (
            b.gpu_busy_ns,
            b.n_graph_launches,
            b.cpu_start_ns,
        )


def mixed() -> Kineto:
    """Eager prefills, graph decodes with eager tails and copies between the labels; GPU work lags by 20 ms."""
    trace = Kineto()
    trace.meta |= {"displayTimeUnit": "ms", "baseTimeNanoseconds": 1_759_300_074_000_000_000}
    for number in range(2):
        trace.label(f"prefill[bs=1 tok={64 + number} ctx=64]", 100.0 + 400 * number)
        trace.op("aiter::moe_forward", 110.0 + 400 * number)
        for call in range(5):
            trace.eager(f"eager_{call}", 120.0 + 400 * number + call * 10)
    for number in range(30):
        ts = 1000.0 + number * 400
        trace.decode(ts, kernels=4)
        trace.eager("logits", ts + 200)
        trace.eager("sample", ts + 350)
    return trace


def test_kept_steps_are_the_sources_own(tmp_path: Path) -> None:
    path = mixed().write(tmp_path / "rank_0")
    whole = load_rank(path)
    part, text = cut(path, [12], tmp_path)
    same_steps(whole, part, [10, 11, 12, 13, 14])
    document = json.loads(text)
    assert (document["displayTimeUnit"], document["baseTimeNanoseconds"]) == ("ms", 1_759_300_074_000_000_000)
    assert document[NOTE_KEY] == {"steps": [10, 11, 12, 13, 14]}
    # What is sampled after the last label, before the next, belongs to the last step's iteration.
    assert sum(event["name"] == "sample" and event["cat"] == "kernel" for event in document["traceEvents"]) >= 5


@pytest.mark.parametrize(
    ("asked", "around", "kept"),
    [
        ([0], 2, [0, 1, 2]),
        ([31], 2, [29, 30, 31]),
        ([5], 0, [5]),
        ([6, 25], 1, [5, 6, 7, 24, 25, 26]),
        ([6, 8], 1, [5, 6, 7, 8, 9]),
    ],
)
def test_neighbours_end_where_the_trace_does_and_steps_apart_make_two_windows(
    tmp_path: Path, asked: list[int], around: int, kept: list[int]
) -> None:
    path = mixed().write(tmp_path / "rank_0")
    part, _ = cut(path, asked, tmp_path, around=around)
    same_steps(load_rank(path), part, kept)


def test_a_step_that_is_not_there_is_refused(tmp_path: Path) -> None:
    rank = load_rank(mixed().write(tmp_path / "rank_0"))
    with pytest.raises(ValueError, match="no step 32: rank_0 has steps 0 to 31"):
        window_of(rank, [32])


def test_names_arrows_marks_and_stacks_of_the_window_are_kept_and_no_others(tmp_path: Path) -> None:
    trace = Kineto().decodes(30)
    more: list[dict[str, Any]] = [{"ph": "M", "name": "process_name", "pid": 2, "tid": 0, "args": {"name": "python"}}]
    for event in [one for one in trace.events if one["name"] == "hipGraphLaunch"]:
        link = event["args"]["correlation"]
        more.append({"ph": "s", "id": link, "pid": 500, "tid": 500, "ts": event["ts"], "cat": "ac2g", "name": "ac2g"})
        first = next(k for k in trace.events if k["cat"] == "kernel" and k["args"]["correlation"] == link)
        more.append(
            {"ph": "f", "id": link, "pid": 2, "tid": 0, "ts": first["ts"], "cat": "ac2g", "name": "ac2g", "bp": "e"}
        )
    more.append(
        {"ph": "X", "cat": "Trace", "name": "PyTorch Profiler (0)", "pid": "Spans", "tid": 0, "ts": 0, "dur": 1e6}
    )
    more.append({"ph": "X", "cat": "python_function", "name": "serve", "pid": 500, "tid": 500, "ts": 0, "dur": 9e5})
    more.append({"ph": "i", "name": "inside", "s": "g", "pid": 500, "tid": 500, "ts": 1000.0 + 10 * 400 + 5})
    more.append({"ph": "i", "name": "outside", "s": "g", "pid": 500, "tid": 500, "ts": 100.0})
    trace.events += more
    _, text = cut(trace.write(tmp_path / "rank_0"), [10], tmp_path)
    events = json.loads(text)["traceEvents"]
    launches = {e["args"]["correlation"] for e in events if e["name"] == "hipGraphLaunch"}
    assert len(launches) == 5
    arrows = [(e["ph"], e["id"]) for e in events if e["ph"] in "sf"]
    assert sorted(arrows) == sorted((ph, link) for link in launches for ph in "sf")
    names = [e["name"] for e in events]
    assert names.count("process_name") == names.count("serve") == names.count("inside") == 1
    # The profiler's own span would make a viewer open the whole recording.
    assert "outside" not in names
    assert "PyTorch Profiler (0)" not in names


def layouts(document: dict[str, Any]) -> Iterator[bytes]:
    events = document.pop("traceEvents")
    head = {"schemaVersion": 1, "metadata": {"traceEvents": "no array", "x": ["}", "{"]}}
    yield json.dumps({**head, "traceEvents": events, **document}).encode()
    yield json.dumps({"traceEvents": events, **document}, indent=2).encode()
    yield b"\xef\xbb\xbf" + json.dumps({**document, "traceEvents": events}, separators=(",", ":")).encode()
    yield json.dumps(events).encode()
    yield json.dumps({**document, "traceEvents": events}, indent="\t").replace("},", "}\n , ").encode()


@pytest.mark.parametrize("number", range(5))
def test_any_layout_of_the_source_gives_a_valid_slice(tmp_path: Path, number: int) -> None:
    path = tmp_path / "rank_0" / "t.pt.trace.json"
    path.parent.mkdir()
    path.write_bytes(list(layouts(mixed().document()))[number])
    part, text = cut(path, [15], tmp_path)
    same_steps(load_rank(path), part, [13, 14, 15, 16, 17])
    assert json.loads(text)["displayTimeUnit"] == "ms"


def test_an_event_is_copied_as_it_was_written(tmp_path: Path) -> None:
    odd = b'{"ph" : "X", "cat":"cpu_op","name":"odd \xff }, { name","pid":500, "tid":500,'
    odd += b'"ts":1.005e3,"dur":2.50, "args":{"a":NaN}}'
    source = Kineto().decodes(20).text().encode()
    path = tmp_path / "rank_0" / "t.pt.trace.json"
    path.parent.mkdir()
    path.write_bytes(source.replace(b'"traceEvents": [', b'"traceEvents": [' + odd + b", ", 1))
    part, text = cut(path, [0], tmp_path)
    assert odd in text
    same_steps(load_rank(path), part, [0, 1, 2])


def test_times_beyond_the_precision_of_floats_are_compared_exactly(tmp_path: Path) -> None:
    trace = mixed()
    text = trace.text()
    # Microseconds since 1970, as a profiler without a base time writes them.
    for event in trace.events:
        event["ts"] = f"@17{event['ts'] + 5e13:.3f}@"
    text = trace.text().replace('"@', "").replace('@"', "")
    path = tmp_path / "rank_0" / "t.pt.trace.json"
    path.parent.mkdir()
    path.write_text(text)
    part, _ = cut(path, [12], tmp_path)
    same_steps(load_rank(path), part, [10, 11, 12, 13, 14])


@settings(max_examples=60, deadline=None)
@given(piece=st.integers(1, 700), indent=st.sampled_from([None, 0, 2]), data=st.data())
def test_pieces_of_any_size_give_the_same_events(
    tmp_path_factory: pytest.TempPathFactory, piece: int, indent: int | None, data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.text(st.sampled_from('ab{}[],:"\\ \n'), max_size=12), min_size=1, max_size=12))
    events = [{"name": name, "args": {"inner": [{"x": name}, {}]}} for name in names]
    path = tmp_path_factory.mktemp("pieces") / "t.json"
    path.write_text(json.dumps({"a": [1], "traceEvents": events, "z": {"traceEvents": []}}, indent=indent))
    source = EventText(path, piece_bytes=piece)
    assert [json.loads(text) for block in source.blocks() for text in block] == events
    assert json.loads(source.head + b"]" + source.tail) == {"a": [1], "traceEvents": [], "z": {"traceEvents": []}}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"traceEvents": [{"ph": "M"}, {"ph":', TruncatedTraceError),
        ('{"traceEvents": [{"ph": "M"}], "traceName": "t', TruncatedTraceError),
        ('{"traceEvents": [{"ph": "M"} {"ph": "M"}]}', MalformedTraceError),
        ('{"traceEvents": [{"ph": "M"}, {"ph": M}]}', MalformedTraceError),
        ('{"traceEvents": [{"ph": "M"}]} more', MalformedTraceError),
        ('{"events": []}', MalformedTraceError),
        ("words", MalformedTraceError),
        ("", TraceFileError),
    ],
)
def test_a_damaged_source_is_an_error_that_names_the_file(
    tmp_path: Path, text: str, error: type[TraceFileError]
) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(error, match=r"t\.json"):
        list(EventText(path).blocks())


def test_memory_does_not_grow_with_the_trace(tmp_path: Path) -> None:
    path = tmp_path / "t.json.gz"
    event = (
        '{{"ph": "X", "cat": "kernel", "name": "k", "pid": 2, "tid": 0, "ts": {}, "dur": 1.5, "args": {{"stream": 0}}}}'
    )
    with gzip.open(path, "wt", 1) as stream:
        stream.write('{"traceEvents": [')
        for block in range(400):
            lines = ",\n".join(event.format(block * 4000 + n) for n in range(2000))
            stream.write(("," if block else "") + lines)
        stream.write("]}")
    program = """
import resource, sys
from pathlib import Path
from pytest_atomtrace.trace.slice import Window, slice_text
window = Window("rank_0", (0,), ((10_000_000, 20_000_000),), ((10_000_000, 20_000_000),), frozenset())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
size = sum(map(len, slice_text(Path(sys.argv[1]), window, note={})))
print(size, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    size, grown_mb = map(int, done.stdout.split())
    # 85 MB of text, of which a hundredth is kept.
    assert 300_000 < size < 2_000_000
    assert grown_mb < 30


@pytest.mark.parametrize(
    "name", ["sglang_qwen3-8b_decode_graph", "sglang_qwen3-8b_prefill_eager", "vllm_gpt-oss_decode_graph"]
)
def test_a_step_of_a_real_trace_survives_the_cutting(tmp_path: Path, name: str) -> None:
    if not SHARED_DATA.is_dir():
        pytest.skip("the real traces (../shared/data) are not here")
    path = SHARED_DATA / f"{name}.json.gz"
    whole = load_rank(path)
    part, _ = cut(path, [0], tmp_path)
    same_steps(whole, part, [0])
    assert whole.steps[0].n_kernels > 400
