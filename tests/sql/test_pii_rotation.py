"""E-mail addresses on a real server: look-up, rotation that is interrupted and goes on, and nothing in the server's own records."""

from __future__ import annotations

import os
import threading
import uuid
from pathlib import Path

import psycopg
import pytest

from deploys.lib.secrets import SecretStore
from ops.pii import PiiCipher, PiiError, find_personas, rotate
from ops.pii_rotation import cipher_from, rotate_keys
from tests.sql.server import Server

OLD, NEW = os.urandom(32), os.urandom(32)
BEFORE, DURING, AFTER = PiiCipher({1: OLD}, 1), PiiCipher({1: OLD, 2: NEW}, 2), PiiCipher({2: NEW}, 2)
COUNT = 60


def address(number: int) -> str:
    return f"Persona{number}@example.org"


@pytest.fixture
def personas(admin: psycopg.Connection) -> dict[uuid.UUID, str]:
    """Personas with addresses under the old key, in two partitions."""
    admin.execute("TRUNCATE phoenix.personas, phoenix.persona_registry CASCADE")
    made = {uuid.uuid4(): address(n) for n in range(COUNT)}
    for number, (persona, email) in enumerate(made.items()):
        stored = BEFORE.encrypt(persona, email)
        admin.execute(
            "INSERT INTO phoenix.personas (id, name, created_at, email_encrypted, email_hash, email_key_id) "
            "VALUES (%s, %s, %s, %s, %s, %s)",
            [persona, f"P{number}", "2025-11-01" if number % 2 else "2026-11-01", stored.ciphertext, stored.email_hash, stored.key_id],
        )
    return made


def left_under_old_key(server: Server) -> int:
    return int(server.ask("SELECT count(*) FROM phoenix.personas WHERE email_key_id = 1"))


def check(server: Server, cipher: PiiCipher, personas: dict[uuid.UUID, str]) -> None:
    """Every persona is found by its address and opens to it."""
    with server.connect("architect") as conn:
        for persona, email in personas.items():
            assert find_personas(conn, cipher, email.upper()) == [persona]
            row = conn.execute("SELECT email_encrypted FROM phoenix.personas WHERE id = %s", [persona]).fetchone()
            assert row
            assert cipher.decrypt(persona, row[0]) == email


def test_a_rotation_that_was_stopped_goes_on_where_it_was(server: Server, personas: dict[uuid.UUID, str]) -> None:
    class Stopped(Exception):
        pass

    def stop_after_two_batches(line: str) -> None:
        if line.startswith("20 of"):
            raise Stopped

    with server.connect("architect") as conn, pytest.raises(Stopped):
        rotate(conn, DURING, batch=10, progress=stop_after_two_batches)
    assert left_under_old_key(server) == COUNT - 20
    check(server, DURING, personas)
    with server.connect("architect") as conn:
        assert rotate(conn, DURING, batch=10) == COUNT - 20
        assert rotate(conn, DURING) == 0
    assert left_under_old_key(server) == 0
    check(server, AFTER, personas)


def test_the_command_makes_a_key_once_and_resumes_with_it(server: Server, personas: dict[uuid.UUID, str], tmp_path: Path) -> None:
    store = SecretStore.create(tmp_path / "secrets.yaml", recipients=[])
    store.set("pii/key-1", OLD.hex())
    store.set("pii/current", "1")

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with server.connect("architect") as conn:
        with pytest.raises(KeyboardInterrupt):
            rotate_keys(conn, store, progress=stop)
        kept = SecretStore.load(store.path)
        assert kept.get("pii/current") == "2", "the new key is kept before anything is encrypted under it"
        again = rotate_keys(conn, kept, progress=lambda line: None)
        assert (again.key_id, again.reencrypted, again.resumed) == (2, COUNT, True)
        check(server, cipher_from(kept), personas)
        third = rotate_keys(conn, kept, progress=lambda line: None)
        assert (third.key_id, third.reencrypted, third.resumed) == (3, COUNT, False)
    assert server.ask("SELECT array_agg(DISTINCT email_key_id) FROM phoenix.personas WHERE email_key_id IS NOT NULL") == [3]
    check(server, cipher_from(SecretStore.load(store.path)), personas)


def test_two_rotations_at_once_share_the_work(server: Server, personas: dict[uuid.UUID, str]) -> None:
    done: list[int] = []

    def work() -> None:
        with server.connect("architect") as conn:
            done.append(rotate(conn, DURING, batch=3))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(done) == COUNT
    check(server, AFTER, personas)


def test_rows_locked_by_another_session_are_told(server: Server, admin: psycopg.Connection, personas: dict[uuid.UUID, str]) -> None:
    with admin.transaction():
        admin.execute("SELECT FROM phoenix.personas WHERE name = 'P1' FOR UPDATE")
        with server.connect("architect") as conn, pytest.raises(PiiError, match="1 addresses are locked"):
            rotate(conn, DURING, lock_wait_s=0.5)
    assert left_under_old_key(server) == 1


def test_a_missing_old_key_is_told_before_anything_is_touched(server: Server, personas: dict[uuid.UUID, str]) -> None:
    with server.connect("architect") as conn, pytest.raises(PiiError, match="under PII key 1, which is not among the keys"):
        rotate(conn, AFTER)
    assert left_under_old_key(server) == COUNT


def test_look_up_uses_the_index(admin: psycopg.Connection, personas: dict[uuid.UUID, str]) -> None:
    with admin.transaction(force_rollback=True):
        admin.execute("SET LOCAL enable_seqscan = off")
        plan = admin.execute(
            "EXPLAIN SELECT id FROM phoenix.personas WHERE email_hash = ANY(%s)", [DURING.lookup_hashes(address(1))]
        ).fetchall()
    assert "email_hash_idx" in str(plan)


def test_neither_addresses_nor_keys_reach_the_servers_records(
    server: Server, admin: psycopg.Connection, personas: dict[uuid.UUID, str]
) -> None:
    admin.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA public")
    with server.connect("architect") as conn:
        rotate(conn, DURING)
        find_personas(conn, DURING, address(7))
    seen = str(admin.execute("SELECT query FROM pg_stat_activity").fetchall())
    if "pg_stat_statements" in str(server.ask("SHOW shared_preload_libraries")):
        seen += str(admin.execute("SELECT query FROM public.pg_stat_statements").fetchall())
        assert "email_hash" in seen
    for secret in (address(7), address(7).lower(), OLD.hex(), NEW.hex()):
        assert secret not in seen
