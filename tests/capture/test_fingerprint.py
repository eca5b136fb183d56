"""What a manifest says about the machine and the software, and what must not change it."""

from __future__ import annotations

import mmap
import os
import subprocess
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.capture.fingerprint import describe_gpus, hardware_key, mapped_files, profiler_of
from pytest_atomtrace.capture.software import inspect_package, inspect_software
from pytest_atomtrace.verdicts.fingerprint import fingerprint
from pytest_atomtrace.verdicts.trace import load_trace
from tests.capture.conftest import Rig, small_case
from tests.capture.machines import GIB, FakeMachine

if TYPE_CHECKING:
    from pathlib import Path


def environment_of(manifest: object) -> dict[str, object]:
    assert isinstance(manifest, dict)
    environment = manifest["environment"]
    assert isinstance(environment, dict)
    return environment


def test_a_capture_records_the_machine_the_profiler_that_is_loaded_and_what_is_not_known(rig: Rig) -> None:
    fake = FakeMachine(rig.tmp_path / "machine").build()
    fake.drive()
    rig.sim(VRAM_TREE=fake.root)
    rig.monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    case = small_case(env={"AITER_ONLINE_TUNE": "0", "MY_API_KEY": "sk-abcdefghijkl"})
    capture = rig.session_with({"machine_root": str(fake.root)}).obtain(case, needed=[case], test_id="t")
    fake.end()
    facts = environment_of(capture.manifest)
    assert facts["gpu"] == {
        "count": 2,
        "cards": 2,
        "gfx": "gfx950",
        "pci_device_id": "0x75a3",
        "compute_units": 256,
        "compute_partition": "SPX",
        "memory_partition": "NPS1",
        "power_cap_w": 1400,
        "vram_bytes": 288 * GIB,
    }
    profiler = facts["profiler"]
    assert isinstance(profiler, dict)
    assert (profiler["library"], profiler["version"]) == ("librocprofiler-sdk", "1.0.0")
    assert profiler["path"] == str(fake.root / "opt/rocm/lib/librocprofiler-sdk.so.1.0.0")
    assert (facts["rocm_version"], facts["driver_version"]) == ("7.0.2", "6.14.14")
    assert facts["server"] == {"args": [], "env": {"AITER_ONLINE_TUNE": "0", "MY_API_KEY": "<redacted>"}}
    unknown = facts["unknown"]
    assert isinstance(unknown, dict)
    assert "a simulated server" in unknown["software"]
    volatile = facts["volatile"]
    assert isinstance(volatile, dict)
    assert volatile["serials"] == ["GPU-a1b2c3d400000000", "GPU-a1b2c3d400000001"]
    assert "secretsecret" not in (capture.directory / "manifest.json").read_text()
    # What baselines are compared by.
    found = fingerprint(load_trace(capture.directory))
    assert found.gfx == "gfx950"
    assert found.hardware["power_cap_w"] == 1400
    assert found.profiler == {"library": "librocprofiler-sdk", "version": "1.0.0"}


def test_without_gpus_the_reason_is_given_and_nothing_is_invented(rig: Rig) -> None:
    case = small_case(tp=1)
    facts = environment_of(rig.session().obtain(case, needed=[case], test_id="t").manifest)
    assert set(facts) == {"server", "volatile", "unknown"}
    unknown = facts["unknown"]
    assert isinstance(unknown, dict)
    assert set(unknown) == {"gpu", "profiler", "software"}


def stable(fake: FakeMachine) -> tuple[dict[str, object], dict[str, str], str]:
    unknown: dict[str, str] = {}
    facts = describe_gpus(fake.site, unknown, {})
    return facts, unknown, hardware_key(facts, {"library": "librocprofiler-sdk", "version": "1.0.0"})


def test_a_reboot_changes_neither_facts_nor_key(tmp_path: Path) -> None:
    before = FakeMachine(tmp_path / "before").build()
    after = FakeMachine(tmp_path / "after").build()
    after.put("proc/sys/kernel/random/boot_id", "another\n")
    after.put(f"{after.device(0)}/hwmon/hwmon0/freq1_input", "132000000\n")
    drm = after.root / "sys/class/drm"
    (drm / "card1").rename(drm / "card64")
    after.used(1, 5 * GIB)
    assert stable(after) == stable(before)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("hwmon/hwmon0/power1_cap", "1000000000\n"),
        ("current_memory_partition", "NPS4\n"),
        ("current_compute_partition", "DPX\n"),
    ],
)
def test_another_setting_of_all_cards_is_another_key_and_of_one_card_is_unknown(
    tmp_path: Path, file: str, text: str
) -> None:
    fake = FakeMachine(tmp_path / "machine").build()
    _, _, key = stable(fake)
    fake.put(f"{fake.device(0)}/{file}", text)
    facts, unknown, mixed = stable(fake)
    (name,) = unknown
    assert unknown[name].startswith("the GPUs differ: ")
    assert name not in facts
    fake.put(f"{fake.device(1)}/{file}", text)
    _, none, other = stable(fake)
    assert none == {}
    assert len({key, mixed, other}) == 3


def test_the_key_is_of_the_profiler_too() -> None:
    gpu = {"pci_device_id": "0x75a3", "compute_units": 256}
    keys = {
        hardware_key(gpu, {}),
        hardware_key(gpu, {"library": "libroctracer64", "version": "4.1"}),
        hardware_key(gpu, {"library": "librocprofiler-sdk", "version": "4.1"}),
        hardware_key(gpu, {"library": "librocprofiler-sdk", "sha256": "ab"}),
        hardware_key({**gpu, "compute_units": 304}, {}),
    }
    assert len(keys) == 5
    assert hardware_key(dict(reversed(gpu.items())), {}) in keys


def test_the_mapped_profiler_is_named_and_hashed(tmp_path: Path) -> None:
    library = tmp_path / "librocprofiler-sdk-12ab34cd.so.1"
    library.write_bytes(b"x" * 100)
    with library.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ):
        files = mapped_files([os.getpid(), 2**22 + 1])
    unknown: dict[str, str] = {}
    facts = profiler_of(files, unknown)
    assert facts["path"] == str(library)
    assert facts["version"] == "1"
    assert unknown == {}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (
            ["/usr/lib/libc.so.6", "/opt/rocm/lib/librocprofiler-sdk-roctx.so.1", "/x/librocprofiler-register.so.0"],
            "no",
        ),
        (["/a/libroctracer64.so.4", "/b/librocprofiler-sdk.so.1"], "several are loaded"),
    ],
)
def test_no_profiler_or_two_of_them_is_unknown(files: list[str], reason: str) -> None:
    unknown: dict[str, str] = {}
    assert profiler_of(files, unknown) == {}
    assert unknown["profiler"].startswith(reason)


def test_a_profiler_without_a_version_in_its_name_says_so() -> None:
    unknown: dict[str, str] = {}
    facts = profiler_of(["/gone/torch/lib/libroctracer64.so"], unknown)
    assert "version" not in facts
    assert str(facts["sha256"]).startswith("unreadable: ")
    assert "carries none" in unknown["profiler_version"]


def repository(place: Path) -> dict[str, str]:
    """A checkout with a package in it; returns an environment in which git needs no configuration."""
    env = {"PATH": os.environ["PATH"], "HOME": str(place.parent), "GIT_CONFIG_NOSYSTEM": "1"}
    place.mkdir(parents=True)
    (place / "kernel.py").write_text("old = 1\n")
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "first"],
    ):
        subprocess.run(["git", "-C", str(place), *words], check=True, env=env)
    return env


def test_commit_and_edits_of_a_checkout_are_told(tmp_path: Path) -> None:
    env = repository(tmp_path / "aiter")
    package = {"place": str(tmp_path / "aiter"), "version": "0.1"}
    unknown: dict[str, str] = {}
    clean = inspect_package("aiter", package, env, unknown)
    assert len(str(clean["commit"])) == 40
    assert clean["edits"] == "clean"
    (tmp_path / "aiter" / "kernel.py").write_text("new = 2\n")
    edited = inspect_package("aiter", package, {**env, "GIT_DIR": "/nonexistent"}, unknown)
    assert edited["commit"] == clean["commit"]
    assert edited["edits"] not in ("clean", "")
    (tmp_path / "aiter" / "kernel.py").write_text("new = 3\n")
    assert inspect_package("aiter", package, env, unknown)["edits"] != edited["edits"]
    assert unknown == {}


def test_an_installed_package_inside_some_other_repository_has_no_commit(tmp_path: Path) -> None:
    env = repository(tmp_path / "somebody")
    installed = tmp_path / "somebody" / "venv" / "atom"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    unknown: dict[str, str] = {}
    assert inspect_package("atom", {"place": str(installed), "version": "0.2"}, env, unknown) == {"version": "0.2"}
    assert unknown["atom_commit"].startswith("git: ")


def test_software_is_asked_of_the_servers_interpreter_without_importing_anything(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for name, version in (("torch", "2.9.0+rocm7.0"), ("amd_aiter", "0.1.5")):
        info = site / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
    for module in ("torch", "aiter", "atom"):
        (site / module).mkdir()
        (site / module / "__init__.py").write_text("raise SystemExit('imported')\n")
    (site / "aiter" / "configs").mkdir()
    (site / "aiter" / "configs" / "a8w8_tuned.csv").write_text("M,N,K\n")
    own = tmp_path / "mine.csv"
    own.write_text("M,N,K\n1,2,3\n")
    unknown: dict[str, str] = {}
    python = os.path.realpath("/proc/self/exe")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(site), "AITER_CONFIG_GEMM_A8W8": f"{own}:/gone.csv"}
    facts = inspect_software(python, env, unknown)
    assert facts["versions"] == {"torch": "2.9.0+rocm7.0"}
    assert facts["aiter"] == {"version": "0.1.5"}
    tuned = facts["aiter_tuned"]
    assert isinstance(tuned, dict)
    assert set(tuned) == {"a8w8_tuned.csv", "AITER_CONFIG_GEMM_A8W8:mine.csv", "AITER_CONFIG_GEMM_A8W8:gone.csv"}
    assert tuned["AITER_CONFIG_GEMM_A8W8:gone.csv"] == "unreadable: No such file or directory"
    assert set(unknown) == {"triton", "atom_commit", "aiter_commit"}


def test_an_interpreter_that_does_not_answer_is_a_reason_and_no_error() -> None:
    unknown: dict[str, str] = {}
    assert inspect_software("/nonexistent/python", {}, unknown) == {}
    assert "No such file" in unknown["software"]


def test_a_real_server_names_its_kernel_libraries_and_packages(rig: Rig) -> None:
    # The real launcher on a package named atom that is the simulator, on a fake machine.
    fake = FakeMachine(rig.tmp_path / "machine").build()
    fake.put("opt/aiter/jit/module_moe.so", "kernels")
    fake.drive()
    rig.sim(VRAM_TREE=fake.root)
    package = rig.tmp_path / "root" / "atom"
    env = repository(package)
    rig.monkeypatch.setenv("HOME", env["HOME"])
    (package / "entrypoints").mkdir()
    for folder in (package, package / "entrypoints"):
        (folder / "__init__.py").touch()
    (package / "entrypoints" / "openai_server.py").write_text(
        "import runpy\nrunpy.run_module('pytest_atomtrace.simulator', run_name='__main__')\n"
    )
    (package / "kernel.py").write_text("edited = True\n")
    case = small_case()
    settings = {"backend": "atom", "root": str(package.parent), "workload": "builtin", "machine_root": str(fake.root)}
    facts = environment_of(rig.session_with(settings).obtain(case, needed=[case], test_id="t").manifest)
    fake.end()
    assert facts["aiter_jit"] == {"module_moe.so": sha256(b"kernels").hexdigest()[:16]}
    atom = facts["atom"]
    assert isinstance(atom, dict)
    assert len(atom["commit"]) == 40
    assert atom["edits"] != "clean"
    unknown = facts["unknown"]
    assert isinstance(unknown, dict)
    assert {"torch", "triton", "aiter"} <= set(unknown)
