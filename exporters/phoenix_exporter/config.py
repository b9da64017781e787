"""The settings file: YAML, every key typed and checked before anything is opened.

A relative path of a secret is looked up in systemd's credentials directory when the unit has one, else beside the
settings file; so one file serves the unit and an operator's `--check`.
"""

from __future__ import annotations

import ipaddress
import os
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from phoenix_exporter.collectors import ALL

SSL_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")

T = TypeVar("T")


class ConfigError(Exception):
    """One sentence: which file and key, why it cannot be used."""


@dataclass(frozen=True)
class Listen:
    """Where the exporter answers. `plain_http` is allowed on loopback addresses only."""

    addresses: tuple[str, ...] = ("127.0.0.1",)
    port: int = 9188
    plain_http: bool = False
    max_clients: int = 64


@dataclass(frozen=True)
class Tls:
    """PEM files. They are read again when they change; a client must present a certificate signed by `client_ca`."""

    certificate: Path
    key: Path
    client_ca: Path


@dataclass(frozen=True)
class Database:
    """How to reach PostgreSQL. `host` is an address or, beginning with a slash, the directory of its socket."""

    host: str = "127.0.0.1"
    port: int = 5432
    name: str = "phoenix"
    user: str = "monitor"
    password_file: Path | None = None
    sslmode: str = "verify-full"
    sslrootcert: Path | None = None


@dataclass(frozen=True)
class Limits:
    """Seconds, unless the name says otherwise.

    `scrape_timeout_s`: for a scrape that does not say its own; also the longest that is believed.
    `timeout_offset_s`: how much earlier than the scraper's own deadline the answer leaves.
    `contact_timeout_s`: connecting and the first answer together; after it the database counts as down.
    `query_timeout_s`: one statement on the server, lock waits included (`lock_timeout_s` is the part for locks).
    `min_interval_s`: scrapes that come sooner after the last execution get its result.
    `series_per_metric`: label sets per metric; what is beyond is dropped and counted.
    """

    scrape_timeout_s: float = 10.0
    timeout_offset_s: float = 0.25
    contact_timeout_s: float = 0.8
    query_timeout_s: float = 0.5
    lock_timeout_s: float = 0.25
    min_interval_s: float = 1.0
    series_per_metric: int = 200


@dataclass(frozen=True)
class CollectorSettings:
    """Changes to one collector; a value left out keeps the collector's own."""

    enabled: bool = True
    ttl_s: float | None = None
    timeout_s: float | None = None


@dataclass(frozen=True)
class Config:
    """The whole file. `copy`: the database holds a copy of some of the platform's tables, and does not speak for the platform."""

    listen: Listen = field(default_factory=Listen)
    tls: Tls | None = None
    database: Database = field(default_factory=Database)
    limits: Limits = field(default_factory=Limits)
    collectors: Mapping[str, CollectorSettings] = field(default_factory=dict)
    copy: bool = False

    def collector(self, name: str) -> CollectorSettings:
        """Settings of the collector `name`."""
        return self.collectors.get(name, CollectorSettings())


def load(path: Path) -> Config:
    """Read and check the settings file. Raises ConfigError."""
    config = read(path, Config)
    try:
        _check(config)
        return _resolve(config, path.parent)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def read(path: Path, cls: type[T]) -> T:
    """Read a settings file as the dataclass `cls`, every key of it typed. Raises ConfigError."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}: pass the settings file with --config") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text: write it again as YAML") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise ConfigError(f"{path}: {where}is not valid YAML: {getattr(error, 'problem', None) or error}") from error
    try:
        return _build(cls, {} if document is None else document, "")
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _build(cls: type[T], document: object, where: str) -> T:
    if not isinstance(document, dict):
        raise ValueError(f"{where or 'the file'}: must hold keys and values, not {_name(document)}")
    hints = get_type_hints(cls)
    names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    for key in document:
        if key not in names:
            raise ValueError(f"{_join(where, key)}: is not a setting; known here: {', '.join(sorted(names))}")
    values: dict[str, Any] = {}
    for item in fields(cls):  # type: ignore[arg-type]
        if item.name in document:
            values[item.name] = _convert(hints[item.name], document[item.name], _join(where, item.name))
        elif item.default is MISSING and item.default_factory is MISSING:
            raise ValueError(f"{_join(where, item.name)}: is missing")
    return cls(**values)


def _convert(hint: Any, value: object, where: str) -> Any:
    origin = get_origin(hint)
    if hint is Any:  # whoever uses it checks it
        return value
    if origin in (Union, types.UnionType):
        inner = next(arg for arg in get_args(hint) if arg is not type(None))
        return None if value is None else _convert(inner, value, where)
    if is_dataclass(hint):
        return _build(hint, value, where)  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, list) or not value:
            raise ValueError(f"{where}: must be a list with at least one entry, not {_name(value)}")
        return tuple(_convert(get_args(hint)[0], entry, f"{where}[{i}]") for i, entry in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: must hold keys and values, not {_name(value)}")
        return {str(key): _convert(get_args(hint)[1], entry, _join(where, key)) for key, entry in value.items()}
    return _scalar(hint, value, where)


def _scalar(hint: type, value: object, where: str) -> Any:
    if hint is bool and isinstance(value, bool):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (str, Path) and isinstance(value, str) and value:
        return hint(value)
    wanted = {bool: "true or false", float: "a number", int: "a whole number", str: "a text", Path: "a path"}[hint]
    raise ValueError(f"{where}: must be {wanted}, not {_name(value)}")


def _check(config: Config) -> None:
    loopback = True
    for address in config.listen.addresses:
        try:
            loopback = loopback and ipaddress.ip_address(address).is_loopback
        except ValueError:
            raise ValueError(f"listen.addresses: {address!r} is not an IP address") from None
    if config.listen.plain_http and config.tls is not None:
        raise ValueError("listen.plain_http: contradicts the tls section: remove one of them")
    if config.listen.plain_http and not loopback:
        raise ValueError("listen.plain_http: is allowed on loopback addresses only: give a tls section instead")
    if not config.listen.plain_http and config.tls is None:
        raise ValueError("tls: is missing: give certificate, key and client_ca, or set listen.plain_http on a loopback address")
    for where, port in (("listen.port", config.listen.port), ("database.port", config.database.port)):
        if not 0 < port < 65536:
            raise ValueError(f"{where}: must be 1 to 65535, not {port}")
    if config.database.sslmode not in SSL_MODES:
        raise ValueError(f"database.sslmode: must be one of {', '.join(SSL_MODES)}, not {config.database.sslmode!r}")
    socket_directory = config.database.host.startswith("/")
    if config.database.sslmode.startswith("verify-") and config.database.sslrootcert is None and not socket_directory:
        raise ValueError(f"database.sslrootcert: is missing, and sslmode {config.database.sslmode} needs it")
    _check_numbers(config)
    known = {collector.name for collector in ALL}
    for name, settings in config.collectors.items():
        if name not in known:
            raise ValueError(f"collectors.{name}: is not a collector; there are {', '.join(sorted(known))}")
        if name == "database" and (not settings.enabled or settings.ttl_s):
            raise ValueError("collectors.database: cannot be switched off or cached, because phoenix_up stands on it")


def _check_numbers(config: Config) -> None:
    limits = config.limits
    for item in fields(Limits):
        value = getattr(limits, item.name)
        # Zero switches off sharing of results; for all other limits it would mean no limit or no answer.
        if not (0 if item.name in ("min_interval_s", "timeout_offset_s") else 1e-3) <= value <= 3600:
            raise ValueError(f"limits.{item.name}: must be above 0 and at most 3600, not {value}")
    if limits.lock_timeout_s > limits.query_timeout_s:
        raise ValueError("limits.lock_timeout_s: must not be longer than limits.query_timeout_s, which contains it")
    if not 1 <= config.listen.max_clients <= 1000:
        raise ValueError(f"listen.max_clients: must be 1 to 1000, not {config.listen.max_clients}")
    for name, settings in config.collectors.items():
        if settings.ttl_s is not None and not 0 <= settings.ttl_s <= 86400:
            raise ValueError(f"collectors.{name}.ttl_s: must be 0 to 86400, not {settings.ttl_s}")
        if settings.timeout_s is not None and not 0 < settings.timeout_s <= 3600:
            raise ValueError(f"collectors.{name}.timeout_s: must be above 0 and at most 3600, not {settings.timeout_s}")


def _resolve(config: Config, directory: Path) -> Config:
    database = config.database
    if database.password_file is None:
        return config
    base = Path(os.environ.get("CREDENTIALS_DIRECTORY", directory))
    values = {f.name: getattr(database, f.name) for f in fields(Database)} | {"password_file": base / database.password_file}
    return replace(config, database=Database(**values))


def _join(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _name(value: object) -> str:
    return "nothing" if value is None else f"{value!r}" if not isinstance(value, dict | list) else "a list or a mapping"
