"""Where a lock directory may be: local disk that everybody who uses the GPUs shares."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_atomtrace.capture.mounts import container_sign, judge_lock_directory, mount_of
from pytest_atomtrace.errors import LeaseError

HOST = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:30 / /tmp rw,nosuid shared:2 - tmpfs tmpfs rw
40 22 0:40 / /nfs/home rw - nfs4 server:/export/home rw,vers=4.2
41 22 0:41 / /lfs rw - lustre 10.0.0.1@tcp:/lfs rw
42 22 0:42 / /remote rw - fuse.sshfs me@host: rw
43 22 0:43 / /share rw - cifs //server/share rw
44 22 0:44 / /virt rw - 9p hostshare rw
45 22 0:45 / /with\\040blank rw - nfs server:/a rw
"""
CONTAINER = """\
100 99 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b
101 100 0:51 / /dev rw,nosuid - tmpfs tmpfs rw
102 100 8:1 /var/lock/atomtrace /locks rw,relatime - ext4 /dev/sda1 rw
103 100 0:52 / /scratch rw - tmpfs tmpfs rw
104 100 0:53 / /nfs rw - nfs server:/x rw
"""


@pytest.mark.parametrize("place", ["/nfs/home/me/locks", "/lfs", "/remote/a", "/share/a/b", "/virt/x", "/with blank/x"])
def test_a_network_mount_is_refused_with_the_remedy(place: str) -> None:
    with pytest.raises(LeaseError, match=r"on a network file system: \S+ at (.|\n)*--atom-lock-dir=DIR"):
        judge_lock_directory(Path(place), table=HOST, container="", shared=False, ci=False)


@pytest.mark.parametrize("place", ["/tmp/atomtrace-locks", "/var/lock", "/nfs/homes"])
def test_local_disk_of_a_host_is_good(place: str) -> None:
    assert judge_lock_directory(Path(place), table=HOST, container="", shared=True, ci=True) == ""


@pytest.mark.parametrize("place", ["/tmp/locks", "/scratch/locks", "/dev/shm2"])
def test_in_a_container_a_directory_of_its_own_warns_and_is_an_error_in_ci(place: str) -> None:
    warning = judge_lock_directory(Path(place), table=CONTAINER, container="/.dockerenv", shared=True, ci=False)
    assert "is private to this container" in warning
    assert f"docker run -v {place}:{place}" in warning
    with pytest.raises(LeaseError, match="is private to this container"):
        judge_lock_directory(Path(place), table=CONTAINER, container="/.dockerenv", shared=True, ci=True)


def test_a_bind_mount_from_the_host_is_good_in_a_container() -> None:
    assert judge_lock_directory(Path("/locks/a"), table=CONTAINER, container="/.dockerenv", shared=True, ci=True) == ""


def test_a_simulator_uses_no_gpu_that_another_container_could_want() -> None:
    assert judge_lock_directory(Path("/tmp/a"), table=CONTAINER, container="/.dockerenv", shared=False, ci=True) == ""


def test_the_innermost_and_last_mount_counts() -> None:
    table = HOST + "50 22 8:2 / /tmp rw - xfs /dev/sdb1 rw\n"
    mount = mount_of(Path("/tmp/x"), table)
    assert mount is not None
    assert str(mount) == "xfs at /tmp (from /dev/sdb1)"
    assert mount_of(Path("/x"), "rubbish\n\n1 2 3 - a b\n") is None


def test_a_container_is_known_by_several_signs(tmp_path: Path) -> None:
    assert container_sign(tmp_path, {}) == ""
    assert container_sign(tmp_path, {"container": "podman"}) == "container=podman"
    assert container_sign(tmp_path, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == "KUBERNETES_SERVICE_HOST"
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/cgroup").write_text("12:cpu:/docker/0123abc\n")
    assert container_sign(tmp_path, {}) == "docker in /proc/1/cgroup"
    (tmp_path / ".dockerenv").touch()
    assert container_sign(tmp_path, {}) == "/.dockerenv"
