"""The key rotation of personas' e-mail addresses as one command: new key, everything re-encrypted, resumable at any point.

Keys are secrets `pii/key-<id>` (32 bytes in hex), `pii/current` is the id of the one for new addresses (deploys/lib/generated.py makes the
first). Old keys stay in the store until somebody removes them: backups made before the rotation open only with them.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from deploys.lib.generated import PII_CURRENT
from deploys.lib.secrets import SecretStore
from ops.pii import KEY_BYTES, PiiCipher, PiiError, count_left, rotate

_NAME = re.compile(r"pii/key-(\d{1,3})")


@dataclass(frozen=True)
class Rotation:
    """What a rotation did."""

    key_id: int
    reencrypted: int
    resumed: bool


def cipher_from(store: SecretStore) -> PiiCipher:
    """The cipher with all keys of the store.

    Raises:
        PiiError: when a key is not 32 bytes in hex, or the current one is missing.
        SecretError: when the store cannot be read.
    """
    keys = {}
    for name in store.names():
        if match := _NAME.fullmatch(name):
            try:
                keys[int(match[1])] = bytes.fromhex(store.get(name))
            except ValueError:
                raise PiiError(f"secret {name} is not hexadecimal: restore it from a backup of the store") from None
    current = store.get(PII_CURRENT)
    if not current.isdecimal():
        raise PiiError(f"secret {PII_CURRENT} is not a number: set it to the id of the key for new addresses")
    return PiiCipher(keys, int(current))


def rotate_keys(conn: psycopg.Connection, store: SecretStore, *, progress: Callable[[str], None]) -> Rotation:
    """Re-encrypts every address under a new key; when an earlier call was stopped, goes on with its key instead of making another.

    The key is in the store before the first address is encrypted under it, so nothing can be left unreadable.

    Args:
        conn: a connection as architect, outside a transaction.
        progress: called with one line per batch.
    """
    cipher = cipher_from(store)
    newest = max(cipher.key_ids)
    with conn.transaction():
        unfinished = newest != cipher.current or count_left(conn, cipher.current) > 0
    if unfinished:
        progress(f"an earlier rotation was stopped: going on with key {newest}")
    else:
        if newest == 255:
            raise PiiError("PII key ids are used up (255): remove keys that no address and no backup needs, and number the rest anew")
        newest += 1
        store.set(f"pii/key-{newest}", secrets.token_bytes(KEY_BYTES).hex())
    store.set(PII_CURRENT, str(newest))
    return Rotation(newest, rotate(conn, cipher_from(store), progress=progress), unfinished)
