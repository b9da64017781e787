#!/usr/bin/python3
"""Patroni's callback: on a server that has become a standby, drop the failover slots that are its own from when it led.

    drop_stale_slots.py ACTION ROLE SCOPE        as Patroni calls it, as the user postgres

A leader that hands over cleanly keeps its slots. The new leader's slots of the same names cannot be synchronised past them ("a slot with
the same name already exists"), so the next failover would lose its subscribers; and they would keep WAL for nobody. What was synchronised
from a leader (`synced`) and what somebody reads (`active`) stays. PostgreSQL before 17 has no failover slots: nothing is done there.

Exit status: 0 done or nothing to do, 1 the server did not become a standby in time. Standard library only: it runs on a bare host.
"""

from __future__ import annotations

import subprocess
import sys
import time

PATIENCE_S = 60.0
PAUSE_S = 0.5

# One line for the server's state, then one for each slot dropped. By way of JSON the statement is good for versions without the columns;
# MATERIALIZED, so that no slot is dropped before all of its conditions are judged.
SQL = """
SELECT CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'leader' END;
WITH stale AS MATERIALIZED (
    SELECT s.slot_name FROM pg_replication_slots AS s CROSS JOIN LATERAL to_jsonb(s) AS j
    WHERE pg_is_in_recovery() AND s.slot_type = 'logical' AND NOT s.active AND (j ->> 'failover')::boolean AND NOT (j ->> 'synced')::boolean
)
SELECT slot_name FROM stale CROSS JOIN LATERAL pg_drop_replication_slot(slot_name);
"""


def ask() -> list[str] | None:
    """What the server answers, line by line; None while it does not."""
    command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-f", "-"]
    done = subprocess.run(command, input=SQL, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return done.stdout.split() if done.returncode == 0 else None


def main(arguments: list[str]) -> int:
    """Wait until the server is the standby that Patroni says it is becoming, and tidy up."""
    if len(arguments) != 3 or arguments[1] in ("master", "primary"):
        return 0
    end = time.monotonic() + PATIENCE_S
    while True:
        answer = ask()
        if answer and answer[0] == "standby":
            for name in answer[1:]:
                print(f"replication slot {name} was this server's own when it led: dropped, the leader's takes its place", flush=True)
            return 0
        if time.monotonic() > end:
            print(f"the server did not become a standby within {PATIENCE_S:.0f} s: its own slots were left alone", file=sys.stderr)
            return 1
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
