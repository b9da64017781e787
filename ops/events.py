"""events: how change events get from the database to Kafka, and sending them again after the connector has lost its place."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from deploys.lib import outbox
from deploys.lib.settings import ConnectSettings, Platform, PlatformHost, PostgresqlSettings
from ops import inventory, remote, shells
from ops.errors import DONE, FAILED, Failed, Refused
from ops.steps import Steps
from ops.terminal import Terminal, seconds

MARGIN = "10 minutes"
"""A transaction may have written an event so long before it committed: what is re-sent begins that much earlier."""
PATIENCE_S = 900

STATE = "SELECT row_to_json(m) FROM phoenix.metrics_outbox m"
# A slot that is lost still tells what was confirmed last. Without one everything that is kept may be undelivered.
FIRST = f"""
SELECT json_build_object('first', min(o.seq), 'rows', count(*)) FROM phoenix.outbox o
WHERE o.created_at >= coalesce((SELECT min(u.created_at) FROM phoenix.outbox u, pg_replication_slots s
                                WHERE s.slot_name = '{outbox.SLOT}' AND u.lsn >= s.confirmed_flush_lsn) - INTERVAL '{MARGIN}',
                               CASE WHEN EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{outbox.SLOT}')
                                    THEN 'infinity'::timestamptz ELSE '-infinity' END)
"""
ALL = "SELECT json_build_object('first', min(seq), 'rows', count(*)) FROM phoenix.outbox"
DROP = f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{outbox.SLOT}' AND NOT active"
GONE = f"SELECT to_json(NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{outbox.SLOT}'))"
# The session that has made a slot holds it while the table is read, and streams only afterwards.
STREAMS = f"""
SELECT to_json(EXISTS (SELECT FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid
                       WHERE s.slot_name = '{outbox.SLOT}' AND r.state IN ('catchup', 'streaming')))
"""


def arguments(verb: str, parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("action", nargs="?", choices=("status", "resend"), default="status", help="status (default), or resend")
    parser.add_argument("--all", action="store_true", help="resend everything that the outbox keeps, and not only what may be undelivered")
    parser.add_argument("--yes", action="store_true", help="do not ask before events are sent again")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Show, or send again."""
    platform = inventory.made(options.inventory)
    hosts = platform.group("connect")
    if not hosts:
        raise Refused(f"{platform.inventory.name} has no host in group connect: nothing carries change events there.")
    if options.all and options.action != "resend":
        raise Refused("--all belongs to resend: 'phoenix events resend --all'.")
    carrying = Carrying(platform, hosts[0])
    return resend(carrying, options, terminal) if options.action == "resend" else status(carrying, terminal)


class Carrying:
    """The connector on its host, and the database that it reads."""

    def __init__(self, platform: Platform, host: PlatformHost) -> None:
        self.host = host
        self.leader = shells.leader(platform)
        self._url = f"http://127.0.0.1:{host[ConnectSettings].rest_port}/connectors/{outbox.CONNECTOR}"

    def sql(self, statement: str, what: str) -> str:
        """What the leader answers its superuser. Raises Failed."""
        return remote.sql(self.leader, statement, port=self.leader[PostgresqlSettings].port, database="phoenix", what=what)

    def ask(self, statement: str, what: str) -> Any:
        """The same as JSON."""
        return remote.value(self.sql(statement, what), what=what)

    def connect(self, method: str, path: str, *, what: str, body: Any = None) -> str:
        """What Connect answers. Raises Failed."""
        data = "" if body is None else " -H 'Content-Type: application/json' --data-binary @-"
        script = f"curl -sS --fail-with-body --max-time 60 -X {method}{data} '{self._url}{path}'"
        return remote.run(self.host, script, what=what, stdin="" if body is None else json.dumps(body), timeout_s=90)

    def states(self) -> list[str]:
        """States of the connector and its tasks."""
        said = remote.value(self.connect("GET", "/status", what="asking for the connector"), what="Connect")
        return [said["connector"]["state"], *(task["state"] for task in said["tasks"])]


def status(carrying: Carrying, terminal: Terminal) -> int:
    """The outbox, its slot, the connector. Exit code 1 when something is not well."""
    state = carrying.ask(STATE, "asking for the outbox")
    states = carrying.states()
    ok = bool(state["slot_active"]) and state["wal_status"] != "lost" and set(states) == {"RUNNING"} and len(states) > 1
    terminal.result({"ok": ok, "connector": states[0].lower(), "tasks": [one.lower() for one in states[1:]], **state})
    rows = [["connector and tasks", ", ".join(states)], *([key.replace("_", " "), str(value)] for key, value in state.items())]
    terminal.table(["what", "is"], rows)
    return DONE if ok else FAILED


def resend(carrying: Carrying, options: argparse.Namespace, terminal: Terminal) -> int:
    """The slot is made anew, and what it may not have delivered is read from the table, in order. Consumers pass over what they have."""
    found = kept(carrying) if options.all else carrying.ask(FIRST, "looking for undelivered events")
    if not options.yes:
        terminal.confirm(
            f"The outbox's slot is made anew, and {found['rows']:,} events are sent (again). Consumers pass over what they have."
        )
    steps = Steps(terminal)
    send_again(carrying, found, steps)
    terminal.result({"ok": True, "sent": found["rows"], "seconds": round(steps.total, 2), "steps": steps.as_list()})
    terminal.line(f"{found['rows']:,} events sent in {seconds(steps.total)}.", "green")
    return DONE


def kept(carrying: Carrying) -> dict[str, Any]:
    """All that the outbox keeps: its `first` seq (None without any) and the number of `rows`."""
    return dict(carrying.ask(ALL, "looking for what the outbox keeps"))


def send_again(carrying: Carrying, found: Mapping[str, Any], steps: Steps) -> None:
    """Send what the outbox keeps from `found["first"]` on (None: nothing), with a new slot afterwards. Raises Failed."""
    stored = remote.value(carrying.connect("GET", "/config", what="reading the connector's configuration"), what="Connect")
    configuration = {key: value for key, value in stored.items() if key != "name" and not key.startswith("snapshot.select.")}
    usual = configuration | {"snapshot.mode": "no_data"}
    which = "false" if found["first"] is None else f"seq >= {found['first']}"
    select = f"SELECT * FROM {outbox.TABLE} WHERE {which} ORDER BY seq"
    once = configuration | {
        "snapshot.mode": "when_needed",
        "snapshot.select.statement.overrides": outbox.TABLE,
        f"snapshot.select.statement.overrides.{outbox.TABLE}": select,
    }
    with steps.step("stop the connector, and forget its place") as doing:
        carrying.connect("PUT", "/stop", what="stopping the connector")
        _until(lambda: carrying.states() == ["STOPPED"], "the connector does not stop")
        carrying.connect("DELETE", "/offsets", what="forgetting the connector's place")
        _until(lambda: _dropped(carrying), "the slot is still in use")
        doing.note("its slot is gone")
    try:
        with steps.step("send from the table") as doing:
            carrying.connect("PUT", "/config", what="telling the connector to read the table", body=once)
            carrying.connect("PUT", "/resume", what="starting the connector")
            _until(lambda: _at_the_end(carrying), "the connector does not come to the end of the table")
            doing.note(f"{found['rows']:,} events" + ("" if found["first"] is None else f" from seq {found['first']}"))
    finally:
        with steps.step("go on as usual"):
            carrying.connect("PUT", "/config", what="giving the connector its configuration back", body=usual)
            _until(lambda: set(carrying.states()) == {"RUNNING"} and len(carrying.states()) > 1, "the connector does not run")


def _at_the_end(carrying: Carrying) -> bool:
    """Whether the connector has read the table, and knows that it has: told anything else before, it refuses to start."""
    if not carrying.ask(STREAMS, "asking for the slot"):
        return False
    said = remote.value(carrying.connect("GET", "/offsets", what="asking for the connector's place"), what="Connect")
    places = [one["offset"] or {} for one in said["offsets"]]
    return not any(place.get("snapshot") and not place.get("last_snapshot_record") for place in places)


def _dropped(carrying: Carrying) -> bool:
    carrying.sql(DROP, "dropping the slot")
    return bool(carrying.ask(GONE, "asking for the slot"))


def _until(reached: Callable[[], bool], problem: str) -> None:
    """Wait. Raises Failed."""
    end = time.monotonic() + PATIENCE_S
    while not reached():
        if time.monotonic() > end:
            raise Failed(f"{problem} within {PATIENCE_S} s: look at './phoenix logs connect', then run './phoenix events resend --all'.")
        time.sleep(1)
