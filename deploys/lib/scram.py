"""SCRAM-SHA-256 verifiers as PostgreSQL stores them (RFC 5802, RFC 7677), so that a password itself never goes to the server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

ITERATIONS = 4096  # PostgreSQL's scram_iterations


def verifier(password: str, *, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """`SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>` for an ASCII password."""
    salt = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${iterations}:{_base64(salt)}${_base64(stored)}:{_base64(server)}"


def matches(stored: str | None, password: str) -> bool:
    """Whether a stored verifier is one of this password."""
    try:
        method, parameters, _ = (stored or "").split("$")
        iterations, salt = parameters.split(":")
        return method == "SCRAM-SHA-256" and hmac.compare_digest(
            str(stored), verifier(password, salt=base64.b64decode(salt), iterations=int(iterations))
        )
    except ValueError:
        return False


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
