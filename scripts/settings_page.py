"""Write docs/settings.md from the settings table; with --check, only say whether it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from pytest_atomtrace.settings import rows

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"


def page() -> str:
    """The page's text."""
    lines = [
        "# Settings",
        "",
        "<!-- Written by scripts/settings_page.py from pytest_atomtrace/settings.py. -->",
        "",
        "The command line wins over the environment, that over the ini file, that over the default. Durations carry a",
        'unit (`"45 min"`); a bare number is seconds. Scope *run* is decided by the xdist controller for all workers,',
        "scope *host* by each worker for its machine.",
        "",
        "Write values with `=`, as in `--atom-replay=DIR`: pytest takes a path with a blank that stands apart for a",
        "place to run too. A wrong value is a usage error (exit 4). What is wrong in environment variables, a name",
        "that is no setting included, counts only once the run has a test with a case: variables are set for whole",
        "machines.",
    ]
    # A section each: a table of six columns hides its last one, the meaning, on every screen.
    for row in rows():
        meaning = f"{row.help[:1].upper()}{row.help[1:]}."
        facts = [f"ini `{row.ini}`", f"environment `{row.env}`", f"default: {row.shown_default}", f"scope: {row.scope}"]
        facts[2:2] = [f"one of {', '.join(f'`{word}`' for word in row.choices)}"] * bool(row.choices)
        lines += ["", f"## `{row.option}`", "", meaning, "", f"{'; '.join(facts)}"]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write or check; the exit code of a check says whether the page is stale."""
    if "--check" in sys.argv[1:]:
        if PAGE.read_text(encoding="utf-8") != page():
            print(f"{PAGE} is stale: python scripts/settings_page.py")
            return 1
        return 0
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
