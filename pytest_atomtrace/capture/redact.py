"""Secrets never reach a file, a report or a terminal: by name, by value, by shape.

By name: ``HF_TOKEN=x``, ``--api-key x``, ``{"password": "x"}``. By value: what a secret-named variable or flag holds is
blanked out wherever it appears, in every text that we write. By shape: bearer tokens, passwords in URLs, and the
prefixes that Hugging Face, GitHub, AWS and others give their tokens. Too much rather than too little is blanked out.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["REDACTED", "Redactor", "is_secret_name"]

REDACTED = "<redacted>"
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:API_?KEY|ACCESS_?KEY(?:_ID)?|KEY|TOKEN|PAT|PASS|AUTHORIZATION)$"
    r"|SECRET|PASSWORD|PASSWD|PASSPHRASE|PRIVATE_?KEY|CREDENTIAL",
    re.I,
)
# ours: the run id is no secret. A tokenizer's special tokens are none either.
_PUBLIC = {"ATOMTRACE_RUN_TOKEN"}
_SPECIAL_TOKEN = re.compile(r"(?:eos|bos|pad|unk|sep|cls|mask|image|audio|video|draft|next|stop|end|start)_token", re.I)
# In running text `key=...` and `cache_key=...` are common words; in an environment or a command line they are not.
_PLAIN_KEY = re.compile(r"(?:^|_)(?<!api_)(?<!access_)(?<!secret_)key$", re.I)

# One of these stands in every line that holds a secret by name or shape; most lines of a log have none.
_NAMES = ("token", "secret", "pass", "key", "pat", "auth", "credential", "bearer")
_PREFIXES = (
    "hf_",
    "sk-",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "AKIA",
    "ASIA",
    "xox",
    "eyJ",
)
_QUOTED = re.compile(
    r"""(?P<q>["'])(?P<name>[\w.-]+)(?P=q)(?P<sep>\s*[:,=]\s*[bu]?)(?P<v>["'])(?P<value>(?:\\.|(?!(?P=v)).)*)(?P=v)"""
)
_ASSIGNED = re.compile(
    r"""(?<![\w-])(?P<name>-{0,2}[A-Za-z][\w-]*)(?P<sep>=)(?P<value>"[^"]*"|'[^']*'|[^\s,;&'"<>()\]}]+)"""
)
_COLON = re.compile(r"(?<![\w-])(?P<name>[A-Z][A-Z0-9]*_[A-Z0-9_]+)(?P<sep>:\s*)(?P<value>[^\s,;]+)")
_FLAG = re.compile(r"""(?P<name>(?<![\w-])--?[A-Za-z][\w-]*)(?P<sep>["']?,?\s+["']?)(?P<value>[^\s"',-][^\s"',]*)""")
_HEADER = re.compile(
    r"(?P<name>authorization|x-api-key|api-key)(?P<sep>[\"']?\s*[:=]\s*[\"']?)(?P<value>(?:\w+\s+)?[^\s\"',]+)", re.I
)
_BEARER = re.compile(r"(?P<head>\bbearer\s+)(?=\S*\d)[\w.~+/=-]{8,}", re.I)
_URL_PASSWORD = re.compile(r"(?P<head>\b[a-z][a-z0-9+.-]*://[^\s/@:\"']*:)(?P<value>[^\s/@\"']+)@", re.I)
_URL_TOKEN = re.compile(r"(?P<head>\bhttps?://)[^\s/@:\"']{16,}@", re.I)
_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[\w-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|"
    r"(?:AKIA|ASIA)[0-9A-Z]{16}|xox[abpors]-[\w-]{10,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,})"
)
# Shorter values ("1", "true", "auto") would blank out innocent text.
_SHORTEST_VALUE = 6


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """True for ``HF_TOKEN``, ``OPENAI_API_KEY``, ``--hf-token``, ``AWS_SECRET_ACCESS_KEY``, ..."""
    bare = name.lstrip("-").replace("-", "_")
    return name not in _PUBLIC and _SECRET_NAME.search(bare) is not None and not _SPECIAL_TOKEN.fullmatch(bare)


class Redactor:
    """Knows the secret values of one environment and command line and blanks them out wherever they appear."""

    def __init__(self, env: Mapping[str, str], argv: Sequence[str] = ()) -> None:
        values = {value for name, value in env.items() if is_secret_name(name)}
        values.update(_argument_values(argv))
        for text in (*env.values(), *argv):
            values.update(match["value"] for match in _URL_PASSWORD.finditer(text))
            values.update(match["value"].strip("\"'") for match in _QUOTED.finditer(text) if _is_secret(match))
        written = {form for value in values for form in _forms(value)}
        # The longest first: one secret may be the prefix of another.
        self._values = sorted((v for v in written if len(v) >= _SHORTEST_VALUE), key=len, reverse=True)

    def text(self, text: str) -> str:
        """`text` without secret values, and without what looks like a secret by its name or its shape."""
        for value in self._values:
            text = text.replace(value, REDACTED)
        return "\n".join(_by_rule(line) for line in text.split("\n"))

    def lines(self, lines: Iterable[str]) -> list[str]:
        """`text` for each line."""
        return [self.text(line) for line in lines]

    def data(self, data: bytes) -> bytes:
        """`text` for bytes of any encoding."""
        return self.text(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    def value(self, value: object) -> object:
        """`text` for every text in a JSON value; keys stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.value(one) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(one) for one in value]
        return value

    def env(self, env: Mapping[str, str]) -> dict[str, str]:
        """`env`, sorted, with secret values blanked out."""
        return {name: REDACTED if is_secret_name(name) else self.text(value) for name, value in sorted(env.items())}

    def argv(self, argv: Sequence[str]) -> list[str]:
        """`argv` with the values of ``--x-token V`` and ``--api-key=V`` blanked out."""
        shown: list[str] = []
        secret_follows = False
        for argument in argv:
            flag, equals, _ = argument.partition("=")
            if secret_follows and not argument.startswith("-"):
                shown.append(REDACTED)
            elif argument.startswith("-") and equals and is_secret_name(flag):
                shown.append(f"{flag}={REDACTED}")
            else:
                shown.append(self.text(argument))
            secret_follows = argument.startswith("-") and not equals and is_secret_name(flag)
        return shown


def _forms(value: str) -> Iterator[str]:
    """How a value may stand in text: as it is, as JSON, percent-decoded, and line by line (a private key)."""
    yield value
    yield json.dumps(value)[1:-1]
    yield unquote(value)
    lines = value.splitlines()
    if len(lines) > 1:
        yield from lines


def _argument_values(argv: Sequence[str]) -> set[str]:
    values = set()
    for index, argument in enumerate(argv):
        flag, equals, value = argument.partition("=")
        if argument.startswith("-") and is_secret_name(flag):
            following = argv[index + 1] if index + 1 < len(argv) else ""
            values.add(value if equals else following)
    return values


def _by_rule(line: str) -> str:
    # Guarded by the letters that each pattern needs: a server's log has megabytes of lines with "token" in them.
    lower = line.lower()
    if any(name in lower for name in _NAMES):
        if "auth" in lower or "api-key" in lower:
            line = _HEADER.sub(_blank_named, line)
        if '"' in line or "'" in line:
            line = _QUOTED.sub(_blank_named, line)
        if "=" in line:
            line = _ASSIGNED.sub(_blank_named, line)
        if ":" in line:
            line = _COLON.sub(_blank_named, line)
        if "-" in line:
            line = _FLAG.sub(_blank_named, line)
        if "bearer" in lower:
            line = _BEARER.sub(rf"\g<head>{REDACTED}", line)
    if "://" in line and "@" in line:
        line = _URL_PASSWORD.sub(rf"\g<head>{REDACTED}@", line)
        line = _URL_TOKEN.sub(rf"\g<head>{REDACTED}@", line)
    return _SHAPES.sub(REDACTED, line) if any(prefix in line for prefix in _PREFIXES) else line


def _is_secret(match: re.Match[str]) -> bool:
    name = match["name"]
    if match.re is _HEADER:
        return True
    plain = match.re in (_QUOTED, _ASSIGNED) and not name.isupper() and _PLAIN_KEY.search(name.replace("-", "_"))
    return is_secret_name(name) and not plain


def _blank_named(match: re.Match[str]) -> str:
    value, start, end = match["value"], match.start("value") - match.start(), match.end("value") - match.start()
    if not _is_secret(match):
        # One within the other: `'config': '{"auth_token": "x"}'`, `env=HF_TOKEN=x`.
        inner = match.re.sub(_blank_named, value)
    else:
        quote = value[0] if match.re is _ASSIGNED and value[0] in "\"'" else ""
        inner = f"{quote}{REDACTED}{quote}"
    return f"{match[0][:start]}{inner}{match[0][end:]}"
