"""Untrusted text (kernel names, log lines, test ids) made harmless for the place that it goes to.

A kernel name may hold anything: line breaks, terminal sequences, table bars, tags, and commands of a CI runner.
"""

from __future__ import annotations

import html
import re

__all__ = ["clipped_text", "code", "command_data", "command_property", "html_text", "inert", "printable"]

# Control characters (C0, DEL, C1), line and paragraph separators, direction marks that reorder what is read, and
# surrogates, which no encoding can write.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# What the Markdown of GitHub, GitLab or Gitea takes for markup, the end of a cell, a mention, emoji, math or a link.
_MARKUP = re.compile(r"[\\`*_\[\]|~:@$]|(?<=www)\.")


def printable(text: str) -> str:
    r"""One line without control characters: they show as ``\n``, ``\x1b``, ``\u202e``."""
    return _UNPRINTABLE.sub(_shown, text)


def _shown(match: re.Match[str]) -> str:
    character = match[0]
    number = ord(character)
    return _SHORT.get(character) or (f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}")


def clipped_text(text: str, limit: int) -> str:
    """Cut at the end, saying how much is missing."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text) - limit:,} more characters)"


def inert(text: str) -> str:
    r"""Text that GitHub's runner takes for no command, whatever its lines begin with.

    The runner strips blanks and then looks for ``::`` at the start of a line, and for the older ``##[`` anywhere in
    it; a backslash breaks both and leaves the text readable.
    """
    return "\n".join(map(_inert_line, text.split("\n")))


def _inert_line(line: str) -> str:
    bare = line.lstrip()
    if bare.startswith("::"):
        line = f"{line[: len(line) - len(bare)]}\\{bare}"
    return line.replace("##[", "#\\#[")


def command_data(text: str) -> str:
    """The message of a workflow command; several lines are allowed."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def command_property(text: str) -> str:
    """A property of a workflow command, such as its title."""
    return command_data(printable(text)).replace(":", "%3A").replace(",", "%2C")


def html_text(text: str) -> str:
    """Text between tags, line breaks kept: what is drawn is what was written."""
    return "\n".join(html.escape(printable(line)) for line in text.split("\n"))


def code(text: str) -> str:
    """A code span for a Markdown table: entities stand for all that is markup there, so nothing can end the cell."""
    escaped = html.escape(printable(text), quote=False)
    return f"<code>{_MARKUP.sub(lambda match: f'&#{ord(match[0])};', escaped)}</code>"
