"""The real engine's seam, argument for argument, against a package named atom that is the simulator."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from pytest_atomtrace.capture.benchmark import benchmark_arguments
from pytest_atomtrace.capture.engines import engine_of
from pytest_atomtrace.errors import LaunchError, WorkloadError
from pytest_atomtrace.settings import Settings
from tests.capture.conftest import Rig, small_case

ATOM_ROOT = Path(__file__).parent / "atom_root"


@pytest.fixture
def atom(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A rig whose captures go to the stand-in package; its home is the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STANDIN_NOTES", str(tmp_path / "notes"))
    return rig


def atom_settings(**more: object) -> dict[str, object]:
    return {"backend": "atom", "root": str(ATOM_ROOT), **more}


def test_the_server_and_the_client_of_the_package_are_run_argument_for_argument(atom: Rig, tmp_path: Path) -> None:
    value = '{"a": ["b c", 1]}'
    case = small_case(
        server_args=("--online_quant_config", value, "--trust-remote-code"), bench_args=("--burstiness=2",)
    )
    capture = atom.session_with(atom_settings()).obtain(case, needed=[case], test_id="t")

    assert capture.engine == "atom"
    server = capture.manifest["server"]
    assert isinstance(server, dict)
    assert server["argv"][:3] == [sys.executable, "-m", "atom.entrypoints.openai_server"]
    kineto, rows, *argv = (tmp_path / "notes").read_text().split("\n")
    assert argv == server["argv"][3:]
    assert argv[argv.index("--online_quant_config") + 1] == value
    assert rows == "ROCTRACER_MAX_EVENTS=20000000"
    assert Path(kineto).parent.parent.parent == atom.run_dir / "servers"

    workload = capture.manifest["workload"]
    assert isinstance(workload, dict)
    assert (workload["kind"], workload["chat_template"]) == ("atom", False)
    [log] = atom.run_dir.glob("servers/*/launch-1/benchmark-*.log")
    sent = json.loads(log.read_text().splitlines()[1])
    flags = dict(zip(sent[::2], sent[1::2], strict=False))
    assert (flags["--random-input-len"], flags["--random-output-len"], flags["--num-prompts"]) == ("64", "16", "4")
    assert (flags["--max-concurrency"], flags["--dataset-name"], flags["--backend"]) == ("4", "random", "vllm")
    assert {"--ignore-eos", "--save-result", "--trust-remote-code", "--burstiness=2"} <= set(sent)
    assert "--profile" not in sent
    assert "--use-chat-template" not in sent
    assert sent[sent.index("--num-warmups") + 1] == "0"

    bench = json.loads((capture.directory / "bench.json").read_text())
    assert (bench["workload"], bench["completed"], bench["failed"], bench["output_tokens"]) == ("atom", 4, 0, 64)
    assert bench["tpot_ms"]["mean"] == bench["atom"]["mean_tpot_ms"]
    assert set(bench["e2el_ms"]) == {"mean", "p50", "p99"}
    atom.assert_nothing_left()


def test_every_window_has_a_seed_of_its_own(tmp_path: Path) -> None:
    case = small_case()
    seeds = {
        arguments[arguments.index("--seed") + 1]
        for text in ("a/1/window 1", "a/2/window 2", "a/1/unprofiled")
        for arguments in [
            benchmark_arguments(case, url="u", seed=text, requests=4, chat=False, result=tmp_path / "r.json")
        ]
    }
    assert len(seeds) == 3
    assert all(0 <= int(seed) < 2**31 for seed in seeds)


def test_requests_that_failed_silently_are_found_although_the_client_ends_well(atom: Rig) -> None:
    # Ready 1, tokenizer 2, warm-up 3-6: the fault strikes the seventh request, which is in the window.
    atom.sim(FAULT="fail_requests:7")
    case = small_case()
    with pytest.raises(WorkloadError, match=r"1 of 4 requests of the window 1 failed, and benchmark_serving") as failed:
        atom.session_with(atom_settings()).obtain(case, needed=[case], test_id="t")
    assert any("FAILED requests: 1" in line for line in failed.value.evidence)
    atom.assert_nothing_left()


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ("crash", "benchmark_serving of the window 1 ended with exit status 1"),
        ("no-result", "ended with exit status 0 and left no result"),
        ("hang", r"not done within 2.0 s \(its client's last line"),
    ],
)
def test_a_client_that_fails_is_named_and_ended(
    atom: Rig, monkeypatch: pytest.MonkeyPatch, hook: str, message: str
) -> None:
    monkeypatch.setenv("STANDIN_CLIENT", hook)
    case = small_case(tp=1)
    settings = atom_settings(workload_timeout=2.0 if hook == "hang" else 10.0)
    with pytest.raises(WorkloadError, match=message):
        atom.session_with(settings).obtain(case, needed=[case], test_id="t")
    atom.assert_nothing_left()


def test_a_missing_client_is_told_by_its_own_words(atom: Rig, tmp_path: Path) -> None:
    shutil.copytree(ATOM_ROOT, tmp_path / "root", ignore=shutil.ignore_patterns("benchmarks"))
    case = small_case(tp=1)
    with pytest.raises(WorkloadError) as failed:
        atom.session_with(atom_settings(root=str(tmp_path / "root"), workload="atom")).obtain(
            case, needed=[case], test_id="t"
        )
    assert any("No module named" in line for line in failed.value.evidence)
    capture = atom.session_with(atom_settings(root=str(tmp_path / "root"))).obtain
    other = small_case(tp=1, conc=2, server_args=("--level", "0"))
    workload = capture(other, needed=[other], test_id="t").manifest["workload"]
    assert isinstance(workload, dict)
    assert workload["kind"] == "builtin"


def test_arguments_that_are_the_harness_s_are_refused_before_a_launch(atom: Rig) -> None:
    case = small_case(bench_args=("--num_warmups=3",))
    with pytest.raises(WorkloadError, match=r"bench_args may not hold --num_warmups: the harness warms up itself"):
        atom.session_with(atom_settings()).obtain(case, needed=[case], test_id="t")
    assert atom.launches() == 0


def test_the_compile_cache_is_emptied_under_the_lease_and_nothing_beside_it(atom: Rig, tmp_path: Path) -> None:
    cache = tmp_path / "home" / ".cache"
    for place in ("atom/a/b", "atom/c", "other"):
        (cache / place).mkdir(parents=True)
        (cache / place / "file").touch()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    (cache / "atom" / "link").symlink_to(outside)
    case = small_case(tp=1)
    atom.session_with(atom_settings()).obtain(case, needed=[case], test_id="t")
    assert list((cache / "atom").iterdir()) == []
    assert (cache / "other" / "file").exists()
    assert (outside / "file").exists()


def test_a_cache_that_is_a_link_is_left_alone(atom: Rig, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "file").touch()
    (tmp_path / "home" / ".cache").mkdir(parents=True)
    (tmp_path / "home" / ".cache" / "atom").symlink_to(shared)
    case = small_case(tp=1)
    atom.session_with(atom_settings()).obtain(case, needed=[case], test_id="t")
    assert (shared / "file").exists()


@pytest.mark.parametrize("exit_status", ["0", "1"])
def test_the_start_script_is_used_and_its_words_and_exit_status_are_not_believed(
    atom: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exit_status: str
) -> None:
    log = tmp_path / "script-server.log"
    monkeypatch.setenv("STANDIN_LOG", str(log))
    monkeypatch.setenv("STANDIN_EXIT", exit_status)
    atom.sim(READY_DELAY_S=1, FAULT="untuned")
    case = small_case(server_args=("--level", "0"))
    capture = atom.session_with(atom_settings(launcher="script")).obtain(case, needed=[case], test_id="t")
    server = capture.manifest["server"]
    assert isinstance(server, dict)
    assert server["argv"][:5] == [
        "bash", str(ATOM_ROOT / "scripts" / "start_atom_server.sh"), case.model, "2", server["argv"][4],
    ]  # fmt: skip
    # The log that was followed is the server's own, not the script's output.
    assert (capture.directory / "server.log").read_bytes() == log.read_bytes()[
        : (capture.directory / "server.log").stat().st_size
    ]
    facts = capture.manifest["log"]
    assert isinstance(facts, dict)
    assert len(facts["untuned"]) == 2
    atom.assert_nothing_left()


def test_a_script_whose_server_dies_is_an_error_of_the_launch(
    atom: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_LOG", str(tmp_path / "script-server.log"))
    atom.sim(FAULT="die_loading:3")
    case = small_case(tp=1)
    with pytest.raises(LaunchError, match=r"everything that it started are gone|memory does not suffice"):
        atom.session_with(atom_settings(launcher="script")).obtain(case, needed=[case], test_id="t")
    atom.assert_nothing_left()


def test_an_argument_that_the_script_would_tear_apart_is_refused(atom: Rig) -> None:
    case = small_case(server_args=("--hf-overrides", '{"a": 1}'))
    with pytest.raises(LaunchError, match=r"would tear '\{\"a\": 1\}' apart.*\n?.*unquoted"):
        atom.session_with(atom_settings(launcher="script")).obtain(case, needed=[case], test_id="t")
    with pytest.raises(LaunchError, match=r"needs ATOM's checkout"):
        engine_of(Settings(launcher="script"), "atom").launch(
            small_case(), trace_dir=Path("/t/trace"), port=1, base_env={}, token="t"
        )
    assert atom.launches() == 0
