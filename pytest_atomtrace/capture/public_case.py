"""A case without its secrets: what a capture can be known by, since no capture keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.capture.redact import REDACTED, Redactor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_atomtrace.cases.case import Case

__all__ = ["public_fields"]


def public_fields(case: Case) -> tuple[dict[str, object], tuple[tuple[str, str], ...]]:
    """`Case.as_dict` without what holds a secret, and what that is: (field, variable or flag) of each.

    A case as it was asked for and the same one read back from a manifest give equal fields.
    """
    redactor = Redactor(dict(case.env), (*case.server_args, *case.bench_args))
    fields = case.as_dict()
    env = redactor.env(dict(case.env))
    fields["env"] = {name: value for name, value in env.items() if REDACTED not in value}
    hidden = [("env", name) for name, value in env.items() if REDACTED in value]
    for name, arguments in (("server_args", case.server_args), ("bench_args", case.bench_args)):
        fields[name], flags = _without_secrets(redactor.argv(arguments))
        hidden += [(name, flag) for flag in flags]
    return fields, tuple(hidden)


def _without_secrets(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments that hold no secret, and the flags of those that do; a flag goes with its value."""
    kept: list[str] = []
    flags: list[str] = []
    for argument in arguments:
        if REDACTED not in argument:
            kept.append(argument)
        elif argument.startswith("-"):
            flags.append(argument.partition("=")[0])
        else:
            takes_value = bool(kept) and kept[-1].startswith("-") and "=" not in kept[-1]
            flags.append(kept.pop() if takes_value else "an argument")
    return kept, flags
