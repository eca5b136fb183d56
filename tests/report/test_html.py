"""The page: whole, self-contained, inert whatever is written in it, small, and right without scripts."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import random
import re
from importlib import resources
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_atomtrace.report.detail import CaseDetail, HealthLine, KernelLine, Lane, StepSeries, StepTimeline
from pytest_atomtrace.report.html import render
from pytest_atomtrace.report.html_data import payload, script_safe
from pytest_atomtrace.report.html_page import COLOURS, UPLOT_VERSION
from pytest_atomtrace.trace.families import FAMILIES
from tests.report.pages import CASE, Page, capture, check, detailed, document, row, write_baseline
from tests.report.rows import PAYLOADS
from tests.traces import Recipe

if TYPE_CHECKING:
    from pytest_atomtrace.report.document import ReportDocument

ASSETS = resources.files("pytest_atomtrace.report").joinpath("assets")


@pytest.fixture(scope="module")
def green(tmp_path_factory: pytest.TempPathFactory) -> Page:
    directory = tmp_path_factory.mktemp("green")
    return Page(render(detailed(document(row(capture(directory / "1", Recipe(), Recipe()))), directory)))


def test_the_page_loads_nothing_and_its_policy_allows_only_its_own_script_and_style(green: Page) -> None:
    names = {"src", "srcset", "data", "poster", "background", "action", "formaction", "ping"}
    assert not [(tag, attrs) for tag, attrs in green.tags if names & set(attrs)]
    assert not green.all("link")
    assert not green.all("iframe")
    assert all(str(link["href"]).startswith("#") for link in green.all("a"))
    assert "url(" not in green.styles[0]
    assert "@import" not in green.styles[0]
    policy = next(str(meta["content"]) for meta in green.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'; ")
    for kind, text in (("style", green.styles[0]), ("script", green.scripts[1])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert (len(green.styles), len(green.scripts)) == (1, 2)
    assert not [attrs for _, attrs in green.tags if "style" in attrs or any(name.startswith("on") for name in attrs)]


@pytest.mark.parametrize(("factor", "says"), [(1.0, "ok"), (5.0, "regression"), (0.1, "improved")])
def test_a_case_with_a_baseline_says_how_it_compares_whatever_the_answer(
    tmp_path: Path, factor: float, says: str
) -> None:
    place = capture(tmp_path / "1", Recipe(times={"mfma_moe1_a_t32": factor}))
    write_baseline(tmp_path, place)
    page = Page(render(detailed(document(row(place)), tmp_path)))
    assert any(f"decode.gpu_busy, {says}, limit" in text for text in page.shown)


def test_everything_that_can_be_listed_is_there_without_scripts(green: Page) -> None:
    for text in (
        "All 1 check of 1 case passed",
        CASE.slug,
        "120.0 us",
        "mfma_moe1_a_t32",
        "moe_gemm",
        "33/41",
        "made up",
    ):
        assert text in green.text
    assert len(green.all("noscript")) == 1
    # A header that sorts is a button, and every column has one.
    headers = green.all("th")
    assert headers
    assert all(attrs["scope"] == "col" for attrs in headers)


@pytest.mark.parametrize("text", PAYLOADS)
def test_what_is_written_in_names_and_logs_stays_text(text: str, tmp_path: Path) -> None:
    harmless = render(_hostile("x", tmp_path))
    html = render(_hostile(text, tmp_path))
    page = Page(html)
    tags = [tag for tag, _ in page.tags if tag not in ("br", "button", "p")]
    assert tags == [tag for tag, _ in Page(harmless).tags if tag not in ("br", "button", "p")]
    assert len(page.scripts) == 2
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)
    assert page.data["cases"][0]["names"]
    html.encode()


def _hostile(text: str, directory: Path) -> ReportDocument:
    place = directory / "1"
    if not place.exists():
        capture(place, Recipe(), Recipe())
    checks = (
        check(text, nodeid=f"a.py::{text}", text=f"{text}\nmore {text}", notes=(text,)),
        check("", check=text, outcome="infra"),
    )
    plain = detailed(document(row(place, outcome="fail"), checks=checks, remarks=(text,)), directory)
    one = plain.details[0]
    names = tuple(text if place == 0 else name for place, name in enumerate(one.timelines[0].names))
    line = dataclasses.replace(one.timelines[0], names=names, label=text)
    detail = dataclasses.replace(
        one,
        timelines=(line,),
        kernels=(dataclasses.replace(one.kernels[0], name=text),),
        health=(HealthLine("H99", text, True, "all", text, text, 1, text, text),),
        problem="",
    )
    return dataclasses.replace(plain, details=(detail,))


def test_a_terminal_sequence_is_shown_and_not_sent(tmp_path: Path) -> None:
    plain = document(row(outcome="fail"), checks=(check("\x1b[31mred\x1b[0m"),))
    page = Page(render(detailed(plain, tmp_path)))
    assert "\\x1b[31mred\\x1b[0m" in page.text
    assert "\x1b" not in page.html


def test_json_in_a_script_element_cannot_end_it() -> None:
    text = script_safe({"name": "</script><!--<script>\u2028&amp;\ud800"})
    assert not set("<>&\u2028") & set(text)
    assert Page(f"<script>{text}</script>").data == {"name": "</script><!--<script>\u2028&amp;\ud800"}


def test_a_page_of_8_ranks_and_1000_steps_stays_under_5_mb() -> None:
    made = document(row(ranks=8))
    made = dataclasses.replace(made, details=(_large(),))
    size = len(render(made).encode())
    assert size < 1_200_000, f"{size:,} bytes"


def _large() -> CaseDetail:
    rng = random.Random(7)
    steps = 1_000
    series = tuple(
        StepSeries(
            rank=f"rank_{rank}",
            kind=kind,
            step=tuple(range(3, 3 + steps)),
            gpu_busy_ns=tuple(rng.randrange(8_000_000, 9_900_000) for _ in range(steps)),
            bs=tuple(rng.choice((63, 64)) for _ in range(steps)),
            steady=(1,) * steps,
        )
        for rank in range(8)
        for kind in ("decode", "draft")
    )
    names = tuple(f"void kernel_{n}<{'template_argument, ' * 80}>(int)" for n in range(60))
    durs = tuple(rng.randrange(1_000, 60_000) for _ in range(4_000))
    starts = tuple(accumulate((dur + rng.randrange(300) for dur in durs), initial=0))[:-1]
    numbers = tuple(rng.randrange(60) for _ in durs)
    lane = Lane(7, sum(durs), starts, durs, numbers, tuple(range(4_000)))
    timelines = tuple(
        StepTimeline(
            which, "rank_0", "decode", True, 17, "decode[bs=64]", 0, starts[-1] + durs[-1], sum(durs), sum(durs), 4_000,
            names, ("gemm",) * 60, (lane,),
        )
        for which in ("median", "worst")
    )  # fmt: skip
    kernels = tuple(KernelLine(name, "gemm", 61, 61, 900_000, 14_000, 0.01) for name in names)
    return CaseDetail(
        CASE.slug, main="decode", focus="rank_0", main_steps=1_000, series=series, timelines=timelines, kernels=kernels
    )


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 64), st.booleans())))
def test_the_drawn_numbers_are_the_gathered_ones(rows: list[tuple[int, int, bool]]) -> None:
    busy, bs, steady = [list(column) for column in zip(*rows, strict=True)] if rows else ([], [], [])
    series = StepSeries("rank_0", "decode", tuple(range(len(rows))), tuple(busy), tuple(bs), tuple(map(int, steady)))
    detail = CaseDetail(CASE.slug, series=(series,))
    case = payload(dataclasses.replace(document(row()), details=(detail,)))["cases"]
    assert isinstance(case, list)
    sent = case[0]["series"][0]
    assert list(accumulate(sent["busy"])) == busy
    assert list(accumulate(_unfolded(sent["step"]))) == list(range(len(rows)))
    assert _unfolded(sent["bs"]) == bs
    assert _unfolded(sent["steady"]) == list(map(int, steady))


def _unfolded(pairs: list[int]) -> list[int]:
    return [value for value, count in zip(pairs[::2], pairs[1::2], strict=True) for _ in range(count)]


def test_3000_failing_checks_still_make_a_page_that_opens(tmp_path: Path) -> None:
    checks = tuple(check(f"kernel {n} is missing", text="evidence\n" * 300, nodeid=f"t.py::t{n}") for n in range(3_000))
    html = render(detailed(document(row(outcome="fail", total=3_000), checks=checks), tmp_path))
    assert len(html) < 3_000_000
    page = Page(html)
    assert "3,000 checks failed in 1 of 1 case" in page.text
    whole = len([attrs for attrs in page.all("details") if attrs.get("class") == "check"])
    plain = len([attrs for attrs in page.all("div") if attrs.get("class") == "check plain-check"])
    assert whole > 100
    assert f"{3_000 - whole - plain:,} more checks are not listed here" in page.text


@pytest.mark.parametrize(
    ("outcomes", "checks", "headline"),
    [
        ((), (), "Nothing was measured"),
        (("pass", "pass"), (), "All 2 checks of 2 cases passed"),
        (("skip",), (), "The only check was skipped"),
        (("pass", "skip"), (), "All 1 check of 2 cases passed, 1 skipped"),
        (("fail", "pass"), ("fail",), "1 check failed in 1 of 2 cases"),
        (
            ("regression", "infra"),
            ("infra", "regression", "regression"),
            "1 infra error, 2 regressions in 2 of 2 cases",
        ),
        (("inconclusive",), ("inconclusive",), "1 check inconclusive in 1 of 1 case"),
    ],
)
def test_the_headline_says_what_happened(
    outcomes: tuple[str, ...], checks: tuple[str, ...], headline: str, tmp_path: Path
) -> None:
    rows = [row(slug=f"case-{n}", outcome=outcome) for n, outcome in enumerate(outcomes)]
    plain = document(*rows, checks=tuple(check("because", outcome=one, slug="case-0") for one in checks))
    page = Page(render(detailed(plain, tmp_path)))
    assert f"\n  {headline}\n" in f"\n  {page.text.split('Theme: auto')[1].strip().splitlines()[0]}\n"


def test_a_very_long_kernel_name_is_short_in_tables_and_whole_behind_a_button(tmp_path: Path) -> None:
    long = "void f<" + ", ".join(f"ns::type_{n}" for n in range(400)) + ">(int)"
    recipe = Recipe(renamed={"mfma_moe1_a_t32": long})
    page = Page(render(detailed(document(row(capture(tmp_path / "1", recipe, recipe))), tmp_path)))
    assert any(
        attrs.get("data-raw") == long[:4_000] + f"... ({len(long) - 4_000:,} more characters)"
        for attrs in page.all("button")
    )
    assert max(len(text) for text in page.shown) < 1_000


def test_every_kernel_family_has_a_colour_of_its_own() -> None:
    assert set(COLOURS) == set(FAMILIES)
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_the_charting_library_is_the_published_one() -> None:
    table = ASSETS.joinpath("README.md").read_text("utf-8")
    rows = re.findall(r"\| `(uplot\.[\w.]+)` \| `[^`]+` \| `([0-9a-f]{64})` \|", table)
    assert len(rows) == 3
    for name, digest in rows:
        assert hashlib.sha256(ASSETS.joinpath(name).read_bytes()).hexdigest() == digest
    assert f"uplot@{UPLOT_VERSION}" in table
    assert "MIT License" in ASSETS.joinpath("uplot.LICENSE").read_text("utf-8")


def test_no_script_of_ours_ends_its_own_element_or_names_a_place_in_the_network() -> None:
    for path in Path(str(ASSETS)).glob("*.js"):
        text = path.read_text("utf-8")
        assert "</script" not in text.lower()
        assert "<!--" not in text
        if path.name != "uplot.min.js":
            assert "//" not in re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE), path.name
            for word in ("fetch(", "XMLHttpRequest", "innerHTML", "WebSocket", "eval("):
                assert word not in text, (path.name, word)
