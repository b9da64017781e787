"""Secrets that Phoenix makes itself at first use, so that nobody chooses a password and none is a default."""

from __future__ import annotations

import base64
import ctypes
import secrets
import uuid

from deploys.lib.pki import Authority
from deploys.lib.secrets import SecretError, SecretStore

# Those of deploys/postgresql/roles.py, which the command line does without: it brings pyinfra.
POSTGRESQL_LOGINS = (
    "architect",
    "samurai_agent",
    "monitor",
    "public_api",
    "stream",
    "pgbouncer",
    "replicator",
    "rewind",
    "subscriber",
    "drill",
    "connect",
    "graph",
    "n8n",
    "n8n_flows",
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


def ensure_n8n(store: SecretStore, *, provider: bool) -> None:
    """Make n8n's encryption key and its owner's password; with `provider` also what the APIs ask for that the inventory's `world` plays."""
    store.ensure("n8n/encryption-key", password)
    store.ensure_together(("n8n/owner-password", "n8n/owner-password-hash"), _hashed_password)
    for name in N8N_PROVIDERS if provider else ():
        store.ensure(name, password)


N8N_PROVIDERS = ("n8n/hubspot-token", "n8n/enrichment-key")


def _hashed_password() -> tuple[str, str]:
    """A password and its bcrypt hash, by the C library of every Debian; Python has none."""
    secret = password()
    salt = "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") for _ in range(21)) + "u"
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    library.crypt.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    hashed = library.crypt(secret.encode(), f"$2b$12${salt}".encode())
    if not hashed or not hashed.startswith(b"$2b$12$"):
        raise SecretError("libcrypt.so.1 makes no bcrypt hash for n8n's owner: deploy from a Debian machine.")
    return secret, hashed.decode()


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


KAFKA_USERS = ("admin", "broker", "connect", "worker", "agent", "monitor")
KAFKA_CLUSTER = "kafka/cluster-id"


def ensure_kafka(store: SecretStore) -> None:
    """Make the passwords of Kafka's users, and the name of the cluster, which every node's disk bears from its first start on."""
    for user in KAFKA_USERS:
        store.ensure(f"kafka/{user}", password)
    store.ensure(KAFKA_CLUSTER, _uuid)


def _uuid() -> str:
    """A random UUID as Kafka writes it: 16 bytes in base64 without padding, and no `-` in front, which would read as an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text
