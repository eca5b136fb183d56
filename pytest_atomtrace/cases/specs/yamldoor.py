"""The one door to YAML: text becomes a tree of nodes that know their places.

Nodes are built from libyaml's events: no Python object is ever constructed, a document costs what its limits
allow whatever it looks like (10 MB of brackets, a billion laughs), and a second key of the same name is seen.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import yaml

from pytest_atomtrace.cases.specs.problems import Place, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_NODES", "Mapping", "Node", "Scalar", "Sequence", "YamlError", "parse"]

# A spec of 100 checks is 8 kB and 1,200 nodes; files far beyond are data, or an attack.
MAX_BYTES: Final = 512 * 1024
MAX_NODES: Final = 50_000
MAX_DEPTH: Final = 40
_TOO_DEEP: Final = f"nested more than {MAX_DEPTH} deep"

_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG: Final = "tag:yaml.org,2002:"
_PLAIN_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_UNPRINTABLE: Final = re.compile("[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class YamlError(Exception):
    """A text that is no document, with its one `problem`: what follows a syntax error cannot be trusted."""

    def __init__(self, place: Place, text: str) -> None:
        super().__init__(place, text)
        self.problem = Problem(place, "", text)


@dataclass
class Node:
    """Part of a document; `end_line` is the last line that it covers."""

    place: Place
    end_line: int


@dataclass
class Scalar(Node):
    """A value: text, whole number, number, boolean or null. `text` is what was written."""

    value: str | int | float | bool | None
    text: str


@dataclass
class Sequence(Node):
    """A list."""

    items: list[Node] = field(default_factory=list)


@dataclass
class Mapping(Node):
    """Keys in the order written, without those merged by ``<<``; `repeated` are second uses of a key,
    each with its place and that of the first.
    """

    pairs: dict[str, tuple[Place, Node]] = field(default_factory=dict)
    repeated: list[tuple[str, Place, Place]] = field(default_factory=list)
    odd_keys: list[tuple[str, Place]] = field(default_factory=list)
    merged: list[Node] = field(default_factory=list)
    merge_place: Place = field(default_factory=Place)

    def get(self, key: str) -> Node | None:
        """The value of a key, looked up in what is merged too."""
        return self.flat().get(key, (self.place, None))[1]

    def flat(self) -> dict[str, tuple[Place, Node]]:
        """All keys: own ones win over merged ones, earlier merged ones over later."""
        found = dict(self.pairs)
        for node in self.merged:
            sources = node.items if isinstance(node, Sequence) else [node]
            for source in sources:
                if isinstance(source, Mapping):
                    for key, pair in source.flat().items():
                        found.setdefault(key, pair)
        return found


def parse(data: bytes) -> Node | None:
    """The document in `data`, None if there is none.

    Raises:
        YamlError: it is no YAML, uses tags, holds several documents, or is beyond the limits.

    """
    if len(data) > MAX_BYTES:
        raise YamlError(Place(), f"the file has {len(data):,} bytes; a spec has at most {MAX_BYTES:,}")
    text = _decoded(data)
    try:
        return _Builder(text).document()
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text) from None
    except yaml.YAMLError as error:
        raise YamlError(Place(), f"no YAML: {error}") from None


def _decoded(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise YamlError(Place(line, column), f"byte 0x{data[error.start]:02x} is no UTF-8") from None
    odd = _UNPRINTABLE.search(text)
    if odd is not None:
        line = text.count("\n", 0, odd.start()) + 1
        column = odd.start() - text.rfind("\n", 0, odd.start())
        raise YamlError(Place(line, column), f"the character U+{ord(odd.group()):04X} may not stand in YAML")
    return text


def _syntax_error(error: yaml.MarkedYAMLError, text: str) -> YamlError:
    mark = error.problem_mark or error.context_mark
    place = _place(mark) if mark is not None else Place()
    words = [error.context, error.problem] if error.context and error.problem else [error.problem or error.context]
    what = ", ".join(word for word in words if word)
    if "maximum nesting depth" in what:
        # libyaml 0.2.6 has a limit of its own, and reads ahead of the first event: it may reach that before ours.
        return YamlError(place, _TOO_DEEP)
    lines = text.splitlines()
    line = lines[place.line - 1] if 0 < place.line <= len(lines) else ""
    hint = ""
    if "alias" in what or re.search(r"[:\-,\[]\s+\*", line):
        hint = "; a pattern that starts with * is an alias to YAML: quote it, '*moe*'"
    elif "\\t" in what or "\t" in line[: place.column]:
        hint = "; indent with blanks, YAML takes no tabs"
    return YamlError(place, f"no YAML: {what}{hint}")


class _Mark(Protocol):
    """A position as both of yaml's parsers give it, counted from 0."""

    index: int
    line: int
    column: int


def _marks(event: yaml.Event) -> tuple[_Mark, _Mark]:
    start, end = event.start_mark, event.end_mark
    assert start is not None
    assert end is not None
    return start, end


def _place(mark: _Mark) -> Place:
    return Place(mark.line + 1, mark.column + 1)


def _last_line(start: _Mark, end: _Mark) -> int:
    # A block ends where the next token starts; blank lines between are not its own.
    return max(start.line + 1, end.line + 1 if end.column else end.line)


class _Builder:
    """Events to nodes with a stack of its own: libyaml's composer recurses, and 100,000 brackets end it."""

    def __init__(self, text: str) -> None:
        self._loader = _Loader(text)
        self._anchors: dict[str, Node] = {}
        self._sizes: dict[int, int] = {}
        self._nodes = 0
        self._open: list[Mapping | Sequence] = []
        self._keys: list[Scalar | None] = []
        self._anchor_of: list[str | None] = []
        self._root: Node | None = None

    def document(self) -> Node | None:
        """Read all events.

        Raises:
            YamlError: the text is beyond a limit, or has more than one document, or tags.

        """
        documents = 0
        for event in self._events():
            place = _place(_marks(event)[0])
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise YamlError(place, "a second document starts here; a spec is one")
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event, place)
            elif isinstance(event, yaml.ScalarEvent):
                self._start(event, place, self._scalar(event, place))
            elif isinstance(event, yaml.SequenceStartEvent):
                self._start(event, place, Sequence(place, place.line))
            elif isinstance(event, yaml.MappingStartEvent):
                self._start(event, place, Mapping(place, place.line))
            elif isinstance(event, yaml.CollectionEndEvent):
                self._end(event)
        return self._root

    def _events(self) -> Iterator[yaml.Event]:
        while self._loader.check_event():
            yield self._loader.get_event()  # type: ignore[no-untyped-call]

    def _count(self, place: Place, size: int) -> None:
        self._nodes += size
        if self._nodes > MAX_NODES:
            raise YamlError(place, f"the document has more than {MAX_NODES:,} values, aliases written out")

    def _start(self, event: yaml.NodeEvent, place: Place, node: Node) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None and not (isinstance(node, Scalar) and tag == "!"):
            shown = tag.replace(_TAG, "!!")
            raise YamlError(place, f"the tag {shown} is not allowed; a spec holds text, numbers, lists and mappings")
        self._count(place, 1)
        if isinstance(node, Scalar):
            if event.anchor:
                self._anchors[event.anchor] = node
            self._put(node)
            return
        assert isinstance(node, (Mapping, Sequence))
        if len(self._open) >= MAX_DEPTH:
            raise YamlError(place, _TOO_DEEP)
        self._open.append(node)
        self._keys.append(None)
        self._anchor_of.append(event.anchor)
        self._sizes[id(node)] = self._nodes - 1

    def _end(self, event: yaml.CollectionEndEvent) -> None:
        node = self._open.pop()
        self._keys.pop()
        anchor = self._anchor_of.pop()
        last = _last_line(*_marks(event))
        inside = node.items if isinstance(node, Sequence) else [value for _, value in node.pairs.values()]
        ends = [child.end_line for child in inside]
        start, end = _marks(event)
        flow = end.index != start.index
        node.end_line = last if flow else max([node.place.line, *ends])
        self._sizes[id(node)] = self._nodes - self._sizes[id(node)]
        if anchor:
            # Only now: an alias inside its own anchor would be a tree without an end.
            self._anchors[anchor] = node
        self._put(node)

    def _alias(self, event: yaml.AliasEvent, place: Place) -> None:
        node = self._anchors.get(event.anchor or "")
        if node is None:
            hint = "; a pattern that starts with * must be quoted"
            raise YamlError(place, f"no anchor &{event.anchor} stands above the alias *{event.anchor}{hint}")
        self._count(place, self._sizes.get(id(node), 1))
        self._put(node)

    def _put(self, node: Node) -> None:
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        if isinstance(parent, Sequence):
            parent.items.append(node)
            return
        key = self._keys[-1]
        if key is None:
            if not isinstance(node, Scalar):
                raise YamlError(node.place, "a key must be a word")
            self._keys[-1] = node
            return
        self._keys[-1] = None
        self._pair(parent, key, node)

    def _pair(self, parent: Mapping, key: Scalar, node: Node) -> None:
        if key.text == "<<" and key.value == "<<":
            if parent.merged:
                parent.repeated.append(("<<", key.place, parent.merge_place))
            else:
                parent.merge_place = key.place
            parent.merged.append(node)
            return
        if not isinstance(key.value, str):
            parent.odd_keys.append((key.text, key.place))
        if key.text in parent.pairs:
            parent.repeated.append((key.text, key.place, parent.pairs[key.text][0]))
            return
        parent.pairs[key.text] = (key.place, node)

    def _scalar(self, event: yaml.ScalarEvent, place: Place) -> Scalar:
        last = _last_line(*_marks(event))
        if event.tag is not None or not event.implicit[0]:
            return Scalar(place, last, event.value, event.value)
        resolved = self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
        tag = str(resolved).removeprefix(_TAG)
        return Scalar(place, last, _plain_value(tag, event.value, place), event.value)


def _plain_value(tag: str, text: str, place: Place) -> str | int | float | bool | None:
    """The value of an unquoted scalar; what YAML 1.1 reads in surprising ways is refused with what to write."""
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() in ("yes", "true", "on")
    if tag == "int":
        if not _PLAIN_INT.fullmatch(text):
            raise YamlError(place, f"{text} is a number that people and YAML read differently; write 42, or quote it")
        return int(text)
    if tag == "float":
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise YamlError(place, f"{text} is no plain number; write 0.8, or quote it")
        return number
    if tag == "timestamp":
        raise YamlError(place, f"{text} is a date to YAML; quote it")
    return text
