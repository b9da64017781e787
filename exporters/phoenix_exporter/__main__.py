"""phoenix-exporter: serve the metrics, or check the settings, or print the metrics once.

Exit status: 0 done, 1 the database does not answer, 2 the settings cannot be used.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from phoenix_exporter import VERSION, journal
from phoenix_exporter.config import Config, ConfigError, load
from phoenix_exporter.engine import Engine
from phoenix_exporter.server import Server
from phoenix_exporter.tls import Certificates, TlsError

DEFAULT_CONFIG = Path("/etc/phoenix-exporter/config.yml")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit status."""
    parser = argparse.ArgumentParser(prog="phoenix-exporter", description="Publishes phoenix_* metrics to Prometheus.")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="settings file (%(default)s)")
    parser.add_argument("--version", action="version", version=f"phoenix-exporter {VERSION}")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="check settings, certificates and the database, then exit")
    mode.add_argument("--once", action="store_true", help="print the metrics once and exit")
    arguments = parser.parse_args(argv)
    try:
        config = load(arguments.config)
        with asyncio.Runner() as runner:
            if arguments.once or arguments.check:
                return runner.run(_once(config, show=arguments.once))
            return runner.run(_serve(config))
    except (ConfigError, TlsError) as error:
        print(f"phoenix-exporter: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0


async def _once(config: Config, *, show: bool) -> int:
    if config.tls is not None and not show:
        Certificates(config.tls, 0.0)
    engine = Engine(config)
    try:
        text = await engine.scrape(config.limits.scrape_timeout_s)
    finally:
        await engine.stop()
    if show:
        sys.stdout.write(text.decode())
    if not engine.up:
        database = config.database
        where = f"{database.name} on {database.host}:{database.port}"
        print(f"phoenix-exporter: database {where} does not answer: {engine.lost}", file=sys.stderr)
        return 1
    failed = [state for state in engine.states if state.error is not None]
    for state in failed:
        print(f"phoenix-exporter: collector {state.collector.name} failed: {state.error}", file=sys.stderr)
    return 1 if failed else 0


async def _serve(config: Config) -> int:
    loop = asyncio.get_running_loop()
    certificates = None if config.tls is None else Certificates(config.tls, loop.time())
    engine = Engine(config)
    server = Server(engine, certificates)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        server.start()
    except OSError as error:
        await server.stop()
        where = ", ".join(config.listen.addresses)
        raise ConfigError(f"listen: {where} port {config.listen.port} cannot be used: {error.strerror}") from error
    journal.write("started", version=VERSION, addresses=",".join(config.listen.addresses), port=config.listen.port)
    journal.notify("READY=1")
    alive = loop.create_task(_tell_systemd())
    # The first scrape then finds a connection and a state to be ready with, and rates have something to start from.
    warm = loop.create_task(engine.scrape(config.limits.scrape_timeout_s))
    await stop.wait()
    journal.notify("STOPPING=1")
    for task in (alive, warm):
        task.cancel()
    await server.stop()
    await engine.stop()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(alive, warm, return_exceptions=True)
    journal.write("stopped")
    return 0


async def _tell_systemd() -> None:
    """Say from inside the event loop that it turns; systemd restarts an exporter that has gone silent."""
    interval = journal.watchdog_interval_s()
    while interval is not None:
        journal.notify("WATCHDOG=1")
        await asyncio.sleep(interval)


if __name__ == "__main__":
    sys.exit(main())
