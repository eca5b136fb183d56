"""The door to YAML: places, limits, and nothing but plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_atomtrace.cases.specs import yamldoor
from pytest_atomtrace.cases.specs.problems import Place, Problem
from pytest_atomtrace.cases.specs.yamldoor import Mapping, Scalar, Sequence, YamlError, parse
from tests.specs.reading import CASE, located, read, read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
MERGED_LAUGHS = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], k: 1}}\n" for n in range(1, 40)
)


def refusal(data: bytes) -> str:
    with pytest.raises(YamlError) as caught:
        parse(data)
    place = caught.value.problem.place
    return f"{place.line}:{place.column}: {caught.value.problem.text}"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"case: " + b"x" * 600_000, "1:1: the file has 600,006 bytes; a spec has at most 524,288"),
        (b"[" * 100_000, "nested more than 40 deep"),
        (b"- " * 100_000, "nested more than 40 deep"),
        (b"{a: " * 50_000, "nested more than 40 deep"),
        (b"- x\n" * 60_000, "more than 50,000 values"),
        (LAUGHS.encode(), "more than 50,000 values, aliases written out"),
        (MERGED_LAUGHS.encode(), "more than 50,000 values, aliases written out"),
        (b"a: &a [*a]", "no anchor &a stands above the alias *a"),
        (b"a: !!python/object/apply:os.system [echo]", "the tag !!python/object/apply:os.system is not allowed"),
        (b"a: !!python/name:os.system x", "the tag !!python/name:os.system is not allowed"),
        (b"a: !mine x", "the tag !mine is not allowed"),
        (b"a: 1\n---\nb: 2\n", "2:1: a second document starts here"),
        (b"a: \xff", "1:4: byte 0xff is no UTF-8"),
        (b"a: 1\nb: \x00", "2:4: the character U+0000 may not stand in YAML"),
        (b"a:\n\t- b", "indent with blanks, YAML takes no tabs"),
        (b"kernels:\n  - called: *moe*\n", "quote it, '*moe*'"),
        (b"called: *moe_ck2\n", "1:9: no anchor &moe_ck2 stands above the alias *moe_ck2"),
        (b"a: 010", "1:4: 010 is a number that people and YAML read differently"),
        (b"a: 12:30", "12:30 is a number that people and YAML read differently"),
        (b"a: 0x1F", "0x1F is a number"),
        (b"a: 2026-01-01", "2026-01-01 is a date to YAML; quote it"),
        (b"a: .inf", ".inf is no plain number"),
        (b"a: 99999999999999999999999999", "is a number that people"),
        (b"? [a]\n: b", "a key must be a word"),
        (b"a: [b", "no YAML"),
        (b"a: 'b", "no YAML"),
    ],
)
def test_what_is_no_plain_document_is_refused_at_its_place(data: bytes, says: str) -> None:
    assert says in refusal(data)


def test_a_file_of_ten_megabytes_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def watched(data: bytes) -> None:
        seen.append(len(data))
        raise YamlError(Place(), "too large")

    monkeypatch.setattr("pytest_atomtrace.cases.specs.spec.parse", watched)
    read_bytes(tmp_path, b"x" * 10_000_000)
    assert seen == [yamldoor.MAX_BYTES + 1]


def test_nothing_is_ever_constructed(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    spec = read(tmp_path, f"case: !!python/object/apply:pathlib.Path.touch [{marker}]\n")
    assert "is not allowed" in located(spec)[0]
    assert not marker.exists()


def test_places_and_values_are_those_of_the_text() -> None:
    root = parse(b"\xef\xbb\xbfa: 1\nb:\n  - x  # words\n  - {c: true, d: '2'}\n\ne: |\n  two\n  lines\n")
    assert isinstance(root, Mapping)
    b = root.get("b")
    assert isinstance(b, Sequence)
    assert [(one.place.line, one.place.column) for one in b.items] == [(3, 5), (4, 5)]
    assert b.end_line == 4
    inner = b.items[1]
    assert isinstance(inner, Mapping)
    values = {key: node.value for key, (_, node) in inner.pairs.items() if isinstance(node, Scalar)}
    assert values == {"c": True, "d": "2"}
    e = root.get("e")
    assert isinstance(e, Scalar)
    assert (e.value, e.end_line) == ("two\nlines\n", 8)


def test_anchors_and_merges_save_repetition(tmp_path: Path) -> None:
    spec = read(
        tmp_path,
        """
        defaults: &shared {tp: 4, isl: 64}
        cases:
          - {<<: *shared, model: m, conc: &conc [1, 2]}
          - {model: n, tp: 8, conc: *conc}
        kernels:
          - &moe {called: mfma_moe1_*, during: decode}
          - {<<: *moe, during: prefill}
        """,
    )
    assert located(spec) == []
    assert [(one.case.model, one.case.tp, one.case.conc) for one in spec.cases] == [
        ("m", 4, 1),
        ("m", 4, 2),
        ("n", 8, 1),
        ("n", 8, 2),
    ]
    assert [check.name for check in spec.checks] == ["called-mfma_moe1-decode", "called-mfma_moe1-prefill"]


def test_merging_what_is_no_mapping_is_a_problem(tmp_path: Path) -> None:
    spec = read(tmp_path, "case: {<<: [1], model: m}\nranks: {decode: {counts: true}}\n")
    assert located(spec) == ["1:12: case.<<: only mappings can be merged, got a list"]


def test_a_second_key_is_refused_wherever_it_is(tmp_path: Path) -> None:
    spec = read(
        tmp_path,
        CASE + "case: {model: n}\nsteps:\n  decode: {p50: 1 ms, p50: 2 ms}\n  decode: {p90: 3 ms}\n",
    )
    assert located(spec) == [
        "2:1: case: the key 'case' is there already, in line 1",
        "4:23: steps.decode.p50: the key 'p50' is there already, in line 4",
        "5:3: steps.decode: the key 'decode' is there already, in line 4",
    ]


def outcome(data: bytes) -> yamldoor.Node | Problem | None:
    try:
        return parse(data)
    except YamlError as error:
        return error.problem


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_a_document_or_one_problem(data: bytes) -> None:
    found = outcome(data)
    if isinstance(found, Problem):
        assert found.text
        assert found.place.line >= 1


PIECES = ["a: ", "- ", "\n", "  ", "[", "]", "{", "}", "&x ", "*x", "<<: ", "'", '"', "? ", "!!str ", "x", ","]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_any_mixture_of_yaml_is_a_document_or_one_problem(text: str) -> None:
    found = outcome(text.encode())
    if isinstance(found, Problem):
        assert found.place.column >= 1
    elif isinstance(found, Mapping):
        assert set(found.pairs) <= set(found.flat())


def test_the_pure_python_parser_gives_the_same_places(monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    text = (CASE + "kernels:\n  - called: a\n    during: decode\nsteps: {decode: {p50: 1 ms}}\n").encode()
    ours: Callable[[], object] = lambda: parse(text)  # noqa: E731
    fast = ours()
    monkeypatch.setattr(yamldoor, "_Loader", yaml.SafeLoader)
    assert ours() == fast
