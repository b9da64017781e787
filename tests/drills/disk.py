"""A small disk of its own for one member's data, which a drill can fill without filling this computer's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lab import Lab, shell
from tests.drills.cluster import Cluster
from tests.drills.machines import Machine

_IMAGE = "/var/lib/postgresql/drill-disk.img"
_DEVICE = "/dev/drill-disk"
_FILL = "drill-fill"


@contextmanager
def small_disk(cluster: Cluster, standby: Machine, *, spare_mb: int) -> Iterator[None]:
    """The data directory of `standby` is on a file system of its own, with `spare_mb` free, until the `with` ends.

    The cluster is whole when it begins, and made whole again after it.
    """
    aside = f"{cluster.data}.drill"
    used_mb = int(standby.run(f"du -sm {cluster.data} | cut -f1"))
    standby.run("systemctl stop patroni.service", timeout_s=120)
    image = Lab.from_environment().paths.root(standby.name) / _IMAGE.lstrip("/")
    loop = ""
    try:
        # A twentieth more for the file system's own.
        shell.run(["truncate", f"--size={int(used_mb * 1.05) + spare_mb + 16}M", str(image)])
        shell.run(["mkfs.ext4", "-q", "-m", "0", str(image)])
        loop = shell.run(["losetup", "--find", "--show", str(image)]).stdout.strip()
        standby.run(f"mv {cluster.data} {aside} && mkdir -m 700 {cluster.data}")
        standby.run(f"rm -f {_DEVICE}; mknod {_DEVICE} b $((0x{_numbers(loop)[0]})) $((0x{_numbers(loop)[1]}))")
        standby.run(f"mount {_DEVICE} {cluster.data} && rmdir {cluster.data}/lost+found")
        standby.run(f"cp -a {aside}/. {cluster.data}/ && rm -rf {aside} && systemctl start patroni.service", timeout_s=300)
        cluster.wait_whole(180)
        yield
    finally:
        standby.run("systemctl stop patroni.service", timeout_s=120)
        if standby.run(f"mountpoint -q {cluster.data} && echo mounted", check=False):
            standby.run(f"rm -f {cluster.data}/{_FILL}; test -d {aside} || cp -a {cluster.data} {aside}", timeout_s=300)
            standby.run(f"umount {cluster.data} && rmdir {cluster.data} && mv {aside} {cluster.data}")
        if loop:
            shell.run(["losetup", "--detach", loop], check=False)
        standby.run(f"rm -f {_IMAGE} {_DEVICE}; systemctl start patroni.service")
        cluster.wait_whole(180)


def fill(cluster: Cluster, member: Machine) -> None:
    """Take all the space there is in the member's data directory, but for a megabyte."""
    free_kb = int(member.run(f"df --output=avail -k {cluster.data} | tail -n 1"))
    member.run(f"fallocate -l {max(1, free_kb - 1024)}K {cluster.data}/{_FILL}")


def free(cluster: Cluster, member: Machine) -> None:
    """Give the space back."""
    member.run(f"rm -f {cluster.data}/{_FILL}")


def _numbers(device: str) -> tuple[str, str]:
    """Major and minor number of a device of this computer, in hexadecimal."""
    major, minor = shell.run(["stat", "-c", "%t %T", device]).stdout.split()
    return major, minor
