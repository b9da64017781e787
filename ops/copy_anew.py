"""The second region begins its copy anew: after a restore the platform's history is another, and its copy may have what is no more."""

from __future__ import annotations

import json
from collections.abc import Sequence

from deploys.lib.settings import Platform, PlatformHost, PostgresqlSettings
from ops import cluster, deploy, remote
from ops.cluster import Cluster
from ops.errors import Failed
from ops.receipt import Receipt
from ops.shells import DATABASE
from ops.terminal import Terminal

SUBSCRIPTION = "region2"
TABLES = f"""
SELECT coalesce(json_agg(format('%I.%I', n.nspname, c.relname)), '[]')
FROM pg_subscription s JOIN pg_subscription_rel r ON r.srsubid = s.oid
JOIN pg_class c ON c.oid = r.srrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE s.subname = '{SUBSCRIPTION}'
"""


def begin(platform: Platform, own: Cluster, kept: Receipt, terminal: Terminal, *, held: Sequence[int]) -> None:
    """Every reachable copy of `own` is emptied, and the deploy subscribes it again, which copies the rows. Raises Failed."""
    copies = [host for host in platform.group("region2") if host.name not in own.names]
    if not copies:
        return
    with kept.steps.step("begin the copy anew") as doing:
        silent = [name for name, answers in remote.together(cluster.reachable, copies).items() if not answers]
        for host in copies:
            if host.name in silent:
                doing.note(f"{host.name} cannot be reached: make it anew with './phoenix rebuild {host.name}'")
            else:
                doing.note(empty(host))
        present = [host.name for host in (*own.hosts, *copies) if host.name not in silent]
        result = deploy.perform(platform, present, terminal, held=held)
        if not result.ok:
            raise Failed("\n".join(result.problems))
        doing.note("subscribed again")


def empty(host: PlatformHost) -> str:
    """The copy on `host` has no subscription and no rows; what was done, for people. Raises Failed."""
    port = host[PostgresqlSettings].port
    tables = [str(name) for name in json.loads(remote.sql(host, TABLES, port=port, database=DATABASE, what="asking for the copied tables"))]
    if not tables:
        return f"{host.name} copies nothing"
    # Without its slot: that is on the publisher, and gone with the history it belonged to.
    statements = (
        f"ALTER SUBSCRIPTION {SUBSCRIPTION} DISABLE; ALTER SUBSCRIPTION {SUBSCRIPTION} SET (slot_name = NONE); "
        f"DROP SUBSCRIPTION {SUBSCRIPTION}; SET phoenix.migrating = 'on'; TRUNCATE {', '.join(tables)} CASCADE;"
    )
    remote.sql(host, statements, port=port, database=DATABASE, what="emptying the copy", timeout_s=600)
    return f"{host.name}: {len(tables)} copied tables are empty"
