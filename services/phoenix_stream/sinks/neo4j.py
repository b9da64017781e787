"""The sink into Neo4j: `graph.changed` becomes nodes and edges of the knowledge graph."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from neo4j import GraphDatabase, TrustCustomCAs
from neo4j.exceptions import AuthError, DriverError, Neo4jError, TransientError

from phoenix_stream import graph
from phoenix_stream.sink import Credential, Event, Rejected, Unavailable

TIMEOUT_S = 10.0
SWEEP_S = 3600.0


class Neo4jSink:
    """Applies batches in one transaction each. Not for several threads at once."""

    name = "neo4j"
    topics = ("graph.changed",)
    versions: Mapping[str, int] = {"graph.changed": 1}

    def __init__(self, *, uri: str, user: str, ca: str, credential: Credential) -> None:
        self._uri, self._user, self._ca, self._credential = uri, user, ca, credential
        self._driver: Any = None
        self._next_sweep = 0.0

    def apply(self, events: Sequence[Event]) -> Sequence[Rejected]:
        changes, rejected = [], []
        for event in events:
            if event.seq is None:
                rejected.append(Rejected(event, "it has no seq"))
                continue
            try:
                changes.append(graph.change(event.data, event.seq))
            except graph.Faulty as error:
                rejected.append(Rejected(event, str(error)))
        self._with(lambda driver: graph.write(driver, changes))
        return rejected

    def ping(self) -> None:
        self._with(lambda driver: driver.execute_query("RETURN 1"))
        if time.monotonic() >= self._next_sweep:
            self._with(graph.sweep)
            self._next_sweep = time.monotonic() + SWEEP_S

    def close(self) -> None:
        if self._driver is not None:
            self._driver.close()
            self._driver = None

    def _with(self, work: Any) -> None:
        """Run `work` with a driver whose server has every statement compiled. Raises Unavailable."""
        try:
            if self._driver is None:
                self._driver = connect(uri=self._uri, user=self._user, password=self._credential("neo4j"), ca=self._ca)
                graph.warm_up(self._driver)
            work(self._driver)
        except (AuthError, DriverError, TransientError, OSError) as error:
            # The next try reads the password anew, and warms a server up that was restarted.
            self.close()
            raise Unavailable(f"Neo4j at {self._uri}: {error}") from error
        except Neo4jError as error:
            if error.code and error.code.startswith("Neo.DatabaseError"):  # its disk, its memory: not the event's fault
                raise Unavailable(f"Neo4j at {self._uri}: {error.message}") from error
            raise


def connect(*, uri: str, user: str, password: str, ca: str) -> Any:
    """A driver for a server whose certificate is of the authority in file `ca`. It connects when it is used; a query is tried again for
    seconds, not for minutes."""
    return GraphDatabase.driver(
        uri,
        auth=(user, password),
        encrypted=True,
        trusted_certificates=TrustCustomCAs(ca),
        connection_timeout=TIMEOUT_S,
        connection_acquisition_timeout=TIMEOUT_S,
        max_transaction_retry_time=TIMEOUT_S,
        liveness_check_timeout=30.0,
        telemetry_disabled=True,
        notifications_min_severity="OFF",
    )


def open_sink(settings: Mapping[str, Any], credential: Credential) -> Neo4jSink:
    """Raises ValueError naming the setting that cannot be used."""
    values = {}
    for name in ("uri", "user", "ca"):
        value = settings.get(name)
        if not isinstance(value, str) or not value:
            raise ValueError(f"store.{name} has to be a text, not {value!r}")
        values[name] = value
    return Neo4jSink(**values, credential=credential)
