"""The databases of n8n: one of its own, and a way into the platform's for its workflows."""

from __future__ import annotations

from pyinfra.api import deploy, operation

from deploys.lib import findings
from deploys.lib.operations import Commands
from deploys.postgresql.psql import execute, execute_outside_transaction, of_leader

NAME, LOGIN, FLOWS = "n8n", "n8n", "n8n_flows"

PRESENT = f"""
SELECT json_build_object(
    'owner', (SELECT datdba::regrole::text FROM pg_database WHERE datname = '{NAME}'),
    'open', (SELECT EXISTS (SELECT FROM pg_database d, aclexplode(coalesce(datacl, acldefault('d', datdba))) a
                            WHERE datname = '{NAME}' AND a.grantee <> d.datdba)),
    'flows', has_database_privilege('{FLOWS}', 'phoenix', 'CONNECT'))
"""


@deploy("Databases of n8n")
def database() -> None:
    """n8n's own database is there, its owner's alone, and its workflows may enter the platform's."""
    ready(name="Database n8n, closed to all others")


@operation()
def ready() -> Commands:
    """Run on the leader; what is right already is left alone."""
    leads, found = of_leader(PRESENT)
    if not leads:
        return
    present = found or {"owner": None, "open": True, "flows": False}
    commands = []  # all before the first is run: a dry run looks no further than that one
    if present["owner"] is None:
        findings.report(f"database {NAME} is missing")
        commands.append(execute_outside_transaction(f"CREATE DATABASE {NAME} OWNER {LOGIN} ENCODING 'UTF8' TEMPLATE template0;"))
    elif present["owner"] != LOGIN:
        findings.report(f"database {NAME} belongs to {present['owner']}")
        commands.append(execute(f"ALTER DATABASE {NAME} OWNER TO {LOGIN};"))
    if present["owner"] is None or present["open"]:
        findings.report(f"others than {LOGIN} may enter database {NAME}")
        commands.append(execute(f"REVOKE ALL ON DATABASE {NAME} FROM PUBLIC, architect, samurai_agent, monitor, public_api, {FLOWS};"))
    if not present["flows"]:
        findings.report(f"{FLOWS} may not enter database phoenix")
        commands.append(execute(f"GRANT CONNECT ON DATABASE phoenix TO {FLOWS};"))
    yield from commands
