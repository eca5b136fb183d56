"""Any JSON layout, any cut; every kind of damage has its own located error."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_atomtrace.errors import EmptyTraceError, MalformedTraceError, TraceFileError, TruncatedTraceError
from pytest_atomtrace.trace.rankevents import RankEvents, merge_shares
from pytest_atomtrace.trace.reader import read_share
from tests.trace.bothways import read_rank, read_text
from tests.trace.builder import Kineto

if TYPE_CHECKING:
    from pathlib import Path

AWKWARD = ("}, {", '"', "\\", "a\\\\", "{lambda(int)#1}", "],[", "é", "\n", "],\n  {", '"cat": "kernel"', "")


def _kernel(name: str, ts: float, dur: float = 1.5, **more: Any) -> dict[str, Any]:
    args = {"stream": 3, "correlation": 7, "grid": [1, 1, 1]}
    return {
        "ph": "X",
        "cat": "kernel",
        "name": name,
        "pid": 2,
        "tid": 0,
        "ts": ts,
        "dur": dur,
        "args": args,
        **more,
    }


def _rows(events: RankEvents) -> list[tuple[str, int, int]]:
    names = [events.names[number] for number in events.gpu.name_id.tolist()]
    return list(zip(names, events.gpu.start_ns.tolist(), events.gpu.dur_ns.tolist(), strict=True))


def _chunks(text: bytes, size: int) -> list[bytes]:
    return [text[at : at + size] for at in range(0, len(text), size)]


names = st.one_of(st.sampled_from(AWKWARD), st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
times = st.integers(0, 8_700_000_000_000_000).map(lambda ns: (ns, ns // 1000 + ns % 1000 / 1000))
extras = st.dictionaries(
    st.sampled_from(["grid", "bp", "Input Dims", "note"]),
    st.recursive(
        st.one_of(st.integers(-9, 9), names, st.none(), st.booleans()),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=2),
        max_leaves=6,
    ),
    max_size=2,
)
others = st.sampled_from(
    [
        {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "x"}},
        {"ph": "f", "id": 3, "pid": 2, "tid": 0, "ts": 5.0, "cat": "ac2g", "name": "ac2g", "bp": "e"},
        {"ph": "X", "cat": "python_function", "name": "f", "pid": 1, "tid": 1, "ts": 1.0, "dur": 2.0},
        {"ph": "i", "cat": "strange", "name": "}", "ts": 1},
        {"ph": "X", "cat": "Trace", "ts": 1.0, "dur": 5.0, "pid": "Spans", "tid": "x", "name": "p"},
    ]
)


@given(
    kernels=st.lists(st.tuples(names, times, extras), min_size=1, max_size=8),
    between=st.lists(others, max_size=4),
    indent=st.sampled_from([None, 0, 2]),
    before=extras,
    after=extras,
    size=st.integers(1, 400),
    escape=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_any_layout_and_any_cut_give_the_same_columns(
    kernels: list[tuple[str, tuple[int, float], dict[str, Any]]],
    between: list[dict[str, Any]],
    indent: int | None,
    before: dict[str, Any],
    after: dict[str, Any],
    size: int,
    escape: bool,
) -> None:
    events = []
    for number, (name, (_, ts), extra) in enumerate(kernels):
        event = _kernel(name, ts)
        event["args"].update(extra)
        events += [event, *between[number : number + 1]]
    document = {f"a{k}": v for k, v in before.items()}
    document["traceEvents"] = events
    document.update({f"z{k}": v for k, v in after.items()})
    text = json.dumps(document, indent=indent, ensure_ascii=escape).encode()
    read = read_text(_chunks(text, size))
    assert _rows(read) == [(name, ns, 1500) for name, (ns, _), _ in kernels]
    assert read.event_count == len(events)
    assert read.meta == {key: value for key, value in document.items() if key != "traceEvents"}
    assert read.text_bytes == len(text)


@given(ns=st.integers(0, 2_000_000_000_000_000_000), style=st.sampled_from(["number", "text"]))
@settings(max_examples=200, deadline=None)
def test_times_are_exact_to_the_nanosecond_even_since_the_epoch(ns: int, style: str) -> None:
    stamp = f"{ns // 1000}.{ns % 1000:03d}"
    quoted = f'"{stamp}"' if style == "text" else stamp
    event = json.dumps(_kernel("k", 0.0)).replace('"ts": 0.0', f'"ts": {quoted}')
    assert _rows(read_text([f'{{"traceEvents": [{event}]}}'.encode()])) == [("k", ns, 1500)]


def test_whole_microseconds_since_the_epoch_are_read_as_they_are() -> None:
    event = _kernel("k", 1_700_000_000_000_001, 7)
    read = read_text([json.dumps({"traceEvents": [_kernel("j", 1_700_000_000_000_000, 0.25), event]}).encode()])
    assert _rows(read)[1] == ("k", 1_700_000_000_000_001_000, 7000)


def test_two_time_scales_in_one_file_do_not_lose_digits() -> None:
    events = [_kernel("small", 1.001), _kernel("large", 0)]
    text = json.dumps({"traceEvents": events}).replace('"ts": 0', '"ts": 1700000000000000.123')
    assert [row[1] for row in _rows(read_text([text.encode()]))] == [1001, 1_700_000_000_000_000_123]


def test_bytes_that_are_no_utf8_nan_and_odd_types_do_not_lose_the_event() -> None:
    good = json.dumps(_kernel("good", 1.0)).encode()
    bad_name = good.replace(b"good", b"b\xffd")
    nan = json.dumps(_kernel("nan", 2.0)).encode().replace(b"[1, 1, 1]", b"NaN")
    text_stream = json.dumps(_kernel("odd", 3.0)).encode().replace(b'"stream": 3', b'"stream": "3"')
    surrogate = good.replace(b"good", b"\\ud800x")
    no_duration = good.replace(b'"dur": 1.5, ', b"")
    no_args = good.partition(b', "args"')[0] + b"}"
    body = b",".join([good, bad_name, nan, text_stream, surrogate, no_duration, no_args])
    read = read_text([b'{"traceEvents": [' + body + b"]}"])
    assert [name for name, _, _ in _rows(read)] == ["good", "b�d", "nan", "odd", "?x", "good", "good"]
    assert read.gpu.where.tolist() == [3, 3, 3, 3, 3, 3, 0]
    assert read.gpu.link.tolist() == [7, 7, 7, 7, 7, 7, -1]
    assert read.gpu.dur_ns.tolist()[5] == 0


def test_events_without_a_usable_time_are_counted_not_guessed() -> None:
    broken = [_kernel("a", math.nan), {**_kernel("b", 1.0), "ts": "soon"}, {**_kernel("c", 1.0), "ts": None}]
    read = read_text([json.dumps({"traceEvents": [*broken, _kernel("d", 1.0)]}).encode()])
    assert [name for name, _, _ in _rows(read)] == ["d"]
    assert read.odd_times == 3


@pytest.mark.parametrize("number", [1 << 63, -(1 << 63) - 1, 10**40])
def test_a_correlation_beyond_64_bits_is_unknown_and_loses_no_event(number: int) -> None:
    odd = _kernel("odd", 2.0)
    odd["args"]["correlation"] = number
    call = {**_kernel("call", 1.0), "cat": "cuda_runtime"}
    call["args"] = {"correlation": number}
    note = {**_kernel("note", 1.0), "cat": "user_annotation", "args": {"External id": number}}
    read = read_text([json.dumps({"traceEvents": [_kernel("a", 1.0), odd, call, note, _kernel("z", 3.0)]}).encode()])
    assert [name for name, _, _ in _rows(read)] == ["a", "odd", "z"]
    assert read.gpu.link.tolist() == [7, -1, 7]
    assert (read.calls.link.tolist(), read.notes.link.tolist()) == ([-1], [-1])


@pytest.mark.parametrize("stream", [1 << 31, -(1 << 31) - 1, 1 << 70])
def test_a_stream_beyond_32_bits_is_unknown(stream: int) -> None:
    odd = _kernel("odd", 2.0)
    odd["args"]["stream"] = stream
    assert read_text([json.dumps([_kernel("a", 1.0), odd]).encode()]).gpu.where.tolist() == [3, -1]


@pytest.mark.parametrize("field", ["ts", "dur"])
@pytest.mark.parametrize("time", ["9000000000000000", "1e30", "-1e30", "1e999", "123456789012345678901234567890.5"])
def test_a_time_beyond_64_bits_is_odd(field: str, time: str) -> None:
    good = json.dumps(_kernel("good", 1.0))
    odd = json.dumps(_kernel("odd", 2.0)).replace(
        f'"{field}": {"2.0" if field == "ts" else "1.5"}', f'"{field}": {time}'
    )
    read = read_text([f"[{good}, {odd}, {good}]".encode()])
    assert [name for name, _, _ in _rows(read)] == ["good", "good"]
    assert read.odd_times == 1


def test_values_nested_thousands_deep_are_refused_with_a_place() -> None:
    deep = json.dumps(_kernel("k", 1.0)).replace("[1, 1, 1]", "[" * 20_000 + "]" * 20_000)
    with pytest.raises(MalformedTraceError, match="nested too deeply"):
        read_text([f'{{"traceEvents": [{deep}]}}'.encode()])


def test_activities_and_calls_keep_the_order_of_the_text() -> None:
    kinds = ["kernel", "gpu_memset", "kernel", "gpu_memcpy"]
    calls = ["cuda_driver", "cuda_runtime", "cuda_driver"]
    events = [_kernel(f"{n}", 1.0, cat=kind) for n, kind in enumerate([*kinds, *calls])]
    read = read_text([json.dumps(events).encode()])
    assert [name for name, _, _ in _rows(read)] == ["0", "1", "2", "3"]
    assert read.gpu.extra.tolist() == [0, 2, 0, 1]
    assert [read.names[number] for number in read.calls.name_id.tolist()] == ["4", "5", "6"]


def test_an_event_larger_than_many_pieces_is_read() -> None:
    huge = _kernel("k" * 3_000_000, 1.0)
    text = json.dumps({"traceEvents": [_kernel("a", 0.5), huge, _kernel("z", 2.0)]}).encode()
    read = read_text(_chunks(text, 1 << 16))
    assert [len(name) for name, _, _ in _rows(read)] == [1, 3_000_000, 1]


def test_a_document_that_is_only_the_array_of_events_is_read() -> None:
    assert len(read_text([json.dumps([_kernel("k", 1.0)]).encode()]).gpu) == 1


def test_the_word_trace_events_elsewhere_does_not_mislead() -> None:
    document = {
        "note": '"traceEvents": [',
        "metadata": {"traceEvents": [_kernel("false", 1.0)]},
        "traceEvents": [_kernel("true", 1.0)],
    }
    for size in (1, 7, 1 << 16):
        assert [n for n, _, _ in _rows(read_text(_chunks(json.dumps(document).encode(), size)))] == ["true"]


def test_gzip_members_and_zero_padding_are_one_text(tmp_path: Path) -> None:
    text = Kineto().decodes(3).text().encode()
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(text[:500]) + gzip.compress(text[500:]) + b"\0" * 100)
    assert len(read_rank(path).gpu) == 9


def test_gzip_is_told_by_its_content_not_by_its_name(tmp_path: Path) -> None:
    text = Kineto().decodes(3).text().encode()
    (tmp_path / "a.json").write_bytes(gzip.compress(text))
    (tmp_path / "b.json.gz").write_bytes(text)
    assert len(read_rank(tmp_path / "a.json").gpu) == len(read_rank(tmp_path / "b.json.gz").gpu) == 9


def test_a_gzip_cut_at_any_byte_names_rank_and_place(tmp_path: Path) -> None:
    whole = Kineto().decodes(2).write(tmp_path).read_bytes()
    path = tmp_path / "cut.json.gz"
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(TruncatedTraceError) as caught:
            read_rank(path, rank="rank_3")
        assert caught.value.rank == "rank_3"
        assert caught.value.offset == length
        assert "of the compressed file" in str(caught.value)


def test_a_plain_json_cut_at_any_byte_is_truncated(tmp_path: Path) -> None:
    whole = Kineto().decodes(2).text().encode()
    path = tmp_path / "cut.json"
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(TruncatedTraceError):
            read_rank(path)


def test_a_wrong_checksum_is_told(tmp_path: Path) -> None:
    path = Kineto().decodes(2).write(tmp_path)
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)
    with pytest.raises(TruncatedTraceError, match="checksum"):
        read_rank(path)


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (b"", EmptyTraceError, "0 bytes"),
        (b"  \n ", EmptyTraceError, "no text"),
        (b'{"traceEvents": []}', EmptyTraceError, "no events"),
        (b"Traceback (most recent call last):", MalformedTraceError, "is not JSON"),
        (b'{"other": 1}', MalformedTraceError, "without a traceEvents array"),
        (b'{"traceEvents": null}', MalformedTraceError, "without a traceEvents array"),
        (b'{"traceEvents": [{"ph": "X"} {"ph": "X"}]}', MalformedTraceError, "delimiter at byte 29"),
        (b'{"traceEvents": [{"ph": "X"}]} tail', MalformedTraceError, "Extra data"),
        (b'{"traceEvents": [{"ph": X}]}', MalformedTraceError, "no JSON"),
        (b'{"traceEvents": [{"ph": "X"}, 3 }', MalformedTraceError, "closes nothing at byte 32"),
        # mtime=0: the bytes are the test's id, and two xdist workers that start in different seconds must agree.
        (gzip.compress(b'{"traceEvents": [{"ph": "M"}]}', mtime=0) + b"garbage", MalformedTraceError, "no gzip member"),
    ],
)
def test_what_is_no_trace_has_a_typed_error(
    tmp_path: Path, content: bytes, error: type[TraceFileError], says: str
) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(error) as caught:
        read_rank(path, rank="rank_1")
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert str(caught.value).startswith("rank rank_1: ")


def test_a_directory_and_a_missing_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(MalformedTraceError, match="is a directory"):
        read_rank(tmp_path)
    with pytest.raises(TraceFileError, match="no such file"):
        read_rank(tmp_path / "none.json.gz")


@given(
    data=st.binary(max_size=200),
    prefix=st.sampled_from([b"", b'{"traceEvents": [', b'[{"ph": "X", "cat": "kernel",']),
)
@settings(max_examples=300, deadline=None)
def test_garbage_gives_a_typed_error_or_a_result_never_a_crash(data: bytes, prefix: bytes) -> None:
    with contextlib.suppress(TraceFileError):
        assert read_text([prefix + data]).event_count > 0


@pytest.mark.parametrize("of", [2, 3])
def test_shares_of_a_file_make_the_whole(tmp_path: Path, of: int) -> None:
    trace = Kineto()
    trace.op("aten::mm", 500.0)
    trace.decodes(1500)
    trace.events.insert(900, {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "x"}})
    path = trace.write(tmp_path)
    whole = read_rank(path)
    shares = [read_share(path, rank="rank_0", share=number, of=of) for number in range(of)]
    assert all(share.event_count for share in shares)
    merged = merge_shares(shares)
    assert merged is not None
    assert sorted(_rows(merged)) == sorted(_rows(whole))
    assert (merged.event_count, merged.meta, merged.text_bytes) == (
        whole.event_count,
        whole.meta,
        whole.text_bytes,
    )
    assert len(merged.calls) == len(whole.calls)
    assert set(merged.names) == set(whole.names)


def test_shares_that_cut_differently_are_refused(tmp_path: Path) -> None:
    # Objects inside arrays look like events to the cheap search; only the share that decodes sees it.
    nested = {"list": [{"a": "x" * 40}] * 3000}
    events = [_kernel(f"k{number}", number, args={"stream": 1, "more": nested}) for number in range(6)]
    path = tmp_path / "n.json"
    path.write_text(json.dumps({"traceEvents": events}))
    assert len(read_rank(path).gpu) == 6
    shares = []
    for number in range(2):
        with contextlib.suppress(TraceFileError):
            shares.append(read_share(path, rank="rank_0", share=number, of=2))
    assert len(shares) < 2 or merge_shares(shares) is None
