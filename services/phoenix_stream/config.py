"""The settings file of one worker: YAML, every key typed and checked before anything is opened.

Passwords are named, not written, there: they are the unit's credentials, or files beside the settings file for somebody who runs `--check`.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phoenix_exporter.config import ConfigError, Listen, Tls, read

from phoenix_stream.sink import BATCH

__all__ = ["Batches", "Config", "ConfigError", "Kafka", "credential", "load"]


@dataclass(frozen=True)
class Kafka:
    """The brokers. Without `user`, plain text, on loopback only: for tests."""

    bootstrap: tuple[str, ...]
    """`host:port`, at least one."""
    instance: str
    """Which of several workers of one sink this is, by the host's name: one that comes back keeps its partitions."""
    group: str | None = None
    """Consumer group, "stream-<sink>" unless told otherwise: a new one reads everything that the topics still hold."""
    user: str | None = None
    password: str = "kafka.password"  # noqa: S105 - the name of a credential
    ca: Path | None = None
    session_timeout_ms: int = 6000
    """How long the brokers wait for a worker that has gone silent before another may take its partitions."""
    dead_letters: str = "dead-letter"
    """Topic of what cannot be applied."""


@dataclass(frozen=True)
class Batches:
    """`events`: at most so many at once. `linger_ms`: how long the first waits for more. `first_s`, `most_s`: the pauses between tries
    while the store is away, doubled each time, less a random part."""

    events: int = BATCH
    linger_ms: int = 5
    first_s: float = 0.1
    most_s: float = 0.5


@dataclass(frozen=True)
class Config:
    """The whole file. `store` is the sink's own, see its module."""

    sink: str
    kafka: Kafka
    tls: Tls | None = None
    listen: Listen = field(default_factory=Listen)
    batches: Batches = field(default_factory=Batches)
    store: Mapping[str, Any] = field(default_factory=dict)


def load(path: Path) -> Config:
    """Read and check the settings file. Raises ConfigError."""
    config = read(path, Config)
    for fault in _faults(config):
        raise ConfigError(f"{path}: {fault}")
    return config


def credential(path: Path) -> Callable[[str], str]:
    """What reads the password of a name: a credential of the unit, or a file beside the settings file `path`."""
    directory = Path(os.environ.get("CREDENTIALS_DIRECTORY", path.parent))
    return lambda name: (directory / name).read_text(encoding="utf-8").rstrip("\n")


def _faults(config: Config) -> list[str]:
    found = []
    if not 1 <= config.batches.events <= BATCH:
        found.append(f"batches.events: must be 1 to {BATCH}, not {config.batches.events}")
    if not 0 <= config.batches.linger_ms <= 1000:
        found.append(f"batches.linger_ms: must be 0 to 1000, not {config.batches.linger_ms}")
    if not 0.01 <= config.batches.first_s <= config.batches.most_s <= 60:
        found.append("batches.first_s: must be at least 0.01 and not more than most_s, which must be at most 60")
    if not 0 < config.listen.port < 65536:
        found.append(f"listen.port: must be 1 to 65535, not {config.listen.port}")
    if config.tls is None and not (config.listen.plain_http and all(map(_loopback, config.listen.addresses))):
        found.append("tls: is missing: give certificate, key and client_ca, or set listen.plain_http on loopback addresses")
    if not 500 <= config.kafka.session_timeout_ms <= 300_000:
        found.append(f"kafka.session_timeout_ms: must be 500 to 300000, not {config.kafka.session_timeout_ms}")
    if config.kafka.user is None and not all(_loopback(one.rpartition(":")[0]) for one in config.kafka.bootstrap):
        found.append("kafka.user: is missing, and without one only brokers on loopback addresses are spoken to")
    if config.kafka.user is not None and config.kafka.ca is None:
        found.append("kafka.ca: is missing: name the authority of the brokers' certificates")
    return found


def _loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
