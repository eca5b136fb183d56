"""Acceptance: the whole path as real processes, judged by what they leave behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip (and so state) what is slow, unless it was asked for by ``-m slow`` or by its id."""
    if "slow" in (config.option.markexpr or "") or any("::" in argument for argument in config.args):
        return
    for item in items:
        if item.get_closest_marker("slow") is not None:
            item.add_marker(pytest.mark.skip(reason="slow: the rest of the matrix runs with -m slow"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A fresh site; whatever a failed test left running there is killed."""
    place = Site(tmp_path / "site")
    yield place
    place.close()
