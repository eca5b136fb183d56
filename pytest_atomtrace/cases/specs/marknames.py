"""pytest marks by name: those that a spec may not use, and where each one stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

from msgspec import Meta

from pytest_atomtrace.cases.specs.yamldoor import Mapping, Scalar, Sequence

if TYPE_CHECKING:
    from pytest_atomtrace.cases.specs.problems import Place, Problems

__all__ = ["REFUSED", "MarkName", "MarkUse", "read_marks"]

# A name alone gives these no arguments: they do nothing, or more than a spec's own key allows. `marks: [xfail]` made
# an XFAIL of a wrong question and of a trace that cannot be believed.
REFUSED: Final = {
    "xfail": "write xfail: REASON, which expects a failed check and nothing else",
    "skip": "write skip: REASON",
    "skipif": "it needs a condition; write skip: REASON, or the check in Python",
    "parametrize": "it needs values; lists in the fields of the case make a matrix",
    "usefixtures": "it needs names of fixtures; an autouse fixture in conftest.py is used by every item",
    "filterwarnings": "it needs a filter; write filterwarnings in the settings of pytest",
    "timeout": "it needs a time; the stages of a capture have deadlines of their own (--atom-start-timeout, ..)",
    "atom_case": "write case: {model: .., tp: ..}",
    "atom_catalog": "write from_catalog: {model: ..}",
}
# For editors only: the reader says what to write instead.
_USABLE: Final = rf"^(?!(?:{'|'.join(REFUSED)})$)[^\W_]\w*$"
MarkName: TypeAlias = Annotated[str, Meta(min_length=1, extra_json_schema={"pattern": _USABLE})]


@dataclass(frozen=True)
class MarkUse:
    """A mark's name, where it is written, and its path in the document."""

    name: str
    place: Place
    path: str


def read_marks(node: Mapping, path: str, problems: Problems) -> tuple[MarkUse, ...]:
    """The ``marks`` of a mapping that was decoded already; those that cannot be used are recorded as problems."""
    path = f"{path}.marks" if path else "marks"
    listed = node.get("marks")
    found = []
    for index, one in enumerate(listed.items if isinstance(listed, Sequence) else ()):
        if not isinstance(one, Scalar) or not isinstance(one.value, str):
            continue
        name, at = one.value, f"{path}[{index}]"
        # Names such as __class__ are attributes of pytest.mark itself.
        if not name.isidentifier() or name.startswith("_"):
            problems.add(one.place, at, f"{name!r} is no name of a mark")
        elif name in REFUSED:
            problems.add(one.place, at, f"the mark {name!r} cannot be given by its name alone: {REFUSED[name]}")
        else:
            found.append(MarkUse(name, one.place, at))
    return tuple(found)
