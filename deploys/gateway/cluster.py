"""Which cluster a gateway serves, and how many of its connections each login may have through it."""

from __future__ import annotations

from pyinfra.api import Host

from deploys.lib import hosts, sizing
from deploys.lib.settings import GatewaySettings, PostgresqlSettings, SettingsError, of
from deploys.postgresql.roles import ROLES, Role, limited, unshared

LOOKUP = "pgbouncer"
"""The login with which PgBouncer looks up the others."""
LOOKUP_SHARE = 0.5
"""How much of that login's limit all gateways together take: after a failover the connections of before may still count for a while."""


def members() -> list[Host]:
    """Members of the present gateway's cluster, by name. Raises SettingsError when the inventory has none."""
    wanted = hosts.settings(GatewaySettings).cluster_name
    found = [member for member in hosts.members("postgresql") if of(member, PostgresqlSettings).cluster_name == wanted]
    if not found:
        raise SettingsError(f"gateway_cluster_name is {wanted}, and no host of group postgresql is in a cluster of that name: name theirs.")
    return found


def database() -> PostgresqlSettings:
    """Settings of the cluster, which are the same on all of its members."""
    return of(members()[0], PostgresqlSettings)


def logins() -> list[str]:
    """The logins that a gateway lets in."""
    return [role.name for role in ROLES if role.gateway_share]


def pools() -> dict[str, sizing.Pool]:
    """The pool of each login on each gateway, that of the look-ups included. Raises SettingsError when connections do not suffice."""
    return sized(database().max_connections, gateways=len(hosts.members("gateway")))


def sized(max_connections: int, *, gateways: int) -> dict[str, sizing.Pool]:
    """`pools` for a cluster of `max_connections` with that many gateways. Raises SettingsError when they do not suffice."""
    wanted = {role.name: (_limit(role, max_connections), role.gateway_share) for role in ROLES if role.gateway_share}
    wanted[LOOKUP] = (next(role.connections for role in ROLES if role.name == LOOKUP), LOOKUP_SHARE)
    found = {}
    for name, (limit, share) in wanted.items():
        try:
            found[name] = sizing.pool(limit=limit, share=share, gateways=gateways)
        except ValueError as error:
            raise SettingsError(
                f"postgresql_max_connections is {max_connections}: {name}: {error}: raise it, or take fewer hosts into group gateway."
            ) from None
    return found


def _limit(role: Role, max_connections: int) -> int:
    limit = limited(role, max_connections).connections
    return unshared(max_connections) if limit < 0 else limit
