"""n8n: its program, its unit, its credentials and its workflows, on the hosts of group `n8n`.

Workflows are files (templates/n8n/workflows). They are imported only when they, or what n8n's database holds of them, changed; see
services/n8n_workflows.py.
"""

from __future__ import annotations

import json
import sys

from pyinfra import host
from pyinfra.api import StringCommand, deploy, operation
from pyinfra.api.command import FileUploadCommand

from deploys import base, exporters, tls
from deploys.lib import facts, findings, hosts, sizing, verify
from deploys.lib.operations import Commands, Directory, File, files, nothing_else, service, template, units_read
from deploys.lib.rendering import TEMPLATES, environment
from deploys.lib.settings import ROOT, GatewaySettings, HostSettings, N8nSettings, SettingsError, of
from deploys.n8n import artifact, database

PACKAGES = ["zstd", "python3-psycopg"]
USER = "phoenix-n8n"
HOME, CONFIG, STATE = "/opt/phoenix/n8n", "/etc/phoenix-n8n", "/var/lib/phoenix-n8n"
UNIT, IMPORT_UNIT, RUN_UNIT = (f"/etc/systemd/system/phoenix-n8n{name}.service" for name in ("", "-import", "-run@"))
ENVIRONMENT = f"{CONFIG}/environment"
PROGRAM, PROGRAM_CONFIG = "/usr/local/lib/phoenix/n8n_workflows.py", f"{CONFIG}/import.json"
WORKFLOWS, CREDENTIALS = f"{CONFIG}/workflows", f"{CONFIG}/credentials"
STAMP = f"{STATE}/imported.json"
SECRETS = {
    "encryption-key": "n8n/encryption-key",
    "owner-password-hash": "n8n/owner-password-hash",
    "database-password": "postgresql/n8n",
}
"""Files of CONFIG that systemd hands to n8n as credentials, with the secret each of them is."""
DATABASE_HOST = "127.0.0.1"
"""HAProxy's way to the writer: its server's certificate is good for every member's loopback address."""

# n8n's own marks are {{ }}, and its connections are arrays of arrays.
_WORKFLOWS = environment(
    TEMPLATES / "n8n" / "workflows",
    variable_start_string="<<",
    variable_end_string=">>",
    block_start_string="<%",
    block_end_string="%>",
    comment_start_string="<#",
    comment_end_string="#>",
)


def preflight() -> None:
    """Raise SettingsError or SecretError, before anything changes, when n8n has no way to the database or no key for an API."""
    if "gateway" not in host.groups:
        raise SettingsError(f"host {host.name} is in group n8n and not in gateway, by which n8n reaches the database: add it there.")
    for name in ("n8n/hubspot-token", "n8n/enrichment-key"):
        hosts.secrets().get(name)


def url() -> str:
    """Where people reach n8n."""
    return f"https://{hosts.settings(HostSettings).address}:{hosts.settings(N8nSettings).port}"


def workflows(settings: N8nSettings) -> dict[str, str]:
    """Every workflow as n8n exports it, by file name."""
    names = sorted(path.name for path in (TEMPLATES / "n8n" / "workflows").glob("[a-z]*.json.j2"))
    rendered = {
        name.removesuffix(".j2"): _WORKFLOWS.get_template(name).render(cfg=settings, name=name.removesuffix(".json.j2")) for name in names
    }
    return {name: json.dumps(json.loads(text), indent=2) for name, text in rendered.items()}


def credentials() -> str:
    """What the workflows log in with, decrypted: n8n encrypts it on the way into its database."""
    settings, secrets = hosts.settings(N8nSettings), hosts.secrets()
    found = [
        {
            "id": "phoenixdatabase",
            "name": "Platform database",
            "type": "postgres",
            "data": {
                "host": DATABASE_HOST,
                "port": hosts.settings(GatewaySettings).writer_port,
                "database": "phoenix",
                "user": database.FLOWS,
                "password": secrets.get(f"postgresql/{database.FLOWS}"),
                "maxConnections": 4,
                "ssl": "require",
                "allowUnauthorizedCerts": False,
            },
        },
        {"id": "phoenixhubspot", "name": "HubSpot", "type": "hubspotAppToken", "data": {"appToken": secrets.get("n8n/hubspot-token")}},
        {
            "id": "phoenixenrichment",
            "name": "Enrichment",
            "type": "httpHeaderAuth",
            "data": {"name": settings.enrichment_header, "value": secrets.get("n8n/enrichment-key")},
        },
    ]
    return json.dumps(found, indent=1)


@deploy("n8n")
def n8n() -> None:
    """n8n answers over https, with its owner set, these credentials and these workflows, all of them active."""
    settings = hosts.settings(N8nSettings)
    size = sizing.n8n(memory_mb=base.memory_mb())
    flows = workflows(settings)
    values = {"n8n": sys.modules[__name__], "cfg": settings, "size": size, "tls": tls, "own": hosts.settings(HostSettings)}
    exporters.account(name=f"User {USER}", user=USER)
    tls.readers(name="n8n may read the host's key", users=[USER])
    program(name="Program")
    files(
        name="Configuration, workflows and units",
        entries=[
            Directory(CONFIG),
            *[File(f"{CONFIG}/{name}", hosts.secret(secret), mode="600") for name, secret in SECRETS.items()],
            File(CREDENTIALS, credentials, mode="600"),
            Directory(WORKFLOWS),
            *[File(f"{WORKFLOWS}/{name}", text) for name, text in flows.items()],
            File(ENVIRONMENT, template("n8n/environment.j2", gateway=hosts.settings(GatewaySettings), **values)),
            File(PROGRAM, (ROOT / "services" / "n8n_workflows.py").read_text(encoding="utf-8"), mode="755"),
            File(PROGRAM_CONFIG, configuration),
            File(UNIT, template("n8n/phoenix-n8n.service.j2", job="", **values)),
            File(IMPORT_UNIT, template("n8n/phoenix-n8n.service.j2", job="import", **values)),
            File(RUN_UNIT, template("n8n/phoenix-n8n.service.j2", job="run", **values)),
        ],
    )
    nothing_else(name="No workflows but these", directory=WORKFLOWS, names=list(flows))
    units_read(name="systemd knows the import", units=["phoenix-n8n-import.service", "phoenix-n8n-run@hubspot_sync.service"])
    imported(name="Credentials and workflows are n8n's")
    watched = [UNIT, ENVIRONMENT, STAMP, f"{HOME}/.phoenix-key", *[f"{CONFIG}/{name}" for name in SECRETS], *tls.ALL]
    service(name="n8n runs with this configuration", unit="phoenix-n8n.service", restart_on=watched)
    curl = f"{tls.CURL} --max-time 10"
    verify.answers(
        name="n8n answers, and every workflow is active",
        script=f"{curl} {url()}/healthz/readiness && {curl} {url()}/metrics | grep '^n8n_active_workflow_count {len(flows)}$'",
        seconds=300,
        problem=f"n8n on {host.name} does not answer at {url()} with {len(flows)} active workflows: look at 'phoenix logs n8n'.",
    )


def configuration() -> str:
    """What services/n8n_workflows.py reads."""
    return json.dumps(
        {
            "n8n": [f"{HOME}/node/bin/node", f"{HOME}/app/node_modules/n8n/bin/n8n"],
            "workflows": WORKFLOWS,
            "credentials": CREDENTIALS,
            "secrets": CONFIG,
            "stamp": STAMP,
            "database": {
                "host": DATABASE_HOST,
                "port": hosts.settings(GatewaySettings).writer_port,
                "dbname": database.NAME,
                "user": database.LOGIN,
                "sslmode": "verify-full",
                "sslrootcert": tls.CA,
            },
        },
        indent=2,
    )


@operation()
def program() -> Commands:
    """The host has n8n and Node.js as the lock pins them, all of it or the version before."""
    machine = hosts.resources().machine
    wanted = artifact.key(machine)
    if host.get_fact(facts.Output, script=f"cat {HOME}/.phoenix-key 2>/dev/null || true") == wanted:
        return
    findings.report(f"{HOME} is not n8n {wanted}")
    made = artifact.archive(machine)
    new, old = f"{HOME}.new", f"{HOME}.old"
    yield f"rm -rf {new} {old} && install -d -m 755 {new}"
    yield FileUploadCommand(str(made), f"{new}/.archive", remote_temp_filename=f"{new}/.archive")
    yield f"cd {new} && tar --zstd -xf .archive --no-same-owner && rm .archive && chmod -R u=rwX,go=rX ."
    yield StringCommand(f"cat >{new}/.phoenix-key", _stdin=f"{wanted}\n")
    yield f"if test -e {HOME}; then mv -T {HOME} {old}; fi && mv -T {new} {HOME} && rm -rf {old}"


@operation()
def imported() -> Commands:
    """What n8n's database holds of our workflows and credentials is what the last import put there, of the present files."""
    said = host.get_fact(facts.Output, script=f"{PROGRAM} check 2>&1")
    if not said.endswith(facts.FAILED):
        return
    findings.report(said.removesuffix(facts.FAILED).strip() or "workflows were never imported")
    yield "systemctl reset-failed phoenix-n8n-import.service 2>/dev/null; systemctl start phoenix-n8n-import.service"


def members() -> list[str]:
    """Names of the hosts that run n8n."""
    return [str(member.name) for member in hosts.members("n8n")]


def port(member: object) -> int:
    """Where `member` runs it."""
    return of(member, N8nSettings).port  # type: ignore[arg-type]
