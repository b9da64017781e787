"""The way from this host to Kafka, for the programs beside it: SASL_SSL with SCRAM, checked against the platform's authority."""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

AUTHENTICATION = (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED)


class Away(Exception):
    """Kafka does not answer; the text says where and why."""


class Refused(Exception):
    """Kafka answers and does not accept the password."""


def connect(bootstrap: str, ca: str, user: str, password: str, *, patience_s: float) -> AdminClient:
    """A client that has logged in as `user`, waiting up to `patience_s` for a cluster that is not there yet. Raises Away, Refused."""
    errors: list[KafkaError] = []
    client = AdminClient(
        {
            "bootstrap.servers": bootstrap,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": password,
            "ssl.ca.location": ca,
            "client.id": f"phoenix-{user}",
            "error_cb": errors.append,
            "log_level": 0,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1000,
            "allow.auto.create.topics": False,
        }
    )
    until = time.monotonic() + max(patience_s, 5)
    while True:
        try:
            client.list_topics(timeout=0.5)
            return client
        except KafkaException as error:
            reason = error.args[0].str()
        client.poll(0)
        if any(error.code() in AUTHENTICATION for error in errors):
            raise Refused(f"Kafka at {bootstrap} does not accept the password of {user}")
        if time.monotonic() > until or (patience_s == 0 and any(error.code() == KafkaError._ALL_BROKERS_DOWN for error in errors)):
            said = [error.str() for error in errors if error.code() != KafkaError._ALL_BROKERS_DOWN]
            raise Away(f"Kafka does not answer at {bootstrap} ({(said or [reason])[-1]}): look at 'phoenix logs kafka'.")


def results(futures: dict[Any, Any], *, timeout_s: float = 30) -> dict[Any, Any]:
    """What the cluster answered to each part of a request. Raises KafkaException of the first that it refused."""
    return {key: future.result(timeout=timeout_s) for key, future in futures.items()}
