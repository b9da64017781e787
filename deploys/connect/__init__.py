"""Kafka Connect: its worker (worker.py), the connector that carries the outbox (connector.py), and who looks after both (watcher.py)."""
