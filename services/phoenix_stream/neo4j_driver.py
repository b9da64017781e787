"""How the platform's programs reach Neo4j."""

from __future__ import annotations

from typing import Any

from neo4j import GraphDatabase, TrustCustomCAs

TIMEOUT_S = 10.0


def connect(*, uri: str, user: str, password: str, ca: str, retry_s: float = TIMEOUT_S) -> Any:
    """A driver for a server whose certificate is of the authority in file `ca`. It connects when it is used; a transaction is tried again
    for `retry_s`. A server that has gone silent is given up by its own keepalive (templates/neo4j/neo4j.conf.j2)."""
    return GraphDatabase.driver(
        uri,
        auth=(user, password),
        encrypted=True,
        trusted_certificates=TrustCustomCAs(ca),
        connection_timeout=TIMEOUT_S,
        connection_acquisition_timeout=TIMEOUT_S,
        max_transaction_retry_time=retry_s,
        liveness_check_timeout=30.0,
        telemetry_disabled=True,
        notifications_min_severity="OFF",
    )
