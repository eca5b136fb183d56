"""Tokens never reach a file or an error text: by the name of the variable or flag, and by value."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["REDACTED", "Redactor"]

REDACTED = "<redacted>"
_SECRET_NAME = re.compile(r"(?:^|[_-])(?:API_?KEY|ACCESS_?KEY|KEY|TOKEN|PAT)$|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.I)
# ours: the run id is no secret
_PUBLIC = {"ATOMTRACE_RUN_TOKEN"}
_JSON_SECRET = re.compile(
    r"""("[^"]*(?:key|token|secret|password|credential)[^"]*"\s*:\s*")((?:[^"\\]|\\.)*)(")""", re.I
)
# Shorter values ("1", "true") would blank out innocent text.
_SHORTEST_VALUE = 8


def is_secret_name(name: str) -> bool:
    """True for ``HF_TOKEN``, ``OPENAI_API_KEY``, ``--hf-token``, ``AWS_SECRET_ACCESS_KEY``, ..."""
    return name not in _PUBLIC and _SECRET_NAME.search(name.lstrip("-").replace("-", "_")) is not None


class Redactor:
    """Knows the secret values of one environment and command line and blanks them out wherever they appear."""

    def __init__(self, env: Mapping[str, str], argv: Sequence[str] = ()) -> None:
        values = {value for name, value in env.items() if is_secret_name(name)}
        values.update(_argument_values(argv))
        # The longest first: one secret may be the prefix of another.
        self._values = sorted((v for v in values if len(v) >= _SHORTEST_VALUE), key=len, reverse=True)

    def text(self, text: str) -> str:
        """`text` without secret values, and without values of secret-looking keys in JSON."""
        for value in self._values:
            text = text.replace(value, REDACTED)
        return _JSON_SECRET.sub(rf"\g<1>{REDACTED}\g<3>", text)

    def lines(self, lines: Iterable[str]) -> list[str]:
        """`text` for each line."""
        return [self.text(line) for line in lines]

    def data(self, data: bytes) -> bytes:
        """`data` without secret values."""
        for value in self._values:
            data = data.replace(value.encode(), REDACTED.encode())
        return data

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


def _argument_values(argv: Sequence[str]) -> set[str]:
    values = set()
    for index, argument in enumerate(argv):
        flag, equals, value = argument.partition("=")
        if argument.startswith("-") and is_secret_name(flag):
            following = argv[index + 1] if index + 1 < len(argv) else ""
            values.add(value if equals else following)
    return values
