"""The second region's copy: names, connection and slots, as pure functions. For the deploy, and for verbs, which bring no pyinfra.

One name for all of it: the publication on the platform's cluster, the subscription on the copy's, and the slot between them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploys.lib import outbox
from deploys.lib.settings import ConnectSettings, Platform, PostgresqlSettings, Region2Settings

NAME = "region2"
LOGIN = "subscriber"
APPLIER = "region2_apply"
"""Whom the subscription belongs to, and as whom its rows are written."""
PASSFILE = "/etc/phoenix/subscriber.pgpass"

# The publisher's failover takes two seconds when its server dies and twenty when its machine does, so a connection without an answer is
# given up in between. A link between regions may lose packets for seconds: libpq's keepalives and time-outs are wider than within one.
_PATIENCE = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,  # milliseconds
}


@dataclass(frozen=True)
class Publisher:
    """One member of the cluster that publishes."""

    address: str
    port: int


def conninfo(members: Sequence[Publisher], *, ca: str) -> str:
    """libpq's words for "whichever of these takes writes". The password is in PASSFILE: it is in no statement, catalogue, log or backup."""
    words: dict[str, Any] = {
        "host": ",".join(member.address for member in members),
        "port": ",".join(str(member.port) for member in members),
        "dbname": "phoenix",
        "user": LOGIN,
        "passfile": PASSFILE,
        "sslmode": "verify-full",
        "sslrootcert": ca,
        "target_session_attrs": "primary",
        **_PATIENCE,
        # Row security must not make an initial copy silently smaller: a login that it applies to gets an error instead.
        "options": "-c row_security=off",
    }
    return " ".join(f"{key}='{value}'" if " " in str(value) else f"{key}={value}" for key, value in words.items())


@dataclass(frozen=True)
class Option:
    """An option of the subscription: as SQL writes it, and the column of pg_subscription with its value there."""

    name: str
    value: str
    column: str
    stored: str | bool


def subscription_options(version: int) -> list[Option]:
    """Options that are kept so (docs/decisions/0541-subscription.md); `version` is the older major version of the two sides."""
    options = [
        # A conflict is tried again every few seconds and counted, and the alert tells; disabled, the subscription would also stay so after
        # an error that goes away by itself, such as a migration that one side has and the other gets a second later.
        Option("disable_on_error", "false", "subdisableonerr", stored=False),
        # Not parallel: the log then names the position to skip (PostgreSQL documentation, logical replication, conflicts).
        Option("streaming", "on", "substream", stored="t"),
        Option("run_as_owner", "true", "subrunasowner", stored=True),
        Option("password_required", "false", "subpasswordrequired", stored=False),  # it comes from the file
    ]
    return options + ([Option("failover", "true", "subfailover", stored=True)] if version >= 17 else [])


def permanent_slots(version: int, database: str, names: Sequence[str] = (NAME,)) -> dict[str, Any]:
    """Slots that Patroni itself carries over a failover: PostgreSQL before 17 has no failover slots of its own."""
    return {} if version >= 17 else {name: {"type": "logical", "database": database, "plugin": "pgoutput"} for name in names}


def member_slot(name: str) -> str:
    """The physical slot that Patroni makes for a member (patroni/dcs: slot_name_from_member_name)."""
    return re.sub(r"[^a-z0-9_]", lambda found: "_" if found[0] in "-." else f"u{ord(found[0]):04d}", name.lower())[:63]


def failover_slots(platform: Platform) -> list[str]:
    """Logical slots that have to be on a standby before the platform's leader may hand over to it: the second region's, and Connect's."""
    sources = {
        NAME: [host[Region2Settings].source for host in platform.group(NAME)],
        outbox.SLOT: [host[ConnectSettings].cluster_name for host in platform.group("connect")],
    }
    clusters = Counter(host[PostgresqlSettings].cluster_name for host in platform.group("postgresql"))
    return [slot for slot, read in sources.items() if any(clusters[source] > 1 for source in read)]


def slots_ready(names: Sequence[str]) -> str:
    """A query for a standby, in any database: JSON, for each of `names` {"slot", "ready": bool, "why": text, empty when ready}.

    Asked before a planned failover to it: a slot that is not ready is lost with the old leader, and the subscriber has to copy anew.
    """
    listed = ", ".join(f"'{name}'" for name in names)
    return f"""
SELECT coalesce(json_agg(json_build_object('slot', n.name, 'ready', w.why = '', 'why', w.why) ORDER BY n.name), '[]')
FROM unnest(ARRAY[{listed}]::text[]) AS n (name)
LEFT JOIN pg_replication_slots AS s ON s.slot_name = n.name
CROSS JOIN LATERAL (SELECT to_jsonb(s) AS j) AS whole
CROSS JOIN LATERAL (SELECT CASE
    WHEN s.slot_name IS NULL THEN 'is not on this server'
    WHEN NOT coalesce((j ->> 'synced')::boolean, true) THEN 'is this server''s own and not the leader''s'
    WHEN s.temporary THEN 'is temporary until the subscriber has moved on'
    WHEN s.wal_status = 'lost' OR j ->> 'invalidation_reason' IS NOT NULL OR coalesce((j ->> 'conflicting')::boolean, false)
        THEN 'is invalid: ' || coalesce(j ->> 'invalidation_reason', 'its WAL is gone')
    ELSE '' END AS why) AS w
"""


def spelled(tables: Mapping[str, Sequence[str]]) -> dict[str, frozenset[str]]:
    """Columns of each table as a set, empty for all of them: how declarations and catalogues are compared."""
    return {name: frozenset(columns) for name, columns in tables.items()}
