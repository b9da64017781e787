"""What n8n is given: workflows that n8n can import, a lock that pins everything, a check that notices changes."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path
from typing import Any

import pytest

from deploys.lib import generated, sizing
from deploys.lib.artifacts import ArtifactError
from deploys.lib.secrets import SecretStore
from deploys.lib.settings import GROUP_DATA, N8nSettings
from deploys.n8n import artifact, n8n
from services import n8n_workflows


@pytest.fixture(scope="module")
def settings() -> N8nSettings:
    values = runpy.run_path(str(GROUP_DATA / "n8n.py"))
    return N8nSettings(**{key.removeprefix("n8n_"): value for key, value in values.items() if key.startswith("n8n_")})


@pytest.fixture(scope="module")
def flows(settings: N8nSettings) -> dict[str, dict[str, Any]]:
    return {name: json.loads(text) for name, text in n8n.workflows(settings).items()}


def test_every_workflow_has_an_id_that_n8n_takes_and_leads_to_nodes_that_exist(flows: dict[str, dict[str, Any]]) -> None:
    assert set(flows) == {"hubspot_sync.json", "linkedin_scraper.json", "publication_monitor.json"}
    for name, flow in flows.items():
        assert flow["id"] == flow["name"] == name.removesuffix(".json")
        assert len(flow["id"]) <= 21, "n8n's column for it is no longer"
        nodes = {node["name"] for node in flow["nodes"]}
        led_to = {end["node"] for start in flow["connections"].values() for output in start["main"] for end in output}
        assert led_to <= nodes
        assert set(flow["connections"]) <= nodes
        assert nodes - led_to == {"Schedule", "By hand"}


def test_no_expression_ends_before_its_end(flows: dict[str, dict[str, Any]]) -> None:
    """Two closing braces inside of an expression end it."""

    def strings(value: object) -> list[str]:
        if isinstance(value, str):
            return [value]
        values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        return [text for one in values for text in strings(one)]

    for flow in flows.values():
        for text in strings(flow):
            if text.startswith("=") and "{{" in text:
                assert text.count("{{") == text.count("}}") == 1, text


def test_no_workflow_holds_a_secret(flows: dict[str, dict[str, Any]]) -> None:
    for flow in flows.values():
        for node in flow["nodes"]:
            assert set(node.get("credentials", {})) <= {"postgres", "hubspotAppToken", "httpHeaderAuth"}


def test_schedules_are_those_of_the_specification(flows: dict[str, dict[str, Any]]) -> None:
    def cron(flow: dict[str, Any]) -> str:
        return str(flow["nodes"][0]["parameters"]["rule"]["interval"][0]["expression"])

    assert cron(flows["linkedin_scraper.json"]) == "*/15 * * * *"
    assert cron(flows["hubspot_sync.json"]) == "*/5 * * * *"


def test_the_lock_pins_everything_and_names_no_registry() -> None:
    text = artifact.LOCK.read_text(encoding="utf-8")
    assert "://" not in text
    packages = json.loads(text)["packages"]
    assert all(package["integrity"].startswith("sha512-") for path, package in packages.items() if path)


def test_a_lock_of_other_wishes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "package.json"
    other.write_text('{"dependencies": {"n8n": "0.0.1"}}')
    monkeypatch.setattr(artifact, "PACKAGE", other)
    monkeypatch.setenv("PHOENIX_CACHE", str(tmp_path))
    with pytest.raises(ArtifactError, match=r"does not fit package\.json: make it anew"):
        artifact.archive(os.uname().machine)


def test_another_processor_is_another_archive_or_refused() -> None:
    assert artifact.key("x86_64") != artifact.key("aarch64")
    with pytest.raises(ArtifactError, match="not built for riscv64"):
        artifact.archive("riscv64")


def test_owner_gets_a_password_that_is_the_one_of_its_hash(tmp_path: Path) -> None:
    store = SecretStore.create(tmp_path / "s.yaml", recipients=[])
    generated.ensure_n8n(store, provider=False)
    hashed = store.get("n8n/owner-password-hash")
    assert hashed.startswith("$2b$12$")
    assert len(hashed) == 60
    assert "n8n/hubspot-token" not in store, "somebody else's key is not made up"


@pytest.mark.parametrize(("memory_mb", "heap_mb"), [(2048, 384), (8192, 512), (16384, 1024), (131072, 2048)])
def test_memory_follows_the_host(memory_mb: int, heap_mb: int) -> None:
    size = sizing.n8n(memory_mb=memory_mb)
    assert size.heap_mb == heap_mb
    assert size.memory_max_mb > size.heap_mb + size.runner_heap_mb


def test_check_notices_a_changed_file_a_changed_credential_and_a_change_in_n8n(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (tmp_path / "workflows").mkdir()
    flow, credentials, stamp = tmp_path / "workflows" / "a.json", tmp_path / "credentials", tmp_path / "stamp.json"
    flow.write_text('{"id": "a"}')
    credentials.write_text('[{"id": "c"}]')
    config = {"workflows": str(flow.parent), "credentials": str(credentials), "stamp": str(stamp), "secrets": str(tmp_path)}
    held = ["as imported"]
    monkeypatch.setattr(n8n_workflows, "state", lambda _: held[0])
    with pytest.raises(n8n_workflows.Failure, match="never imported"):
        n8n_workflows.check(config)
    stamp.write_text(json.dumps({"inputs": n8n_workflows.inputs(config), "state": held[0]}))
    n8n_workflows.check(config)
    held[0] = "changed by hand"
    with pytest.raises(n8n_workflows.Failure, match="somebody changed"):
        n8n_workflows.check(config)
    for path in (flow, credentials):
        before = path.read_text()
        path.write_text(before + " ")
        with pytest.raises(n8n_workflows.Failure, match="older than their files"):
            n8n_workflows.check(config)
        path.write_text(before)
    assert n8n_workflows.ids(config) == {"workflows": ["a"], "credentials": ["c"]}
