"""Secrets planted everywhere a user may have some are found nowhere: not on screen, not in a report, not on disk."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.site import Site

# Without a prefix that would give them away by their shape.
TOKEN, PASSWORD, KEY = "plantedTokenQ7w8E9", "plantedPass/A1%s2", "plantedKeyZ9x8C7"
BACKWARDS = {name: value[::-1] for name, value in (("env", TOKEN), ("json", KEY), ("bench", KEY.swapcase()))}
PLANTED = (TOKEN, PASSWORD, quote(PASSWORD, safe=""), KEY, *BACKWARDS.values())
ENVIRONMENT = {
    "HF_TOKEN": TOKEN,
    "AWS_SECRET_ACCESS_KEY": KEY,
    "PIP_INDEX_URL": f"https://joe:{quote(PASSWORD, safe='')}@registry.example/simple",
}

# The values are computed, for pytest prints the source of a failing test and may do so.
SPEC = """
import json, os
import pytest

TOKEN, KEY = os.environ["HF_TOKEN"], os.environ["AWS_SECRET_ACCESS_KEY"]
pytestmark = pytest.mark.atom_case(
    model="openai/gpt-oss-120b", isl=16, osl=40, conc=2, env={"VENDOR_API_KEY": TOKEN[::-1]},
    server_args=["--kv-transfer-config", json.dumps({"auth_token": KEY[::-1]})],
)

def test_kernels(atom_trace, atom_case):
    assert atom_trace.case == atom_case
    atom_trace.assert_kernel_called("mfma_moe1_*", during="decode", per_step=2)

def test_wrong_count(atom_trace, atom_case):
    atom_trace.assert_kernel_called("mfma_moe1_*", during="decode", per_step=3)

def test_own_words(atom_trace, atom_case):
    assert atom_case is None, f"the token was {TOKEN}"

def test_quantile(atom_trace):
    atom_trace.assert_step_time("decode", p99="1 s")
"""
COUNTS = """
def test_counts(atom_trace):
    atom_trace.assert_no_regression(metrics=["counts"])
"""
REFUSED = """
import os
import pytest

@pytest.mark.atom_case(
    model="openai/gpt-oss-120b", isl=16, osl=40, conc=2,
    server_args=["--vendor-api-key", os.environ["AWS_SECRET_ACCESS_KEY"][::-1]],
)
def test_refused(atom_trace):
    pass
"""


REFUSED_AT_COLLECTION = """
import os
import pytest

@pytest.mark.atom_case(
    model="openai/gpt-oss-120b", isl=16, osl=40, conc=2,
    bench_args=["--api-key", os.environ["AWS_SECRET_ACCESS_KEY"].swapcase()[::-1]],
)
def test_no_such_arguments(atom_trace):
    pass
"""


def found_in(folder: Path, *, but: set[str]) -> list[str]:
    """Files below `folder` that hold something planted, compressed ones looked into."""
    found = []
    for path in folder.rglob("*"):
        if not path.is_file() or path.name in but:
            continue
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        found += [f"{path.relative_to(folder)}: {value}" for value in PLANTED if value.encode() in data]
    return found


def environment(site: Site, fault: str) -> dict[str, str]:
    """Everything that is written stays in the site's folder, temporary files included."""
    scratch = site.folder / "tmp"
    scratch.mkdir(exist_ok=True)
    return {**ENVIRONMENT, "TMPDIR": str(scratch), "ATOMTRACE_SIM_FAULT": fault}


def reports(site: Site) -> list[str]:
    """Every report that can be asked for."""
    kinds = {"json": "out.json", "html": "out.html", "markdown": "out.md", "dashboard": "dashboard"}
    return [f"--atom-{kind}={site.folder / name}" for kind, name in kinds.items()]


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "two workers"])
def test_a_run_shows_and_keeps_no_secret(site: Site, workers: tuple[str, ...]) -> None:
    site.write(SPEC)
    summary = site.folder / "step-summary.md"
    env = {**environment(site, "print_environment"), "GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    done = site.run("-vv", "--showlocals", "-ra", *workers, *reports(site), env=env)
    assert sorted(done.outcomes.values()) == ["error", "failure", "failure", "passed"], done.stdout
    (log,) = site.store.glob("latest/captures/*/1/server.log")
    assert "HF_TOKEN: <redacted>" in log.read_text()
    assert "VENDOR_API_KEY: <redacted>" in log.read_text()
    (raw,) = site.store.glob("latest/servers/*/launch-1/server.log")
    assert "HF_TOKEN: <redacted>" in raw.read_text()
    assert summary.stat().st_size > 0
    assert found_in(site.folder, but={site.ledger.path.name}) == []


@pytest.mark.parametrize(
    "fault",
    ["print_environment,die_loading", f"print_environment,port_other_model:{TOKEN}"],
    ids=["dies", "other model"],
)
def test_a_launch_that_fails_shows_the_end_of_its_log_without_secrets(site: Site, fault: str) -> None:
    site.write(SPEC)
    done = site.run(*reports(site), env=environment(site, fault))
    assert set(done.outcomes.values()) == {"error"}, done.stdout
    assert "did not start" in done.stdout or "serves <redacted>, not" in done.stdout
    assert found_in(site.folder, but={site.ledger.path.name}) == []


def test_a_refused_command_line_is_shown_without_its_secrets(site: Site) -> None:
    site.write(REFUSED)
    done = site.run(*reports(site), env=environment(site, ""))
    assert "unrecognized arguments: --vendor-api-key <redacted>" in done.stdout
    assert found_in(site.folder, but={site.ledger.path.name}) == []


def test_arguments_refused_at_collection_are_told_without_their_secrets(site: Site) -> None:
    site.write(REFUSED_AT_COLLECTION)
    done = site.run(*reports(site), env=environment(site, ""))
    assert done.code == 4, done.stdout
    assert "bench_args" in done.stdout + done.stderr
    assert found_in(site.folder, but={site.ledger.path.name}) == []


def test_a_killed_run_leaves_no_secret_in_the_servers_log(site: Site) -> None:
    site.write(SPEC)
    running = site.start("-s", env=environment(site, "print_environment,never_ready"))
    running.wait_for_line("launching the server")
    from tests.acceptance.site import wait_until

    def logged() -> bool:
        logs = list(site.store.glob("runs/*/servers/*/launch-1/server.log"))
        return any("HF_TOKEN" in log.read_text() for log in logs)

    wait_until(logged, what="the server's log with its environment")
    os.kill(running.pid, 9)
    running.process.wait(30)
    wait_until(lambda: not site.survivors(), what="the end of all processes")
    assert found_in(site.folder, but={site.ledger.path.name}) == []


def test_a_recorded_baseline_holds_no_secret_and_serves_the_replay(site: Site) -> None:
    site.write(SPEC.partition("def test_kernels")[0] + COUNTS)
    env = environment(site, "")
    site.run("--atom-update-baselines=missing", env=env)
    (baseline,) = site.folder.rglob("baselines/*/*.json")
    assert "<redacted>" in baseline.read_text()
    assert found_in(site.folder, but={site.ledger.path.name}) == []
    done = site.run(env=env)
    assert list(done.outcomes.values()) == ["passed"], done.stdout


def test_commands_show_no_secret(site: Site) -> None:
    site.write(SPEC)
    env = environment(site, "print_environment")
    site.run(env=env)
    for words in (["summary", ".atomtrace"], ["health", ".atomtrace"], ["doctor", "--dump", "machine.json"]):
        for json in ([], ["--json"]):
            command = [sys.executable, "-m", "pytest_atomtrace.cli", *words, *json]
            done = subprocess.run(command, cwd=site.folder, env=site.environment(env), capture_output=True, text=True)
            assert done.stdout
            assert [value for value in PLANTED if value in done.stdout + done.stderr] == []
    assert found_in(site.folder, but={site.ledger.path.name}) == []
