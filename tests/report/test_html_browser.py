"""The page in a real browser: no error, no request, and what a reader does works by mouse and by keyboard."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.report.html import render
from tests.report.pages import capture, check, detailed, document, row
from tests.traces import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser
    from playwright.sync_api import Page as Tab

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
LONG = "void f<" + "argument, " * 150 + "int>(int)"
pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra `browser`)")
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("page")
    slow = Recipe(slow={20: 3.0}, renamed={"mfma_moe2_a_t32": LONG})
    rows = [
        row(capture(directory / "a", slow, slow), slug="case-a", outcome="fail", p50_ns=120_000),
        row(capture(directory / "b", Recipe(duration_us=20.0), Recipe()), slug="case-b", p50_ns=240_000),
        row(slug="case-c", outcome="infra", p50_ns=None, p99_ns=None, ranks=None),
    ]
    budget = {"kind": "decode", "metric": "gpu_busy", "p50_ns": 120_000, "p50_budget_ns": 110_000}
    checks = (
        check("the launch failed", outcome="infra", slug="case-c", text="log\n" * 30),
        check("decode is <script>document.title='owned'</script> slow", slug="case-a", facts=budget),
    )
    path = directory / "page.html"
    path.write_text(render(detailed(document(*rows, checks=checks), directory)), "utf-8")
    return path


@contextmanager
def opened(browser: Browser, path: Path, *, scheme: str = "light", width: int = 1280) -> Iterator[Tab]:
    """A tab with the page; ends with the proof that nothing was asked of the network and nothing went wrong."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})  # type: ignore[arg-type]
    tab = context.new_page()
    problems: list[str] = []
    tab.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("request", lambda request: problems.append(request.url) if request.url != path.as_uri() else None)
    tab.goto(path.as_uri())
    try:
        yield tab
        assert problems == []
    finally:
        context.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_without_an_error_or_a_request_and_fits_the_screen(
    browser: Browser, page_file: Path, scheme: str, width: int
) -> None:
    with opened(browser, page_file, scheme=scheme, width=width) as tab:
        for case in ("#case-1", "#case-2"):
            if tab.locator(case).get_attribute("open") is None:
                tab.locator(f"{case} > summary").click()
        tab.wait_for_selector("#case-2 .steps canvas")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert "owned" not in tab.title()
        background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(background.split("(")[1].split(",")[0]) < 60) == (scheme == "dark")
        assert tab.locator("#case-1 .timeline canvas").count() == 2


def test_a_header_sorts_by_mouse_and_by_keyboard_and_missing_figures_stay_last(
    browser: Browser, page_file: Path
) -> None:
    with opened(browser, page_file) as tab:
        header = tab.locator("table.cases th", has_text="decode p50")
        header.locator("button").click()
        assert _slugs(tab) == ["case-b", "case-a", "case-c"]
        assert header.get_attribute("aria-sort") == "descending"
        header.locator("button").press("Enter")
        assert _slugs(tab) == ["case-a", "case-b", "case-c"]
        assert header.get_attribute("aria-sort") == "ascending"


def _slugs(tab: Tab) -> list[str]:
    return tab.locator("table.cases tbody tr:visible .slug").all_inner_texts()


def test_filters_by_text_and_by_outcome_hide_cases_and_checks(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as tab:
        tab.keyboard.press("/")
        tab.keyboard.type("case-c")
        assert _slugs(tab) == ["case-c"]
        assert tab.locator("details.check:visible").count() == 1
        assert tab.locator("#cases-shown").inner_text() == "1 of 3 cases"
        tab.locator("#clear").click()
        tab.locator(".chip[data-outcome=fail]").click()
        assert _slugs(tab) == ["case-a"]
        assert tab.locator(".chip[data-outcome=fail]").get_attribute("aria-pressed") == "true"
        tab.locator(".chip[data-outcome=fail]").click()
        assert len(_slugs(tab)) == 3


def _view(tab: Tab) -> tuple[int, int]:
    canvas = tab.locator("#case-1 .timeline canvas").first
    return int(str(canvas.get_attribute("data-from"))), int(str(canvas.get_attribute("data-to")))


def test_the_timeline_zooms_by_buttons_keys_wheel_and_drag_and_both_steps_follow(
    browser: Browser, page_file: Path
) -> None:
    with opened(browser, page_file) as tab:
        tab.goto(f"{page_file.as_uri()}#case-1")
        canvas = tab.locator("#case-1 .timeline canvas").first
        canvas.scroll_into_view_if_needed()
        whole = _view(tab)
        assert whole == (0, 360_000)
        tab.locator("#case-1 .zoom-in").click()
        assert _view(tab) == (90_000, 270_000)
        other = tab.locator("#case-1 .timeline canvas").nth(1)
        assert (other.get_attribute("data-from"), other.get_attribute("data-to")) == ("90000", "270000")
        canvas.focus()
        tab.keyboard.press("+")
        tab.keyboard.press("ArrowRight")
        assert _view(tab) == (157_500, 247_500)
        tab.keyboard.press("0")
        assert _view(tab) == whole
        box = canvas.bounding_box()
        assert box is not None
        middle = box["y"] + box["height"] / 2
        tab.mouse.move(box["x"] + box["width"] / 2, middle)
        tab.mouse.wheel(0, -240)
        tab.wait_for_function("document.querySelector('#case-1 .timeline canvas').dataset.from > 0")
        tab.locator("#case-1 .zoom-reset").click()
        tab.mouse.move(box["x"] + box["width"] * 0.25, middle)
        tab.mouse.down()
        tab.mouse.move(box["x"] + box["width"] * 0.5, middle, steps=4)
        tab.mouse.up()
        assert _view(tab) == pytest.approx((90_000, 180_000), abs=2_000)


def test_a_wheel_over_an_unfocused_timeline_scrolls_the_page(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as tab:
        canvas = tab.locator("#case-1 .timeline canvas").first
        tab.locator("#case-1 > summary").click()
        if tab.locator("#case-1").get_attribute("open") is None:
            tab.locator("#case-1 > summary").click()
        canvas.scroll_into_view_if_needed()
        canvas.hover()
        before = _view(tab)
        tab.mouse.wheel(0, 200)
        tab.wait_for_timeout(200)
        assert _view(tab) == before


def test_a_kernel_is_picked_by_click_and_found_by_name(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as tab:
        tab.goto(f"{page_file.as_uri()}#case-1")
        canvas = tab.locator("#case-1 .timeline canvas").first
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box is not None
        canvas.click(position={"x": 4, "y": 55})
        picked = tab.locator("#case-1 .picked")
        assert "attention_kernel" in picked.inner_text()
        assert "call 1 of 4 in this step" in picked.inner_text()
        tab.keyboard.press("]")
        tab.keyboard.press("]")
        assert LONG in picked.inner_text()
        tab.locator("#case-1 .find").fill("moe1")
        assert tab.locator("#case-1 .found").inner_text() == "median: 4 calls, 40.00 us · worst: 4 calls, 120.0 us"


def test_the_theme_can_be_chosen_and_charts_are_drawn_again(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as tab:
        seen = []
        for _ in range(3):
            seen.append(
                (tab.locator("#theme").inner_text(), tab.evaluate("getComputedStyle(document.body).backgroundColor"))
            )
            tab.locator("#theme").click()
        assert [text for text, _ in seen] == ["Theme: auto", "Theme: dark", "Theme: light"]
        assert seen[0][1] == seen[2][1] != seen[1][1]


def test_a_chart_zooms_resets_and_changes_its_kind_and_a_rank_can_be_hidden(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as tab:
        tab.goto(f"{page_file.as_uri()}#case-1")
        plot = tab.locator("#case-1 .steps .u-over")
        plot.scroll_into_view_if_needed()
        plot.hover(position={"x": 100, "y": 60})
        tab.wait_for_selector("#case-1 .steps .tip:visible")
        assert "rank_0 120.0 us" in tab.locator("#case-1 .steps .tip").inner_text()
        rank = tab.locator("#case-1 .ranks button").first
        rank.click()
        assert rank.get_attribute("aria-pressed") == "false"
        tab.locator("#case-1 .kind").select_option("prefill")
        assert "A single prefill step" in tab.locator("#case-1 .steps").inner_text()


def test_without_scripts_the_tables_and_texts_are_all_there(browser: Browser, page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(page_file.as_uri())
    assert tab.locator("noscript").inner_text().startswith("Scripts are off")
    assert _slugs(tab) == ["case-a", "case-b", "case-c"]
    assert not tab.locator(".needs-js:visible").count()
    assert tab.locator("#case-1 table:visible").count() >= 3
    context.close()


def test_printing_unfolds_everything(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as tab:
        tab.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert tab.locator("details:not([open])").count() == 0
        tab.evaluate("dispatchEvent(new Event('afterprint'))")
        assert tab.locator("details.check[open]").count() == 0
        assert len(tab.pdf()) > 20_000
