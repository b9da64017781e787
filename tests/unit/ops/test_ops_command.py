"""The phoenix command as a person meets it: arguments, exit codes, the one sentence of an error, JSON."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.ops.conftest import ROOT, Command, Ended

Inventory = Callable[..., Path]

# fmt: off
VERBS = [
    "up", "down", "deploy", "plan", "status", "verify", "drift", "seed", "ssh", "psql", "logs", "secrets",
    "backup", "restore", "failover", "rebuild", "drill", "tailnet", "events", "hormones",
]
# fmt: on


def one_sentence(ended: Ended) -> str:
    """The error as printed: a single line that begins with the program's name and ends a sentence."""
    (line,) = ended.err.splitlines()
    assert line.startswith("phoenix: ")
    assert line.endswith(".")
    return line


def test_help_names_every_verb_and_exit_code(phoenix: Command) -> None:
    shown = phoenix("--help")
    assert shown.code == 0
    for verb in VERBS:
        assert re.search(rf"^    {verb} ", shown.out, re.M), verb
    assert "0 done, 1 failed, 2 refused and nothing touched, 3 drift" in " ".join(shown.out.split())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(phoenix: Command, verb: str) -> None:
    shown = phoenix(verb, "--help")
    assert shown.code == 0
    assert shown.out.startswith(f"usage: phoenix {verb}")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "VERB"),
        (("frobnicate",), "frobnicate"),
        (("deploy", "--frobnicate"), "--frobnicate"),
        (("ssh",), "HOST"),
        (("seed", "--personas", "many"), "many"),
        (("seed", "--tasks", "-5"), "-5"),
    ],
)
def test_bad_arguments_are_refused(phoenix: Command, arguments: tuple[str, ...], says: str) -> None:
    ended = phoenix(*arguments)
    assert ended.code == 2
    assert says in ended.err
    assert ended.err.count("\n") == 1
    assert "Traceback" not in ended.err


def test_unknown_host_is_refused_with_the_names_there_are(phoenix: Command, inventory: Inventory) -> None:
    for verb in ("deploy", "plan", "drift", "status", "ssh"):
        ended = phoenix(verb, "nine", "-i", str(inventory()))
        assert ended.code == 2
        assert "has no host nine: choose from one." in one_sentence(ended)


def test_missing_inventory_is_refused_with_those_there_are(phoenix: Command) -> None:
    ended = phoenix("status", "-i", "/nonexistent/site.py")
    assert ended.code == 2
    assert "inventory/lab.py" in one_sentence(ended)


def test_global_options_work_on_both_sides_of_the_verb(phoenix: Command, inventory: Inventory) -> None:
    path = str(inventory())
    assert phoenix("-i", path, "--json", "deploy", "nine").json == phoenix("deploy", "nine", "--json", "-i", path).json


def test_relative_inventory_is_the_callers(phoenix: Command, inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    path = inventory()
    monkeypatch.chdir(path.parent)
    assert "choose from one" in phoenix("deploy", "nine", "-i", "site.py").err


def test_wrong_type_is_refused_by_file_host_key_and_reason(phoenix: Command, inventory: Inventory) -> None:
    path = inventory('"postgresql_version": "seventeen",')
    ended = phoenix("deploy", "-i", str(path))
    assert ended.code == 2
    for part in (str(path), "host one", "postgresql_version", "seventeen"):
        assert part in one_sentence(ended)


def test_missing_secret_store_is_refused_with_the_next_step(phoenix: Command, inventory: Inventory) -> None:
    ended = phoenix("deploy", "-i", str(inventory()))
    assert ended.code == 2
    assert "secrets init" in one_sentence(ended)


def test_unreachable_host_is_one_sentence_and_nothing_is_touched(phoenix: Command, inventory: Inventory) -> None:
    path = str(inventory())
    assert phoenix("secrets", "init", "-i", path).code == 0
    ended = phoenix("deploy", "-i", path)
    assert ended.code == 2
    told = [line for line in ended.err.splitlines() if line.startswith("phoenix:")]
    assert len(told) == 1
    assert "one cannot be reached over SSH" in told[0]
    as_json = phoenix("deploy", "-i", path, "--json")
    assert as_json.json["hosts"] == {"one": {"changed": 0, "failed": 1}}
    assert as_json.json["changed"] == 0
    assert as_json.json["seconds"] > 0
    for verb in ("plan", "drift"):
        assert phoenix(verb, "-i", path).code == 2


def test_second_deploy_at_the_same_time_is_refused(phoenix: Command, inventory: Inventory, environment: dict[str, str]) -> None:
    path = str(inventory())
    phoenix("secrets", "init", "-i", path)
    locks = Path(environment["PHOENIX_CACHE"]) / "locks"
    locks.mkdir(parents=True)
    with (locks / "127.0.0.1.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("process 4711, since 12:00:00")
        held.flush()
        ended = phoenix("deploy", "-i", path)
    assert ended.code == 2
    assert "one is worked on by another run (process 4711, since 12:00:00)" in one_sentence(ended)
    assert "another run" not in phoenix("deploy", "-i", path).err


def test_status_of_a_dead_host_names_all_its_services(phoenix: Command, inventory: Inventory) -> None:
    ended = phoenix("status", "--json", "-i", str(inventory()))
    assert ended.code == 1
    assert ended.json["ok"] is False
    names = {service["name"] for service in ended.json["services"]}
    assert {"ssh", "etcd", "patroni", "postgresql", "node-exporter", "postgres-exporter", "phoenix-exporter"} <= names
    for service in ended.json["services"]:
        assert set(service) == {"host", "name", "ok", "address", "detail"}
        assert service["ok"] is False
        assert "host does not answer" in service["detail"]
    addresses = {service["name"]: service["address"] for service in ended.json["services"]}
    assert addresses["phoenix-exporter"] == "https://127.0.0.1:9188/metrics"
    assert addresses["postgresql"] == "127.0.0.1:5432"


def test_errors_are_one_object_too_with_json(phoenix: Command, inventory: Inventory) -> None:
    ended = phoenix("deploy", "nine", "--json", "-i", str(inventory()))
    assert ended.code == 2
    assert ended.json["ok"] is False
    assert "nine" in ended.json["error"]


def test_up_and_down_keep_their_hands_off_real_hosts(phoenix: Command, inventory: Inventory) -> None:
    path = str(inventory(address="203.0.113.7"))
    for verb in (("up",), ("down", "--yes")):
        ended = phoenix(*verb, "-i", path)
        assert ended.code == 2
        assert "no machine of the lab" in one_sentence(ended)
        assert "phoenix deploy -i" in ended.err


def test_destroying_verbs_ask_and_do_nothing_when_nobody_answers(phoenix: Command, inventory: Inventory) -> None:
    ended = phoenix("seed", "--replace", "-i", str(inventory()), stdin="yes\n")
    assert ended.code == 2
    assert "deletes all personas" in one_sentence(ended)
    assert "--yes" in ended.err


def test_what_follows_two_dashes_is_not_ours(phoenix: Command, inventory: Inventory) -> None:
    ended = phoenix("ssh", "nine", "-i", str(inventory()), "--", "ls", "-i", "/elsewhere")
    assert "choose from one" in one_sentence(ended)
    refused = phoenix("status", "-i", str(inventory()), "--", "one")
    assert refused.code == 2
    assert "leave out --" in one_sentence(refused)


def test_logs_of_an_unknown_service_lists_the_known(phoenix: Command, inventory: Inventory) -> None:
    ended = phoenix("logs", "kafka", "-i", str(inventory()))
    assert ended.code == 2
    assert "etcd, patroni, postgresql" in one_sentence(ended)


def test_command_works_from_any_directory_even_with_a_file_called_ops(
    phoenix: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ops.py").write_text("raise SystemExit('taken for ours')")
    monkeypatch.chdir(tmp_path)
    assert phoenix("--help").code == 0


def test_makefile_help_has_a_line_for_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", text, re.M))
    assert {"up", "test", "down", "lock", "lint", "help"} <= targets
    assert targets == set(re.findall(r"^([a-z]+):.*## \w", text, re.M))
    assert targets == set(re.search(r"^\.PHONY: (.*)$", text, re.M)[1].split())  # type: ignore[index]
