"""Two popen gateways with lock directories of their own are two hosts: each launches, and each has its captures."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.site import Site

# Four cases, each on a server of its own, each with enough items that both gateways need it.
SPEC = """
import pytest

pytestmark = pytest.mark.atom_case(
    model="openai/gpt-oss-120b", isl=16, osl=36, conc=2,
    server_args=[["--max-num-seqs", str(seqs)] for seqs in (64, 65, 66, 67)],
)

@pytest.mark.parametrize("again", range(6))
def test_router(atom_trace, again):
    atom_trace.assert_kernel_called("topkGatingSoftmax", during="decode", per_step=2)
"""


def gateways(site: Site) -> tuple[str, ...]:
    named = [f"popen//id={one}//env:ATOMTRACE_LOCK_DIR={site.folder / one}" for one in ("a", "b")]
    return ("--dist", "load", *itertools.chain.from_iterable(("--tx", name) for name in named))


def manifests(run: Path) -> list[Path]:
    return sorted(run.rglob("captures/*/*/manifest.json"))


def test_two_hosts_launch_side_by_side_and_neither_touches_the_others_captures(site: Site) -> None:
    site.write(SPEC)
    done = site.run("-q", *gateways(site))
    assert done.code == pytest.ExitCode.OK, (done.stdout, done.stderr)
    assert list(done.outcomes.values()) == ["passed"] * 24

    keys = [server.argv[server.argv.index("--max-num-seqs") + 1] for server in site.ledger.servers]
    assert set(keys) == {"64", "65", "66", "67"}
    assert 4 < len(keys) <= 8, "each host launched what its items needed"
    assert max(Counter(keys).values()) == 2, "and each server once"
    assert site.ledger.overlaps, "two leases, two servers at once"

    (run,) = (site.store / "runs").glob("[0-9]*")
    found = manifests(run)
    assert len(found) == site.ledger.windows == len(keys)
    assert len(list((run / "hosts").iterdir())) == 1
    for path in found:
        (row,) = json.loads(path.read_text())["ranks"].values()
        assert (path.parent / row["file"]).is_file()

    # Whoever reads the run later finds all of it.
    assert (site.store / "latest").resolve() == run
    again = site.run("-q", f"--atom-replay={site.store / 'latest'}", backend="")
    assert list(again.outcomes.values()) == ["passed"] * 24
    (other,) = (run / "hosts").iterdir()
    again = site.run("-q", f"--atom-replay={other}", backend="")
    assert set(again.outcomes.values()) - {"skipped"} == {"passed"}, "what the other host captured can be named"


def test_two_gateways_with_one_lock_directory_are_one_host(site: Site) -> None:
    site.write(SPEC)
    done = site.run("-q", "--tx", "popen//id=a", "--tx", "popen//id=b", "--dist", "load")
    assert done.code == pytest.ExitCode.OK, (done.stdout, done.stderr)
    (run,) = (site.store / "runs").glob("[0-9]*")
    assert (site.ledger.launches, len(manifests(run))) == (4, 4)
    assert site.ledger.overlaps == []
    assert not (run / "hosts").exists()
