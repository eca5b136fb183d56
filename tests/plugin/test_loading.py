"""Loading the plugin costs nothing, and collecting starts nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = {
    "aiohttp",
    "asyncio",
    "filelock",
    "hypothesis",
    "isal",
    "msgspec",
    "multiprocessing",
    "numpy",
    "orjson",
    "psutil",
    "tabulate",
    "yaml",
}
PROBE = """
import json, sys
import pytest
code = pytest.main(["-q", "--collect-only", "-p", "no:cacheprovider", *sys.argv[1:]])
print("MODULES " + json.dumps(sorted(sys.modules)))
"""


def modules_after_collecting(folder: Path, *arguments: str) -> set[str]:
    result = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    line = next(line for line in result.stdout.splitlines() if line.startswith("MODULES "))
    return set(json.loads(line.removeprefix("MODULES ")))


def test_an_empty_folder_loads_nothing_heavy(tmp_path: Path) -> None:
    with_plugin = modules_after_collecting(tmp_path)
    without = modules_after_collecting(tmp_path, "-p", "no:atomtrace")
    added = with_plugin - without
    assert "pytest_atomtrace.plugin" in added
    assert not {name.split(".")[0] for name in added} & HEAVY
    assert not any(name.startswith("pytest_atomtrace." + room) for name in added for room in ("trace", "verdicts"))


def test_collecting_specs_loads_no_engine_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_spec.py").write_text(
        "import pytest\n@pytest.mark.atom_case(model='m', conc=[1, 2])\ndef test_it(atom_trace): pass\n"
    )
    added = modules_after_collecting(tmp_path) - modules_after_collecting(tmp_path, "-p", "no:atomtrace")
    assert not {name.split(".")[0] for name in added} & HEAVY
    assert not (tmp_path / ".atomtrace").exists()


@pytest.mark.parametrize(
    "arguments", [("--collect-only",), ("--help",), ("--markers",), ("--fixtures",), ("--setup-plan",)]
)
def test_looking_around_starts_nothing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    ledger = pytester.path / "ledger.jsonl"
    monkeypatch.setenv("ATOMTRACE_SIM_LEDGER", str(ledger))
    pytester.makepyfile(
        "import pytest\n@pytest.mark.atom_case(model='openai/gpt-oss-120b')\ndef test_it(atom_trace): pass\n"
    )
    result = pytester.runpytest_subprocess("--atom-backend=sim", *arguments)
    assert result.ret == 0
    assert not ledger.exists()
    assert not (pytester.path / ".atomtrace").exists()


def test_the_door_is_complete_and_sorted() -> None:
    import pytest_atomtrace

    names = pytest_atomtrace.__all__
    assert names == sorted(names)
    for name in names:
        assert getattr(pytest_atomtrace, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        pytest_atomtrace.no_such_name  # noqa: B018  # the access is the test
