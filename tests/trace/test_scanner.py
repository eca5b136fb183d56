"""The compiled scanner and the Python reader give the same: on real traces, on odd text, at every cut."""

from __future__ import annotations

import gzip
import json
import random
import sys
import threading
import types
from typing import TYPE_CHECKING, Any

import pytest

from pytest_atomtrace.errors import TraceFileError
from pytest_atomtrace.trace import reader
from pytest_atomtrace.trace.build import build_rank
from pytest_atomtrace.trace.index import write_index
from pytest_atomtrace.trace.load import load
from tests.trace.bothways import assert_same, needs_scanner, read_rank, read_text
from tests.trace.builder import Kineto

if TYPE_CHECKING:
    from pathlib import Path

KERNEL = (
    '{"ph": "X", "cat": "kernel", "name": "k", "pid": 2, "tid": 0, "ts": 10.250, "dur": 1.500, '
    '"args": {"device": 2, "stream": 3, "correlation": 7}}'
)
CALL = (
    '{"ph": "X", "cat": "cuda_runtime", "name": "hipLaunchKernel", "pid": 5, "tid": 6, "ts": 9.125, "dur": 0.5, '
    '"args": {"External id": 4, "kernel": "k", "cid": 107, "correlation": 7, "grid": [1, 1, 1]}}'
)
NOTE = (
    '{"ph": "X", "cat": "user_annotation", "name": "decode[bs=1 tok=1 d=1]", "pid": 5, "tid": 6, "ts": 9, "dur": 3, '
    '"args": {"External id": 4}}'
)
FRAME = (
    '{"ph": "X", "cat": "python_function", "name": "f", "pid": 5, "tid": 6, "ts": 1, "dur": 2, '
    '"args": {"Python id": 1}}'
)
ARROW = '{"ph": "s", "id": 7, "pid": 5, "tid": 6, "ts": 9.125, "cat": "ac2g", "name": "ac2g"}'
EVENTS = (KERNEL, CALL, NOTE, FRAME, ARROW)


def _changed(event: str, old: str, new: str) -> str:
    assert old in event
    return event.replace(old, new)


ODD = {
    "unescaped names": _changed(KERNEL, '"k"', '"a\\"b\\\\c\\/d\\n\\t\\r\\b\\f\\u00e9\\u2192"'),
    "two spellings of one name": _changed(KERNEL, '"k"', '"\\u006b"'),
    "an emoji by surrogates": _changed(KERNEL, '"k"', '"\\ud83d\\ude00"'),
    "a lone surrogate": _changed(KERNEL, '"k"', '"\\ud800x"'),
    "an escape that is none": _changed(KERNEL, '"k"', '"\\x41"'),
    "an escape cut short": _changed(KERNEL, '"k"', '"\\u00"'),
    "a control character": _changed(KERNEL, '"k"', '"a\tb"'),
    "a nul escape": _changed(KERNEL, '"k"', '"a\\u0000b"'),
    "an empty name": _changed(KERNEL, '"k"', '""'),
    "a very long name": _changed(KERNEL, '"k"', f'"{"k" * 70_000}"'),
    "braces and commas in a name": _changed(KERNEL, '"k"', '"}, {\\"ph\\": \\"X\\"},{[]"'),
    "a name that is a number": _changed(KERNEL, '"k"', "5"),
    "no name": _changed(KERNEL, '"name": "k", ', ""),
    "no phase": _changed(KERNEL, '"ph": "X", ', ""),
    "a phase of two letters": _changed(KERNEL, '"ph": "X"', '"ph": "XX"'),
    "an unknown phase": _changed(KERNEL, '"ph": "X"', '"ph": "Z"'),
    "an escaped phase": _changed(KERNEL, '"ph": "X"', '"ph": "\\u0058"'),
    "an escaped category": _changed(KERNEL, '"kernel"', '"\\u006bernel"'),
    "an escaped key": _changed(KERNEL, '"cat"', '"\\u0063at"'),
    "no category": _changed(KERNEL, '"cat": "kernel", ', ""),
    "a category that is null": _changed(KERNEL, '"kernel"', "null"),
    "memory copies": _changed(KERNEL, '"kernel"', '"gpu_memcpy"'),
    "memory sets": _changed(KERNEL, '"kernel"', '"gpu_memset"'),
    "driver calls": _changed(CALL, "cuda_runtime", "cuda_driver"),
    "an op without arguments": '{"ph":"X","cat":"cpu_op","name":"aten::mm","pid":5,"tid":6,"ts":1,"dur":2}',
    "an op whose arguments are no object": _changed(FRAME, "python_function", "cpu_op").replace(
        '{"Python id": 1}', "[]"
    ),
    "a key twice": _changed(KERNEL, '"pid": 2', '"pid": 2, "name": "j"'),
    "a phase twice": _changed(ARROW, '"id": 7', '"id": 7, "ph": "X"'),
    "a category twice": _changed(FRAME, '"pid": 5', '"pid": 5, "cat": "cpu_op"'),
    "an argument twice": _changed(KERNEL, '"stream": 3', '"stream": 3, "stream": 4'),
    "arguments twice": _changed(KERNEL, '"pid": 2', '"pid": 2, "args": {}'),
    "times as text": _changed(KERNEL, "10.250", '"10.250"'),
    "many decimals": _changed(KERNEL, "10.250", "10.2504999"),
    "half a ns": _changed(KERNEL, "10.250", "10.0005"),
    "decimals that are zero": _changed(KERNEL, "10.250", "10.2500000"),
    "an exponent": _changed(KERNEL, "10.250", "1.025e1"),
    "a negative time": _changed(KERNEL, "10.250", "-10.250"),
    "a negative duration": _changed(KERNEL, "1.500", "-1.5"),
    "minus zero": _changed(KERNEL, "10.250", "-0"),
    "a leading zero": _changed(KERNEL, "10.250", "010.250"),
    "a bare point": _changed(KERNEL, "10.250", "10."),
    "a time that is null": _changed(KERNEL, "10.250", "null"),
    "NaN": _changed(KERNEL, "10.250", "NaN"),
    "NaN where nobody looks": _changed(FRAME, '"Python id": 1', '"Python id": NaN'),
    "no duration": _changed(KERNEL, '"dur": 1.500, ', ""),
    "since the epoch": _changed(KERNEL, "10.250", "1700000000000000.123"),
    "since the epoch, with more decimals": _changed(KERNEL, "10.250", "1700000000000000.1235"),
    "a stream as text": _changed(KERNEL, '"stream": 3', '"stream": "3"'),
    "a stream with decimals": _changed(KERNEL, '"stream": 3', '"stream": 3.0'),
    "the lowest stream": _changed(KERNEL, '"stream": 3', '"stream": -2147483648'),
    "no stream": _changed(KERNEL, '"stream": 3, ', ""),
    "a negative correlation": _changed(KERNEL, '"correlation": 7', '"correlation": -7'),
    "a correlation that is true": _changed(KERNEL, '"correlation": 7', '"correlation": true'),
    "a correlation of 19 digits": _changed(KERNEL, '"correlation": 7', '"correlation": 9223372036854775807'),
    "no External id": _changed(NOTE, '"External id": 4', ""),
    "an External id that is null": _changed(NOTE, '"External id": 4', '"External id": null'),
    "arguments that are null": _changed(NOTE, '{"External id": 4}', "null"),
    "arguments that nest": _changed(KERNEL, '"device": 2', '"device": {"stream": [{"a": {}}, [[]], "}]"]}'),
    "arguments nested 100 deep": _changed(KERNEL, '"device": 2', '"device": ' + "[" * 100 + "]" * 100),
    "no kernel": _changed(CALL, '"kernel": "k", ', ""),
    "a kernel that is a number": _changed(CALL, '"kernel": "k"', '"kernel": 5'),
    "an escaped kernel": _changed(CALL, '"kernel": "k"', '"kernel": "\\u006b"'),
    "threads that are words": _changed(CALL, '"pid": 5, "tid": 6', '"pid": "Spans", "tid": "PyTorch Profiler, é"'),
    "a thread that is a number as text": _changed(CALL, '"tid": 6', '"tid": "6"'),
    "an escaped thread": _changed(CALL, '"tid": 6', '"tid": "a\\"b"'),
    "a thread with a lone surrogate": _changed(CALL, '"tid": 6', '"tid": "\\ud800"'),
    "a thread that is true": _changed(CALL, '"tid": 6', '"tid": true'),
    "a thread with decimals": _changed(CALL, '"tid": 6', '"tid": 6.5'),
    "a huge thread": _changed(CALL, '"tid": 6', f'"tid": {10**30}'),
    "thread minus zero": _changed(CALL, '"tid": 6', '"tid": -0'),
    "an event that is no object": '["ph", "X"]',
    "an event that is a number": "5",
    "an empty event": "{}",
    "a comma before a brace": _changed(KERNEL, "7}", "7,}"),
    "a missing colon": _changed(KERNEL, '"pid": 2', '"pid" 2'),
    "a missing comma": _changed(KERNEL, '"pid": 2, ', '"pid": 2 '),
    "single quotes": _changed(KERNEL, '"k"', "'k'"),
    "a brace too many": KERNEL + "}",
    "a bracket for a brace": _changed(KERNEL, "7}}", "7]}"),
    "a word that is none": _changed(FRAME, '"Python id": 1', '"Python id": nul'),
}


def _document(*events: str, indent: int | None = None) -> bytes:
    text = ",\n  ".join(events)
    if indent is not None:
        text = ", ".join(json.dumps(json.loads(event), indent=indent) for event in events)
    return f'{{"schemaVersion": 1, "traceEvents": [\n  {text}\n], "traceName": "t"}}'.encode()


def _outcome(chunks: list[bytes], *, detail: bool = False) -> str:
    try:
        read_text(chunks, detail=detail)
    except TraceFileError as error:
        return type(error).__name__
    return "read"


@pytest.mark.parametrize("detail", [False, True])
@pytest.mark.parametrize("what", ODD)
@needs_scanner
def test_odd_text_means_the_same_to_both(what: str, detail: bool) -> None:
    odd = ODD[what].encode("utf-8", "surrogatepass")
    usual = [event.encode() for event in EVENTS]
    # Three of each kind before, so that the scanner knows their shapes; the odd one alone, among others, twice, last.
    for before, after in (([], []), (usual * 3, usual), (usual * 3, []), (usual * 2, [*usual, odd])):
        text = b'{"traceEvents": [' + b", ".join([*before, odd, *after]) + b'], "z": 1}'
        for size in (len(text), 50, 7):
            chunks = [text[at : at + size] for at in range(0, len(text), size)] if len(text) < 50_000 else [text]
            _outcome(chunks, detail=detail)


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80"])
@needs_scanner
def test_bytes_that_are_no_utf8_mean_the_same_to_both(bad: bytes) -> None:
    for old in (b'"k"', b'"ac2g"', b'"hipLaunchKernel"', b'"device"', b'"cuda_runtime"'):
        text = _document(*EVENTS, *EVENTS).replace(old, b'"a' + bad + b'b"')
        assert _outcome([text]) == "read"


@needs_scanner
def test_every_cut_of_a_document_gives_the_same_error(tmp_path: Path) -> None:
    whole = _document(*EVENTS * 2)
    path = tmp_path / "t.json"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(TraceFileError):
            read_rank(path, rank="rank_1")


@needs_scanner
def test_every_byte_replaced_by_another_gives_the_same_result_or_error() -> None:
    whole = bytearray(_document(KERNEL, CALL, *EVENTS))
    for place in range(len(whole)):
        was = whole[place]
        for byte in b'"{]\\,x0\xff\n':
            whole[place] = byte
            _outcome([bytes(whole)])
        whole[place] = was


@pytest.mark.parametrize("indent", [None, 0, 1, 4])
@pytest.mark.parametrize("detail", [False, True])
@needs_scanner
def test_any_division_into_pieces_gives_the_same(indent: int | None, detail: bool) -> None:
    text = _document(*EVENTS * 4, indent=indent)
    for size in (1, 2, 3, 5, 17, 64, 333, len(text)):
        read = read_text([text[at : at + size] for at in range(0, len(text), size)], detail=detail)
        assert (len(read.gpu), len(read.calls), len(read.notes), read.event_count) == (4, 4, 4, 20)


@needs_scanner
def test_real_traces_are_read_alike(shared_data: Path) -> None:
    paths = sorted(shared_data.glob("*/*.gz"))
    assert len(paths) >= 9
    for path in paths:
        for detail in (False, True):
            read = read_rank(path, detail=detail)
        assert read.event_count == len(json.loads(gzip.decompress(path.read_bytes()))["traceEvents"])


@needs_scanner
def test_real_traces_need_the_python_reader_for_nothing(shared_data: Path) -> None:
    from pytest_atomtrace.trace import _scan
    from pytest_atomtrace.trace.jsontext import find_events

    for path in sorted(shared_data.glob("*/*.gz")):
        text = gzip.decompress(path.read_bytes())
        start = find_events(text)
        assert start is not None
        assert _scan.Scanner().feed(text[start:]) == _scan.ENDED, path


@needs_scanner
def test_random_mixtures_of_usual_and_odd_events_are_read_alike() -> None:
    rng = random.Random(7)
    # Those that end a reading say nothing about what follows them.
    kinds = [
        event for event in ODD.values() if _outcome([b"[" + event.encode() + b", " + KERNEL.encode() + b"]"]) == "read"
    ]
    assert len(kinds) > 50
    for _ in range(150):
        events = [rng.choice(EVENTS) if rng.random() < 0.9 else rng.choice(kinds) for _ in range(rng.randrange(1, 60))]
        text = b"[" + ",".join(events).encode() + b"]"
        size = rng.choice([13, 200, 1000, 100_000])
        read = read_text([text[at : at + size] for at in range(0, len(text), size)], detail=rng.random() < 0.5)
        rows = zip(read.names, range(len(read.names)), strict=True)
        assert len(dict(rows)) == len(read.names)


@needs_scanner
def test_many_names_shapes_and_threads_are_kept_apart() -> None:
    trace = Kineto()
    for number in range(3000):
        trace.op(f"op {number} {'x' * (number % 50)}", number * 2.0, tid=number % 700)
        trace.events[-1]["args"] |= {f"key {number % 300}": [number] * (number % 60)}
        trace.eager(f"k{number % 1500}", 7000.0 + number, stream=number % 9)
    read = read_text([trace.text().encode()], detail=True)
    assert (len(read.ops), len(read.gpu), len(read.threads)) == (3000, 3000, 700)
    assert len(read.names) == 3000 + 1500 + 1


@needs_scanner
def test_a_huge_event_costs_no_walk_for_every_piece() -> None:
    huge = KERNEL.replace('"k"', f'"{"k" * 8_000_000}"').encode()
    text = b"[" + huge + b", " + KERNEL.encode() + b"]"
    read = read_text([text[at : at + 1000] for at in range(0, len(text), 1000)])
    assert [len(name) for name in read.names] == [8_000_000, 1]


def test_inflating_in_a_second_thread_gives_the_same_and_ends(tmp_path: Path) -> None:
    path = Kineto().decodes(3000).write(tmp_path)
    before = threading.active_count()
    assert_same(reader.read_rank(path, threads=True), reader.read_rank(path))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(TraceFileError, match="ends early"):
        reader.read_rank(path, threads=True)
    assert threading.active_count() == before


def _figures(data: Any) -> list[tuple[object, ...]]:
    return [
        (rank.names, rank.start_ns.tolist(), rank.name_id.tolist(), rank.step.tolist(), rank.event_count)
        for rank in data.ranks.values()
    ]


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("found", [None, types.ModuleType("_scan")], ids=["not built", "of an earlier build"])
def test_without_the_scanner_everything_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, found: types.ModuleType | None
) -> None:
    for rank in range(2):
        Kineto().decodes(300 + rank).write(tmp_path / f"rank_{rank}")
    usual = load(tmp_path, jobs=jobs)
    if found is not None:
        found.__dict__["VERSION"] = 0
    # What an installation without a compiler looks like.
    monkeypatch.setitem(sys.modules, "pytest_atomtrace.trace._scan", found)
    assert not reader.has_scanner()
    plain = load(tmp_path, jobs=jobs)
    assert _figures(plain) == _figures(usual)
    assert plain.findings == usual.findings


@needs_scanner
def test_indexes_are_equal_to_the_byte(tmp_path: Path) -> None:
    path = Kineto().decodes(200).write(tmp_path)
    indexes = []
    for compiled in (True, False):
        data = build_rank("rank_0", path, reader.read_rank(path, compiled=compiled))
        assert write_index(tmp_path / "x.index", data, "key")
        indexes.append((tmp_path / "x.index").read_bytes())
    assert indexes[0] == indexes[1]


@needs_scanner
def test_the_scanner_refuses_what_its_caller_must_not_do() -> None:
    from pytest_atomtrace.trace import _scan

    scanner = _scan.Scanner()
    with pytest.raises(TypeError):
        scanner.feed("text")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no such table"):
        scanner.columns(5)
    with pytest.raises(ValueError, match="no such table"):
        scanner.add(9, 0, 0, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="no UTF-8"):
        scanner.thread(b"\xff")
    assert scanner.feed(b'{"ph": "f"}, ') == _scan.MORE
    assert (scanner.feed(b""), scanner.rest(), scanner.events) == (_scan.MORE, b"", 1)
