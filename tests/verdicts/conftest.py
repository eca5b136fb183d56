"""Golden texts: what a failing check says, word for word. ``--update-golden`` writes them anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden texts of tests/verdicts anew")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the golden file of this name."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        # The option exists only where this folder was named on the command line.
        if request.config.getoption("--update-golden", default=False):
            path.write_text(text + "\n", encoding="utf-8")
        assert path.exists(), f"{path} is missing: pytest tests/verdicts --update-golden"
        assert text + "\n" == path.read_text(encoding="utf-8")

    return check
