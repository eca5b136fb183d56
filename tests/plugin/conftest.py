"""Shared by the tests of whole runs of pytest."""

from __future__ import annotations

import pytest

MODES = {"no xdist": (), "two workers": ("-n", "2")}


@pytest.fixture(params=list(MODES.values()), ids=list(MODES))
def mode(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Options with which a run must come to the same."""
    arguments: tuple[str, ...] = request.param
    return arguments
