"""ATOM's own client, ``python -m atom.benchmarks.benchmark_serving``, as a workload.

It is never told to profile: its answer to a failed /start_profile is silence, so the window is opened and closed
here. Its exit status says nothing either (0 when all requests failed): the result file does.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.redact import Redactor
from pytest_atomtrace.errors import InfraError, WorkloadError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_atomtrace.capture.keeper_link import KeeperLink
    from pytest_atomtrace.cases.case import Case

__all__ = ["OWNED", "Benchmark", "benchmark_arguments", "client_environment"]

_MODULE = "atom.benchmarks.benchmark_serving"
_POLL_S = 0.1
_TAIL_LINES = 12
#: Arguments of the client that the harness decides; a case may not bring them.
OWNED = {
    "--profile": "the window is opened and closed by the harness",
    "--num-warmups": "the harness warms up itself, with other prompts",
    "--seed": "every window has prompts of its own",
    "--save-result": "the harness reads the result",
    "--result-dir": "the harness reads the result",
    "--result-filename": "the harness reads the result",
    "--base-url": "the harness knows the server",
    "--host": "the harness knows the server",
    "--port": "the harness knows the server",
    "--model": "write it as model=",
    "--dataset-name": "prompts are random text",
    "--num-prompts": "write it as prompts_per_slot=",
    "--max-concurrency": "write it as conc=",
    "--random-input-len": "write it as isl=",
    "--random-output-len": "write it as osl=",
    "--random-range-ratio": "write it as range_ratio=",
    "--use-chat-template": "write it as chat_template=True",
    "--ignore-eos": "it is always on: lengths are exact",
}


def benchmark_arguments(case: Case, *, url: str, seed: str, requests: int, chat: bool, result: Path) -> tuple[str, ...]:
    """The client's arguments after ``-m atom.benchmarks.benchmark_serving``.

    Source: ATOM `atom/benchmarks/benchmark_serving.py`. All of ttft, tpot and itl are asked for: with fewer its
    ``--save-result`` fails. The seed is a number made from the text `seed`.
    """
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big") >> 1
    trusted = any(arg.replace("_", "-") == "--trust-remote-code" for arg in case.server_args)
    has_tokenizer = any(arg.partition("=")[0] == "--tokenizer" for arg in case.bench_args)
    return (
        "--backend", "vllm", "--base-url", url, "--endpoint", "/v1/completions",
        "--model", case.model, *(() if has_tokenizer else ("--tokenizer", case.model)),
        "--dataset-name", "random",
        "--random-input-len", str(case.isl),
        "--random-output-len", str(case.output_tokens),
        "--random-range-ratio", f"{case.range_ratio:g}",
        "--num-prompts", str(requests),
        "--max-concurrency", str(case.conc),
        "--request-rate", "inf",
        "--ignore-eos",
        "--seed", str(number),
        "--num-warmups", "0",
        "--save-result", "--result-dir", str(result.parent), "--result-filename", result.name,
        "--percentile-metrics", "ttft,tpot,itl,e2el",
        "--disable-tqdm",
        *(("--trust-remote-code",) if trusted else ()),
        *(("--use-chat-template",) if chat else ()),
        *case.bench_args,
    )  # fmt: skip


def client_environment(base: Mapping[str, str], root: str) -> dict[str, str]:
    """The environment of the client: ours, ATOM's checkout first on its path, no proxy on the way to the server.

    What a case puts into `env` is the server's; the client is not given it.
    """
    env = {name: value for name, value in base.items() if not name.startswith("PYTEST_")}
    env["PYTHONUNBUFFERED"] = "1"
    if root:
        inherited = env.get("PYTHONPATH", "")
        env["PYTHONPATH"] = f"{Path(root).resolve()}:{inherited}" if inherited else str(Path(root).resolve())
    # Its sessions trust the environment's proxies, which know no server of this machine.
    for name in ("NO_PROXY", "no_proxy"):
        env[name] = ",".join(filter(None, (env.get(name, ""), "127.0.0.1,localhost")))
    return env


@dataclass
class Benchmark:
    """One run of the client, as a process of the keeper: should we die, it dies with the server."""

    case: Case
    url: str
    seed: str
    requests: int
    chat: bool
    python: str
    env: Mapping[str, str]
    directory: Path
    link: KeeperLink
    name: str
    _code: int | None = None
    _killed: bool = False
    _result: dict[str, object] = field(default_factory=dict)

    @property
    def _log(self) -> Path:
        return self.directory / f"{self.name}.log"

    @property
    def result_file(self) -> Path:
        """Where the client puts its figures."""
        return self.directory / f"{self.name}.json"

    @property
    def argv(self) -> tuple[str, ...]:
        """The whole command line."""
        arguments = benchmark_arguments(
            self.case, url=self.url, seed=self.seed, requests=self.requests, chat=self.chat, result=self.result_file
        )
        return (self.python, "-m", _MODULE, *arguments)

    @property
    def progress(self) -> int:
        """The client's log grows by little; the server's is watched beside it."""
        with contextlib.suppress(OSError):
            return self._log.stat().st_size
        return 0

    @property
    def so_far(self) -> str:
        """Nobody knows before its end."""
        tail = self._tail()
        return f" (its client's last line: {tail[-1]!r})" if tail else ""

    @property
    def state(self) -> str:
        """For progress lines."""
        return (self._tail() or ["starting"])[-1][:100]

    @property
    def in_flight(self) -> int:
        """Of a client that was ended by force: all of them, for all we know."""
        return self.requests if self._killed else 0

    @property
    def may_be_silent(self) -> bool:
        """It imports transformers and builds all prompts before it says anything."""
        return True

    async def run(self) -> None:
        """Start the client and wait for its end."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.result_file.unlink(missing_ok=True)
        self._killed = True
        argv, env = list(self.argv), dict(self.env)
        self.link.request("start", argv=argv, env=env, cwd=str(self.directory), log=str(self._log))
        try:
            while (code := self.link.request("helper")["returncode"]) is None:
                await asyncio.sleep(_POLL_S)
            self._killed = False
            self._code = int(str(code))
        finally:
            with contextlib.suppress(InfraError):
                self.link.request("end_helper")
        with contextlib.suppress(OSError, ValueError):
            value = json.loads(self.result_file.read_bytes())
            self._result = value if isinstance(value, dict) else {}

    def check(self, what: str) -> None:
        """Raise WorkloadError unless the result says that every request completed with all its tokens."""
        if self._code != 0:
            problem = f"benchmark_serving of the {what} ended with exit status {self._code}"
            raise WorkloadError(problem, "Its output's end is below.", self._tail(_TAIL_LINES))
        if not self._result:
            problem = f"benchmark_serving of the {what} ended with exit status 0 and left no result in {self._log.name}"
            raise WorkloadError(problem, "Its output's end is below.", self._tail(_TAIL_LINES))
        completed, asked = self._result.get("completed"), self._result.get("num_prompts")
        if completed != self.requests or asked != self.requests:
            raise WorkloadError(
                f"{self.requests - _whole(completed)} of {self.requests} requests of the {what} failed, and "
                "benchmark_serving ended with exit status 0",
                "Times of such a window mean nothing; the reasons it counted are below.",
                self._tail(_TAIL_LINES),
            )
        tokens, wanted = _whole(self._result.get("total_output_tokens")), self._fewest_tokens()
        if tokens < wanted:
            raise WorkloadError(
                f"{tokens:,} output tokens came in the {what}, at least {wanted:,} were asked for",
                "Requests ended before their length: the server ignored ignore_eos, or cut them off.",
                self._tail(_TAIL_LINES),
            )

    def _fewest_tokens(self) -> int:
        return self.requests * max(1, int(self.case.output_tokens * self.case.range_ratio))

    def figures(self) -> dict[str, object]:
        """The client's figures under the names of the built-in one; its whole result is kept as ``atom``."""
        row = self._result
        exact = self.case.range_ratio == 1.0
        return {
            "workload": "atom",
            "chat_template": self.chat,
            "requests": self.requests,
            "completed": _whole(row.get("completed")),
            "failed": self.requests - _whole(row.get("completed")),
            "concurrency": self.case.conc,
            "duration_s": row.get("duration"),
            "output_tokens": _whole(row.get("total_output_tokens")),
            **({"asked_output_tokens": self._fewest_tokens()} if exact else {}),
            "input_tokens": _whole(row.get("total_input_tokens")),
            "output_tokens_per_s": row.get("output_throughput"),
            **{f"{name}_ms": _spread(row, name) for name in ("ttft", "tpot", "itl", "e2el")},
            "atom": row,
        }

    def _tail(self, lines: int = 3) -> list[str]:
        try:
            text = self._log.read_bytes()[-8192:].decode("utf-8", "replace")
        except OSError:
            return []
        redactor = Redactor(self.env, self.argv)
        found = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()][-lines:]
        return [redactor.text(line)[:300] for line in found]


def _spread(row: Mapping[str, object], name: str) -> dict[str, object] | None:
    found = {"mean": row.get(f"mean_{name}_ms"), "p50": row.get(f"median_{name}_ms"), "p99": row.get(f"p99_{name}_ms")}
    return found if any(value is not None for value in found.values()) else None


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
