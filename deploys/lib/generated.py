"""Secrets that Phoenix makes itself at first use, so that nobody chooses a password and none is a default."""

from __future__ import annotations

import secrets

from deploys.lib.pki import Authority
from deploys.lib.secrets import SecretStore

# Those of deploys/postgresql/roles.py, which the command line does without: it brings pyinfra.
POSTGRESQL_LOGINS = ("architect", "samurai_agent", "monitor", "public_api", "pgbouncer", "replicator", "rewind")
PII_KEY, PII_CURRENT = "pii/key-1", "pii/current"


def password() -> str:
    """A password of 256 bits, letters, digits, `-` and `_` only."""
    return secrets.token_urlsafe(32)


def ensure(store: SecretStore) -> None:
    """Make what the store lacks. Raises SecretError when the store cannot be read or written."""
    Authority.of(store)
    for login in POSTGRESQL_LOGINS:
        store.ensure(f"postgresql/{login}", password)
    store.ensure(PII_KEY, lambda: secrets.token_bytes(32).hex())
    store.ensure(PII_CURRENT, lambda: "1")
