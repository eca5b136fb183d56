"""Expressions that would never come to an end are refused, those with one way to match are not."""

from __future__ import annotations

import time

import pytest

from pytest_atomtrace.trace.names import Pattern

ENDLESS = [
    "(a+)+$",
    "(a|aa)+$",
    "(a*)*b",
    "(?:x?a+)*$",
    r"(\w+\s?)*x",
    "(ab|a.)+$",
    "((a?){4}){4}",
    "(a{2,})+$",
    "(?P<n>a+){9}$",
    r"(\w+(?:::\w+)*)+$",
]
SOUND = [
    r"(?:\w+::)*kernel",
    r"k(?:_\d+)*$",
    "(foo|bar)+",
    r"(?:\d+x){2}\d+",
    "(a{3})+",
    "[(a+)+]",
    r"\(a+\)+",
    ".*moe.*gemm.*",
    r"^(flydsl|ck)_moe\d_(afp4_)?[\w:]*$",
    "x(.+)?",
    "x(ab?)*",
]


@pytest.mark.parametrize("expression", ENDLESS)
def test_a_repeat_of_something_that_varies_is_refused_with_the_part(expression: str) -> None:
    with pytest.raises(ValueError, match=r"whose length varies: matching may take hours; use one repeat of a set"):
        Pattern.parse(f"re:{expression}")


@pytest.mark.parametrize("expression", SOUND)
def test_one_way_to_match_is_quick_and_allowed(expression: str) -> None:
    pattern = Pattern.parse(f"re:{expression}")
    start = time.process_time()
    for piece in ("a", "ab", "foo", "_1", "12x", "ns::"):
        pattern.matches(piece * 40 + "!")
    assert time.process_time() - start < 1
