"""Which workload a case gets, and the making of its runs: warm-up, unprofiled pass, window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.availability import atom_benchmark_installed
from pytest_atomtrace.capture.benchmark import OWNED, Benchmark, client_environment
from pytest_atomtrace.capture.chat_template import ChatTemplate, decide
from pytest_atomtrace.capture.prompts import requests_for
from pytest_atomtrace.capture.workload import Load
from pytest_atomtrace.errors import WorkloadError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_atomtrace.capture.http import Client
    from pytest_atomtrace.capture.server import Server
    from pytest_atomtrace.capture.workload import Workload
    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.settings import Settings

__all__ = ["Loads", "refuse_unsupported", "workload_of"]


def workload_of(settings: Settings, engine: str) -> str:
    """``atom`` or ``builtin``; what was named is taken at its word, `auto` looks whether ATOM's client is there."""
    if settings.workload != "auto":
        return settings.workload
    # The simulator must not change its answers with what else happens to be installed.
    if engine == "sim" or settings.window_steps:
        return "builtin"
    return "atom" if atom_benchmark_installed(settings) else "builtin"


def refuse_unsupported(case: Case, settings: Settings, engine: str) -> None:
    """Refuse, before anything is started, what the chosen workload would leave out or get wrong.

    Raises:
        WorkloadError: arguments of a benchmark that will not run, or that are the harness's to give.

    """
    workload = workload_of(settings, engine)
    if workload == "builtin" and case.bench_args:
        raise WorkloadError(
            f"the built-in workload takes no benchmark arguments, the case has {list(case.bench_args)}",
            "Leave bench_args out of the case, or run ATOM's client: --atom-workload=atom.",
        )
    if workload == "atom" and settings.window_steps:
        raise WorkloadError(
            "--atom-window-steps needs the built-in workload: benchmark_serving does not tell when its slots decode",
            "Use --atom-workload=builtin, or leave --atom-window-steps out.",
        )
    for argument in case.bench_args:
        flag = argument.partition("=")[0]
        reason = OWNED.get(flag.replace("_", "-"))
        if reason:
            raise WorkloadError(f"bench_args may not hold {flag}: {reason}", "Leave it out of the case.")


@dataclass
class Loads:
    """Makes the runs of one window of one case.

    `words_per_token` scales text to tokens, `salt` makes prompts differ from those of other runs where the server
    outlives a run. `env` and `directory` are for a client that is a process of its own.
    """

    server: Server
    case: Case
    number: int
    settings: Settings
    client: Client
    kind: str
    chat: ChatTemplate
    env: Mapping[str, str]
    directory: Path
    salt: str = ""
    words_per_token: float = 1.0

    @classmethod
    def of(
        cls,
        server: Server,
        case: Case,
        number: int,
        *,
        settings: Settings,
        client: Client,
        env: Mapping[str, str],
        directory: Path,
        salt: str,
    ) -> Loads:
        """Decide on workload and chat template."""
        kind = workload_of(settings, server.engine)
        chat = decide(case, settings, env)
        return cls(server, case, number, settings, client, kind, chat, env, directory, salt)

    def seed(self, purpose: str) -> str:
        """Slug and number are part of it: no two windows of a server share a prompt."""
        return f"{self.salt}{self.case.slug}/{self.number}/{purpose}"

    def builtin(self, purpose: str, count: int) -> Load:
        """A run of the built-in client; the warm-up is always one, since it needs no start of its own."""
        requests = requests_for(self.case, seed=self.seed(purpose), count=count, words_per_token=self.words_per_token)
        return Load(self.client, self.case.model, requests, self.case.conc, self.server.clock, chat=self.chat.used)

    def measured(self, purpose: str) -> Workload:
        """A run of the case's own requests by the chosen workload."""
        if self.kind == "builtin":
            return self.builtin(purpose, self.case.requests)
        return Benchmark(
            case=self.case,
            url=self.server.url,
            seed=self.seed(purpose),
            requests=self.case.requests,
            chat=self.chat.used,
            python=self.settings.atom_python,
            env=client_environment(self.env, self.settings.root),
            directory=self.directory,
            link=self.server.link,
            name=f"benchmark-{self.case.slug[:60]}-{self.number}-{purpose.replace(' ', '-')}",
        )
