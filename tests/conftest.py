"""Shared by all tests of the project."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.settings import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

# The terminal summary of hypothesis' plugin imports all of hypothesis, in every run: 0.7 s of a child's 1.0 s.
CHILDS_OPTIONS = "-p no:hypothesispytest"


@pytest.fixture(scope="session", autouse=True)
def _outside_of_any_runner() -> Iterator[None]:
    """The runs that tests start must not write into the summary of the CI job that runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in environment() if name.startswith("GITHUB_")]:
            patch.delenv(name)
        patch.setenv("PYTEST_ADDOPTS", CHILDS_OPTIONS)
        yield


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Pytester takes PYTEST_ADDOPTS away, and with it what the runs of all tests are given."""
    monkeypatch.setenv("PYTEST_ADDOPTS", CHILDS_OPTIONS)
    return pytester


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> None:
    """A shell starts its background jobs with SIGINT ignored, and so would every child: tests of Ctrl-C hung."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
