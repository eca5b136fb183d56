"""Mistakes found while collecting: recorded where they are seen, raised in one place, all at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

__all__ = ["Mistake", "Mistakes", "place_of_mark"]


class Mistake:
    """One wrong mark; `count` tests share it, `nodeid` is the first of them."""

    def __init__(self, problem: str, nodeid: str, where: str) -> None:
        self.problem = problem
        self.nodeid = nodeid
        self.where = where
        self.count = 1

    def __str__(self) -> str:
        more = f" and {self.count - 1} more" if self.count > 1 else ""
        # A place in a spec file says it all.
        return f"{self.where}: {self.problem}" + (f"\n    in {self.nodeid}{more}" if self.nodeid else "")


class Mistakes:
    """The mistakes of one collection, in the order seen, each shared mark listed once."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, str], Mistake] = {}

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def add(self, problem: str, *, nodeid: str, where: str) -> None:
        """Record `problem`; the same problem at the same place only raises the count."""
        key = (problem, where)
        known = self._by_key.get(key)
        if known is None:
            self._by_key[key] = Mistake(problem, nodeid, where)
        else:
            known.count += 1

    def text(self) -> str:
        """Everything recorded, as one message."""
        entries = list(self._by_key.values())
        noun = "mistake" if len(entries) == 1 else "mistakes"
        head = f"atomtrace found {len(entries)} {noun} in the specs; nothing was started:"
        return "\n".join([head, *(f"  {entry}" for entry in entries)])


def place_of_mark(path: Path, mark: pytest.Mark, fallback_line: int, *, root: Path) -> str:
    """``file:line`` of the mark's call in the source, or of the test where it cannot be told apart."""
    try:
        name = path.relative_to(root).as_posix()
    except ValueError:
        name = str(path)
    lines = _lines_of_calls(path, mark.name, tuple(mark.kwargs), len(mark.args))
    if len(lines) == 1:
        return f"{name}:{lines[0]}"
    # Several calls look alike: the nearest one above the test is the one that a reader finds.
    above = [line for line in lines if line <= fallback_line]
    return f"{name}:{above[-1] if above else fallback_line}"


def _lines_of_calls(path: Path, mark_name: str, keywords: Sequence[str], positional: int) -> list[int]:
    import ast

    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return []
    return sorted(
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == mark_name
        and [k.arg for k in node.keywords] == list(keywords)
        and len(node.args) == positional
    )
