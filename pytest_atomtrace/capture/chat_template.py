"""Whether prompts of a case are wrapped in the model's chat template."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.cases.catalog import find_catalog, load_catalog
from pytest_atomtrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.settings import Settings

__all__ = ["ChatTemplate", "decide"]

_CHAT = "--use-chat-template"


@dataclass(frozen=True)
class ChatTemplate:
    """The decision and, for the manifest, why."""

    used: bool
    why: str


def decide(case: Case, settings: Settings, env: Mapping[str, str]) -> ChatTemplate:
    """What the case says; else only speculative cases get the template, and of those the ones that need it.

    Plain random text lowers the acceptance of drafts, so ATOM's catalog gives ``--use-chat-template`` to speculative
    variants. It does not to all (Qwen3.5 goes without), so the catalog, where there is one, is asked first; then the
    model's tokenizer_config.json: without a template in it the request would fail.
    """
    if case.chat_template is not None:
        return ChatTemplate(case.chat_template, "the case says so")
    if not case.speculative_tokens:
        return ChatTemplate(used=False, why="no speculative decoding, so acceptance plays no part")
    listed = _catalog_says(case, settings)
    if listed is not None:
        return ChatTemplate(listed, "ATOM's catalog says so for speculative variants of this model")
    has = _tokenizer_has_template(case.model, env)
    if has is None:
        return ChatTemplate(used=False, why="the model's tokenizer_config.json was not found on this machine")
    return ChatTemplate(has, f"the model's tokenizer_config.json has {'a' if has else 'no'} chat template")


def _catalog_says(case: Case, settings: Settings) -> bool | None:
    try:
        path = find_catalog(settings.catalog, settings.root, base=Path.cwd())
        catalog = load_catalog(path) if path is not None else None
    except ConfigError:  # collection has said so where the catalog matters
        return None
    if catalog is None:
        return None
    answers = {
        _CHAT in variant.bench_args
        for variant in catalog.variants
        if variant.path.rstrip("/") == case.model.rstrip("/") and "--method" in variant.args
    }
    return answers.pop() if len(answers) == 1 else None


def _tokenizer_has_template(model: str, env: Mapping[str, str]) -> bool | None:
    for directory in _model_directories(model, env):
        if (directory / "chat_template.jinja").is_file():
            return True
        try:
            value = json.loads((directory / "tokenizer_config.json").read_bytes())
        except (OSError, ValueError):
            continue
        return isinstance(value, dict) and bool(value.get("chat_template"))
    return None


def _model_directories(model: str, env: Mapping[str, str]) -> list[Path]:
    """A local model's directory, or its snapshots in the Hugging Face cache, newest first."""
    if Path(model).expanduser().is_dir():
        return [Path(model).expanduser()]
    home = Path(env.get("HF_HOME") or Path(env.get("HOME", "~")).expanduser() / ".cache" / "huggingface")
    hub = Path(env.get("HF_HUB_CACHE") or home / "hub")
    snapshots = hub / f"models--{model.strip('/').replace('/', '--')}" / "snapshots"
    if not snapshots.is_dir():
        return []
    return sorted(snapshots.iterdir(), key=lambda path: path.stat().st_mtime_ns, reverse=True)
