"""The xdist side: what the controller sends down, and the one failed collection that it turns into exit 4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from pytest_atomtrace.plugin.state import FAILED_COLLECTION, REPORT_ATTRIBUTE, STATE, WORKER_INPUT

if TYPE_CHECKING:
    from pytest_atomtrace.plugin.state import State

__all__ = ["ControllerHooks", "run_input"]


class Node(Protocol):
    """The part of an xdist WorkerController that we use."""

    config: pytest.Config
    workerinput: dict[str, object]


class Scheduler(Protocol):
    """The part of an xdist scheduler that we use."""

    config: pytest.Config


def run_input(state: State) -> dict[str, object]:
    """What every worker of this run must agree on, as builtin types."""
    return {
        "run_id": state.run_id,
        "output": str(state.output),
        "controller_pid": state.controller_pid,
        "problems": state.problems,
        "settings": state.settings.as_dict(scope="run"),
    }


class ControllerHooks:
    """Registered in the controller only, and only where xdist is."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Node) -> None:
        """Send the run's identity and settings to a worker."""
        node.workerinput[WORKER_INPUT] = run_input(node.config.stash[STATE])

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport, sched: Scheduler) -> None:
        """Call the item of a worker that died during a capture an infra error: nothing was judged."""
        from pytest_atomtrace.capture.store import attempt_of

        state = sched.config.stash[STATE]
        attempt = attempt_of(state.output / "runs" / state.run_id, crashitem)
        if attempt is None:
            return
        text = f"{report.longrepr}\n{attempt} ended with it; it is not tried again in this run."
        report.when = "setup"
        report.longrepr = text
        setattr(report, REPORT_ATTRIBUTE, {"case": {}, "verdicts": [], "trouble": "infra", "text": text})

    @pytest.hookimpl(tryfirst=True)  # before the terminal keeps it: the message must appear once
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Stop the run when a worker found mistakes in the specs."""
        text = getattr(report, FAILED_COLLECTION, None)
        if text:
            raise pytest.UsageError(text)
