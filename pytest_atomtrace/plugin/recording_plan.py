"""Which cases need how many launches and windows: for comparing with baselines, and for recording them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_atomtrace.capture.gpus import read_topology
from pytest_atomtrace.errors import ConfigError
from pytest_atomtrace.plugin.asked_baselines import asks_for_baseline, asks_for_times
from pytest_atomtrace.plugin.state import CASE
from pytest_atomtrace.verdicts.baseline_place import baseline_files, baseline_path, hardware_in
from pytest_atomtrace.verdicts.baseline_reading import read_baseline
from pytest_atomtrace.verdicts.evidence import count_of
from pytest_atomtrace.verdicts.recording import LAUNCHES, WINDOWS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.settings import Settings
    from pytest_atomtrace.verdicts.fingerprint import Fingerprint

__all__ = ["Machine", "RecordingPlan", "plan_of"]


class Machine(NamedTuple):
    """What is known before the first capture of whose baselines count: `simulated` or real ones (None: both), and of
    a real machine its gfx and PCI device id, "" where they are not known.
    """

    simulated: bool | None
    gfx: str = ""
    pci_device_id: str = ""

    def may_own(self, path: Path) -> bool:
        """Whether a baseline's file may be of this machine; the capture knows for sure."""
        simulated = path.parent.name.startswith("sim-")
        if self.simulated is not None and self.simulated != simulated:
            return False
        if simulated or not self.gfx:
            return True
        return path.parent.name == self.gfx and hardware_in(path).get("pci_device_id") in (None, self.pci_device_id)


def plan_of(session: pytest.Session, settings: Settings) -> RecordingPlan:
    """The plan of a run, with what the kernel shows of this machine where real GPUs are to be used."""
    machine = Machine(simulated=None if settings.backend == "replay" else settings.backend == "sim")
    gpus = read_topology(settings.machine).gpus if settings.backend in ("auto", "atom") else ()
    if gpus:
        machine = machine._replace(gfx=gpus[0].gfx, pci_device_id=f"0x{gpus[0].device_id:04x}")
    return RecordingPlan(
        session.items, settings.update_baselines, session.config.rootpath / settings.baselines, machine
    )


class RecordingPlan:
    """The same in every worker of a run, since all have the same items and read the same files.

    `mode` is ``missing``, ``all`` or "" for a run that records nothing.
    """

    def __init__(self, items: Sequence[pytest.Item], mode: str, baselines: Path, machine: Machine) -> None:
        self._mode = mode
        self._baselines = baselines
        self._machine = machine
        asking = [item for item in items if CASE in item.stash and item.get_closest_marker("skip") is None]
        asking = [item for item in asking if asks_for_baseline(item)]
        self._cases = dict.fromkeys(item.stash[CASE] for item in asking)
        self._specs: dict[str, str] = {}
        for item in asking:
            spec, slug = item.nodeid.partition("::")[0], item.stash[CASE].slug
            self._specs[slug] = min(spec, self._specs.get(slug, spec))
        self._missing = {case.slug for case in self._cases if not self._files(case)}
        timing = [item for item in asking if asks_for_times(item)]
        self._timing = {item.nodeid for item in timing}
        self._first_timing = {item.stash[CASE].slug: item for item in reversed(timing)}
        timed = set(self._first_timing)
        # What a baseline has it keeps: recording for one check of counts must not take the times of another.
        if mode == "all":
            timed |= {case.slug for case in self._cases if self._has_times(case)}
        self._timed = timed - {case.slug for case in self._cases if case.load_dummy}

    def _files(self, case: Case) -> list[Path]:
        return [path for path in baseline_files(self._baselines, case.slug) if self._machine.may_own(path)]

    def _has_times(self, case: Case) -> bool:
        for path in self._files(case):
            try:
                found = read_baseline(path, case=case.slug)
            except ConfigError:
                return True  # nobody knows what a damaged file had
            if found is not None and found.metrics:
                return True
        return False

    def times_wanted(self, case: Case) -> bool:
        """Whether a baseline of this case is to have times: some item compares them, or the file has them."""
        return case.slug in self._timed

    def recorder_of(self, item: pytest.Item) -> pytest.Item:
        """The item that a command is to name: recording for a check of counts alone must not leave out the times that
        another check of the run compares.
        """
        return item if item.nodeid in self._timing else self._first_timing.get(item.stash[CASE].slug, item)

    def spec_of(self, case: Case) -> str:
        """The spec that compares the case; of several always the same one, whichever check records. "" for none."""
        return self._specs.get(case.slug, "")

    def windows(self) -> dict[str, int]:
        """By slug how many windows a launch needs where times are compared or recorded."""
        return dict.fromkeys(sorted(self._timed), WINDOWS)

    def partners(self, now: Fingerprint) -> list[Case]:
        """Cases of which every launch of a recording takes windows too; by now the GPU is known."""
        if not self._mode:
            return []
        return [
            case
            for case in self._cases
            if self.times_wanted(case)
            and (self._mode == "all" or not baseline_path(self._baselines, now, case.slug).exists())
        ]

    def text(self) -> str:
        """What recording is about to cost, said before the first launch; "" where nothing will be recorded."""
        recorded = [case for case in self._cases if self._mode == "all" or case.slug in self._missing]
        if not self._mode or not recorded:
            return ""
        timed = [case for case in recorded if self.times_wanted(case)]
        servers = {case.server_key for case in recorded}
        launches = len(servers) + (LAUNCHES - 1) * len({case.server_key for case in timed})
        counted = [case for case in recorded if case not in timed]
        windows = sum(LAUNCHES * max(WINDOWS, case.captures) for case in timed) + sum(one.captures for one in counted)
        how = [f"{LAUNCHES} launches a server, {WINDOWS} windows a case and launch"] * bool(timed)
        how += [f"counts alone of {count_of(len(counted), 'case')}: one launch"] * bool(counted)
        return (
            f"recording baselines of {count_of(len(recorded), 'case')} on {count_of(len(servers), 'server')}: "
            f"{count_of(launches, 'launch', 'launches')}, {count_of(windows, 'window')} ({'; '.join(how)})"
        )
