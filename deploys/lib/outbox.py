"""The outbox on its way to Kafka: names and the connector's configuration, as pure functions. docs/change-events.md."""

from __future__ import annotations

from typing import Any

from deploys.lib.settings import ConnectSettings

SLOT = "outbox"
PUBLICATION = "outbox"
LOGIN = "connect"
TABLE = "phoenix.outbox"
CONNECTOR = "outbox"
"""Name of the connector; offsets are kept by it."""
GROUP = "connect-phoenix"
"""Kafka's group of the workers. Connect's own things in Kafka begin with `connect-`: its user may make them (deploys/kafka/users.py)."""
TOPICS = {"config": "connect-configs", "offset": "connect-offsets", "status": "connect-status"}
"""Where Connect keeps what it knows: compacted, so kept for ever."""
PREFIX = "phoenix"
HEARTBEATS = "connect-heartbeat"
HEARTBEAT_TOPIC = f"{HEARTBEATS}.{PREFIX}"
"""Where the connector shows that it is alive, and with that moves its slot on; its messages mean nothing to anybody else."""
HEARTBEAT_S = 5
SECRETS = "/run/credentials/phoenix-connect.service/secrets.properties"
"""What the unit is handed over; the configuration that Connect stores, and shows, has references to it in place of passwords."""


def reference(name: str) -> str:
    """How a configuration says "the secret of this name"."""
    return f"${{file:{SECRETS}:{name}}}"


def connector(settings: ConnectSettings, *, address: str, port: int, version: int, copies: int, ca: str) -> dict[str, str]:
    """The connector's configuration.

    `address` and `port` lead to whoever takes writes, `version` is the server's major version, `copies` how often Kafka keeps a topic.
    """
    values: dict[str, Any] = {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": 1,
        "database.hostname": address,
        "database.port": port,
        "database.dbname": "phoenix",
        "database.user": LOGIN,
        "database.password": reference("postgresql"),
        "database.sslmode": "verify-full",
        "database.sslrootcert": ca,
        "topic.prefix": PREFIX,
        "plugin.name": "pgoutput",
        "publication.name": PUBLICATION,
        # It belongs to the deploy (deploys/postgresql/outbox.py): the login may not make one.
        "publication.autocreate.mode": "disabled",
        "table.include.list": TABLE,
        "slot.name": SLOT,
        "slot.drop.on.stop": False,
        **({"slot.failover": True} if version >= 17 else {}),
        # A slot that is ahead of what Connect remembers was made anew, and what came in between would be lost in silence: the task fails
        # then, which is alerted. One that is behind, after a failover, is moved on.
        "offset.mismatch.strategy": "trust_offset",
        "column.exclude.list": f"{TABLE}.lsn",
        # PostgreSQL gives up a connection that is silent for wal_sender_timeout, 10 s.
        "status.update.interval.ms": 2000,
        # What was in the outbox before there was a slot is nobody's; after the loss of one, `phoenix events resend` sends it again.
        "snapshot.mode": "no_data",
        # A message in the WAL moves the slot on while nothing else happens: WAL of other tables is not kept for it.
        "heartbeat.interval.ms": HEARTBEAT_S * 1000,
        "heartbeat.action.query": "SELECT pg_catalog.pg_logical_emit_message(true, 'heartbeat', '')",
        "topic.heartbeat.prefix": HEARTBEATS,
        "message.prefix.exclude.list": ".*",
        # Events go to topics that there are (deploys/kafka); the one for heartbeats is the connector's own.
        "topic.creation.default.partitions": 1,
        "topic.creation.default.replication.factor": copies,
        "topic.creation.default.retention.ms": 24 * 3600 * 1000,
        "poll.interval.ms": settings.poll_interval_ms,
        "max.queue.size": settings.queue_size,
        "max.batch.size": settings.batch_size,
        # For ever: a failover is an error as well. What does not go by itself is a FAILED task, which the watcher restarts.
        "errors.max.retries": -1,
        "retriable.restart.connector.wait.ms": 2000,
        "tombstones.on.delete": False,
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.storage.StringConverter",
        "transforms": "outbox",
        "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
        "transforms.outbox.table.field.event.id": "id",
        "transforms.outbox.table.field.event.key": "aggregateid",
        "transforms.outbox.table.field.event.type": "type",
        "transforms.outbox.table.field.event.payload": "payload",
        "transforms.outbox.route.by.field": "type",
        "transforms.outbox.route.topic.replacement": "${routedByValue}",
        # The JSON goes through as it is. Expanded, a list of mixed kinds becomes strings, and one odd payload fails the task for good.
        "transforms.outbox.table.expand.json.payload": False,
        "producer.override.linger.ms": settings.linger_ms,
        "producer.override.compression.type": "lz4",
        "producer.override.acks": "all",
        "producer.override.enable.idempotence": True,
    }
    return {key: _text(value) for key, value in values.items()}


def _text(value: Any) -> str:
    """As Connect stores it: everything is text there."""
    return str(value).lower() if isinstance(value, bool) else str(value)
