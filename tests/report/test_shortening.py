"""Names in tables: short, and as different as they are."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_atomtrace.report.shortening import shortened
from pytest_atomtrace.report.tables import Column, clipped, table
from pytest_atomtrace.trace.names import short_name

_TUNED = "aiter::f8gemm_blockscale_bpreshuffle_fp32bf16_tn_{}_gfx950_splitk_clean"
_TEMPLATE = "void aiter::paged_attention_kernel<__hip_bfloat16, 128, {}, true>(float const*, int)"


def names_of(*texts: str, width: int) -> list[str]:
    return shortened(texts, width, short_name)


def test_tuned_kernels_show_the_tile_in_which_they_differ() -> None:
    tiles = ("64x64", "48x64", "64x640")
    for tile, shown in zip(tiles, names_of(*map(_TUNED.format, tiles), width=36), strict=True):
        assert shown.startswith("aiter::f8gemm")
        assert f"{tile}_" in shown


def test_template_arguments_are_shown_only_where_nothing_else_differs() -> None:
    alone = names_of(_TEMPLATE.format(64), "other_kernel", width=60)
    assert alone == ["aiter::paged_attention_kernel", "other_kernel"]
    both = names_of(_TEMPLATE.format(64), _TEMPLATE.format(256), width=60)
    assert [shown.startswith("aiter::paged_attention_kernel…") for shown in both] == [True, True]
    assert ["64, true" in both[0], "256, true" in both[1]] == [True, True]


def test_names_that_differ_far_behind_the_first_difference_are_told_apart_too() -> None:
    names = [f"k_{'a' * 40}_{one}_{'b' * 40}_{two}_{'c' * 40}" for one in ("x1", "y2") for two in ("p3", "q4")]
    shown = names_of(*names, width=30)
    assert len(set(shown)) == 4
    assert not any("~" in one for one in shown)


def test_the_same_name_in_two_rows_stays_the_same() -> None:
    first, second, again = names_of(_TUNED.format("8x8"), _TUNED.format("9x9"), _TUNED.format("8x8"), width=30)
    assert first == again != second


_NAMES = st.lists(st.text(alphabet="ab_:<>(), 0", max_size=40), min_size=1, max_size=12).map(
    lambda n: [*dict.fromkeys(n)]
)
_LONG = st.builds(
    lambda start, ends, tail: [f"{start}{end}{tail}" for end in dict.fromkeys(ends)],
    st.text(alphabet="kx_:", min_size=0, max_size=90),
    st.lists(st.text(alphabet="ab01_", max_size=25), min_size=2, max_size=9),
    st.sampled_from(["", "_tail" * 12, "<64, true>(int)"]),
)


@given(_NAMES | _LONG, st.integers(8, 70), st.sampled_from([short_name, clipped]))
@example(["a" * 100, "a" * 101, "a" * 102], 8, clipped)
@settings(max_examples=400, deadline=None)
def test_any_different_names_stay_different_within_the_width(names: list[str], width: int, how: object) -> None:
    shorten = short_name if how is short_name else clipped
    shown = shortened(names, width, shorten)
    assert len(set(shown)) == len(names)
    assert max(map(len, shown)) <= width
    plain = [shorten(name, width) for name in names]
    for name, short in zip(plain, shown, strict=True):
        if plain.count(name) == 1:
            assert short == name


def test_a_narrow_table_has_no_equal_rows() -> None:
    names = [_TUNED.format(f"{tile}x64") for tile in range(16, 26)]
    columns = [Column("kernel", left=True, shorten=short_name), Column("calls"), Column("time")]
    lines = [text for _, text in table(columns, [[name, "36", "1.715 ms"] for name in names], width=50)]
    assert len(set(lines)) == len(names) + 2
    assert max(map(len, lines)) <= 50
