"""Untrusted text can do nothing wherever it goes."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_atomtrace.report.escape import code, command_data, command_property, html_text, inert, printable
from tests.report.rows import PAYLOADS

TEXTS = st.text(st.characters(codec=None, categories=None)) | st.sampled_from(PAYLOADS)


def is_command(line: str) -> bool:
    """Whether GitHub's runner looks at a line: blanks are stripped before ``::``, ``##[`` counts anywhere."""
    return line.lstrip().startswith("::") or "##[" in line


@given(TEXTS)
def test_printable_text_is_one_line_without_control_characters(text: str) -> None:
    shown = printable(text)
    assert shown.splitlines() in ([shown], [])
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    shown.encode()


@given(st.lists(TEXTS | st.sampled_from(["  ::warning::x", "\t::x", "\u00a0::x", "##[group]", "###[x"])))
def test_no_inert_text_is_a_command_of_the_runner(parts: list[str]) -> None:
    text = inert("\n".join(map(printable, parts)))
    assert not any(map(is_command, text.splitlines()))


def test_harmless_text_stays_as_it_is() -> None:
    text = "aiter::moe_forward is not called\n  during decode, 58 of 58"
    assert inert(text) == text
    assert printable("aiter::moe<float, 8>") == "aiter::moe<float, 8>"


def test_what_was_broken_stays_readable() -> None:
    assert inert("  ::set-output name=x::y") == "  \\::set-output name=x::y"
    assert printable("a\nb\x1b[0m\u202e") == "a\\nb\\x1b[0m\\u202e"


@pytest.mark.parametrize("text", PAYLOADS)
def test_a_cell_of_a_markdown_table_shows_the_text_and_nothing_else(text: str) -> None:
    cell = code(text)
    inside = cell.removeprefix("<code>").removesuffix("</code>")
    assert not re.search(r"[|`*_<>\[\]\n@]", inside)
    assert html.unescape(inside) == printable(text)


@pytest.mark.parametrize("text", PAYLOADS)
def test_text_between_tags_holds_no_tag(text: str) -> None:
    shown = html_text(text)
    assert "<" not in shown
    assert html.unescape(shown) == "\n".join(printable(line) for line in text.split("\n"))


def unescaped(text: str) -> str:
    """As the runner reads a property: the percent sign last."""
    for escaped, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(escaped, character)
    return text


@pytest.mark.parametrize("text", PAYLOADS)
def test_a_command_carries_exactly_the_text(text: str) -> None:
    data, title = command_data(text), command_property(text)
    assert "\n" not in data
    assert unescaped(data.replace(":", "%3A").replace(",", "%2C")) == text
    assert not re.search("[:,\r\n]", title)
    assert unescaped(title) == printable(text)
