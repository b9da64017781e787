"""The sink into Neo4j: `graph.changed` becomes nodes and edges of the knowledge graph.

Settings (`store`): `uri` (bolt://host:port); `user`; `password`, the name of a credential; `ca`, the file with the certificate's authority.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from neo4j.exceptions import AuthError, DriverError, Neo4jError, TransientError

from phoenix_stream import graph
from phoenix_stream.neo4j_driver import connect
from phoenix_stream.sink import Credential, Event, Rejected, Unavailable

SWEEP_S = 3600.0
WARM_UP_S = 2.0
"""How long events that come meanwhile wait for statements that they may not need."""
_NEEDED = ("uri", "user", "ca")


class Neo4jSink:
    """Applies batches in one transaction each. Not for several threads at once."""

    name = "neo4j"
    topics = ("graph.changed",)
    versions: Mapping[str, int] = {"graph.changed": 1}

    def __init__(self, *, uri: str, user: str, ca: str, credential: Credential, password_name: str) -> None:
        self._uri, self._user, self._ca, self._credential, self._password_name = uri, user, ca, credential, password_name
        self._driver: Any = None
        self._cold: list[graph.Statement] = []
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
        """As of phoenix_stream.sink.Sink. There is no event at hand: a server that is new compiles some statements meanwhile."""
        self._with(lambda driver: driver.execute_query("RETURN 1"))
        until = time.monotonic() + WARM_UP_S
        while self._cold and time.monotonic() < until:
            self._with(lambda driver: graph.warm_up(driver, self._cold.pop()))
        if time.monotonic() >= self._next_sweep:
            self._with(graph.sweep)
            self._next_sweep = time.monotonic() + SWEEP_S

    def close(self) -> None:
        if self._driver is not None:
            self._driver.close()
            self._driver = None

    def _with(self, work: Any) -> None:
        """Run `work` with a driver. Raises Unavailable."""
        try:
            if self._driver is None:
                password = self._credential(self._password_name)
                self._driver = connect(uri=self._uri, user=self._user, password=password, ca=self._ca, retry_s=0)  # the runner tries again
                self._cold = list(reversed(graph.STATEMENTS))
            work(self._driver)
        except (AuthError, DriverError, TransientError, OSError) as error:
            # The next try reads the password anew, and takes the server for one that has just started.
            self.close()
            raise Unavailable(f"Neo4j at {self._uri}: {error}") from error
        except Neo4jError as error:
            if error.code and error.code.startswith("Neo.DatabaseError"):  # its disk, its memory: not the event's fault
                raise Unavailable(f"Neo4j at {self._uri}: {error.message}") from error
            raise


def open_sink(settings: Mapping[str, Any], credential: Credential) -> Neo4jSink:
    """As of phoenix_stream.sink.Factory."""
    if unknown := sorted(settings.keys() - {*_NEEDED, "password"}):
        raise ValueError(f"{', '.join(unknown)}: not a setting; known here: {', '.join((*_NEEDED, 'password'))}")
    values: dict[str, str] = {}
    for name in _NEEDED:
        value = settings.get(name)
        if not isinstance(value, str) or not value:
            raise ValueError(f"{name}: must be a text, not {value!r}")
        values[name] = value
    return Neo4jSink(**values, credential=credential, password_name=settings.get("password", "neo4j.password"))
