"""The one place that writes reports: at the end of the session, in the controller (or the only process).

The document is built once; whoever is asked for reads it. A report that cannot be written is a line in the terminal: it
neither ends the run nor changes what the run found.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.files import append_bytes, json_bytes, write_bytes
from pytest_atomtrace.capture.redact import Redactor
from pytest_atomtrace.report.document import build
from pytest_atomtrace.settings import environment
from pytest_atomtrace.verdicts.evidence import near_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pytest

    from pytest_atomtrace.plugin.state import State

__all__ = ["Reporting"]

# The part of GitHub's 1,024 KiB that one step's summary may have, all its writers together.
_STEP_SUMMARY_BYTES = 1000 * 1024
_MOST_NOTES = 5
# What annotates failed tests: its own name, and the name of the part that is active.
_ANNOTATORS = ("pytest_github_actions_annotate_failures", "annotate_errors")


class Reporting:
    """The reports of one run; `lines` and `annotations` are what the terminal says of them."""

    def __init__(
        self, config: pytest.Config, state: State, entries: Sequence[Mapping[str, object]], exit_status: int
    ) -> None:
        from pytest_atomtrace.plugin.waiving import unused

        self._env = environment()
        self._redactor = Redactor(self._env)
        # Before anything is made of them: no escaping then hides a secret from the redactor.
        clean = [{str(key): self._cleaned(one) for key, one in entry.items()} for entry in entries]
        self.document = build(clean, run_id=state.run_id, remarks=unused(state, clean))
        self.exit_status = exit_status
        self.settings = state.settings
        self.root = config.rootpath
        self.run_directory = state.output / "runs" / state.run_id
        self.lines: list[tuple[str, str]] = []
        self._start = config.invocation_params.dir
        self._annotated_elsewhere = any(map(config.pluginmanager.hasplugin, _ANNOTATORS))

    def write(self) -> None:
        """Call every writer that is asked for; what each wrote, or why it could not, is added to `lines`."""
        for writer in WRITERS:
            for target in writer.targets(self):
                try:
                    notes = writer.write(self, target)
                except Exception as error:  # noqa: BLE001  # whatever a report stumbles over, the run's result stands
                    self.lines.append(("yellow", f"WARNING  no {writer.name}: {_reason(error)}"))
                    continue
                self.lines.append(("", f"{writer.name}: {near_path(target)}"))
                self.lines += [("", f"  {note}") for note in notes[:_MOST_NOTES]]
                if len(notes) > _MOST_NOTES:
                    self.lines.append(("", f"  ... and {len(notes) - _MOST_NOTES} more"))

    @property
    def on_github(self) -> bool:
        """Whether GitHub's runner reads what is printed."""
        return self.settings.github == "auto" and self._env.get("GITHUB_ACTIONS") == "true"

    @property
    def annotations(self) -> list[str]:
        """Commands for GitHub's runner, none elsewhere."""
        if not self.on_github:
            return []
        from pytest_atomtrace.report.github import annotation_commands

        workspace = self._env.get("GITHUB_WORKSPACE", "")
        root, elsewhere = str(self.root), self._annotated_elsewhere
        return annotation_commands(self.document, root=root, workspace=workspace, annotated_elsewhere=elsewhere)

    @property
    def summary_file(self) -> str:
        """The file that becomes GitHub's step summary, "" where there is none."""
        return self._env.get("GITHUB_STEP_SUMMARY", "") if self.on_github else ""

    @property
    def run_url(self) -> str:
        """The page of GitHub's run, "" elsewhere."""
        parts = [self._env.get(f"GITHUB_{name}", "") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID")]
        return "{}/{}/actions/runs/{}".format(*parts) if all(parts) else ""

    def cleaned(self, text: str) -> str:
        """`text` without secrets."""
        return self._redactor.text(text)

    def asked(self, text: str) -> list[Path]:
        """The path of an option, as one types it: relative to where pytest was started."""
        return [self._start / text] if text else []

    def _cleaned(self, value: object) -> object:
        if isinstance(value, str):
            return self._redactor.text(value)
        if isinstance(value, dict):
            return {key: self._cleaned(one) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._cleaned(one) for one in value]
        return value


def _reason(error: Exception) -> str:
    text = str(error).partition("\n")[0]
    return text if isinstance(error, OSError) or "cannot be" in text else f"{type(error).__name__}: {text}"


@dataclass(frozen=True)
class Writer:
    """One kind of report: where it goes (nowhere if it was not asked for), and what writes it and returns notes."""

    name: str
    targets: Callable[[Reporting], list[Path]]
    write: Callable[[Reporting, Path], Sequence[str]]


def _json_targets(run: Reporting) -> list[Path]:
    # A replay has no run directory, and making one would take `latest` away from the captures.
    kept = [run.run_directory / "report.json"] if run.run_directory.is_dir() else []
    return [*kept, *run.asked(run.settings.json)]


def _write_json(run: Reporting, path: Path) -> Sequence[str]:
    import msgspec

    from pytest_atomtrace.report.json_report import json_report

    backend = run.settings.backend
    report = json_report(run.document, version=_own_version(), backend=backend, exit_status=run.exit_status)
    write_bytes(path, json_bytes(msgspec.to_builtins(report)))
    return ()


def _html_targets(run: Reporting) -> list[Path]:
    asked = run.settings.html
    if asked == "none" or (asked == "auto" and not run.run_directory.is_dir()):
        return []
    from pytest_atomtrace.report.html_page import missing_extra

    problem = missing_extra()
    if problem:
        run.lines.append(("yellow", f"NOTE  {problem}"))
        return []
    return [run.run_directory / "report.html"] if asked == "auto" else run.asked(asked)


def _write_html(run: Reporting, path: Path) -> Sequence[str]:
    from pytest_atomtrace.report.gather import with_details
    from pytest_atomtrace.report.html import render

    baselines = run.root / run.settings.baselines
    document = with_details(run.document, settings=run.settings, baselines_root=baselines, clean=run.cleaned)
    write_bytes(path, _encoded(render(document)))
    return ()


def _own_version() -> str:
    from importlib import metadata

    try:
        return metadata.version("pytest-atomtrace")
    except metadata.PackageNotFoundError:  # a source tree that is not installed
        return "unknown"


def _write_markdown(run: Reporting, path: Path) -> Sequence[str]:
    from pytest_atomtrace.report.markdown import markdown

    write_bytes(path, _encoded(markdown(run.document)))
    return ()


def _summary_targets(run: Reporting) -> list[Path]:
    return [Path(run.summary_file)] if run.summary_file and run.document.cases else []


def _write_summary(run: Reporting, path: Path) -> Sequence[str]:
    from pytest_atomtrace.report.markdown import LIMIT_BYTES, markdown

    used = path.stat().st_size if path.is_file() else 0
    room = min(LIMIT_BYTES, _STEP_SUMMARY_BYTES - used)
    if room < 4096:
        return [f"nothing was added, {path} has {used:,} bytes of the 1 MiB that GitHub shows"]
    append_bytes(path, _encoded(markdown(run.document, limit_bytes=room)))
    return ()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _write_dashboard(run: Reporting, directory: Path) -> Sequence[str]:
    from pytest_atomtrace.report.dashboard import BIGGER_FILE, SMALLER_FILE, dashboard

    made = dashboard(run.document, simulator_run=run.settings.backend == "sim", run_url=run.run_url)
    for name, entries in ((BIGGER_FILE, made.bigger), (SMALLER_FILE, made.smaller)):
        write_bytes(directory / name, json_bytes(entries))
    return made.left_out


WRITERS = (
    Writer("JSON report", _json_targets, _write_json),
    Writer("HTML report", _html_targets, _write_html),
    Writer("Markdown report", lambda run: run.asked(run.settings.markdown), _write_markdown),
    Writer("GitHub step summary", _summary_targets, _write_summary),
    Writer("dashboard files", lambda run: run.asked(run.settings.dashboard), _write_dashboard),
)
