"""What a difference in step time is made of: kernels that grew, shrank, came, went, were replaced or fused.

Kernels are looked at on the rank that works longest, against what the reference says of any rank: there a collective
waits for nobody, so a slow kernel on one rank shows as that kernel and not as a longer all-reduce on the seven others.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from statistics import median
from typing import TYPE_CHECKING

from pytest_atomtrace.trace.families import family
from pytest_atomtrace.trace.names import base_name
from pytest_atomtrace.verdicts.step_profile import Usage, is_collective

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_atomtrace.verdicts.step_profile import StepProfile

__all__ = ["Attribution", "Change", "attribute"]

# A change below both is what two launches of one program differ by.
_SAME_SHARE = 0.01
_SAME_NS = 300.0
# A change that the middle one of the kernels has, all of them being long and many enough, is no kernel's own.
_ALIKE, _TELLING_NS, _TELLING_KERNELS = 0.002, 2_000.0, 8
# How far from the kernel that took over a fused kernel's predecessor may have stood, in kernels of the step.
_NEAR = 3
# A rank stands out where its part is this much more than that of the middle rank.
_ALONE = 0.25


@dataclass(frozen=True)
class Change:
    """One entry of the difference; `sort` is grew, shrank, came, went, replaced, fused or split.

    `before` and `after` are kernel names; calls and nanoseconds are per step. `delta_ns` is on the rank that works
    longest; `ranks` are those whose part stands out, () where all ranks changed alike. `alike_ns` is the part of
    `before_ns` that every kernel gained.
    """

    sort: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    family: str
    before_calls: int
    after_calls: int
    before_ns: float
    after_ns: float
    ranks: tuple[str, ...]
    alike_ns: float = 0.0

    @property
    def delta_ns(self) -> float:
        """What the step gained by it, beyond what all kernels gained alike."""
        return self.after_ns - self.before_ns - self.alike_ns


@dataclass(frozen=True)
class Attribution:
    """A step's difference, taken apart.

    `step_ns` is the difference of the slowest rank's step time, `rank` the rank whose kernels were compared. `changes`
    come by size, `families` sum all kernels; `same_ns` is the sum of the differences too small to be listed, and
    `rest_ns` what no kernel accounts for, which is waiting for other ranks. `alike` is the relative change that all
    kernels share (another clock, another launch), with `alike_ns` of the step; changes are what goes beyond it.
    """

    step_ns: float
    rank: str
    changes: tuple[Change, ...]
    families: tuple[tuple[str, float], ...]
    same_ns: float
    late: Mapping[str, float]
    alike: float = 0.0
    alike_ns: float = 0.0

    @property
    def explained_ns(self) -> float:
        """Sum of the changes."""
        return sum(change.delta_ns for change in self.changes)

    @property
    def rest_ns(self) -> float:
        """What neither a change nor the many small differences account for."""
        return self.step_ns - self.explained_ns - self.same_ns - self.alike_ns

    @property
    def share(self) -> float | None:
        """Share of the step's difference that the changes explain, None where the step hardly differs."""
        return (self.explained_ns + self.alike_ns) / self.step_ns if abs(self.step_ns) > _SAME_NS else None


def attribute(
    reference: Mapping[str, Usage], reference_step_ns: float, now: StepProfile, *, rank: str | None = None
) -> Attribution:
    """Explain `now` against a reference: kernels in the order of the step, and the step time of the slowest rank."""
    where = rank if rank is not None else now.busiest
    current = {name: Usage(use.calls, now.transfer_ns.get(name, use.ns)) for name, use in now.ranks[where].items()}
    order = [name for name in now.order if name in current]
    groups = _groups(list(reference), order, reference, current)
    alike = _alike(reference, current)
    changes: list[Change] = []
    same_ns = alike_ns = 0.0
    by_family: dict[str, float] = {}
    for before, after in groups:
        change = _change(before, after, reference, current, now, alike)
        alike_ns += change.alike_ns
        by_family[change.family] = by_family.get(change.family, 0.0) + change.delta_ns
        if change.sort == "same":
            same_ns += change.delta_ns
        else:
            changes.append(change)
    return Attribution(
        step_ns=now.worst_busy_ns - reference_step_ns,
        rank=where,
        changes=tuple(sorted(changes, key=lambda one: (-abs(one.delta_ns), one.after, one.before))),
        families=tuple(sorted(by_family.items(), key=lambda item: -abs(item[1]))),
        same_ns=same_ns,
        late=now.late,
        alike=alike,
        alike_ns=alike_ns,
    )


def _alike(reference: Mapping[str, Usage], current: Mapping[str, Usage]) -> float:
    """The middle kernel's relative change, 0 where it is too small to mean anything."""
    ratios = [
        use.ns / reference[name].ns
        for name, use in current.items()
        if name in reference and reference[name].calls == use.calls and reference[name].ns > _TELLING_NS
    ]
    middle = median(ratios) - 1 if len(ratios) >= _TELLING_KERNELS else 0.0
    return middle if abs(middle) > _ALIKE else 0.0


_Group = tuple[tuple[str, ...], tuple[str, ...]]


def _groups(
    before: Sequence[str], after: Sequence[str], reference: Mapping[str, Usage], current: Mapping[str, Usage]
) -> list[_Group]:
    """Every kernel in exactly one (before, after) group; kernels of one name are their own."""
    kept = set(before) & set(after)
    went = [name for name in before if name not in kept]
    came = [name for name in after if name not in kept]
    pairs = _same_function(went, came)
    pairs += _same_place(before, after, _left(went, pairs, 0), _left(came, pairs, 1))
    pairs += _same_family(_left(went, pairs, 0), _left(came, pairs, 1), reference, current)
    pairs = _with_fused(pairs, before, _left(went, pairs, 0), reference, current)
    groups: list[_Group] = [((name,), (name,)) for name in after if name in kept]
    groups += pairs
    groups += [((name,), ()) for name in _left(went, pairs, 0)]
    return groups + [((), (name,)) for name in _left(came, pairs, 1)]


def _left(names: Iterable[str], pairs: Sequence[_Group], side: int) -> list[str]:
    taken = {name for pair in pairs for name in pair[side]}
    return [name for name in names if name not in taken]


def _same_function(went: Sequence[str], came: Sequence[str]) -> list[_Group]:
    """Other template arguments of one function."""
    pairs: list[_Group] = []
    for new in came:
        olds = [old for old in went if base_name(old) == base_name(new)]
        news = [one for one in came if base_name(one) == base_name(new)]
        if len(olds) == 1 and len(news) == 1:
            pairs.append(((olds[0],), (new,)))
    return pairs


def _same_place(before: Sequence[str], after: Sequence[str], went: Sequence[str], came: Sequence[str]) -> list[_Group]:
    """What stands where something else stood: between the same neighbours of the step."""
    pairs: list[_Group] = []
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for tag, low, high, new_low, new_high in matcher.get_opcodes():
        if tag != "replace":
            continue
        olds = [name for name in before[low:high] if name in went]
        news = [name for name in after[new_low:new_high] if name in came]
        if not olds or not news:
            continue
        if len(olds) == len(news):
            pairs += [((old,), (new,)) for old, new in zip(olds, news, strict=True)]
        else:
            pairs.append((tuple(olds), tuple(news)))
    return pairs


def _same_family(
    went: Sequence[str], came: Sequence[str], reference: Mapping[str, Usage], current: Mapping[str, Usage]
) -> list[_Group]:
    pairs: list[_Group] = []
    for new in came:
        taken = {old for olds, _ in pairs for old in olds}
        olds = [old for old in went if old not in taken and family(old) == family(new)]
        alike = [old for old in olds if reference[old].calls == current[new].calls]
        if len(alike) == 1 or len(olds) == 1:
            pairs.append((((alike or olds)[0],), (new,)))
    return pairs


def _with_fused(
    pairs: Sequence[_Group],
    before: Sequence[str],
    went: Sequence[str],
    reference: Mapping[str, Usage],
    current: Mapping[str, Usage],
) -> list[_Group]:
    """Give a kernel that went to the nearby one that took another's place, called as often: the two became one."""
    found = list(pairs)
    for name in went:
        place = before.index(name)
        for index, (olds, news) in enumerate(found):
            near = any(abs(before.index(old) - place) <= _NEAR for old in olds)
            if (
                near
                and len(news) == 1
                and base_name(news[0]) not in {base_name(old) for old in olds}
                and (current[news[0]].calls == reference[name].calls)
            ):
                found[index] = ((*olds, name), news)
                break
    return found


def _change(
    before: tuple[str, ...],
    after: tuple[str, ...],
    reference: Mapping[str, Usage],
    current: Mapping[str, Usage],
    now: StepProfile,
    alike: float,
) -> Change:
    before_ns = sum(reference[name].ns for name in before)
    after_ns = sum(current[name].ns for name in after)
    before_calls = sum(reference[name].calls for name in before)
    after_calls = sum(current[name].calls for name in after)
    # What came or went has nothing in common with what stayed.
    alike_ns = alike * before_ns if before == after else 0.0
    delta = after_ns - before_ns - alike_ns
    if not before or not after:
        sort = "came" if after else "went"
    elif before == after:
        small = abs(delta) <= max(_SAME_NS, _SAME_SHARE * before_ns) and before_calls == after_calls
        sort = "same" if small else "grew" if delta > 0 else "shrank"
    elif len(before) == len(after):
        sort = "replaced"
    else:
        sort = "fused" if len(before) > len(after) else "split"
    of = family((after or before)[0])
    ranks = _standing_out(after, now, delta) if sort != "same" else ()
    return Change(sort, before, after, of, before_calls, after_calls, before_ns, after_ns, ranks, alike_ns)


def _standing_out(after: tuple[str, ...], now: StepProfile, delta_ns: float) -> tuple[str, ...]:
    """Ranks whose time in these kernels is beyond the middle rank's by a good part of the change."""
    if len(now.ranks) < 3 or not after or any(is_collective(name) for name in after):
        return ()
    mine = {rank: sum(table[name].ns for name in after if name in table) for rank, table in now.ranks.items()}
    middle = median(mine.values())
    out = [rank for rank, ns in mine.items() if ns - middle > max(_ALONE * abs(delta_ns), _SAME_NS)]
    return tuple(out) if len(out) * 2 < len(mine) else ()
