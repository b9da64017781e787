"""The connector that carries the outbox to Kafka, kept as described. Connect stores its configuration in Kafka; the master copy is here."""

from __future__ import annotations

import json

from pyinfra import context, host
from pyinfra.api import StringCommand, deploy, operation

from deploys import tls
from deploys.connect import worker
from deploys.kafka import cluster
from deploys.lib import facts, findings, hosts, outbox, verify
from deploys.lib.operations import Commands, refusal
from deploys.lib.settings import ConnectSettings, PostgresqlSettings, of

START_S = 90
"""How long Connect may take to be there: it starts a JVM, and reads its topics."""
CURL = "curl -sS --max-time 30"


def url() -> str:
    """The connector in Connect's REST interface."""
    return f"http://127.0.0.1:{hosts.settings(ConnectSettings).rest_port}/connectors/{outbox.CONNECTOR}"


def wanted() -> dict[str, str]:
    """The connector's configuration for the present host."""
    address, port = worker.database()
    return outbox.connector(
        hosts.settings(ConnectSettings),
        address=address,
        port=port,
        version=min(of(member, PostgresqlSettings).version for member in worker.members()),
        copies=cluster.copies(len(cluster.members())),
        ca=tls.CA,
    )


@deploy("Connector of the outbox")
def connector() -> None:
    """What is written to the outbox is carried to Kafka."""
    configured(name="Connector as described")
    verify.answers(
        name="Connector and task run",
        script=f"{CURL} {url()}/status | python3 -c '{_RUNS}'",
        seconds=START_S,
        problem=f"The connector {outbox.CONNECTOR} on {host.name} does not run: see 'phoenix logs connect', and {url()}/status there.",
    )


_RUNS = (
    "import json, sys; s = json.load(sys.stdin); "
    'sys.exit(not (s["connector"]["state"] == "RUNNING" and s["tasks"] and all(t["state"] == "RUNNING" for t in s["tasks"])))'
)


@operation()
def configured() -> Commands:
    """Connect has this configuration of the connector. Given anew it is taken over by a restart of the task, which loses nothing."""
    patience = START_S if context.state.is_executing else 0
    # One answer for all connectors: while Connect starts, it says 404 to everything.
    script = (
        f"end=$(($(date +%s) + {patience})); until {CURL} -f '{url().rpartition('/')[0]}?expand=info' 2>/dev/null; do "
        "test $(date +%s) -lt $end || exit 1; sleep 0.5; done"
    )
    connectors = host.get_fact(facts.Json, script=script)
    configuration = wanted()
    if connectors is None:
        findings.report(f"connector {outbox.CONNECTOR} cannot be asked for")
        yield refusal(f"Kafka Connect on {host.name} does not answer within {START_S} s: look at 'phoenix logs connect'.")
        return
    stored = connectors.get(outbox.CONNECTOR, {}).get("info", {}).get("config", {})
    present = {key: value for key, value in stored.items() if key != "name"}
    if present == configuration:
        return
    differing = sorted(key for key in present.keys() | configuration.keys() if present.get(key) != configuration.get(key))
    findings.report(
        f"connector {outbox.CONNECTOR} is missing" if not present else f"connector {outbox.CONNECTOR}: {', '.join(differing)} differ"
    )
    # Connect asks the database before it believes a configuration; it says why it refuses one.
    yield StringCommand(
        f"{CURL} --fail-with-body -X PUT -H 'Content-Type: application/json' --retry 5 --retry-connrefused --data-binary @- "
        f"{url()}/config -o /dev/stderr",
        _stdin=json.dumps(configuration),
    )
