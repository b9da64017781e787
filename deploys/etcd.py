"""etcd: holds who leads. Members speak TLS and know each other, and their clients, by certificate."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from deploys import tls
from deploys.lib import hosts, verify
from deploys.lib.operations import Directory, File, files, service, template
from deploys.lib.settings import EtcdSettings, HostSettings

PACKAGES = ["etcd-server", "etcd-client"]
CONFIG = "/etc/default/etcd"
DROP_IN = "/etc/systemd/system/etcd.service.d/phoenix.conf"
DATA = "/var/lib/etcd/phoenix"


@deploy("etcd")
def etcd() -> None:
    """The member runs in the inventory's cluster and is healthy."""
    settings = hosts.settings(EtcdSettings)
    own = hosts.settings(HostSettings).address
    cluster = {str(member.name): f"https://{hosts.address(member)}:{settings.peer_port}" for member in hosts.members("etcd")}
    tls.readers(name="etcd may read the host's key", users=["etcd"])
    files(
        name="Configuration",
        entries=[
            Directory(DATA, "etcd", "etcd", "700"),
            File(CONFIG, template("etcd/etcd.j2", cfg=settings, name=str(host.name), address=own, cluster=cluster, data=DATA, tls=tls)),
            File(DROP_IN, template("etcd/etcd.service.conf.j2")),
        ],
    )
    service(name="etcd runs with this configuration", unit="etcd.service", restart_on=[CONFIG, DROP_IN])
    verify.answers(
        name="etcd is healthy",
        script=f"{etcdctl(settings)} endpoint health",
        seconds=60,
        problem=f"etcd on {host.name} is not healthy: look at 'phoenix logs etcd', and whether its members reach each other's "
        f"ports {settings.client_port} and {settings.peer_port}.",
    )


def etcdctl(settings: EtcdSettings) -> str:
    """The etcdctl command with this host's identity."""
    return (
        f"ETCDCTL_API=3 etcdctl --endpoints https://127.0.0.1:{settings.client_port} "
        f"--cacert {tls.CA} --cert {tls.CERTIFICATE} --key {tls.KEY} --dial-timeout 2s --command-timeout 2s"
    )
