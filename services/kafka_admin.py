#!/opt/phoenix/kafka-client/venv/bin/python
"""Compares topics, users and access rules of a Kafka cluster with what is declared, and repairs what differs.

    kafka_admin.py --wanted FILE [--patience SECONDS] check|apply

`check` prints a JSON list of differences, [] when there is none. `apply` repairs, then checks again; exit 1, with a sentence on stderr for
each difference that is left. Passwords are in the file, for root only: in no argument, and in nothing that is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from kafka_client import Away, Refused, connect, results

SUPER_USERS = ("admin", "broker")
ITERATIONS = 4096
"""Of SCRAM, the least that Kafka takes: it is there to slow down guessing, and our passwords have 256 bits."""
SETTLE_S = 15

Rule = tuple[str, str, str, bool, str]
"""User, kind of resource, name, whether that is a prefix, operation."""
Repair = tuple[Any, ...]


@dataclass(frozen=True)
class Difference:
    """One thing that is not as declared. Without `repair` nothing but a person can decide what to do."""

    what: str
    repair: Repair | None


@dataclass(frozen=True)
class Topic:
    """A topic as the cluster has it; `config` is what was set for the topic itself."""

    partitions: int
    copies: int
    config: dict[str, str]


def compare_topics(wanted: dict[str, Any], present: dict[str, Topic]) -> list[Difference]:
    """How `present` differs from the declared topics. Others that there are stay unmentioned: Connect makes its own."""
    found = []
    for name, declared in wanted.items():
        topic = present.get(name)
        if topic is None:
            found.append(Difference(f"topic {name} is missing", ("create", name)))
            continue
        if topic.partitions < declared["partitions"]:
            what = f"topic {name} has {topic.partitions} partitions, not {declared['partitions']}"
            found.append(Difference(what, ("partitions", name, declared["partitions"])))
        elif topic.partitions > declared["partitions"]:
            found.append(
                Difference(
                    f"topic {name} has {topic.partitions} partitions and {declared['partitions']} are declared, and Kafka cannot take "
                    f"partitions away: declare {topic.partitions} in kafka_topics, or see docs/kafka.md how a topic is made anew",
                    None,
                )
            )
        if topic.copies != declared["copies"]:
            found.append(
                Difference(
                    f"topic {name} has {topic.copies} copies and {declared['copies']} are declared: "
                    "see docs/kafka.md how partitions are spread over more hosts",
                    None,
                )
            )
        config = {key: value for key, value in declared["config"].items() if topic.config.get(key) != value}
        extra = sorted(topic.config.keys() - declared["config"].keys())
        if config or extra:
            differing = [f"{key} is {topic.config.get(key, 'not set')}, not {value}" for key, value in config.items()]
            differing += [f"{key} is set to {topic.config[key]}" for key in extra]
            found.append(Difference(f"topic {name}: {', '.join(differing)}", ("configure", name, config, extra)))
    return found


def compare_rules(wanted: Sequence[Rule], present: set[Rule | str]) -> list[Difference]:
    """Access rules that are missing, and those that nobody declared."""
    missing = [rule for rule in wanted if rule not in present]
    foreign = sorted((rule for rule in present if rule not in set(wanted)), key=str)
    found = [Difference(f"access rule missing: {describe(rule)}", ("allow", rule)) for rule in missing]
    return found + [Difference(f"access rule that nobody declared: {describe(rule)}", ("forbid", rule)) for rule in foreign]


def describe(rule: Rule | str) -> str:
    """A rule for people: `agent may READ topic task.created`."""
    if isinstance(rule, str):
        return rule
    user, resource, name, prefixed, operation = rule
    return f"{user} may {operation} {resource} {name}{'*' if prefixed else ''}"


def compare_users(wanted: Sequence[str], credentials: dict[str, list[str]], refused: Sequence[str]) -> list[Difference]:
    """Users without a credential, whose password is another, and whom nobody declared. `credentials`: mechanisms by user."""
    found = []
    for user in wanted:
        if "SCRAM_SHA_512" not in credentials.get(user, []):
            found.append(Difference(f"user {user} is missing", ("password", user)))
        elif user in refused:
            found.append(Difference(f"user {user} has another password", ("password", user)))
    for user, mechanisms in sorted(credentials.items()):
        for mechanism in mechanisms:
            if user not in wanted or mechanism != "SCRAM_SHA_512":
                found.append(Difference(f"user {user} ({mechanism}) was declared by nobody", ("remove", user, mechanism)))
    return found


class Cluster:
    """The running cluster, seen by a super user."""

    def __init__(self, wanted: dict[str, Any], patience_s: float) -> None:
        self.wanted = wanted
        self.rules: list[Rule] = [(str(u), str(r), str(n), bool(p), str(o)) for u, r, n, p, o in wanted["rules"]]
        self._foreign: dict[str, AclBinding] = {}
        self.client = self._enter(patience_s)

    def _enter(self, patience_s: float) -> AdminClient:
        """Log in as one of the super users: the other's password may be what somebody changed."""
        for user in SUPER_USERS:
            try:
                return self._login(user, patience_s)
            except Refused as error:
                refusal = error
        raise refusal

    def _login(self, user: str, patience_s: float) -> AdminClient:
        return connect(self.wanted["bootstrap"], self.wanted["ca"], user, self.wanted["users"][user], patience_s=patience_s)

    def differences(self) -> list[Difference]:
        """All of them, asked at the same time."""
        with ThreadPoolExecutor(max_workers=len(self.wanted["users"]) + 1) as pool:
            logins = {user: pool.submit(self._accepts, user) for user in self.wanted["users"]}
            present, rules, credentials = self._topics(), self._rules(), self._credentials()
            refused = [user for user, login in logins.items() if user in credentials and not login.result()]
        return [
            *compare_users(list(self.wanted["users"]), credentials, refused),
            *compare_topics(self.wanted["topics"], present),
            *compare_rules(self.rules, rules),
        ]

    def settled(self) -> list[Difference]:
        """The differences once brokers know of what the controller did a moment ago, or after SETTLE_S."""
        until = time.monotonic() + SETTLE_S
        while True:
            found = self.differences()
            if time.monotonic() > until or not any(one.repair for one in found):
                return found
            time.sleep(0.2)

    def _accepts(self, user: str) -> bool:
        try:
            self._login(user, 5)
        except Refused:
            return False
        return True

    def _topics(self) -> dict[str, Topic]:
        metadata = self.client.list_topics(timeout=10).topics
        names = [name for name in self.wanted["topics"] if name in metadata]
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
        configs = results(self.client.describe_configs(resources)) if resources else {}
        found = {}
        for resource, entries in configs.items():
            own = {key: entry.value for key, entry in entries.items() if entry.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value}
            partitions = metadata[resource.name].partitions
            found[resource.name] = Topic(len(partitions), min(len(one.replicas) for one in partitions.values()), own)
        return found

    def _rules(self) -> set[Rule | str]:
        every = AclBindingFilter(ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY)
        found: set[Rule | str] = set()
        for binding in self.client.describe_acls(every).result(timeout=30):
            rule = as_rule(binding)
            if isinstance(rule, str):
                self._foreign[rule] = binding
            found.add(rule)
        return found

    def _credentials(self) -> dict[str, list[str]]:
        described = self.client.describe_user_scram_credentials().result(timeout=30)
        return {user: [info.mechanism.name for info in one.scram_credential_infos] for user, one in described.items()}

    def repair(self, repairs: Sequence[Repair]) -> None:
        """Do them: users first, then topics, then the rules, of which new ones come before old ones go."""
        of = {kind: [one[1:] for one in repairs if one[0] == kind] for kind in {one[0] for one in repairs}}
        self._repair_users([user for (user,) in of.get("password", [])], of.get("remove", []))
        if new := [self._new_topic(name) for (name,) in of.get("create", [])]:
            results(self.client.create_topics(new, operation_timeout=30))
        if more := [NewPartitions(name, total) for name, total in of.get("partitions", [])]:
            results(self.client.create_partitions(more, operation_timeout=30))
        if changes := [_changes(name, config, extra) for name, config, extra in of.get("configure", [])]:
            results(self.client.incremental_alter_configs(changes))
        if allow := [_binding(rule) for (rule,) in of.get("allow", [])]:
            results(self.client.create_acls(allow))
        if forbid := [_filter(self._foreign[rule] if isinstance(rule, str) else _binding(rule)) for (rule,) in of.get("forbid", [])]:
            results(self.client.delete_acls(forbid))

    def _repair_users(self, passwords: Sequence[str], removals: Sequence[tuple[str, str]]) -> None:
        alterations: list[Any] = [
            UserScramCredentialUpsertion(
                user, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, ITERATIONS), self.wanted["users"][user].encode()
            )
            for user in passwords
        ]
        alterations += [UserScramCredentialDeletion(user, ScramMechanism[mechanism]) for user, mechanism in removals]
        if alterations:
            results(self.client.alter_user_scram_credentials(alterations))

    def _new_topic(self, name: str) -> NewTopic:
        declared = self.wanted["topics"][name]
        return NewTopic(name, declared["partitions"], declared["copies"], config=declared["config"])


def as_rule(binding: AclBinding) -> Rule | str:
    """A rule of the cluster as a declared one looks, or, where none could look so, a text that describes it."""
    plain = binding.permission_type == AclPermissionType.ALLOW and binding.host == "*" and binding.principal.startswith("User:")
    if not plain or binding.resource_pattern_type not in (ResourcePatternType.LITERAL, ResourcePatternType.PREFIXED):
        return (
            f"{binding.permission_type.name} {binding.principal} from {binding.host} {binding.operation.name} "
            f"{binding.restype.name} {binding.resource_pattern_type.name} {binding.name}"
        )
    prefixed = binding.resource_pattern_type == ResourcePatternType.PREFIXED
    return (binding.principal.removeprefix("User:"), binding.restype.name.lower(), binding.name, prefixed, binding.operation.name)


def _binding(rule: Rule) -> AclBinding:
    user, resource, name, prefixed, operation = rule
    pattern = ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL
    return AclBinding(ResourceType[resource.upper()], name, pattern, f"User:{user}", "*", AclOperation[operation], AclPermissionType.ALLOW)


def _filter(one: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(one.restype, one.name, one.resource_pattern_type, one.principal, one.host, one.operation, one.permission_type)


def _changes(name: str, config: dict[str, str], extra: Sequence[str]) -> ConfigResource:
    entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in config.items()]
    entries += [ConfigEntry(key, None, incremental_operation=AlterConfigOpType.DELETE) for key in extra]
    return ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=entries)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 when done, 1 when something is left or Kafka does not answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wanted", type=Path, default=Path("/etc/phoenix-kafka/content.json"))
    parser.add_argument("--patience", type=float, default=0, help="seconds to wait for a cluster that is not there yet")
    parser.add_argument("verb", choices=("check", "apply"))
    options = parser.parse_args(argv)
    try:
        cluster = Cluster(json.loads(options.wanted.read_text(encoding="utf-8")), options.patience)
        found = cluster.differences()
        if options.verb == "apply":
            cluster.repair([one.repair for one in found if one.repair])
            found = cluster.settled()
            for one in found:
                print(f"{one.what}.", file=sys.stderr)
            return 1 if found else 0
    except (Away, Refused) as error:
        print(error, file=sys.stderr)
        return 1
    except KafkaException as error:
        print(f"Kafka refuses: {error.args[0].str()}", file=sys.stderr)
        return 1
    print(json.dumps([{"what": one.what, "repairable": one.repair is not None} for one in found]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
