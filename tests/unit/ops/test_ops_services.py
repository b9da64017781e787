"""The table of services follows from the inventory's groups and settings."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from deploys.lib.services import services
from deploys.lib.settings import ROOT, KafkaSettings, load

LAB = load(ROOT / "inventory" / "lab.py")


def test_lab_has_every_service_of_the_platform_once() -> None:
    found = services(LAB)
    assert [s.name for s in found if s.host == "vps3"] == [
        "ssh", "firewall", "clock", "security-updates", "tailscale", "tailnet-metrics", "etcd", "patroni", "postgresql", "watcher", "drill",
        "backup-metrics", "retention", "node-exporter", "postgres-exporter", "phoenix-exporter", "prometheus", "alertmanager",
    ]  # fmt: skip
    assert max(Counter((s.host, s.name) for s in found).values()) == 1
    # What an exporter says of each topic is at the exporter's own port.
    assert max(Counter((s.host, s.port) for s in found if s.port and s.kind != "said").values()) == 1


def test_metrics_addresses_are_https_and_where_prometheus_scrapes_them() -> None:
    urls = {s.name: s.url for s in services(LAB) if s.name.endswith("-exporter") and s.host == "vps1"}
    assert urls == {
        "node-exporter": "https://100.66.0.11:9100/metrics",
        "postgres-exporter": "https://100.66.0.11:9187/metrics",
        "phoenix-exporter": "https://100.66.0.11:9188/metrics",
        "pgbouncer-exporter": "https://100.66.0.11:9127/metrics",
        "kafka-exporter": "https://100.66.0.11:9404/metrics",
        "redis-exporter": "https://100.66.0.11:9121/metrics",
    }


def test_every_topic_has_an_entry_of_its_own() -> None:
    host = next(host for host in LAB.hosts.values() if "kafka" in host.groups)
    topics = {s.name: s.url for s in services(LAB) if s.kind == "said"}
    assert topics == {f"kafka/{name}": f"https://100.66.0.11:9404/topics/{name}" for name in host[KafkaSettings].topics}


def test_settings_move_services(tmp_path: Path) -> None:
    text = (ROOT / "inventory" / "lab.py").read_text()
    inventory = tmp_path / "lab.py"
    inventory.write_text(text.replace('"postgresql_version": 17', '"postgresql_port": 6000, "postgresql_version": 17'))
    postgresql = next(s for s in services(load(inventory)) if s.name == "postgresql")
    assert (postgresql.port, postgresql.url) == (6000, "100.66.0.11:6000")
