"""Runs the command line in this process and gives back what a shell would see."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_atomtrace.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def row(self, start: str) -> list[str]:
        """Words of the first line that begins with `start`."""
        found = [line for line in self.out.splitlines() if line.strip().startswith(start)]
        assert found, f"no line starts with {start!r} in\n{self.out}"
        return found[0].split()


@pytest.fixture
def atomtrace(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    def run(*words: object, width: int = 120) -> Result:
        monkeypatch.setenv("COLUMNS", str(width))
        capsys.readouterr()
        code = main([str(word) for word in words])
        caught = capsys.readouterr()
        return Result(code, caught.out, caught.err)

    return run


@pytest.fixture
def real() -> Path:
    """Folder of real MI300X traces."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real traces (../shared/data) are not here")
    return SHARED_DATA / "mi300x"
