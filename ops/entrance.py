"""The ways in that a client of the platform has, from the operator's computer: each through an SSH tunnel, since SSH is all that is sure
to be open there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from psycopg.conninfo import make_conninfo

from deploys.lib.pki import CERTIFICATE_SECRET
from deploys.lib.secrets import SecretError
from deploys.lib.settings import HostSettings, Platform, PlatformHost, PostgresqlSettings
from ops import inventory, pgconn
from ops.cluster import Cluster
from ops.errors import Failed, Refused
from ops.shells import DATABASE

WRITER = "architect"


@dataclass(frozen=True)
class Way:
    """One way to the server that takes writes."""

    name: str
    """For people: the gateway vps1, PostgreSQL on vps2."""
    conninfo: str
    """libpq keywords, with the password: keep it out of logs."""
    member: str = ""
    """The member that it leads to, whether or not that one takes writes; empty for a gateway."""


@contextmanager
def ways(platform: Platform, cluster: Cluster) -> Iterator[list[Way]]:
    """The ways in to `cluster` while the `with` lasts: its gateways, or the members themselves where it has none.

    A host that is not reached is left out. Raises Refused when the store lacks what it takes, Failed when no host is reached.
    """
    store = inventory.secrets(platform)
    try:
        password, authority = store.get(f"postgresql/{WRITER}"), store.get(CERTIFICATE_SECRET)
    except SecretError as error:
        raise Refused(str(error)) from error
    with tempfile.TemporaryDirectory(prefix="phoenix-ways-") as scratch, ExitStack() as stack:
        root_certificate = Path(scratch) / "ca.crt"
        root_certificate.write_text(authority, encoding="utf-8")
        found = []
        for name, host, port, member in _doors(platform, cluster):
            with suppress(Failed):
                local = stack.enter_context(pgconn.tunnel(host, port=port))
                conninfo = make_conninfo(
                    host=host[HostSettings].address,  # what the certificate is checked against; the tunnel is where it goes
                    hostaddr="127.0.0.1",
                    port=local,
                    dbname=DATABASE,
                    user=WRITER,
                    password=password,
                    sslmode="verify-full",
                    sslrootcert=str(root_certificate),
                    application_name="phoenix",
                    # A gateway leads to the writer by itself; a member may be the wrong one.
                    target_session_attrs="read-write" if member else "any",
                )
                found.append(Way(name, conninfo, member))
        if not found:
            raise Failed(f"no way in to the cluster {cluster.scope} can be reached over SSH: see './phoenix status'.")
        yield found


def _doors(platform: Platform, cluster: Cluster) -> list[tuple[str, PlatformHost, int, str]]:
    """Name, host and port of each way in, and the member behind it where that is always the same."""
    gateways = [host for host in platform.group("gateway") if host.data.get("gateway_cluster_name") == cluster.scope]
    if gateways:
        return [(f"the gateway on {host.name}", host, int(host.data["gateway_port"]), "") for host in gateways]
    return [(f"PostgreSQL on {host.name}", host, host[PostgresqlSettings].port, host.name) for host in cluster.hosts]
