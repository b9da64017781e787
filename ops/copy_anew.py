"""The second region begins its copy anew: after a restore the platform's history is another, and its copy may have what is no more."""

from __future__ import annotations

from collections.abc import Sequence

from deploys.lib import region2
from deploys.lib.settings import Platform, PlatformHost, PostgresqlSettings, Region2Settings
from ops import cluster, deploy, remote
from ops.cluster import Cluster
from ops.errors import Failed
from ops.receipt import Receipt
from ops.shells import DATABASE
from ops.terminal import Terminal

# The subscription goes without its slot: that is on the publisher, and lost with the history that it belonged to. The copied tables are
# those that are guarded (sql/region2.sql). Whatever of it an interrupted run has done already is passed over.
EMPTY = rf"""
SELECT format(words, '{region2.NAME}') FROM pg_subscription, unnest(ARRAY['ALTER SUBSCRIPTION %I DISABLE',
    'ALTER SUBSCRIPTION %I SET (slot_name = NONE)', 'DROP SUBSCRIPTION %I']) WITH ORDINALITY AS s (words, n)
WHERE subname = '{region2.NAME}' ORDER BY n \gexec
SET session_replication_role = replica;
SELECT format('TRUNCATE %s', string_agg(DISTINCT tgrelid::regclass::text, ', ')) FROM pg_trigger
WHERE tgname = 'region2_copy' AND tgparentid = 0 HAVING count(*) > 0 \gexec
SELECT count(DISTINCT tgrelid) FROM pg_trigger WHERE tgname = 'region2_copy' AND tgparentid = 0;
"""


def begin(
    platform: Platform, own: Cluster, members: Sequence[PlatformHost], kept: Receipt, terminal: Terminal, *, held: Sequence[int]
) -> None:
    """Every reachable copy of `own` is emptied; a deploy of it and of `members`, who are up, subscribes it again, which copies the rows.

    Raises Failed.
    """
    copies = [host for host in platform.group(region2.NAME) if host[Region2Settings].source == own.scope]
    if not copies:
        return
    with kept.steps.step("begin the copy anew") as doing:
        answers = remote.together(cluster.reachable, copies)
        for host in copies:
            if answers[host.name]:
                doing.note(empty(host))
            else:
                doing.note(f"{host.name} cannot be reached: make it anew with './phoenix rebuild {host.name}'")
        present = [host.name for host in (*members, *copies) if answers.get(host.name, True)]
        result = deploy.perform(platform, present, terminal, held=held)
        if not result.ok:
            raise Failed("\n".join(result.problems))
        doing.note("subscribed again")


def empty(host: PlatformHost) -> str:
    """The copy on `host` has no subscription and no rows; what was done, for people. Raises Failed."""
    port = host[PostgresqlSettings].port
    said = remote.sql(host, EMPTY, port=port, database=DATABASE, what="emptying the copy", timeout_s=600)
    return f"{host.name}: {said.split()[-1]} copied tables are empty"
