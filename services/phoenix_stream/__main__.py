"""phoenix-stream: bring one sink's events from Kafka into its store, or check that it could.

Exit status: 0 done, 1 the store or the brokers do not answer, 2 the settings cannot be used.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import pkgutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from confluent_kafka import KafkaException
from phoenix_exporter import journal
from phoenix_exporter.tls import Certificates, TlsError

from phoenix_stream import kafka, sinks
from phoenix_stream.config import Config, ConfigError, credential, load
from phoenix_stream.exposition import Exposition
from phoenix_stream.metrics import Metrics
from phoenix_stream.runner import Runner
from phoenix_stream.sink import Factory, Sink, Unavailable


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit status."""
    parser = argparse.ArgumentParser(prog="phoenix-stream", description="Brings events from Kafka into a store.")
    parser.add_argument("--config", type=Path, required=True, help="settings file")
    parser.add_argument("--check", action="store_true", help="check settings, certificates and the store, then exit")
    arguments = parser.parse_args(argv)
    try:
        config = load(arguments.config)
        sink = _open(config, arguments.config)
        certificates = None if config.tls is None else Certificates(config.tls, time.monotonic())
        if arguments.check:
            sink.ping()
            return 0
        return _serve(config, sink, certificates, arguments.config)
    except (ConfigError, TlsError) as error:
        print(f"phoenix-stream: {error}", file=sys.stderr)
        return 2
    except Unavailable as error:
        print(f"phoenix-stream: the store does not answer: {error}", file=sys.stderr)
        return 1
    except KafkaException as error:
        journal.write("ended by kafka", level="error", reason=error)
        return 1


def _open(config: Config, path: Path) -> Sink:
    known = sorted(module.name for module in pkgutil.iter_modules(sinks.__path__))
    if config.sink not in known:
        raise ConfigError(f"{path}: sink: there is no {config.sink!r}, only {', '.join(known)}")
    factory: Factory = importlib.import_module(f"phoenix_stream.sinks.{config.sink}").open_sink
    try:
        return factory(config.store, credential(path))
    except ValueError as error:
        raise ConfigError(f"{path}: store: {error}") from error


def _serve(config: Config, sink: Sink, certificates: Certificates | None, path: Path) -> int:
    metrics, group = Metrics(sink.name), config.kafka.group or f"stream-{sink.name}"
    secret = credential(path)
    try:
        consumer = kafka.consumer(config.kafka, secret, group)
        letters = kafka.DeadLetters(config.kafka, secret, group)
        settings = kafka.connection(config.kafka, secret)
    except OSError as error:
        raise ConfigError(f"{path}: kafka.password: {error.filename}: {error.strerror}") from error
    runner = Runner(sink, consumer, letters, metrics, config.batches, turned=_watchdog())
    try:
        exposition = Exposition(config.listen, certificates, metrics, runner.ready)
    except OSError as error:
        where = ", ".join(config.listen.addresses)
        raise ConfigError(f"{path}: listen: {where} port {config.listen.port} cannot be used: {error.strerror}") from error
    lag = kafka.Lag(sink.name, settings, runner.applied, metrics)
    lag.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: runner.stop())
    journal.write("started", sink=sink.name, topics=",".join(sink.topics), port=config.listen.port)
    journal.notify("READY=1")
    try:
        runner.run()
    finally:
        journal.notify("STOPPING=1")
        lag.ended.set()
        exposition.close()
    journal.write("stopped", sink=sink.name)
    return 0


def _watchdog() -> Callable[[], None]:
    """Says from inside the loop that it turns; systemd restarts a worker that has gone silent."""
    interval, said_at = journal.watchdog_interval_s(), 0.0

    def turned() -> None:
        nonlocal said_at
        now = time.monotonic()
        if interval is not None and now - said_at >= interval / 2:
            said_at = now
            journal.notify("WATCHDOG=1")

    return turned


if __name__ == "__main__":
    sys.exit(main())
