"""The page of a history in a real browser: it draws, tells what is under the pointer, and asks for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.cli import main
from tests.report.kept import KeptRun
from tests.report.test_html_browser import browser, opened

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

pytest.importorskip("jinja2", reason="a page needs the extra report")
__all__ = ["browser"]
pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture
def history_file(tmp_path: Path) -> Path:
    for day, us in ((3, 10.0), (4, 10.1), (5, 12.0)):
        KeptRun(day, us=us, environment={"rocm_version": f"7.{day}.0"}).write(tmp_path)
    KeptRun(6, us=30.0, engine="sim").write(tmp_path)
    page = tmp_path / "history.html"
    assert main(["history", "Some-Model", "--runs", str(tmp_path), "--html", str(page)]) == 0
    return page


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280)])
def test_it_draws_and_tells_what_is_under_the_pointer(
    browser: Browser,
    history_file: Path,
    scheme: str,
    width: int,
) -> None:
    with opened(browser, history_file, scheme=scheme, width=width) as tab:
        plots = tab.locator(".history .u-over")
        # The simulator's run is the latest, so its series stands first.
        assert plots.count() == 2
        real = plots.nth(1)
        real.scroll_into_view_if_needed()
        box = real.bounding_box()
        assert box is not None
        real.hover(position={"x": box["width"] * 0.85, "y": box["height"] * 0.5})
        tip = tab.locator(".tip:visible")
        tip.wait_for(timeout=10_000)
        text = tip.inner_text()
        assert "144.0 us (+18.8 %)" in text
        assert "environment: ROCm 7.4.0 -> 7.5.0" in text
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_without_scripts_every_value_is_in_the_tables(
    browser: Browser,
    history_file: Path,
) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(history_file.as_uri())
    text = tab.inner_text("main")
    for value in ("120.0 us", "121.2 us", "144.0 us", "360.0 us", "ROCm 7.3.0 -> 7.4.0"):
        assert value in text
    context.close()
