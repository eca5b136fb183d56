"""Refuse a wheel that lacks what an installed plugin needs, or carries what it must not."""

from __future__ import annotations

import sys
import zipfile

NEEDED = (
    "pytest_atomtrace/py.typed",
    "pytest_atomtrace/plugin/__init__.py",
    "pytest_atomtrace/simulator/profiles/",
    "pytest_atomtrace/cases/specs/spec.schema.json",
    "pytest_atomtrace/report/report.schema.json",
)
UNWANTED = ("tests/", "perf_specs/", "benchmarks/")


def main(path: str) -> int:
    """Check one wheel; the exit code says whether it is complete."""
    names = zipfile.ZipFile(path).namelist()
    missing = [need for need in NEEDED if not any(name.startswith(need) for name in names)]
    extra = [name for name in names if name.startswith(UNWANTED)]
    for need in missing:
        print(f"{path}: {need} is missing")
    for name in extra:
        print(f"{path}: {name} does not belong into the wheel")
    entry = next(name for name in names if name.endswith("entry_points.txt"))
    text = zipfile.ZipFile(path).read(entry).decode()
    if "atomtrace = pytest_atomtrace.plugin" not in text:
        print(f"{path}: the pytest11 entry point is missing")
        missing.append("entry point")
    return 1 if missing or extra else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
