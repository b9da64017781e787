#!/usr/bin/python3
"""Patroni's callback: what has to be done on a server that was started, restarted, promoted or demoted.

    role_changed.py ACTION ROLE SCOPE        as Patroni calls it, as the user postgres

A standby that follows a leader drops the failover slots that are its own from when it led. A leader that hands over cleanly keeps its
slots; the new leader's of the same names cannot be synchronised past them ("a slot with the same name already exists"), so the next
failover would lose its subscribers, and they would keep WAL for nobody. What was synchronised from a leader (`synced`) and what somebody
reads (`active`) stays. PostgreSQL before 17 has no failover slots: nothing is done there.

A leader's checkpointer is woken by a reload. It is started while the server still recovers, when archive_timeout does not count yet, and
then sleeps up to checkpoint_timeout: for a quarter of an hour a quiet leader would send nothing to the archive.

Exit status: 0 done or nothing to do, 1 the server did not come into its role in time. Standard library only: it runs on a bare host.
"""

from __future__ import annotations

import subprocess
import sys
import time

PATIENCE_S = 600.0
"""A standby whose leader is away follows nobody for that long; Patroni ends this program when the role changes again."""
PAUSE_S = 0.5
QUERY_S = 60.0

# One line for the server's state, then one for each slot dropped. A server that follows nobody yet may be the leader that is only starting,
# after both members were off: its slots are the only ones there are. By way of JSON the statement is good for versions without the columns;
# MATERIALIZED, so that no slot is dropped before all of its conditions are judged.
FOLLOWS = "EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')"
SQL = f"""
SELECT CASE WHEN NOT pg_is_in_recovery() THEN 'leader' WHEN {FOLLOWS} THEN 'standby' ELSE 'alone' END;
WITH stale AS MATERIALIZED (
    SELECT s.slot_name FROM pg_replication_slots AS s CROSS JOIN LATERAL to_jsonb(s) AS j
    WHERE pg_is_in_recovery() AND {FOLLOWS} AND s.slot_type = 'logical' AND NOT s.active
      AND (j ->> 'failover')::boolean AND NOT (j ->> 'synced')::boolean
)
SELECT slot_name FROM stale CROSS JOIN LATERAL pg_drop_replication_slot(slot_name);
SELECT FROM pg_reload_conf() WHERE NOT pg_is_in_recovery();
"""


def ask() -> list[str] | None:
    """What the server answers, line by line; None while it does not."""
    command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-f", "-"]
    done = subprocess.run(command, input=SQL, capture_output=True, text=True, timeout=QUERY_S, check=False)
    return done.stdout.split() if done.returncode == 0 else None


def main(arguments: list[str]) -> int:
    """Wait until the server is what Patroni says it is becoming, and tidy up."""
    if len(arguments) != 3:
        return 0
    becomes = "leader" if arguments[1] in ("master", "primary") else "standby"
    end = time.monotonic() + PATIENCE_S
    while True:
        answer = ask()
        if answer and answer[0] == becomes:
            for name in answer[1:]:
                print(f"replication slot {name} was this server's own when it led: dropped, the leader's takes its place", flush=True)
            return 0
        if time.monotonic() > end:
            print(f"the server did not become a {becomes} within {PATIENCE_S:.0f} s: nothing was done", file=sys.stderr)
            return 1
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
