"""Base names out of mangled C++ symbols (Itanium ABI, `_ZN..`), without a full demangler.

Reads the path of the function's own name and, for wrapper kernels, the path of its first class-type template
argument; all else is only walked over. libstdc++'s demangler is no help: older ones refuse `DF16b` (bf16),
which nearly every kernel here carries. Grammar: Itanium C++ ABI, section 5.1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["MangledName", "read_mangled"]

_BUILTIN = "vwbcahstijlmxynofdegz"
_QUALIFIERS = "PRKVrOGC"
_STD = {"t": "std", "a": "std::allocator", "b": "std::basic_string", "s": "std::string", "i": "std::istream"}
_MAX_DEPTH = 200


@dataclass
class MangledName:
    """`path` are the name's components; `arguments` the component paths of class-type template arguments."""

    path: tuple[str, ...]
    arguments: list[MangledName] = field(default_factory=list)


class _UnreadableError(Exception):
    """The symbol uses a part of the grammar that this reader does not know."""


def read_mangled(symbol: str) -> MangledName | None:
    """Path and first arguments of `symbol`; None if it is no mangled name or cannot be understood."""
    if not symbol.startswith("_Z"):
        return None
    reader = _Reader(symbol, 2)
    try:
        return reader.name()
    except (_UnreadableError, IndexError, RecursionError):
        # The arguments of the name itself were beyond this reader: its path is known all the same, since
        # a function's name ends with its arguments.
        return MangledName(reader.outer) if reader.outer else None


class _Reader:
    def __init__(self, text: str, place: int) -> None:
        self.text = text
        self.place = place
        self.first_prefix: tuple[str, ...] = ()
        self.outer: tuple[str, ...] = ()
        self.depth = 0

    def peek(self) -> str:
        return self.text[self.place]

    def take(self, expected: str) -> bool:
        if self.text.startswith(expected, self.place):
            self.place += len(expected)
            return True
        return False

    def name(self) -> MangledName:
        if self.take("N"):
            return self.nested()
        if self.take("Z"):
            return self.local()
        path: tuple[str, ...] = ()
        if self.text.startswith("S", self.place):
            path = self.substitution()
            if self.peek().isdigit():
                path = (*path, self.identifier())
        else:
            self.take("L")
            path = (self.identifier(),)
        found = MangledName(path)
        if not self.depth:
            self.outer = path
        if self.place < len(self.text) and self.peek() == "I":
            found.arguments = self.template_arguments()
        return found

    def local(self) -> MangledName:
        # Z <function encoding> E <entity>: a lambda's or local class's home is what tells them apart.
        found = self.name()
        while not self.take("E"):
            self.type()
        if self.take("s"):
            self.digits()
        else:
            self.take("d")
            self.name_tail()
        return found

    def name_tail(self) -> None:
        if self.take("N"):
            self.nested()
        elif self.take("Ul") or self.take("Ut"):
            self.closure()
        else:
            self.identifier()
            if self.place < len(self.text) and self.peek() == "I":
                self.template_arguments()
        self.discriminator()

    def closure(self) -> None:
        while not self.take("E"):
            self.type()
        self.digits()
        self.take("_")

    def discriminator(self) -> None:
        if self.take("__"):
            self.digits()
            self.take("_")
        elif self.place + 1 < len(self.text) and self.peek() == "_" and self.text[self.place + 1].isdigit():
            self.place += 1
            self.digits()

    def nested(self) -> MangledName:
        while self.peek() in "rVKRO":
            self.place += 1
        path: tuple[str, ...] = ()
        arguments: list[MangledName] = []
        while not self.take("E"):
            char = self.peek()
            if char == "I":
                if not self.depth:
                    self.outer = path
                arguments = self.template_arguments()
                continue
            arguments = []
            if char.isdigit() or char == "L":
                self.take("L")
                path = (*path, self.identifier())
            elif char == "S":
                path = (*path, *self.substitution())
            elif char == "T":
                self.parameter()
            elif self.take("Ul") or self.take("Ut"):
                self.closure()
            elif char in "CD" and self.text[self.place + 1].isdigit():
                self.place += 2
            elif char.islower():
                self.place += 2
                path = (*path, "operator")
            else:
                raise _UnreadableError
            if not self.first_prefix:
                self.first_prefix = path
        return MangledName(path, arguments)

    def identifier(self) -> str:
        digits = self.digits()
        if not digits:
            raise _UnreadableError
        length = int(digits[:9])
        name = self.text[self.place : self.place + length]
        if len(name) != length:
            raise _UnreadableError
        self.place += length
        if name.startswith("_GLOBAL__N"):
            return "(anonymous namespace)"
        return name

    def digits(self) -> str:
        start = self.place
        while self.place < len(self.text) and self.text[self.place].isdigit():
            self.place += 1
        return self.text[start : self.place]

    def substitution(self) -> tuple[str, ...]:
        self.place += 1
        char = self.peek()
        if char == "_":
            self.place += 1
            # The first substitution is always the outermost prefix read, e.g. the library's namespace.
            return self.first_prefix[:1]
        if char in _STD or char in "od":
            self.place += 1
            return (_STD.get(char, "std"),)
        while self.peek() != "_":
            if not (self.peek().isdigit() or self.peek().isupper()):
                raise _UnreadableError
            self.place += 1
        self.place += 1
        return ()

    def parameter(self) -> None:
        self.place += 1
        self.digits()
        if not self.take("_"):
            raise _UnreadableError

    def template_arguments(self) -> list[MangledName]:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise _UnreadableError
        self.place += 1
        found: list[MangledName] = []
        while not self.take("E"):
            char = self.peek()
            if char == "J":
                found += self.template_arguments()
            elif char == "L":
                self.literal()
            elif char == "X":
                self.expression()
            elif self.take("Tn"):
                self.type()  # the declared type of a constrained value parameter
            else:
                argument = self.type()
                if argument is not None and argument.path:
                    found.append(argument)
        self.depth -= 1
        return found

    def literal(self) -> None:
        self.place += 1
        if self.take("_Z"):
            self.name()
            while not self.take("E"):
                self.type()
            return
        self.type()
        self.place = self.text.index("E", self.place) + 1 if "E" in self.text[self.place :] else len(self.text) + 1

    def expression(self) -> None:
        # Expressions are rare in kernel symbols; X..E is walked by counting what opens and closes.
        self.place += 1
        depth = 1
        while depth:
            char = self.peek()
            if char.isdigit():
                self.identifier()
                continue
            if char == "S":
                self.substitution()
                continue
            if char == "T":
                self.parameter()
                continue
            if char in "XLIJN":
                depth += 1
            elif char == "E":
                depth -= 1
            self.place += 1

    def type(self) -> MangledName | None:
        while self.peek() in _QUALIFIERS:
            self.place += 1
        char = self.peek()
        if char in _BUILTIN:
            self.place += 1
            return None
        if char == "D":
            self.d_type()
            return None
        if char == "T":
            self.parameter()
        elif char == "F":
            self.place += 1
            while not self.take("E"):
                self.type()
        elif char == "A":
            self.place += 1
            self.digits()
            self.take("_")
            self.type()
        elif char == "M":
            self.place += 1
            self.type()
            self.type()
        elif char == "S" and self.text[self.place + 1] not in "t":
            path = self.substitution()
            arguments = self.template_arguments() if self.more_arguments() else []
            return MangledName(path, arguments)
        elif char in "NZSL" or char.isdigit():
            return self.name()
        elif char == "u":
            self.place += 1
            self.identifier()
        else:
            raise _UnreadableError
        if self.more_arguments():
            self.template_arguments()
        return None

    def more_arguments(self) -> bool:
        return self.place < len(self.text) and self.text[self.place] == "I"

    def d_type(self) -> None:
        self.place += 1
        char = self.peek()
        self.place += 1
        if char == "F":  # DF16b, DF16_
            self.digits()
            if not (self.take("b") or self.take("_") or self.take("x")):
                raise _UnreadableError
        elif char == "v":  # a vector of _ elements
            self.digits()
            self.take("_")
            self.type()
        elif char == "p":
            self.type()
        elif char in "tT":
            self.place -= 1
            self.expression()
        elif char not in "nahsiucdef":
            raise _UnreadableError
