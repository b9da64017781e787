"""The scratch cluster's configuration: bound to its socket, without the leader's jobs, large enough to recover."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from drill_config import Config, load
from drill_errors import DrillRefused
from drill_leader import Witness
from drill_scratch import configuration, controlled

CONFIG = Config(
    host="vps3",
    stanza="phoenix",
    hosts=["10.0.0.1", "10.0.0.2"],
    port=5432,
    database="phoenix",
    schema="phoenix",
    user="drill",
    ca="/etc/phoenix/tls/ca.crt",
    bin_dir="/usr/lib/postgresql/17/bin",
    pgbackrest="/usr/bin/pgbackrest",
    directory="/var/lib/phoenix-drill",
    jobs=2,
    memory_mb=1024,
    heapallindexed=True,
    archive_timeout_s=900,
    recovery_timeout_s=3600,
    witness_timeout_s=900,
    min_free_mb=1024,
    keep_receipts=90,
)
WITNESS = Witness(
    host="10.0.0.1",
    lsn="0/6000000",
    tables={},
    parameters={"max_connections": "300", "shared_preload_libraries": "timescaledb, pg_cron,pgaudit", "timescaledb.license": "apache"},
)
CONTROLDATA = """pg_control version number:            1300
max_connections setting:              200
max_worker_processes setting:         16
max_wal_senders setting:              12
max_prepared_xacts setting:           0
max_locks_per_xact setting:           256
"""


def rendered(witness: Witness = WITNESS) -> dict[str, str]:
    text = configuration(CONFIG, Path("/s"), witness, restore_command='pg "%p"', timeline=3, controlled=controlled(CONTROLDATA))
    lines = [line.partition(" = ") for line in text.splitlines()]
    return {name: value for name, _, value in lines}


def test_it_listens_on_its_socket_only_and_sends_nothing_anywhere() -> None:
    found = rendered()
    assert found["listen_addresses"] == "''"
    assert found["unix_socket_directories"] == "'/s/socket'"
    assert found["archive_mode"] == "'off'"
    assert found["max_logical_replication_workers"] == "'0'"


def test_the_leaders_libraries_are_loaded_but_not_its_jobs() -> None:
    assert rendered()["shared_preload_libraries"] == "'timescaledb,pgaudit'"
    assert rendered()["timescaledb.license"] == "'apache'"
    assert rendered()["timescaledb.max_background_workers"] == "'0'"


def test_without_timescaledb_nothing_of_it_is_set() -> None:
    plain = dataclasses.replace(WITNESS, parameters={"shared_preload_libraries": "pg_cron"})
    assert not any(name.startswith("timescaledb") for name in rendered(plain))
    assert rendered(plain)["shared_preload_libraries"] == "''"


def test_it_has_at_least_what_recovery_asks_for_and_what_the_leader_has_now() -> None:
    found = rendered()
    assert found["max_connections"] == "'300'"
    assert found["max_locks_per_transaction"] == "'256'"


def test_it_stops_in_front_of_the_witnessed_position_on_the_markers_timeline() -> None:
    found = rendered()
    assert (found["recovery_target_lsn"], found["recovery_target_inclusive"]) == ("'0/6000000'", "'off'")
    assert (found["recovery_target_timeline"], found["recovery_target_action"]) == ("'3'", "'pause'")


def test_values_cannot_leave_their_quotes() -> None:
    odd = dataclasses.replace(WITNESS, lsn="0/0'\nlisten_addresses = '*")
    text = configuration(CONFIG, Path("/s"), odd, restore_command="x", timeline=1, controlled={})
    assert re.search(r"recovery_target_lsn = '0/0''", text)


def test_settings_of_another_version_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**dataclasses.asdict(CONFIG), "more": 1}))
    with pytest.raises(DrillRefused, match="does not fit this version"):
        load(path)
    path.write_text("{")
    with pytest.raises(DrillRefused, match="cannot be read"):
        load(path)
    path.write_text(json.dumps(dataclasses.asdict(CONFIG)))
    assert load(path) == CONFIG
