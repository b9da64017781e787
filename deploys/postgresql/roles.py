"""Roles of the cluster, repaired when they drift: attributes, memberships, passwords. Rights inside the database are in sql/R__*."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pyinfra.api import deploy, operation

from deploys.lib import findings, hosts, scram
from deploys.lib.operations import Commands
from deploys.lib.settings import PostgresqlSettings
from deploys.postgresql.psql import execute, identifier, literal, of_leader


@dataclass(frozen=True)
class Role:
    """A role as it has to be. A login's password is the secret `postgresql/<name>`."""

    name: str
    login: bool = True
    password: bool = True
    """Without one nobody can log in: a role for background workers, which PostgreSQL starts for logins only."""
    replication: bool = False
    bypass_rls: bool = False
    """Whether row security hides nothing from it."""
    connections: int = -1
    """Connection limit, -1 for none."""
    connection_share: float | None = None
    """The limit as a share of the connections that are not reserved, for logins that many clients use."""
    gateway_share: float | None = None
    """How much of its limit all gateways together may take for it; of a login without a limit, how much of what the shares of the others
    leave. None: the gateways do not let it in."""
    inherits: bool = True
    """Whether memberships give their rights at once, or only after SET ROLE."""
    member_of: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    """Session defaults."""
    group: str = ""
    """The role is made only where the inventory has hosts in this group; empty: always."""


ROLES = (
    # Owns the few functions and views that see every task on purpose; the owner of the schema becomes it only to make them.
    Role("phoenix_board", login=False),
    Role("phoenix_owner", login=False, member_of=("phoenix_board",), inherits=False),
    # Owns the function by which a gateway looks up a login, and may read what it needs of pg_authid; so no superuser owns it.
    Role("phoenix_gatekeeper", login=False),
    Role("architect", member_of=("phoenix_owner",), gateway_share=0.4),
    # Neither agents nor the public, nor both together, take all connections: architect has to get in. The timeouts are a default that a
    # client can change, temp_file_limit (in each session) is not.
    Role(
        "samurai_agent",
        connection_share=0.6,
        gateway_share=0.9,
        settings={"statement_timeout": "30s", "idle_in_transaction_session_timeout": "1min", "temp_file_limit": "1GB"},
    ),
    # The exporters read with it, over and over: it may neither pile up nor write.
    Role(
        "monitor",
        connections=10,
        gateway_share=0.4,  # the exporters connect directly and must find room
        member_of=("pg_monitor", "pg_use_reserved_connections"),
        settings={"default_transaction_read_only": "on", "statement_timeout": "10s", "temp_file_limit": "1GB"},
    ),
    Role(
        "public_api",
        connection_share=0.26,
        gateway_share=0.9,
        settings={"default_transaction_read_only": "on", "statement_timeout": "5s", "temp_file_limit": "256MB"},
    ),
    # The stream workers': two functions, and no more connections than a few workers have.
    Role("stream", connections=6, settings={"temp_file_limit": "64MB"}),
    # PgBouncer's own: it looks up the logins that come in, and can do nothing else.
    Role(
        "pgbouncer",
        connections=16,
        settings={"default_transaction_read_only": "on", "statement_timeout": "5s", "temp_file_limit": "0"},
    ),
    Role("replicator", replication=True),
    Role("rewind"),
    # Reads the platform's changes for the second region. It may pass row security: a policy that somebody changes must not silently make
    # its initial copy smaller, and REPLICATION shows it every change anyway. One connection for changes, two for copies, room to reconnect.
    Role("subscriber", replication=True, bypass_rls=True, connections=10, group="region2"),
    # Writes them there. Row security would refuse it as it refuses the owner, whose rights it has and no more.
    Role("region2_apply", password=False, bypass_rls=True, member_of=("phoenix_owner",), group="region2"),
    # Reads the outbox for Kafka Connect: one connection for changes, one for heartbeats, and room to reconnect.
    Role("connect", replication=True, connections=6, group="connect"),
    # Counts and hashes every row for the restore drill (services/drill_leader.py), so it sees everything and writes nothing.
    Role(
        "drill",
        replication=True,
        bypass_rls=True,
        connections=4,
        member_of=("pg_read_all_data", "pg_read_all_settings"),
        settings={"default_transaction_read_only": "on"},
    ),
    # n8n keeps its own tables in a database of its own, which it owns; it may not enter the platform's.
    Role("n8n", connections=20, group="n8n"),
    # Its workflows may enter the platform's database and call one function of R__43_ingestion.sql: no table is theirs to read or write.
    Role("n8n_flows", connections=12, settings={"statement_timeout": "2min", "idle_in_transaction_session_timeout": "1min"}),
    # Compares the knowledge graph with the truth: it reads the view of its nodes and edges, and notes which migrations the graph has had.
    Role("graph", connections=6),
)

# Three for the exporters (reserved_connections) and PostgreSQL's own three for the superuser.
RESERVED_CONNECTIONS = 6

# What pg_rewind needs of a source server when its login is no superuser (PostgreSQL documentation, pg_rewind, notes).
REWIND_FUNCTIONS = (
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
)

PRESENT = """
SELECT coalesce(json_object_agg(r.rolname, json_build_object(
    'login', r.rolcanlogin, 'replication', r.rolreplication, 'connections', r.rolconnlimit, 'verifier', a.rolpassword,
    'powers', r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR NOT r.rolinherit,
    'bypass_rls', r.rolbypassrls,
    'member_of', (SELECT coalesce(json_object_agg(g.rolname, json_build_object(
                      'inherit', m.inherit_option, 'set', m.set_option, 'admin', m.admin_option)), '{}')
                  FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid),
    'settings', (SELECT coalesce(json_agg(c ORDER BY c), '[]')
                 FROM pg_db_role_setting s, unnest(s.setconfig) c WHERE s.setrole = r.oid AND s.setdatabase = 0),
    'elsewhere', (SELECT coalesce(json_agg(d.datname ORDER BY d.datname), '[]')
                  FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase WHERE s.setrole = r.oid)
)), '{}') FROM pg_roles r JOIN pg_authid a USING (oid) WHERE r.rolname !~ '^pg_'
"""

REWIND_MISSING = f"""
SELECT coalesce(json_agg(f), '[]') FROM unnest(ARRAY[{", ".join(literal(f) for f in REWIND_FUNCTIONS)}]) f
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'rewind' AND has_function_privilege(oid, f, 'EXECUTE'))
"""


@deploy("Roles")
def roles() -> None:
    """The cluster's roles are exactly as described above."""
    described(name="Roles as described")


@operation()
def described() -> Commands:
    """Each role exists with its attributes, memberships, session defaults and password, and with no more. `rewind` may read."""
    leads, found = of_leader(f"SELECT json_build_object('roles', ({PRESENT}), 'missing', ({REWIND_MISSING}))")
    if not leads:
        return
    present: dict[str, Any] = found["roles"]
    statements: list[str] = []
    for role in (role for role in ROLES if not role.group or hosts.members(role.group)):
        for what, sql in repairs(
            limited(role, hosts.settings(PostgresqlSettings).max_connections),
            present.get(role.name),
            password=hosts.secrets().get(f"postgresql/{role.name}") if role.login and role.password else None,
        ):
            findings.report(f"role {role.name}: {what}")
            statements.append(sql)
    if missing := found["missing"]:
        findings.report(f"rewind lacks {', '.join(missing)}")
        statements += [f"GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO rewind;" for function in missing]
    if statements:
        # The statements carry verifiers; keep them, and the audit of them, out of the log, also when one is slow or fails.
        yield execute(
            "SET LOCAL log_statement = 'none';\nSET LOCAL pgaudit.log = 'none';\nSET LOCAL log_min_duration_statement = -1;\n"
            "SET LOCAL log_min_error_statement = 'panic';\n" + "\n".join(statements)
        )


def limited(role: Role, max_connections: int) -> Role:
    """The role with its share of `max_connections` as the connection limit."""
    if role.connection_share is None:
        return role
    return replace(role, connections=int((max_connections - RESERVED_CONNECTIONS) * role.connection_share))


def unshared(max_connections: int) -> int:
    """Connections that are neither reserved nor any login's share: what logins without a limit have for sure."""
    return (
        max_connections - RESERVED_CONNECTIONS - sum(limited(role, max_connections).connections for role in ROLES if role.connection_share)
    )


def repairs(role: Role, present: Mapping[str, Any] | None, *, password: str | None) -> list[tuple[str, str]]:
    """What differs (in words, with the SQL that mends it) between a role as described and `present` (a row of PRESENT, or None)."""
    name = identifier(role.name)
    found: list[tuple[str, str]] = []
    if present is None:
        found.append(("is missing", f"CREATE ROLE {name};"))
        present = {
            "login": None,
            "replication": False,
            "bypass_rls": False,
            "connections": -1,
            "verifier": None,
            "powers": False,
            "member_of": {},
            "settings": [],
            "elsewhere": [],
        }
    if (present["login"], present["replication"], present["connections"], present["powers"], present["bypass_rls"]) != (
        role.login,
        role.replication,
        role.connections,
        False,
        role.bypass_rls,
    ):
        attributes = (
            "LOGIN" if role.login else "NOLOGIN",
            "REPLICATION" if role.replication else "NOREPLICATION",
            "BYPASSRLS" if role.bypass_rls else "NOBYPASSRLS",
            f"CONNECTION LIMIT {role.connections}",
        )
        found.append(("has other attributes", f"ALTER ROLE {name} NOSUPERUSER NOCREATEDB NOCREATEROLE INHERIT {' '.join(attributes)};"))
    if password is not None and not scram.matches(present["verifier"], password):
        found.append(("has another password", f"ALTER ROLE {name} PASSWORD {literal(scram.verifier(password))};"))
    if not role.password and present["verifier"] is not None:
        found.append(("has a password", f"ALTER ROLE {name} PASSWORD NULL;"))
    options = {"inherit": role.inherits, "set": True, "admin": False}
    for group in sorted(role.member_of):
        if present["member_of"].get(group) != options:
            what = f"is in {group} with other options" if group in present["member_of"] else f"is not in {group}"
            given = ", ".join(f"{option.upper()} {str(value).upper()}" for option, value in options.items())
            found.append((what, f"GRANT {identifier(group)} TO {name} WITH {given};"))
    for group in sorted(set(present["member_of"]) - set(role.member_of)):
        found.append((f"is in {group}", f"REVOKE {identifier(group)} FROM {name};"))
    if set(present["settings"]) != {f"{key}={value}" for key, value in role.settings.items()}:
        sets = [f"ALTER ROLE {name} SET {identifier(key)} = {literal(value)};" for key, value in role.settings.items()]
        found.append(("has other session defaults", " ".join([f"ALTER ROLE {name} RESET ALL;", *sets])))
    # A role may change its own defaults, and those for one database come before those above.
    for database in present["elsewhere"]:
        found.append((f"has session defaults of its own in {database}", f"ALTER ROLE {name} IN DATABASE {identifier(database)} RESET ALL;"))
    return found
