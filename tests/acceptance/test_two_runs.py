"""Two runs of pytest on one machine take turns."""

from __future__ import annotations

import getpass
import itertools
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.site import HELD, Site, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Each run has servers of its own: the ledger tells by their arguments whose turn it was.
SPEC = """
import pytest

pytestmark = pytest.mark.atom_case(
    model="openai/gpt-oss-120b", isl=16, osl=36, conc=2,
    server_args=[["--max-num-seqs", str(seqs)] for seqs in {seqs}],
)

def test_router(atom_trace): atom_trace.assert_kernel_called("topkGatingSoftmax", during="decode", per_step=2)
def test_gemms(atom_trace): atom_trace.assert_kernel_called("mfma_moe1_*", during="decode", per_step=2)
"""
FIRST, SECOND = (64, 65, 66), (128, 129, 130)


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[tuple[Site, Site]]:
    shared = {"locks": tmp_path / "locks", "ledger": tmp_path / "ledger.jsonl"}
    first, second = Site(tmp_path / "first", **shared), Site(tmp_path / "second", **shared)
    first.write(SPEC.format(seqs=FIRST))
    second.write(SPEC.format(seqs=SECOND))
    yield first, second
    first.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_two_runs_alternate_and_never_overlap(sites: tuple[Site, Site], workers: int) -> None:
    first, second = sites
    arguments = ("-q", *(("-n", str(workers)) if workers > 1 else ()))
    # Both stand in the queue before anybody gets the lease: how fast they start must not matter.
    with first.held_by_somebody():
        one = first.start(*arguments)
        wait_until(lambda: one.stderr.count(HELD) == workers, what="the first run in the queue")
        two = second.start(*arguments)
        wait_until(lambda: two.stderr.count(HELD) == workers, what="the second run in the queue")
    for run in (one.wait(), two.wait()):
        assert run.code == pytest.ExitCode.OK, (run.stdout, run.stderr)
        assert run.noise == []
        assert list(run.outcomes.values()) == ["passed"] * 6

    ledger = first.ledger
    assert (ledger.launches, ledger.windows) == (6, 6)
    assert ledger.overlaps == []
    turns = "".join("a" if any(str(n) in server.argv for n in FIRST) else "b" for server in ledger.servers)
    assert turns.count("a") == turns.count("b") == 3
    # The queue is one of workers: a run has as many turns in a row as it has workers.
    assert max(len(list(row)) for _, row in itertools.groupby(turns)) == workers, turns


def test_a_waiter_names_the_holder_and_gives_up_in_time(sites: tuple[Site, Site]) -> None:
    first, second = sites
    one = first.start("-q", "-k", "router", env={"ATOMTRACE_SIM_READY_DELAY_S": "600"})
    one.wait_for_line("launching the server")
    done = second.start("-q", "-k", "router", "--atom-lock-timeout=1 s").wait()
    assert done.code == pytest.ExitCode.TESTS_FAILED
    assert list(done.outcomes.values()) == ["error"] * 3
    assert done.noise == []
    holder = f"held by {getpass.getuser()}, pid {one.pid} (test_spec.py::test_router["
    # Once for each item that waited, not at every look.
    assert done.stderr.count(f"waiting for the GPUs: {holder}") == 3
    assert f"the GPUs were not free within 1.0 s: {holder}" in done.stdout
    one.process.terminate()
    one.wait()
