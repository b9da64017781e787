"""Secrets that Phoenix makes itself at first use, so that nobody chooses a password and none is a default."""

from __future__ import annotations

import secrets

from deploys.lib.pki import Authority
from deploys.lib.secrets import SecretStore

# Those of deploys/postgresql/roles.py, which the command line does without: it brings pyinfra.
POSTGRESQL_LOGINS = (
    "architect",
    "samurai_agent",
    "monitor",
    "public_api",
    "pgbouncer",
    "replicator",
    "rewind",
    "subscriber",
    "drill",
    "graph",
)
PII_KEY, PII_CURRENT = "pii/key-1", "pii/current"


# The S3 provider's, so a person sets them, except where the inventory has a `world` that plays the provider. The database hosts' account
# may not delete; the one that may is on the host of group `drill` only.
S3_KEYS = ("backup/s3-key", "backup/s3-secret")
RETENTION_KEYS = ("backup/retention-key", "backup/retention-secret")
S3_ROOT_KEYS = ("world/s3-root-key", "world/s3-root-secret")
CIPHER = "backup/cipher"
NEO4J = "neo4j/neo4j"
REDIS_USERS = ("admin", "worker", "agent", "monitor")


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


def ensure_backup(store: SecretStore, *, provider: bool) -> None:
    """Make the key that encrypts the backups; with `provider` also the accounts of the S3 service that the inventory's `world` plays."""
    store.ensure(CIPHER, lambda: secrets.token_urlsafe(48))
    for names in (S3_KEYS, RETENTION_KEYS, S3_ROOT_KEYS) if provider else ():
        store.ensure_together(names, _s3_account)


def ensure_redis(store: SecretStore) -> None:
    """Make the passwords of Redis' users."""
    for user in REDIS_USERS:
        store.ensure(f"redis/{user}", password)


def ensure_neo4j(store: SecretStore) -> None:
    """Make the password of Neo4j's one user."""
    store.ensure(NEO4J, password)


def _s3_account() -> tuple[str, str]:
    """An access key as providers make them, 20 capital letters and digits, and its secret."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    return "PHX" + "".join(secrets.choice(alphabet) for _ in range(17)), secrets.token_urlsafe(30)
