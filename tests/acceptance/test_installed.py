"""The wheel alone, in an environment and a folder that know nothing of this checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.site import Site

CHECKOUT = Path(__file__).parents[2]
SPEC = "test_gpt_oss_120b.py"
PIP_S = 240
# A checkout on the path would hide what the wheel lacks.
CLEAN = {"PYTHONPATH": "", "ATOMTRACE_SIM_LAYERS": "0"}


def _pip(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), "-m", "pip", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
        timeout=PIP_S,
        cwd=python.parent,
    )


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with nothing but the wheel and what the wheel asks for."""
    folder = tmp_path_factory.mktemp("installed")
    made = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(CHECKOUT)],
        capture_output=True,
        text=True,
        timeout=PIP_S,
    )
    assert made.returncode == 0, made.stderr
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    done = _pip(python, "install", "--quiet", str(wheel))
    if done.returncode != 0 and ("No matching distribution" in done.stderr or "ConnectionError" in done.stderr):
        pytest.skip(f"pip reaches no package index: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return python


@pytest.mark.timeout(600)
def test_one_copied_spec_is_green_in_an_empty_folder(python: Path, site: Site) -> None:
    shutil.copy(CHECKOUT / "perf_specs" / SPEC, site.folder)
    done = site.start("-m", "gpu", python=str(python), env=CLEAN).wait(timeout_s=120)
    assert done.code == pytest.ExitCode.OK, (done.stdout, done.stderr)
    assert set(done.outcomes.values()) == {"passed"}
    assert len(done.outcomes) >= 8
    assert (site.ledger.launches, site.ledger.windows) == (1, 1)


def test_collecting_nothing_in_an_empty_folder_is_quiet(python: Path, site: Site) -> None:
    done = site.start("--collect-only", python=str(python), backend="", env=CLEAN).wait()
    assert done.code == pytest.ExitCode.NO_TESTS_COLLECTED
    assert done.stderr == ""
    assert not site.store.exists()
    assert not site.locks.exists()


def test_the_plugin_is_the_wheels(python: Path, site: Site) -> None:
    site.write(
        "import pytest_atomtrace\ndef test_where(record_property): record_property('at', pytest_atomtrace.__file__)"
    )
    done = site.start("-q", python=str(python), backend="", env=CLEAN).wait()
    assert done.code == pytest.ExitCode.OK
    assert str(python.parents[1]) in (site.folder / "junit-1.xml").read_text()


def test_the_wheel_has_every_data_file_of_the_package(python: Path) -> None:
    """Profiles, schemas, templates and scripts of reports are found at run time only, so a lost one fails late."""
    (installed,) = python.parents[1].glob("lib/python*/site-packages/pytest_atomtrace")
    assert _data_files(CHECKOUT / "pytest_atomtrace") <= _data_files(installed)


def _data_files(package: Path) -> set[str]:
    found = (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(package)) for path in found if path.suffix not in (".py", ".so", ".c", ".h")}
