"""Hormone levels into Redis, guarded by `seq` (phoenix_stream.hormones).

Settings (`store`): `host`, `port`, `user`, `password` (the name of a credential), `ca`, `certificate` and `key` (files; the last two where
Redis wants to see who comes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from phoenix_stream import hormones
from phoenix_stream.sink import Credential, Event, Rejected, Unavailable

_PATIENCE_S = 3.0
_KNOWN = {"host", "port", "user", "password", "ca", "certificate", "key"}


class Redis:
    """The sink of `hormone.cascade`."""

    name = "redis"
    topics = ("hormone.cascade",)
    versions: Mapping[str, int] = {"hormone.cascade": 1}

    def __init__(self, arguments: Mapping[str, Any], password: Credential | None, password_name: str) -> None:
        self._arguments, self._password, self._password_name = arguments, password, password_name
        self._connected: redis.Redis | None = None

    def apply(self, events: Sequence[Event]) -> list[Rejected]:
        """As of phoenix_stream.sink.Sink."""
        rejected: list[Rejected] = []
        newest: dict[str, hormones.Change] = {}
        for event in events:
            try:
                change = _change(event)
            except ValueError as reason:
                rejected.append(Rejected(event, str(reason)))
                continue
            there = newest.get(change.agent)
            if there is None or change.seq > there.seq:
                newest[change.agent] = change
        if newest:
            self._ask(lambda client: hormones.write(client, newest.values()))
        return rejected

    def ping(self) -> None:
        """As of phoenix_stream.sink.Sink."""
        self._ask(lambda client: client.ping())

    def close(self) -> None:
        """As of phoenix_stream.sink.Sink."""
        client, self._connected = self._connected, None
        if client is not None:
            client.close()

    def _ask(self, work: Any) -> None:
        try:
            if self._connected is None:
                secret: dict[str, Any] = {} if self._password is None else {"password": self._password(self._password_name)}
                self._connected = redis.Redis(**(dict(self._arguments) | secret))
            work(self._connected)
        except (redis.RedisError, OSError) as error:
            # Whatever Redis answers (loading, no memory left, a right that is missing) is no event's fault: they were checked before.
            self.close()
            raise Unavailable(" ".join(str(error).split()) or type(error).__name__) from error


def _change(event: Event) -> hormones.Change:
    """What an event says. Raises ValueError."""
    agent, levels = event.data.get("agent_id"), event.data.get("levels")
    if not isinstance(agent, str) or not isinstance(levels, dict):
        raise ValueError("agent_id has to be a text, levels an object")
    if event.seq is None:
        raise ValueError("seq is missing, so nothing says which levels are newer")
    return hormones.change(agent, event.seq, levels, event.occurred_at)


def open_sink(settings: Mapping[str, Any], credential: Credential) -> Redis:
    """As of phoenix_stream.sink.Factory."""
    if unknown := sorted(settings.keys() - _KNOWN):
        raise ValueError(f"{', '.join(unknown)}: not a setting; known here: {', '.join(sorted(_KNOWN))}")
    host, port = settings.get("host"), settings.get("port", 6379)
    if not isinstance(host, str) or not isinstance(port, int):
        raise ValueError("host: must be an address, port a number")
    arguments: dict[str, Any] = {
        "host": host,
        "port": port,
        "decode_responses": True,
        "socket_timeout": _PATIENCE_S,
        "socket_connect_timeout": _PATIENCE_S,
        "socket_keepalive": True,
        "client_name": "phoenix-stream",
        # The runner tries again, and says so.
        "retry": Retry(NoBackoff(), 0),
    }
    if user := settings.get("user"):
        arguments["username"] = user
    if ca := settings.get("ca"):
        arguments |= {"ssl": True, "ssl_ca_certs": ca, "ssl_cert_reqs": "required", "ssl_check_hostname": True}
        if "certificate" in settings:
            arguments |= {"ssl_certfile": settings["certificate"], "ssl_keyfile": settings.get("key")}
    return Redis(arguments, credential if user else None, settings.get("password", "redis.password"))
