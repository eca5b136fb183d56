"""One case: what is measured, and everything that changes what is measured."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Case", "refuse_equal_slugs"]

OWNED_BY_THE_HARNESS = {
    "--torch-profiler-dir": "the harness binds the profiler to a fresh directory itself",
    "--host": "the harness serves on loopback only",
    "--server-port": "the harness picks a free port",
    "--model": "write it as model=",
    "--served-model-name": "the ready check compares the model's own name",
    "--mark-trace": "write it as mark_trace=True",
    "--tensor-parallel-size": "write it as tp=",
    "-tp": "write it as tp=",
    "--data-parallel-size": "write it as dp=",
    "-dp": "write it as dp=",
    "--pipeline-parallel-size": "write it as pp=",
    "-pp": "write it as pp=",
    "--enable-dp-attention": "write it as dp_attention=True",
    "--load-dummy": "write it as load_dummy=True",
}
OWNED_ENV = {
    "ATOM_PROFILER_MORE": "write it as profiler_more=True",
    "ENABLE_TORCH_PROFILER": "the harness binds the profiler itself",
    "ATOM_TORCH_PROFILER_DIR": "a server started from the command line ignores it; the harness binds the profiler",
    "KINETO_CONFIG": "the harness writes its own (row cap)",
}


def _doc(text: str) -> dict[str, str]:
    return {"doc": text}


@dataclass(frozen=True)
class Case:
    """What to measure: a model on a server of some shape, under a load of some shape.

    Frozen and hashable; `env` is kept as a sorted tuple of pairs, so the order it was written in is not part
    of its identity. A wrong value raises `ConfigError` with every problem of the case in one message.

    Attributes are documented in the table that ``pytest --markers`` prints.
    """

    model: str = field(metadata=_doc("Hugging Face name or path, as given to the server"))
    tp: int = field(default=1, metadata=_doc("tensor parallel size"))
    dp: int = field(default=1, metadata=_doc("data parallel size"))
    pp: int = field(default=1, metadata=_doc("pipeline parallel size"))
    dp_attention: bool = field(default=False, metadata=_doc("--enable-dp-attention: tp x dp engines of TP 1"))
    isl: int = field(default=1024, metadata=_doc("prompt tokens per request"))
    osl: int | None = field(default=None, metadata=_doc("output tokens per request; None: 128 (256, 512 with drafts)"))
    conc: int = field(default=64, metadata=_doc("requests in flight"))
    prompts_per_slot: int = field(default=1, metadata=_doc("requests per slot in the profiled window"))
    range_ratio: float = field(default=1.0, metadata=_doc("lengths are drawn from [ratio, 1] x isl and osl"))
    server_args: tuple[str, ...] = field(default=(), metadata=_doc("further server arguments"))
    env: tuple[tuple[str, str], ...] = field(default=(), metadata=_doc("server environment (a mapping)"))
    bench_args: tuple[str, ...] = field(default=(), metadata=_doc("further benchmark arguments"))
    chat_template: bool | None = field(default=None, metadata=_doc("wrap prompts in the chat template; None: decide"))
    profiler_more: bool = field(default=False, metadata=_doc("shapes, stacks, memory: ATOM_PROFILER_MORE=1"))
    mark_trace: bool = field(default=False, metadata=_doc("--mark-trace: module spans and capture traces"))
    load_dummy: bool = field(default=False, metadata=_doc("random weights: counts only, never times"))
    captures: int = field(default=1, metadata=_doc("windows to capture"))

    def __post_init__(self) -> None:
        """Normalise env and argument lists, then refuse what cannot be measured."""
        env: object = self.env
        if isinstance(env, dict):
            env = env.items()
        if not isinstance(env, str):
            object.__setattr__(self, "env", tuple(sorted((str(k), str(v)) for k, v in env)))  # type: ignore[attr-defined]
        for name in ("server_args", "bench_args"):
            arguments = getattr(self, name)
            if isinstance(arguments, list):
                object.__setattr__(self, name, tuple(arguments))
        problems = _problems(self)
        if problems:
            raise ConfigError.of_all(problems)

    def __repr__(self) -> str:
        """The name; environment and arguments may hold tokens, and pytest prints what it finds in a failing test."""
        return f"<Case {self.slug}>"

    @property
    def speculative_tokens(self) -> int:
        """Draft tokens per step: ``--num-speculative-tokens`` if ``--method`` is given, else 0."""
        if _argument(self.server_args, "--method") is None:
            return 0
        value = _argument(self.server_args, "--num-speculative-tokens")
        return int(value) if value and value.isdecimal() else 1

    @property
    def output_tokens(self) -> int:
        """`osl`, or the default that leaves enough steady decode steps when drafts shorten the run."""
        if self.osl is not None:
            return self.osl
        drafts = self.speculative_tokens
        return 128 if drafts == 0 else 256 if drafts <= 3 else 512

    @property
    def requests(self) -> int:
        """Requests in one profiled window."""
        return self.conc * self.prompts_per_slot

    @property
    def short_model(self) -> str:
        """Last part of the model name, safe in file names and test ids."""
        return re.sub(r"[^A-Za-z0-9._-]", "_", self.model.rstrip("/").rsplit("/", 1)[-1]) or "model"

    @property
    def slug(self) -> str:
        """Stable readable name, e.g. ``DeepSeek-V4-Pro-tp8-isl1024-osl128-conc64``; keys files and test ids."""
        parts = [self.short_model]
        if self.model.startswith(("/", ".", "~")) or self.model.count("/") > 1:
            parts.append(_digest(self.model))
        parts.append(f"tp{self.tp}")
        parts += [f"dp{self.dp}"] * (self.dp != 1) + [f"pp{self.pp}"] * (self.pp != 1)
        parts += ["dpa"] * self.dp_attention
        parts += [f"isl{self.isl}", f"osl{self.output_tokens}", f"conc{self.conc}"]
        parts += [f"x{self.prompts_per_slot}"] * (self.prompts_per_slot != 1)
        parts += [f"rr{self.range_ratio:g}"] * (self.range_ratio != 1.0)
        if self.chat_template is not None:
            parts.append("chat" if self.chat_template else "nochat")
        parts += ["more"] * self.profiler_more + ["mark"] * self.mark_trace + ["dummy"] * self.load_dummy
        parts += [f"n{self.captures}"] * (self.captures != 1)
        if self.server_args or self.env or self.bench_args:
            parts.append(_digest(json.dumps([self.server_args, self.env, self.bench_args])))
        return "-".join(parts)

    @property
    def server_key(self) -> str:
        """Digest of the part that fixes a server launch: equal keys can share one server."""
        return _digest(
            json.dumps(
                [
                    self.model,
                    self.tp,
                    self.dp,
                    self.pp,
                    self.dp_attention,
                    self.server_args,
                    self.env,
                    self.profiler_more,
                    self.mark_trace,
                    self.load_dummy,
                ]
            ),
            length=12,
        )

    @property
    def gpus(self) -> int:
        """GPU workers that the server has: engines x workers per engine (ATOM's config.py)."""
        return self.tp * self.dp * self.pp

    def as_dict(self) -> dict[str, object]:
        """The fields as JSON values (env as a mapping)."""
        values: dict[str, object] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["env"] = dict(self.env)
        values["server_args"] = list(self.server_args)
        values["bench_args"] = list(self.bench_args)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Case:
        """Inverse of `as_dict`; unknown keys (of a newer version) are ignored.

        Raises:
            ConfigError: a value is missing or wrong.

        """
        known = {f.name for f in dataclasses.fields(cls)}
        kept = {key: value for key, value in values.items() if key in known}
        if not isinstance(kept.get("model"), str):
            raise ConfigError("the case has no model")
        return cls(**kept)  # type: ignore[arg-type]  # __post_init__ checks types


def refuse_equal_slugs(cases: list[Case]) -> None:
    """Refuse two different cases with one slug: files and baselines are keyed by it.

    Raises:
        ConfigError: naming the slug and the fields in which the two differ.

    """
    seen: dict[str, Case] = {}
    for case in cases:
        other = seen.setdefault(case.slug, case)
        if other != case:
            ours, theirs = case.as_dict(), other.as_dict()
            hidden = ("env", "server_args", "bench_args")  # may hold tokens
            differing = [key for key in ours if ours[key] != theirs[key]]
            fields = ", ".join(k if k in hidden else f"{k}: {theirs[k]!r} / {ours[k]!r}" for k in differing)
            raise ConfigError(f"two different cases share the name {case.slug} ({fields}); results are keyed by it")


def _digest(text: str, *, length: int = 6) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _argument(args: tuple[str, ...], name: str) -> str | None:
    for index, arg in enumerate(args):
        flag, _, value = arg.partition("=")
        if flag.replace("_", "-") == name:
            return value or (args[index + 1] if index + 1 < len(args) else "")
    return None


def _problems(case: Case) -> list[str]:
    # Markers and YAML bring values of any type, whatever the annotations say.
    values: dict[str, object] = {f.name: getattr(case, f.name) for f in dataclasses.fields(case)}
    problems = [*_scalar_problems(values), *_argument_problems(values)]
    if problems:
        return problems
    if case.pp > 1 and (case.dp > 1 or case.dp_attention):
        problems.append("pipeline parallel with data parallel or dp_attention is not supported by ATOM")
    if case.profiler_more and case.conc * case.prompts_per_slot * case.output_tokens > 64 * 128:
        problems.append(
            f"profiler_more with {case.requests} requests of {case.output_tokens} tokens: shapes and stacks made "
            "exporters run out of memory; use osl=32 and a smaller conc"
        )
    return problems


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _scalar_problems(values: Mapping[str, object]) -> Iterator[str]:
    model = values["model"]
    if not isinstance(model, str) or not model.strip():
        yield f"model must be a name or a path, got {model!r}"
    for name in ("tp", "dp", "pp", "isl", "conc", "prompts_per_slot", "captures"):
        if not _whole(values[name], 1):
            yield f"{name} must be a whole number of at least 1, got {values[name]!r}"
    osl = values["osl"]
    if osl is not None and not _whole(osl, 2):
        yield f"osl must be a whole number of at least 2 (one prefill, one decode) or None, got {osl!r}"
    for name in ("dp_attention", "profiler_more", "mark_trace", "load_dummy"):
        if not isinstance(values[name], bool):
            yield f"{name} must be True or False, got {values[name]!r}"
    if values["chat_template"] not in (None, True, False):
        yield f"chat_template must be True, False or None, got {values['chat_template']!r}"
    ratio = values["range_ratio"]
    if not isinstance(ratio, (int, float)) or isinstance(ratio, bool) or not 0 < ratio <= 1:
        yield f"range_ratio must be above 0 and at most 1, got {ratio!r}"


def _argument_problems(values: Mapping[str, object]) -> Iterator[str]:
    for name in ("server_args", "bench_args"):
        arguments = values[name]
        if not isinstance(arguments, tuple):
            yield f"{name} must be a list of strings, got {arguments!r}"
            continue
        for arg in arguments:
            if not isinstance(arg, str):
                yield f"{name} must be strings, got {arg!r}"
            elif name == "server_args":
                flag = arg.partition("=")[0]
                reason = OWNED_BY_THE_HARNESS.get(flag.replace("_", "-"))
                if reason:
                    yield f"server_args may not hold {flag}: {reason}"
    env = values["env"]
    if not isinstance(env, tuple):
        yield f"env must be a mapping, got {type(env).__name__}"  # its text may hold a token
        return
    for key, _ in env:
        if key in OWNED_ENV:
            yield f"env may not hold {key}: {OWNED_ENV[key]}"
