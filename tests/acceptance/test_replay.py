"""What a run left on disk answers the same questions again, without a lease and without a server."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.site import Site, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.acceptance.site import Done

SPEC = """
import pytest

pytestmark = pytest.mark.atom_case(model="openai/gpt-oss-120b", isl=16, osl=36, conc=[2, 4])

def test_router(atom_trace): atom_trace.assert_kernel_called("topkGatingSoftmax", during="decode", per_step=2)
def test_op(atom_trace): atom_trace.assert_kernel_called("aiter::moe_forward", during="prefill", layer="op")
def test_absent(atom_trace): atom_trace.assert_kernel_called("no_such_kernel", during="decode")
def test_time(atom_trace): atom_trace.assert_step_time("decode", p50="1 s")
def test_too_few_steps(atom_trace): atom_trace.assert_step_time("decode", p99="1 s")
"""
TWO, FOUR = (f"gpt-oss-120b-tp1-isl16-osl36-conc{conc}" for conc in (2, 4))


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Done]]:
    """One run on the simulator, then its lock directory is gone: a replay that wants it is found out."""
    site = Site(tmp_path_factory.mktemp("replay") / "site")
    site.write(SPEC)
    done = site.run("-q")
    assert list(done.outcomes.values()).count("passed") == 6, done.stdout
    wait_until(lambda: not site.survivors(), what="the run's processes")
    shutil.rmtree(site.locks)
    yield site, done
    site.close()


def replay(site: Site, place: Path | str, *arguments: str) -> Done:
    before = site.ledger.text
    done = site.run("-q", "-rs", f"--atom-replay={place}", *arguments, backend="")
    assert site.ledger.text == before
    assert not site.locks.exists()
    return done


def of(done: Done, slug: str) -> dict[str, str]:
    return {name: seen for name, seen in done.outcomes.items() if f"[{slug}]" in name}


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["no xdist", "two workers"])
@pytest.mark.parametrize("place", [".atomtrace", ".atomtrace/latest", ".atomtrace/latest/captures", "the run"])
def test_a_store_gives_the_same_outcomes(taken: tuple[Site, Done], place: str, arguments: tuple[str, ...]) -> None:
    site, first = taken
    if place == "the run":
        (run,) = (site.store / "runs").iterdir()
        place = str(run)
    assert replay(site, place, *arguments).outcomes == first.outcomes


@pytest.mark.parametrize("depth", ["case", "window"])
def test_one_case_of_a_store_answers_for_itself_only(taken: tuple[Site, Done], depth: str) -> None:
    site, first = taken
    place = site.store / "latest" / "captures" / TWO / ("1" if depth == "window" else "")
    done = replay(site, place)
    assert of(done, TWO) == of(first, TWO)
    assert set(of(done, FOUR).values()) == {"skipped"}
    assert f"{place.resolve()} has no capture of {FOUR}; it has {TWO}" in done.stdout.replace("\n", " ")


def test_a_plain_trace_directory_gives_the_same_outcomes(taken: tuple[Site, Done], tmp_path: Path) -> None:
    """As ATOM's run_benchmark.sh with PROFILE=1 leaves it: rank_0/<model>_ts_....pt.trace.json.gz, no more."""
    site, first = taken
    for file in (site.store / "latest" / "captures" / TWO / "1").glob("rank_*/*.pt.trace.json.gz"):
        (tmp_path / "traces" / file.parent.name).mkdir(parents=True)
        shutil.copy(file, tmp_path / "traces" / file.parent.name)
    done = replay(site, tmp_path / "traces", "-k", TWO)
    assert of(done, TWO) == of(first, TWO)


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["no xdist", "two workers"])
@pytest.mark.parametrize(
    ("name", "problem"),
    [("empty", "holds neither captures"), ("nowhere", "does not exist"), ("file", "is no directory")],
)
def test_a_place_that_can_never_be_replayed_is_a_usage_error(
    taken: tuple[Site, Done], tmp_path: Path, name: str, problem: str, arguments: tuple[str, ...]
) -> None:
    site, _ = taken
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    done = replay(site, tmp_path / name, *arguments)
    assert done.code == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: --atom-replay: {tmp_path / name} {problem}" in done.stderr
    assert not done.outcomes


def test_a_lost_manifest_of_one_case_is_an_infra_error_of_its_tests_only(
    taken: tuple[Site, Done], tmp_path: Path
) -> None:
    site, first = taken
    saved = shutil.copytree((site.store / "latest").resolve(), tmp_path / "saved")
    (saved / "captures" / TWO / "1" / "manifest.json").unlink()
    done = replay(site, saved)
    assert set(of(done, TWO).values()) == {"error"}
    assert of(done, FOUR) == of(first, FOUR)
    said = done.stdout.replace("\n", " ")
    assert f"{saved / 'captures' / TWO / '1'} has no manifest.json: the capture of {TWO} is broken" in said


@pytest.mark.parametrize("place", ["captures", "servers"])
def test_an_interrupted_run_is_an_infra_error_with_its_reason(
    taken: tuple[Site, Done], tmp_path: Path, place: str
) -> None:
    site, _ = taken
    saved = tmp_path / "saved"
    keys = [path.name for path in (site.store / "latest" / "servers").iterdir()]
    for name in [TWO, FOUR] if place == "captures" else keys:
        (saved / place / name).mkdir(parents=True)
        (saved / place / name / "failed.json").write_text('{"problem": "the capture was interrupted"}')
    done = replay(site, saved)
    assert done.code == pytest.ExitCode.TESTS_FAILED
    assert set(done.outcomes.values()) == {"error"}
    assert "the capture was interrupted" in done.stdout


def test_a_case_that_a_replay_lacks_is_an_error_where_gpus_are_required(taken: tuple[Site, Done]) -> None:
    site, first = taken
    done = replay(site, site.store / "latest" / "captures" / TWO, "--atom-require-gpu")
    assert of(done, TWO) == of(first, TWO)
    assert set(of(done, FOUR).values()) == {"error"}
    assert "--atom-require-gpu: --atom-replay: " in done.stdout


def test_neither_a_replay_nor_a_failed_launch_takes_latest_away(taken: tuple[Site, Done]) -> None:
    site, _ = taken
    before = (site.store / "latest").resolve()
    replay(site, ".atomtrace/latest", "--atom-update-baselines=all")
    shutil.copytree(site.folder, site.folder.parent / "other", symlinks=True, ignore_dangling_symlinks=True)
    other = Site(site.folder.parent / "other")
    try:
        failed = other.run("-q", "-k", "router", env={"ATOMTRACE_SIM_FAULT": "die_loading"})
    finally:
        other.close()
    assert set(failed.outcomes.values()) == {"error"}, failed.stdout
    assert (site.store / "latest").resolve() == before
    assert (other.store / "latest").resolve().name == before.name
