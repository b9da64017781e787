"""Personas' e-mail addresses: encrypted here, on the client, so that the database and its logs never see a key or an address.

Layout of a ciphertext: key id (1 byte), nonce (12), AES-256-GCM ciphertext, tag (16). The persona's id and the key id are authenticated
with it, so a ciphertext copied to another persona does not open. Exact look-up goes by a keyed digest of the normalised address.
Why it is done so: docs/decisions/0103-pii.md.
"""

from __future__ import annotations

import hmac
import os
import time
import unicodedata
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psycopg
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
# RFC 5321, 4.5.3.1.3: a path is at most 256 octets, with its angle brackets.
MAX_ADDRESS_BYTES = 254
_CONTEXT = b"phoenix.personas.email"


class PiiError(Exception):
    """A key is missing or wrong, or an address or a ciphertext is not one. The text never contains an address or a key."""


@dataclass(frozen=True)
class EncryptedEmail:
    """The three columns of `phoenix.personas` that hold one address."""

    ciphertext: bytes
    email_hash: bytes
    key_id: int


@dataclass(frozen=True, repr=False)
class _Keys:
    encrypt: AESGCM
    lookup: bytes


def _derive(master: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=_CONTEXT + b"/" + purpose).derive(master)


def normalise(email: str) -> str:
    """The form under which an address is looked up: NFC, without outer blanks, lower case.

    Lower case also in the local part: RFC 5321 allows it to matter, and no provider makes it matter.

    Raises:
        PiiError: when it cannot be an address (no single @ between two parts, blanks inside, longer than 254 bytes).
    """
    address = unicodedata.normalize("NFC", email).strip().lower()
    local, at, domain = address.partition("@")
    if not (local and at and domain) or "@" in domain or any(c.isspace() for c in address):
        raise PiiError("an e-mail address needs one @ between two parts and no blanks: correct it and try again")
    if len(address.encode()) > MAX_ADDRESS_BYTES:
        raise PiiError(f"an e-mail address is at most {MAX_ADDRESS_BYTES} bytes long: correct it and try again")
    return address


class PiiCipher:
    """Encrypts, decrypts and looks up addresses.

    Args:
        keys: key id (0 to 255) to master key (32 random bytes); all that may still be met in the database.
        current: id of the key for new ciphertexts.

    Raises:
        PiiError: when a key has the wrong length, an id does not fit a byte, or `current` is not among the keys.
    """

    def __init__(self, keys: Mapping[int, bytes], current: int) -> None:
        for key_id, master in keys.items():
            if not 0 <= key_id <= 255:
                raise PiiError(f"PII key id {key_id} does not fit a byte: choose 0 to 255")
            if len(master) != KEY_BYTES:
                raise PiiError(f"PII key {key_id} has {len(master)} bytes: it must be {KEY_BYTES} random bytes")
        if current not in keys:
            raise PiiError(f"PII key {current} is set as current and is not among the keys: add it to the secrets")
        self.current = current
        self._keys = {key_id: _Keys(AESGCM(_derive(m, b"encrypt")), _derive(m, b"lookup")) for key_id, m in keys.items()}

    @property
    def key_ids(self) -> frozenset[int]:
        """The ids of all keys this cipher can read."""
        return frozenset(self._keys)

    def _key(self, key_id: int) -> _Keys:
        try:
            return self._keys[key_id]
        except KeyError:
            raise PiiError(f"PII key {key_id} is needed and is not among the keys: add it to the secrets") from None

    @staticmethod
    def _bound_to(persona_id: uuid.UUID, key_id: int) -> bytes:
        return _CONTEXT + bytes([key_id]) + persona_id.bytes

    def encrypt(self, persona_id: uuid.UUID, email: str) -> EncryptedEmail:
        """Encrypts an address for one persona under the current key. The spelling is kept, only outer blanks go."""
        email_hash = self.lookup_hash(email)
        nonce = os.urandom(NONCE_BYTES)
        key_id = self.current
        sealed = self._keys[key_id].encrypt.encrypt(nonce, email.strip().encode(), self._bound_to(persona_id, key_id))
        return EncryptedEmail(bytes([key_id]) + nonce + sealed, email_hash, key_id)

    def decrypt(self, persona_id: uuid.UUID, ciphertext: bytes) -> str:
        """The address of a persona.

        Raises:
            PiiError: when the key is unknown, or the ciphertext was changed, cut, or belongs to another persona.
        """
        if len(ciphertext) <= 1 + NONCE_BYTES + TAG_BYTES:
            raise PiiError(f"persona {persona_id}: the e-mail's ciphertext is cut short: restore it from a backup")
        key_id, nonce, sealed = ciphertext[0], ciphertext[1 : 1 + NONCE_BYTES], ciphertext[1 + NONCE_BYTES :]
        try:
            return self._key(key_id).encrypt.decrypt(nonce, sealed, self._bound_to(persona_id, key_id)).decode()
        except InvalidTag:
            raise PiiError(
                f"persona {persona_id}: the e-mail does not open with key {key_id}: it was changed, belongs to another persona, "
                "or the key is not the one it was written with"
            ) from None

    def lookup_hash(self, email: str, key_id: int | None = None) -> bytes:
        """The value of `email_hash` for an address under one key (default: the current one); 32 bytes."""
        return hmac.digest(self._key(self.current if key_id is None else key_id).lookup, normalise(email).encode(), "sha256")

    def lookup_hashes(self, email: str) -> list[bytes]:
        """The values under all keys: `WHERE email_hash = ANY(…)` finds the persona also in the middle of a rotation."""
        return [self.lookup_hash(email, key_id) for key_id in self._keys]


def find_personas(conn: psycopg.Connection, cipher: PiiCipher, email: str) -> list[uuid.UUID]:
    """The personas with exactly this address, by index and without decrypting any."""
    rows = conn.execute("SELECT id FROM phoenix.personas WHERE email_hash = ANY(%s) ORDER BY id", [cipher.lookup_hashes(email)])
    return [row[0] for row in rows]


_TAKE = """
    SELECT id, created_at, email_encrypted FROM phoenix.personas
    WHERE email_key_id = ANY(%s) LIMIT %s FOR UPDATE SKIP LOCKED
"""
# With created_at, the partition key: without it every partition would be searched.
_PUT = """
    UPDATE phoenix.personas SET email_encrypted = %s, email_hash = %s, email_key_id = %s WHERE id = %s AND created_at = %s
"""
_LEFT = "SELECT count(*) FROM phoenix.personas WHERE email_key_id IS NOT NULL AND email_key_id <> %s"


def rotate(
    conn: psycopg.Connection,
    cipher: PiiCipher,
    *,
    batch: int = 500,
    progress: Callable[[str], None] = lambda line: None,
    lock_wait_s: float = 30.0,
) -> int:
    """Re-encrypts every address that is not under `cipher.current`, batch by batch, each batch its own transaction.

    Can be stopped at any time and started again: it goes on with what is left. Several may run at once (rows are skipped, not waited for).
    Until it is done both keys must stay in the cipher of every reader; afterwards the old one can be destroyed.

    Returns:
        How many addresses were re-encrypted by this call.

    Raises:
        PiiError: when a row is under a key the cipher does not have (nothing under that key is touched), or when rows stay
            locked by another session for `lock_wait_s` seconds.
        ValueError: when the connection is inside a transaction, or batch is not positive.
    """
    if conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        raise ValueError("rotate() commits batch by batch: give it a connection outside a transaction")
    if batch < 1:
        raise ValueError("batch must be at least 1")
    with conn.transaction():
        in_use = {row[0] for row in conn.execute("SELECT DISTINCT email_key_id FROM phoenix.personas WHERE email_key_id IS NOT NULL")}
        total = count_left(conn, cipher.current)
    if unknown := sorted(in_use - cipher.key_ids):
        raise PiiError(f"addresses are encrypted under PII key {unknown[0]}, which is not among the keys: add it to the secrets")
    old_keys = sorted(cipher.key_ids - {cipher.current})
    started, waited_since, done = time.monotonic(), None, 0
    progress(f"{total} addresses to re-encrypt under key {cipher.current}")
    while True:
        with conn.transaction(), conn.cursor() as cursor:
            rows = cursor.execute(_TAKE, [old_keys, batch]).fetchall()
            for persona_id, created_at, old in rows:
                new = cipher.encrypt(persona_id, cipher.decrypt(persona_id, old))
                cursor.execute(_PUT, [new.ciphertext, new.email_hash, new.key_id, persona_id, created_at])
            left = count_left(conn, cipher.current) if not rows else None
        if rows:
            waited_since = None
            done += len(rows)
            progress(f"{done} of {total} addresses, {done / (time.monotonic() - started):.0f}/s")
        elif not left:
            return done
        else:
            waited_since = waited_since or time.monotonic()
            if time.monotonic() - waited_since > lock_wait_s:
                raise PiiError(f"{left} addresses are locked by another session: end its transaction and run the rotation again")
            time.sleep(0.2)


def count_left(conn: psycopg.Connection, current: int) -> int:
    """How many addresses are encrypted under another key than `current`."""
    row = conn.execute(_LEFT, [current]).fetchone()
    return int(row[0]) if row else 0
